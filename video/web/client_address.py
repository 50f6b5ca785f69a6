"""The address of a request's client, also behind the proxies that TRUSTED_PROXIES names."""

from __future__ import annotations

import ipaddress
from functools import cache

from django.conf import settings
from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV6_PREFIX = 64  # what one customer gets at least, so each of its addresses is the same client


def client_address(request: HttpRequest) -> str:
    """The client's IP address; empty if the web server knows none (a unix socket).

    `X-Forwarded-For` is read from its end: each trusted proxy wrote down who asked it, and whatever stands before the
    first address that is no such proxy was written by the client itself.
    """
    found = _read(request.META.get("REMOTE_ADDR", ""))
    if found is None or not _is_trusted(found):
        return str(found or "")
    for word in reversed(request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        said = _read(word)
        if said is None:
            break
        found = said
        if not _is_trusted(said):
            break
    return str(found)


def network_of(address: str) -> str:
    """The network that counts as one client: an IPv4 address by itself, an IPv6 address with its /64."""
    found = _read(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
    return address


def _read(text: str) -> Address | None:
    """An address, also with a port behind it as some proxies write it; IPv4 in an IPv6 address is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_trusted(address: Address) -> bool:
    return any(address in network for network in _networks(tuple(settings.TRUSTED_PROXIES)))


@cache
def _networks(texts: tuple[str, ...]) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]
