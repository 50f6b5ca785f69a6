"""Answers 503 at once during an outage of the database, so that requests do not wait for it."""

from __future__ import annotations

from collections.abc import Callable

from django.db import Error
from django.http import HttpRequest, HttpResponseBase

from video.infra import outage
from video.web import answers

RETRY_AFTER_S = 5
CODE = "unavailable"
MESSAGE = "The database can't be reached just now. Please try again in a moment."
# Addresses that read no database, or report its outage themselves.
UNGATED = ("/healthz", "/readyz", "/metrics", "/storage/", "/static/")


class OutageMiddleware:
    """The first middleware, so that no session or login is read either."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(UNGATED) and not outage.gate.lets_through():
            return refusal(request)
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """A page that met the outage. (The API's views have a handler of their own.)"""
        if not isinstance(exception, Error) or not outage.is_outage(exception):
            return None
        outage.gate.close(exception)
        return refusal(request)


def refusal(request: HttpRequest) -> HttpResponseBase:
    """503 in the shape that this address answers in."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    if answers.is_api(request):
        return answers.envelope(503, CODE, MESSAGE, headers, path=request.path_info)
    return answers.plain(503, MESSAGE, headers)
