"""Django's middlewares that only pages need: the API knows its callers by their tokens, and keeps no session."""

from __future__ import annotations

from collections.abc import Awaitable

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from django_otp.middleware import OTPMiddleware

from video.web import answers


class _PagesOnly(MiddlewareMixin):
    """Lets calls of the API pass: the objects that these make for each request are a tenth of a status's CPU."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return self.get_response(request) if answers.is_api(request) else super().__call__(request)


class Sessions(_PagesOnly, SessionMiddleware):
    """`request.session`."""


class Users(_PagesOnly, AuthenticationMiddleware):
    """`request.user`, by the session."""


class SecondFactors(OTPMiddleware):
    """`request.user.otp_device`: whose code this session has given, by its mark; see `video.web.logins.second_factor`.

    Without a mark it asks the database nothing.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request) if answers.is_api(request) else super().__call__(request)


class Messages(_PagesOnly, MessageMiddleware):
    """What a page tells its user on the next one."""
