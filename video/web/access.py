"""What is counted and logged of each request: one observation, and one line of the logger `reelworks.access`.

Both know the route by its name and never by its address: paths hold ids and signatures of links, queries hold tokens.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import LazyObject, empty

from video.infra import metrics
from video.web.client_address import client_address

log = logging.getLogger("reelworks.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Of what no address of ours takes, and of what is refused before an address is looked at.
NO_ROUTE, REFUSED, STATIC = "none", "refused", "static"

_children: dict[tuple[str, str, int], Any] = {}


def answered(request: HttpRequest, response: HttpResponseBase, *, request_id: str, begun: float) -> None:
    """Django has answered a request that came in at `begun` (time.perf_counter)."""
    if getattr(response, "comes_later", False):  # it waits, and is answered by and by
        return
    seconds = time.perf_counter() - begun
    route, status = route_of(request), response.status_code
    method = request.method if request.method in METHODS else metrics.OTHER
    _observe(str(method), route, status, seconds)
    if is_logged(status):
        _write(str(method), route, status, seconds, _size(response), _user_id(request), _address(request), request_id)


def refused(method: str, status: int, *, address: str, request_id: str) -> None:
    """The front has answered a request by itself: too long, too slow, or one too many."""
    method = method if method in METHODS else metrics.OTHER
    _observe(method, REFUSED, status, 0.0)
    if is_logged(status):
        _write(method, REFUSED, status, 0.0, 0, None, address, request_id)


def route_of(request: HttpRequest) -> str:
    """The name of the address that was asked for, one of a list of ours."""
    if (match := request.resolver_match) is not None:
        return match.view_name
    return STATIC if request.path_info.startswith("/static/") else NO_ROUTE


def is_logged(status: int) -> bool:
    """Whether ACCESS_LOG wants a line."""
    return bool(settings.ACCESS_LOG == "all" or (settings.ACCESS_LOG == "errors" and status >= 400))


def _observe(method: str, route: str, status: int, seconds: float) -> None:
    place = (method, route, status // 100)
    child = _children.get(place)
    if child is None:  # a look at the histogram's own table takes longer than the observation
        child = _children[place] = metrics.HTTP_REQUESTS.labels(method, route, f"{status // 100}xx")
    child.observe(seconds)


def _write(
    method: str, route: str, status: int, seconds: float, size: int, user: int | None, address: str, request_id: str
) -> None:
    """One line, as LOG_FORMAT has all others. Written here and not by `logging`, which takes five times as long: with
    all its steps a line cost 3 % of a status."""
    if not log.isEnabledFor(logging.INFO):
        return
    now, ms = time.time(), round(seconds * 1000, 1)
    if settings.LOG_FORMAT == "json":
        shown = {
            "time": f"{_second(int(now), utc=True)}.{int(now % 1 * 1000):03d}Z",
            "level": "INFO",
            "logger": log.name,
            "message": f"{method} {route} {status}",
            "request": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": ms,
            "bytes": size,
            "user": user,
            "address": address,
            "process": os.getpid(),
        }
        sys.stderr.write(json.dumps(shown) + "\n")
        return
    sys.stderr.write(
        f"{_second(int(now), utc=False)},{int(now % 1 * 1000):03d} INFO {log.name} {method} {route} {status} {ms} ms "
        f"{size} bytes user={user or '-'} address={address or '-'} request={request_id}\n"
    )


@lru_cache(maxsize=4)
def _second(now: int, *, utc: bool) -> str:
    """A second as lines begin with it; most lines have the one of the line before."""
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        if utc
        else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    )


def _size(response: HttpResponseBase) -> int:
    """Bytes of its body; of a file those that its head announces."""
    if (content := getattr(response, "_container", None)) is not None:
        return sum(map(len, content))
    length = response.headers.get("Content-Length", "0")
    return int(length) if length.isdigit() else 0


def _user_id(request: HttpRequest) -> int | None:
    """Who asked, if that was looked up anyway."""
    user = request.__dict__.get("user")
    if isinstance(user, LazyObject) and user._wrapped is empty:
        return None
    found = getattr(user, "pk", None)
    return found if isinstance(found, int) else None


def _address(request: HttpRequest) -> str:
    if "HTTP_X_FORWARDED_FOR" in request.META:
        return client_address(request)
    return str(request.META.get("REMOTE_ADDR", ""))
