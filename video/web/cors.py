"""What pages of other origins may ask and read."""

from __future__ import annotations

from collections.abc import Awaitable

from corsheaders.middleware import CorsMiddleware
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_vary_headers


class Cors(CorsMiddleware):
    """For a request without an Origin it only says that its answer depends on one.

    The library reads all headers of each request for that: a twentieth of a status's CPU.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if "HTTP_ORIGIN" in request.META:
            return super().__call__(request)
        response = self.get_response(request)
        assert isinstance(response, HttpResponseBase)  # there is no asynchronous handler here
        if self.is_enabled(request):
            patch_vary_headers(response, ("origin",))
        return response
