"""The version in an address of the API: `/api/v1/…` are the same addresses as `/api/…`, answered by the same views."""

from __future__ import annotations

from typing import Any

from django.urls import URLResolver
from django.urls.resolvers import RoutePattern

PLAIN, VERSIONED = "/api/", "/api/v1/"


def unversioned(path: str) -> str:
    """The address without its version: what is known of addresses by their path is known of both."""
    return PLAIN + path.removeprefix(VERSIONED) if path.startswith(VERSIONED) else path


class _OfVersion(RoutePattern):
    """Takes `api/v1/…`, and hands on `api/…`."""

    def match(self, path: str) -> Any:
        if not f"/{path}".startswith(VERSIONED):
            return None
        return unversioned(f"/{path}").removeprefix("/"), (), {}


def versioned(urlconf: str) -> URLResolver:
    """The addresses of an urlconf under `/api/` once more, under `/api/v1/`. Names stand for those without it."""
    return URLResolver(_OfVersion(VERSIONED.removeprefix("/")), urlconf)
