"""The description of the API: for programs, and as a page for people."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from rest_framework.request import Request

from video.api.base import PublicApiView
from video.api.contract.describe import JSON, Answer, describe
from video.api.contract.shapes import anything, text


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


class DocsView(PublicApiView):
    """GET /api/docs: a page that shows this document, where each call can be tried with a token."""

    @describe("Contract", "Read it as a page", answers={200: Answer("A page.", text("HTML."), media_type="text/html")})
    def get(self, request: Request) -> HttpResponse:
        return render(request._request, "api/docs.html")
