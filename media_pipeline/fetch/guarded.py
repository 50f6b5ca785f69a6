"""Connections to addresses that were checked: what asks a link from outside, or posts to one, dials through here.

The checked address is the one that is dialled (no second resolution, so a name that changes its address between the two
gains nothing), and the certificate is checked against the host name. No proxies, no environment.

Built on urllib3's connection classes, which `requests` brings along: replacing how they dial leaves TLS with the
true host name, gives us the socket to cut off when the time is up, and has no environment to be misled by.
requests-hardened 1.3 was considered: it tries the first address only, knows no exception for one origin, and has no
limit on body or total time.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import Address, is_public, origin
from media_pipeline.fetch.lever import Lever

#: (host, port) → numeric addresses, in the order in which to try them. Raises OSError.
Resolver = Callable[[str, int], Iterable[str]]

MAX_INTERIM_ANSWERS = 100
CONNECT_TIMEOUT_S = 10.0
USER_AGENT = "Reelworks"


def system_resolver(host: str, port: int) -> list[str]:
    """Ask the system. The only step whose time we cannot bound: the resolver's own time-outs do."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class FinalResponse(HTTPResponse):
    """The first answer that is no interim one (RFC 9110, 15.2): http.client takes a 102 or 103 for the answer."""

    _interim_answers = 0

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if not 100 <= status < 200 or status == HTTPStatus.SWITCHING_PROTOCOLS:
            return version, status, reason
        self._interim_answers += 1
        if self._interim_answers > MAX_INTERIM_ANSWERS:
            raise HTTPException("no end of interim answers")
        return version, int(HTTPStatus.CONTINUE), reason  # whose headers http.client skips, to read on


def connection(
    url: str,
    *,
    trusted: frozenset[str],
    resolver: Resolver,
    idle_timeout_s: float,
    ssl_context: ssl.SSLContext | None,
    lever: Lever,
) -> HTTPConnection:
    """A connection for one request to this URL, which `check_public_url` has judged; it dials when it is asked.

    `trusted`: origins, as `origin` spells them, that may be at any address. The request raises ForbiddenAddress where
    no address of the host may be dialled, and as the lever does.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    made: HTTPConnection
    if parts.scheme == "https":
        made = HTTPSConnection(host, port, ssl_context=ssl_context or _default_ssl_context(), timeout=idle_timeout_s)
    else:
        made = HTTPConnection(host, port, timeout=idle_timeout_s)
    made.response_class = FinalResponse
    is_trusted = origin(url) in trusted

    # We dial; urllib3 goes on to check the certificate against `host`, which is still the name.
    def dial() -> socket.socket:
        allowed = [one for one in _addresses(host, port, resolver) if is_trusted or is_public(one)]
        if not allowed:
            raise ForbiddenAddress(f"{host} is not at a public address")
        dialled = _dial(allowed, port, lever)
        dialled.settimeout(idle_timeout_s)
        lever.attach(dialled)
        return dialled

    made._new_conn = dial  # type: ignore[method-assign]
    return made


def _dial(addresses: list[Address], port: int, lever: Lever) -> socket.socket:
    """Connect to the first address that answers. Raises OSError, and as the lever does."""
    failure: OSError = ConnectionError("no address")
    for found in addresses:
        lever.check()
        try:
            dialled = socket.create_connection((str(found), port), timeout=min(CONNECT_TIMEOUT_S, lever.left_s()))
        except OSError as err:
            failure = err
            continue
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return dialled
    raise failure


def _addresses(host: str, port: int, resolver: Resolver) -> list[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return [ipaddress.ip_address(found) for found in dict.fromkeys(resolver(host, port))]


#: In the order in which they are tried.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (socket.gaierror, "has no address just now"),
    (ssl.SSLError, "is not trusted, or does not speak TLS well"),
    (ConnectionRefusedError, "refuses the connection"),
    (TimeoutError, "did not answer in time"),
    (ReadTimeoutError, "did not answer in time"),
    (OSError, "cut the connection, or can't be reached"),
    (ProtocolError, "cut the connection"),
    (HTTPException, "gave an answer that is no HTTP"),
    (HTTPError, "gave an answer that is no HTTP"),
    (ValueError, "gave an answer that is no HTTP"),
)


def words(err: Exception) -> str:
    """What went wrong with a connection, without its address: urllib3's texts carry the URL."""
    told = next(words for kind, words in _WORDS if isinstance(err, kind))
    return f"{told} ({type(err).__name__})"


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    """Made once: reading the certificates takes 29 ms of CPU. Contexts may be shared between threads."""
    return ssl.create_default_context(cafile=certifi.where())


def retry_after_s(response: BaseHTTPResponse) -> float | None:
    """Seconds. Whole ones only; the form with a date is rare and not worth a clock."""
    text = response.headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
