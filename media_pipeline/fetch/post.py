"""Posts one body to a URL from outside, and tells what became of it.

Guarded as a download is: https and public addresses only, except exactly the trusted origins; the checked address is
the one that is dialled. Redirects are answers like any other: nothing is sent to where they lead. Bounded: the total
time, from the look-up of the name to the head of the answer, also against a receiver that drips. The body of the answer
is never read: nothing depends on it, and it may be endless.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from media_pipeline.errors import DownloadTimeout, ForbiddenAddress
from media_pipeline.fetch import guarded
from media_pipeline.fetch.addresses import check_public_url, origin
from media_pipeline.fetch.guarded import USER_AGENT, Resolver, system_resolver
from media_pipeline.fetch.lever import Lever


class Problem(StrEnum):
    """Why there is no answer."""

    FORBIDDEN = "forbidden"  # the address may not be dialled; nothing was sent
    TIMEOUT = "timeout"  # the time was over; what was sent may have arrived
    UNREACHABLE = "unreachable"  # no connection, or it ended before the answer


@dataclass(frozen=True)
class Posted:
    """The answer's status, or why there is none. `detail` is for the owner of the URL, and never holds it."""

    status: int | None
    problem: Problem | None = None
    detail: str = ""
    retry_after_s: float | None = None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    deadline_s: float,
    trusted_origins: frozenset[str] = frozenset(),
    resolver: Resolver = system_resolver,
    ssl_context: ssl.SSLContext | None = None,
) -> Posted:
    """Send `body` once. `deadline_s`: seconds for all of it; only the system's resolver can take longer, and then
    nothing is sent any more.
    """
    lever = Lever(time.monotonic() + deadline_s, threading.Event())
    try:
        trusted = frozenset(origin(one) for one in trusted_origins)
        check_public_url(url, trusted_origins=trusted)
        with (
            lever,
            contextlib.closing(
                guarded.connection(
                    url,
                    trusted=trusted,
                    resolver=resolver,
                    idle_timeout_s=deadline_s,
                    ssl_context=ssl_context,
                    lever=lever,
                )
            ) as made,
        ):
            try:
                made.request("POST", _target(url), body=body, headers=_headers(headers), preload_content=False)
                answer = made.getresponse()
            except (HTTPError, HTTPException, OSError, ValueError) as err:
                lever.check()
                return Posted(None, Problem.UNREACHABLE, f"the receiver {guarded.words(err)}")
            lever.check()  # a connection that was cut may look like an answer
            return Posted(answer.status, retry_after_s=guarded.retry_after_s(answer))
    except ForbiddenAddress as err:
        return Posted(None, Problem.FORBIDDEN, err.message)
    except DownloadTimeout:
        return Posted(None, Problem.TIMEOUT, f"no answer within {deadline_s:g} s")


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    return {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close", **given}
