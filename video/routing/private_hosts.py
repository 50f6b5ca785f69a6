"""Hosts of the local network that a start image may come from, by PRIVATE_HOSTS_ALLOWED."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings

from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import origin


def origins_allowed(url: str) -> frozenset[str]:
    """The URL's own origin if PRIVATE_HOSTS_ALLOWED has its host (or host:port), else nothing."""
    try:
        parts = urlsplit(url)
        allowed = {parts.hostname, parts.netloc.lower()} & {host.lower() for host in settings.PRIVATE_HOSTS_ALLOWED}
        return frozenset({origin(url)}) if allowed else frozenset()
    except (ValueError, ForbiddenAddress):
        return frozenset()
