"""The admin's door, and the logins of a user as an operator sees and ends them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from video.admin.read_only import ReadOnlyAdmin, ago
from video.infra.durations import count
from video.models import ApiKey, LoginSession
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import api_keys, sessions, sign_in
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
        ended = 0
        for login in queryset:
            if sessions.end(login.pk, login.user_id, LoginSession.End.OPERATOR):
                ended += 1
                security_log.record(
                    "session_ended", address=client_address(request), user=login.user, session=login.pk, by=by(request)
                )
        self.message_user(request, f"{count(ended, 'login')} ended.")


def end_logins(request: HttpRequest, user: AbstractBaseUser) -> int:
    """End everything that a user is logged in to, in the admin too. Returns how many logins."""
    ended = sessions.end_all(user, LoginSession.End.OPERATOR)
    security_log.record("logout_everywhere", address=client_address(request), user=user, ended=ended, by=by(request))
    return ended


def revoke_keys(request: HttpRequest, user: AbstractBaseUser) -> int:
    """End all API keys of a user. Returns how many."""
    ended = api_keys.end_all(user.pk, ApiKey.End.OPERATOR)
    security_log.record("keys_revoked", address=client_address(request), user=user, ended=ended, by=by(request))
    return ended


def by(request: HttpRequest) -> str:
    """The operator, for the log."""
    return f"operator {request.user.get_username()}"


admin.site.login_form = LoginForm
