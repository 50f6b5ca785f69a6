"""What several views and middlewares answer in one way, outside of the API's own views."""

from __future__ import annotations

from collections.abc import Mapping

from django.http import HttpRequest, HttpResponse, JsonResponse

from video.web import headers as security

METHOD_CODE = "method_not_allowed"
METHOD_MESSAGE = "This address doesn't take that method; the header Allow names those it takes."


def is_api(request: HttpRequest) -> bool:
    """Whether the request is for an address of the API."""
    return security.is_api(request.path_info)


def plain(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """One sentence for a person; never kept by a cache."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return HttpResponse(sentence + "\n", status=status, content_type="text/plain; charset=utf-8", headers=headers)


def envelope(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """An error in the API's shape, for what is answered before or beside its views; never kept by a cache."""
    error = {"code": code, "message": message, "details": {}}
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return JsonResponse({"success": False, "error": error}, status=status, headers=headers)
