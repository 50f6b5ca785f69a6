"""The cookies that carry the tokens. Each has one name, by the settings: what has another name is neither read nor
cleared."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request

from video.api.tokens import AcceptedToken, SessionRefreshToken
from video.web.versions import PLAIN, VERSIONED

REFRESH_PATH = "auth"


def access(request: HttpRequest | Request) -> str:
    """The access token that came in the cookie; empty if none did."""
    return request.COOKIES.get(settings.COOKIE_NAME, "")


def refresh(request: HttpRequest | Request) -> str:
    """The same of the refresh token."""
    return request.COOKIES.get(settings.REFRESH_COOKIE_NAME, "")


def put(
    request: HttpRequest | Request, response: HttpResponse, access: AcceptedToken, refresh: SessionRefreshToken
) -> None:
    """Set both cookies, each for as long as its token is good. The refresh token's goes back to the addresses of logins
    alone, with or without a version as this one.
    """
    _set(response, settings.COOKIE_NAME, access, "/")
    _set(response, settings.REFRESH_COOKIE_NAME, refresh, refresh_path(request))


def clear(request: HttpRequest | Request, response: HttpResponse) -> None:
    """Take both cookies back."""
    _set(response, settings.COOKIE_NAME, None, "/")
    _set(response, settings.REFRESH_COOKIE_NAME, None, refresh_path(request))


def refresh_path(request: HttpRequest | Request) -> str:
    """The addresses that the refresh token's cookie is sent to."""
    return f"{VERSIONED if request.path_info.startswith(VERSIONED) else PLAIN}{REFRESH_PATH}"


def _set(response: HttpResponse, name: str, token: AcceptedToken | SessionRefreshToken | None, path: str) -> None:
    response.set_cookie(
        name,
        "" if token is None else str(token),
        max_age=0 if token is None else token["exp"] - token["iat"],
        path=path,
        httponly=True,
        secure=settings.COOKIE_SECURE,
        samesite=settings.COOKIE_SAMESITE,
    )
