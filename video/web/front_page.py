"""The front page, and the answer to "are you alive?"."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render


def front_page(request: HttpRequest) -> HttpResponse:
    """GET /: what this is and where things are. It also is an own origin for front-end code."""
    return render(request, "demo/front_page.html")


def healthz(request: HttpRequest) -> JsonResponse:
    """GET /healthz: this process answers. It asks no other service, so an outage restarts no web server."""
    response = JsonResponse({"status": "ok"})
    response["Cache-Control"] = "no-store"
    return response
