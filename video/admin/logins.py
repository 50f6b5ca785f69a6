"""The admin's door, and the logins of a user as an operator sees and ends them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from video.actions import for_users
from video.admin.read_only import ReadOnlyAdmin, ago
from video.infra.durations import count
from video.models import LoginSession
from video.web import actors
from video.web.logins import sign_in
from video.web.logins.sign_in import LoginsBusy
from video.web.logins.throttle import TooManyTries


class LoginForm(AdminAuthenticationForm):
    """Django's, with the API's limits on failed logins."""

    def clean(self) -> dict[str, Any]:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if name and password and self.request is not None:
            try:
                user: Any = sign_in.sign_in(self.request, name, password, door="admin")
            except (TooManyTries, LoginsBusy) as err:
                raise ValidationError(str(err), code=err.code) from None
            if user is None:
                raise self.get_invalid_login_error()
            self.confirm_login_allowed(user)
            self.user_cache = user
        return self.cleaned_data


@admin.register(LoginSession)
class LoginSessionAdmin(ReadOnlyAdmin):
    """Logins of the API, also those that are over, for 30 days."""

    list_display = ("id", "user", "made", "used", "address", "user_agent", "ended_at", "end_reason")
    list_select_related = ("user",)
    ordering = ("-last_used_at",)
    search_fields = ("user__username", "=id")
    exclude = ("refresh_id", "exchanged_id")
    actions = ("end",)

    @admin.display(description="made", ordering="made_at")
    def made(self, login: LoginSession) -> str:
        return ago(login.made_at)

    @admin.display(description="last used", ordering="last_used_at")
    def used(self, login: LoginSession) -> str:
        return ago(login.last_used_at)

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may end logins."""
        return bool(request.user.has_perm("video.change_loginsession"))

    @admin.action(description="End", permissions=["end"])
    def end(self, request: HttpRequest, queryset: QuerySet[LoginSession]) -> None:
        """End the selected logins, with all their tokens."""
        by = actors.of_request(request)
        ended = sum(for_users.end_login(login, by=by) for login in queryset)
        self.message_user(request, f"{count(ended, 'login')} ended.")


admin.site.login_form = LoginForm
