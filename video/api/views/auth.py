"""Log in, stay logged in, log out."""

from __future__ import annotations

from django.contrib.auth import authenticate
from django.contrib.auth.models import AbstractBaseUser
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response

from video.api import tokens
from video.api.base import PublicApiView, success
from video.api.bodies import LoginSerializer, RefreshSerializer, fields_of
from video.api.origins import refuse_cross_site


class _AuthView(PublicApiView):
    """Sets cookies, so another site's page may not call it: not even to log a user in under another account."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        refuse_cross_site(request)

    def get_authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class LoginView(_AuthView):
    """POST /api/auth/login: name and password for the cookies `token` and `refresh`."""

    def post(self, request: Request) -> Response:
        fields = fields_of(request, LoginSerializer)
        # Django hashes a password for unknown names too, so the time taken tells nothing.
        user = authenticate(request._request, username=fields["username"], password=fields["password"])
        if user is None:
            raise AuthenticationFailed("The name or the password is wrong.", code="invalid_credentials")
        return _welcome(user)


class RefreshView(_AuthView):
    """POST /api/auth/refresh: fresh tokens for the cookie `refresh`, or for `refreshToken` in the body."""

    def post(self, request: Request) -> Response:
        fields = fields_of(request, RefreshSerializer)
        raw = fields.get("refresh_token") or request.COOKIES.get(tokens.REFRESH_COOKIE)
        if not raw:
            raise AuthenticationFailed(
                "There is no refresh token in the cookie or the body; log in.", code="no_refresh_token"
            )
        return _welcome(tokens.user_of_refresh(raw))


class LogoutView(_AuthView):
    """POST /api/auth/logout: takes both cookies back, whether or not they were still good."""

    def post(self, request: Request) -> Response:
        response = success({})
        tokens.clear(response)
        return response


def _welcome(user: AbstractBaseUser) -> Response:
    response = success({})
    response.data = {"success": True, "data": tokens.hand_out(user, response)}
    return response
