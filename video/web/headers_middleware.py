"""Gives every answer of Django's its security headers and request id, counts it, and sends plain http on to https."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase, HttpResponsePermanentRedirect

from video.infra import log_context, tracing
from video.web import access, headers, request_ids


class HeadersMiddleware:
    """The first middleware: what those behind it refuse, redirect or fail at gets the headers, too."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        begun = time.perf_counter()
        request_id = request.META[request_ids.META] = request_ids.of(request.META.get(request_ids.META))
        about = log_context.REQUEST.set(request_id)
        try:
            response = self._traced(request, request_id) if tracing.is_on() else self._answer(request, request_id)
            access.answered(request, response, request_id=request_id, begun=begun)
        finally:
            log_context.REQUEST.reset(about)
        return response

    def _traced(self, request: HttpRequest, request_id: str) -> HttpResponseBase:
        with tracing.request(request.META.get("HTTP_TRACEPARENT"), request_id) as span:
            response = self._answer(request, request_id)
            span.update_name(f"{request.method} {access.route_of(request)}")
            span.set_attributes({"http.response.status_code": response.status_code})
            return response

    def _answer(self, request: HttpRequest, request_id: str) -> HttpResponseBase:
        # Not `request.headers`, which reads all of them: this is on the way of each request.
        forwarded = request.META.get("HTTP_X_FORWARDED_PROTO")
        onward = None if forwarded is None else headers.https_address(request.get_full_path(), forwarded)
        # 308: a POST stays one. Kept by no cache, so that a change of the setting counts at once.
        response = (
            self._get_response(request)
            if onward is None
            else HttpResponsePermanentRedirect(onward, preserve_request=True)
        )
        for name, value in headers.of(request.path_info, secure=request.is_secure()).items():
            response.headers[name] = value
        response.headers[request_ids.HEADER] = request_id
        if response.status_code >= 400:  # whatever the view meant for its file or page, this is not it
            response.headers["Cache-Control"] = headers.CACHE_CONTROL
        response.headers.setdefault("Cache-Control", headers.CACHE_CONTROL)
        return response
