"""The page behind a link for a new password, in the admin's dress."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import INTERNAL_RESET_SESSION_TOKEN, PasswordResetConfirmView
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse_lazy
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from video.web.client_address import client_address
from video.web.logins import reset


class ResetPage(PasswordResetConfirmView):
    """Django's, but a token that two send at once is used once."""

    success_url = reverse_lazy("password_reset_complete")

    def form_valid(self, form: Any) -> HttpResponse:
        uid = urlsafe_base64_encode(force_bytes(self.user.pk))  # type: ignore[union-attr]  # the form is valid
        token = f"{uid}.{self.request.session.pop(INTERNAL_RESET_SESSION_TOKEN, '')}"
        if not reset.change(token, form.cleaned_data["new_password1"], address=client_address(self.request)):
            return HttpResponseRedirect(self.request.path)  # which says that the link is no good
        return HttpResponseRedirect(str(self.get_success_url()))
