"""Where webhooks may be sent: public https links, and by the operator's setting hosts of the local network."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings

from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import check_public_url, origin
from media_pipeline.fetch.links import as_sent

LONGEST_URL = 2000  # characters


def checked(url: str) -> str:
    """The URL in ASCII, if webhooks may be sent to it by its looks; each try judges its address. Raises
    ForbiddenAddress, with a sentence that never quotes the URL.
    """
    sent = as_sent(url)
    if len(sent) > LONGEST_URL:
        raise ForbiddenAddress(f"it has more than {LONGEST_URL} characters")
    return check_public_url(sent, trusted_origins=origins_allowed(sent))


def origins_allowed(url: str) -> frozenset[str]:
    """The URL's own origin if WEBHOOK_PRIVATE_HOSTS has its host (or host:port), else nothing."""
    try:
        parts = urlsplit(url)
        allowed = {parts.hostname, parts.netloc.lower()} & set(settings.WEBHOOK_PRIVATE_HOSTS)
        return frozenset({origin(url)}) if allowed else frozenset()
    except (ValueError, ForbiddenAddress):
        return frozenset()


def host_of(url: str) -> str:
    """The host, for people: the rest of a URL may hold a token."""
    return urlsplit(url).hostname or ""
