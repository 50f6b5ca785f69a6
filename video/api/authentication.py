"""The caller of a request: from a Bearer token or API key, else from the cookie."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from video.api import cookies, key_login, tokens
from video.api.origins import refuse_cross_site
from video.web import request_limits
from video.web.front.streams import CAN_WAIT
from video.web.logins import key_text


class TokenAuthentication(BaseAuthentication):
    """A wrong Bearer token is an error, also beside a good cookie. One query for the user, the login, and what the view
    reads beside.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, tokens.Caller] | None:
        raw = bearer(request.META.get("HTTP_AUTHORIZATION", ""))
        view, plain = request.parser_context["view"], request._request
        is_counted = plain.META.get(CAN_WAIT) is not False  # one that has waited comes here twice
        if raw is not None and key_text.is_key(raw):  # never from a cookie, which a browser adds by itself
            beside = view.beside_login(request)
            return self._answered(plain, key_login.caller(raw, request, beside, is_counted=is_counted))
        if raw is None:
            raw = cookies.access(request)
            if not raw:
                return None
            # A browser adds cookies to other sites' requests too; it never adds an Authorization header by itself.
            if request.method not in SAFE_METHODS:
                refuse_cross_site(request)
        caller = tokens.caller_of_access(raw, view.beside_login(request), is_counted=is_counted)
        return self._answered(plain, caller)

    def _answered(self, request: HttpRequest, caller: tokens.Caller) -> tuple[AbstractBaseUser, tokens.Caller]:
        """Both, and how the caller's limits stand in the answer's headers."""
        subjects = [request_limits.of_user(caller.user.pk), *([] if caller.key is None else [caller.key.id])]
        request.META[request_limits.META] = request_limits.limits.fields(*subjects)
        return caller.user, caller

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def bearer(header: str) -> str | None:
    """The token of a Bearer header; None for no header or another scheme (a proxy's Basic, say)."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip()
    if not token or not token.isascii():
        raise AuthenticationFailed(tokens.REFUSED, code="invalid_token")
    return token
