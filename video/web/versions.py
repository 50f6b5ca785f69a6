"""The version in an address of the API: `/api/v1/…` are the same addresses as `/api/…`, answered by the same views."""

from __future__ import annotations

from typing import Any

from django.urls import URLResolver
from django.urls.resolvers import RoutePattern

PLAIN, VERSIONED = "/api/", "/api/v1/"
#: OpenRouter's addresses, which have the version of theirs (`video.api.dialects`).
_OF_OTHERS = "/api/v1/videos"


def unversioned(path: str) -> str:
    """The address without its version: what is known of addresses by their path is known of both."""
    if not path.startswith(VERSIONED) or path == _OF_OTHERS or path.startswith(f"{_OF_OTHERS}/"):
        return path
    return PLAIN + path.removeprefix(VERSIONED)


class _OfVersion(RoutePattern):
    """Takes `api/v1/…`, and hands on `api/…`."""

    def match(self, path: str) -> Any:
        plain = unversioned(f"/{path}").removeprefix("/")
        return None if plain == path else (plain, (), {})


def versioned(urlconf: str) -> URLResolver:
    """The addresses of an urlconf under `/api/` once more, under `/api/v1/`. Names stand for those without it."""
    return URLResolver(_OfVersion(VERSIONED.removeprefix("/")), urlconf)
