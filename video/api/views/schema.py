"""The description of the API: for programs."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from video.api.base import PublicApiView
from video.api.contract.describe import JSON, Answer, describe
from video.api.contract.shapes import anything


class SchemaView(PublicApiView):
    """GET /api/schema: this document, OpenAPI 3.1. It is made once in each process."""

    @describe(
        "Contract",
        "Read this document",
        answers={200: Answer("OpenAPI 3.1.", anything("The document."), in_envelope=False)},
    )
    def get(self, request: Request) -> HttpResponse:
        from video.api.contract import openapi  # lazily: few processes are ever asked for it

        return HttpResponse(openapi.encoded(), content_type=JSON)
