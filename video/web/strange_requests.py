"""Refuses what no page takes before a view, a session or the database meets it: methods, and NUL in any place.

The API's views are not concerned: they check each value by its shape, and answer other methods in their envelope.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db import DataError
from django.http import HttpRequest, HttpResponseBase

from video.infra.causes import kind_of
from video.web import answers

log = logging.getLogger(__name__)

READ_ONLY = ("GET", "HEAD")
FORMS = ("GET", "HEAD", "POST")  # the admin's
JSON_PAGES = ("/healthz", "/readyz")  # asked by programs
NUL = "\0"


class StrangeRequestsMiddleware:
    """Near the front, before anything that looks into files or sessions.

    PostgreSQL stores no NUL, and no file's name holds one; Django passes it on to both, from a path, a query, or the
    octal escapes of a quoted cookie. A method that a page doesn't know it would take for GET.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        place = None if answers.is_api(request) else _place_of_nul(request)
        if place is not None:
            return answers.plain(400, f"There is a NUL character in the {place}; leave it out.")
        return self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
        """405 for an address that is there. (Before CSRF's check, which would answer 403.)"""
        if answers.is_api(request):
            return None
        allowed = FORMS if request.path_info.startswith("/admin/") else READ_ONLY
        if request.method in allowed:
            return None
        headers = {"Allow": ", ".join(allowed)}
        if request.path_info in JSON_PAGES:
            return answers.envelope(405, answers.METHOD_CODE, answers.METHOD_MESSAGE, headers)
        return answers.plain(405, answers.METHOD_MESSAGE, headers)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """A page's value that the database can't take: NUL in a form, a filter by a broken regular expression."""
        if not isinstance(exception, DataError):
            return None
        # Its text may quote what was typed.
        log.warning("a page was asked with a value that the database refuses (%s)", kind_of(exception))
        return answers.plain(400, "A value in the address or the form can't be used; please go back and change it.")


def _place_of_nul(request: HttpRequest) -> str | None:
    """Where in the request a NUL is. Cookies are parsed only where one could be written: raw, or as an octal escape."""
    query, cookies = request.META.get("QUERY_STRING", ""), request.META.get("HTTP_COOKIE", "")
    if NUL in request.path_info:
        return "path"
    if "%00" in query or NUL in query:
        return "query"
    if ("\\000" in cookies or NUL in cookies) and any(NUL in name + value for name, value in request.COOKIES.items()):
        return "cookies"
    return None
