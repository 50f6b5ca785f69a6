"""Log in, stay logged in, log out, change the password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpResponse
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from video.api import cookies, tokens
from video.api.authentication import bearer
from video.api.base import ApiView, PublicApiView, caller, success
from video.api.bodies import LoginSerializer, LogoutSerializer, PasswordSerializer, RefreshSerializer, fields_of
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.api.errors import invalid
from video.api.origins import refuse_cross_site
from video.api.tokens import AcceptedToken, Kind, SessionRefreshToken
from video.infra.camel import utc
from video.models import LoginSession
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import sessions, sign_in
from video.web.logins.sessions import Login

AnyToken = AcceptedToken | SessionRefreshToken
WRONG = "The name or the password is wrong."


class AuthView(PublicApiView):
    """Sets cookies, so another site's page may not call it: not even to log a user in under another account."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        refuse_cross_site(request)

    def get_authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class LoginView(AuthView):
    """POST /api/auth/login: name and password for the cookies of both tokens."""

    @describe(
        "Logins",
        "Log in",
        body=LoginSerializer,
        answers={200: Answer("Both cookies are set.", answers.WELCOME)},
        errors="invalid_credentials csrf too_many_tries logins_busy",
        examples={"While simulating": {"username": "demo", "password": "demo"}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, LoginSerializer)
        user = sign_in.sign_in(request._request, fields["username"], fields["password"], door="api")
        login = None if user is None else sessions.start(user, **client_of(request))
        if user is None or login is None:
            raise AuthenticationFailed(WRONG, code="invalid_credentials")
        return welcome(request, user, login, "login")


class RefreshView(AuthView):
    """POST /api/auth/refresh: fresh tokens for the refresh token in the cookie, or for `refreshToken` in the body."""

    @describe(
        "Logins",
        "Stay logged in",
        body=RefreshSerializer,
        answers={200: Answer("Both cookies are set anew.", answers.WELCOME)},
        errors="no_refresh_token invalid_token/401 token_expired csrf",
        examples={"By the cookie": {}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, RefreshSerializer)
        raw = fields.get("refresh_token") or cookies.refresh(request)
        if not raw:
            raise AuthenticationFailed(
                "There is no refresh token in the cookie or the body; log in.", code="no_refresh_token"
            )
        user, token = tokens.user_of_refresh(raw)
        login = sessions.exchange(token.session_id, str(token["jti"]), **client_of(request))
        if login is None:
            if sessions.end(token.session_id, user.pk, LoginSession.End.REUSED):
                _record(request, "refresh_token_reused", user, session=token.session_id)
            raise AuthenticationFailed(tokens.REFUSED, code="invalid_token")
        return welcome(request, user, login)


class LogoutView(AuthView):
    """POST /api/auth/logout: ends the login of each token that comes along, and takes both cookies back.

    With `everywhere` it ends all logins of their user, and needs one that is good.
    """

    @describe(
        "Logins",
        "Log out",
        body=LogoutSerializer,
        answers={200: Answer("Both cookies are taken back.", answers.NOTHING)},
        errors="invalid_token/401 csrf",
        examples={"This login": {}, "All logins": {"everywhere": True}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, LogoutSerializer)
        everywhere = fields.get("everywhere", False)
        users = [self._end(request, token, everywhere=everywhere) for token in _tokens(request, fields)]
        found = {user.pk: user for user in users if user is not None}
        if everywhere and not found:
            raise AuthenticationFailed("To log out everywhere, log in first.", code="invalid_token")
        for user in found.values() if everywhere else ():
            ended = sessions.end_all(user, LoginSession.End.ENDED)
            _record(request, "logout_everywhere", user, ended=ended)
        response = success({})
        cookies.clear(request, response)
        return response

    def _end(self, request: Request, token: AnyToken, *, everywhere: bool) -> AbstractBaseUser | None:
        """The user of a token that was good; its session is over now."""
        try:
            user = tokens.caller_of(token).user
        except AuthenticationFailed:
            return None
        if token.session_id and sessions.end(token.session_id, user.pk, LoginSession.End.LOGOUT):
            _record(request, "logout", user, session=token.session_id)
        return user


class PasswordView(ApiView):
    """POST /api/auth/password: a new password for the present one. Ends all logins of the user, and makes a new one."""

    key_scope = None

    @describe(
        "Logins",
        "Change the password",
        body=PasswordSerializer,
        answers={200: Answer("Both cookies are set anew.", answers.WELCOME)},
        errors="wrong_password weak_password too_many_tries logins_busy",
        examples={"A new one": {"currentPassword": "correct horse", "newPassword": "battery staple"}},
    )
    def post(self, request: Request) -> HttpResponse:
        refuse_cross_site(request)  # sets cookies, also for a Bearer token
        fields = fields_of(request, PasswordSerializer)
        user = caller(request)
        if not sign_in.confirm(request._request, user, fields["current_password"]):
            raise invalid("currentPassword", "is not your present password", code="wrong_password")
        try:
            validate_password(fields["new_password"], user)
        except ValidationError as err:
            raise invalid("newPassword", " ".join(err.messages), code="weak_password") from None
        with transaction.atomic():
            # Whoever changed it since it was confirmed has ended this login, too.
            fresh = get_user_model().objects.select_for_update().filter(pk=user.pk, password=user.password).first()
            if fresh is None:
                raise AuthenticationFailed(tokens.REFUSED, code="invalid_token")
            fresh.set_password(fields["new_password"])
            fresh.save(update_fields=["password"])
            login = sessions.start(fresh, **client_of(request))
        if login is None:
            raise AuthenticationFailed(tokens.REFUSED, code="invalid_token")
        return welcome(request, fresh, login, "login_after_password_change")


def _tokens(request: Request, fields: dict[str, Any]) -> list[AnyToken]:
    """The tokens of a request whose signatures and claims hold."""
    access = {bearer(request.META.get("HTTP_AUTHORIZATION", "")), cookies.access(request)}
    refresh = {fields.get("refresh_token"), cookies.refresh(request)}
    found = [*(_held(AcceptedToken, raw) for raw in access), *(_held(SessionRefreshToken, raw) for raw in refresh)]
    return [token for token in found if token is not None]


def _held(kind: type[Kind], raw: str | None) -> Kind | None:
    """The token; None if there is none, or its time is over, or it never was one."""
    try:
        return tokens.decoded(kind, raw) if raw else None
    except AuthenticationFailed:
        return None


def client_of(request: Request) -> dict[str, str]:
    """What a session keeps of who asks."""
    return {
        "address": client_address(request._request),
        "user_agent": request.META.get("HTTP_USER_AGENT", ""),
    }


def _record(request: Request, event: str, user: AbstractBaseUser, **facts: Any) -> None:
    security_log.record(event, address=client_address(request._request), user=user, **facts)


def welcome(request: Request, user: AbstractBaseUser, login: Login, event: str = "") -> HttpResponse:
    """Both tokens, in cookies and as far as scripts may have them in the body."""
    access, refresh = tokens.pair_of(user, login)
    if event:
        _record(request, event, user, door="api", session=login.id)
    response = success(
        {
            "user": {"id": user.pk, "username": user.get_username()},
            "accessToken": str(access),
            "expiresAt": utc(tokens.expiry(access)),
        }
    )
    cookies.put(request, response, access, refresh)
    return response
