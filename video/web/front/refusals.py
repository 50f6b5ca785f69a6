"""What the front answers by itself, in the shape of the address that was asked."""

from __future__ import annotations

import json

from corsheaders.middleware import CorsMiddleware
from django.http import HttpRequest, HttpResponse

from video.web import headers as security
from video.web import request_ids, shapes


def refusal(
    path: str, status: int, code: str, sentence: str, *, origin: str | None, request_id: str | None = None
) -> tuple[dict[str, str], bytes]:
    """Headers and body of an error: JSON for programs, or the sentence for a person; never kept by a cache.

    `origin` and `request_id` are headers of the request, if it has them. A page of FRONTEND_ORIGINS may read what it is
    refused with.
    """
    is_api = security.is_api(path)
    text = json.dumps(shapes.error(path, status, code, sentence)) if is_api else f"{sentence}\n"
    headers = {
        **security.of(path, secure=False),
        "Cache-Control": "no-store",
        request_ids.HEADER: request_ids.of(request_id),
        "Content-Type": "application/json" if is_api else "text/plain; charset=utf-8",
    }
    return headers | _of_cors(path, origin), text.encode()


def _of_cors(path: str, origin: str | None) -> dict[str, str]:
    """What Django's answers to this address get from the same middleware."""
    request, response = HttpRequest(), HttpResponse()
    request.path_info = path
    if origin is not None:
        request.META["HTTP_ORIGIN"] = origin
    del response["Content-Type"]
    _cors.add_response_headers(request, response)
    return dict(response.items())


_cors = CorsMiddleware(lambda _: HttpResponse())
