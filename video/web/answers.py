"""What several views and middlewares answer in one way, outside of the API's own views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.utils.encoders import JSONEncoder

from video.web import headers as security
from video.web import shapes

_JSON = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

METHOD_CODE = "method_not_allowed"
METHOD_MESSAGE = "This address doesn't take that method; the header Allow names those it takes."


def is_api(request: HttpRequest) -> bool:
    """Whether the request is for an address of the API."""
    return security.is_api(request.path_info)


def plain(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """One sentence for a person; never kept by a cache."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return HttpResponse(sentence + "\n", status=status, content_type="text/plain; charset=utf-8", headers=headers)


def envelope(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> HttpResponse:
    """An error in the shape of this address, else the API's, for what is answered before or beside its views; never
    kept by a cache.
    """
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return as_json(shapes.error(path, status, code, message), status, headers)


def as_json(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Any answer in JSON. Written here and not by a renderer of REST framework, whose responses are templates too: that
    cost a tenth of a status.
    """
    return HttpResponse(_JSON.encode(data).encode(), status=status, content_type="application/json", headers=headers)
