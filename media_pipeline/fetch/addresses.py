"""Which addresses may this server dial for a link from outside? (SSRF)

Python's `ipaddress` flags alone are no filter: 3.11 calls NAT64 and 6to4 forms of 127.0.0.1, and multicast, global,
and does not call 100.64/10 private; the flags have changed between versions. So: `is_global`, and none of the
networks below, and of IPv6 only the block that public addresses are given out from.

An IPv6 address that a gateway may translate into an IPv4 one (NAT64, 6to4, Teredo, SIIT, ISATAP, IPv4-compatible) is
refused whatever the IPv4 one is: nobody publishes a video or an image under such an address. `::ffff:a.b.c.d` alone is
judged by what is in it, since that is how a socket for both kinds spells an IPv4 address. A table in the tests pins the
outcome.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from media_pipeline.errors import ForbiddenAddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: As written. What is sent may be longer: see `MAX_SENT_LENGTH`.
MAX_URL_LENGTH = 8192
#: Of a link that a provider or its file host wrote: each character that may not stand in a link takes three.
MAX_SENT_LENGTH = 3 * MAX_URL_LENGTH

#: Source: IANA special-purpose registries (IPv4, IPv6), read 2026-11.
_BLOCKED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; cloud-internal services live here
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relay
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3ffe::/16",  # the 6bone, which has ended
        "3fff::/20",
    )
)
#: All that IANA gives out for public unicast; loopback, NAT64, SIIT, local and multicast addresses are outside.
#: Source: IANA's IPv6 address space registry, read 2026-11.
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
#: RFC 5214: the last 64 bits of an address of ISATAP are one of these, then an IPv4 address.
_ISATAP = (0x00005EFE, 0x02005EFE)

#: Names that no public DNS answers for; a local resolver may.
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home", ".corp", ".home.arpa", ".onion")

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def is_public(address: Address) -> bool:
    """True only for an ordinary unicast address of the public Internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _IPV6_UNICAST or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address.version == network.version and address in network for network in _BLOCKED)
    )


def origin(url: str) -> str:
    """`scheme://host:port` in one spelling, lower case and with the port always there. Raises ForbiddenAddress."""
    return _origin(_split(url))


def check_public_url(url: str, *, trusted_origins: frozenset[str] = frozenset(), longest: int = MAX_URL_LENGTH) -> str:
    """Judge a URL by its spelling alone, without DNS; the address itself is judged again at connect.

    Good is https on port 443, no user name in it, and a host that is a public name or a public IP literal; or an
    origin that is exactly one of `trusted_origins` (any spelling), over http or https; of `longest` characters at
    most. Returns the URL unchanged. Raises ForbiddenAddress.
    """
    parts = _split(url, longest)
    if _origin(parts) in {origin(trusted) for trusted in trusted_origins}:
        return url
    if parts.scheme != "https":
        raise ForbiddenAddress("only https links are followed")
    if parts.port not in (None, 443):
        raise ForbiddenAddress(f"port {parts.port} is not the https port")
    _check_host(parts.hostname or "")
    return url


def _split(url: str, longest: int = MAX_SENT_LENGTH) -> SplitResult:
    # urlsplit drops tabs and newlines, and other parsers read backslashes as slashes: refuse what two readers may
    # read twice.
    if len(url) > longest:
        raise ForbiddenAddress(f"it has more than {longest} characters")
    if not url.isascii() or any(c <= " " or c in '\\"<>^`{|}\x7f' for c in url):
        raise ForbiddenAddress("it has characters in it that a link may not hold")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as err:
        raise ForbiddenAddress("its host name or port cannot be read") from err
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ForbiddenAddress("not an http link")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise ForbiddenAddress("a link must not carry a user name or an encoded host")
    return parts


def _origin(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{'[' + host + ']' if ':' in host else host}:{port}"


def _check_host(host: str) -> None:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if not is_public(literal):
            raise ForbiddenAddress("not a public address")
        return
    labels = host.rstrip(".").split(".")
    # 127.1, 2130706433 and 0x7f.1 are addresses to some resolvers.
    if _NUMERIC.fullmatch(labels[-1]):
        raise ForbiddenAddress("an IP address in an odd spelling")
    if len(labels) < 2 or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenAddress("not a public host name")
    if ("." + ".".join(labels)).endswith(_LOCAL_SUFFIXES):
        raise ForbiddenAddress("a host name of a local network")
