"""Django, called with a whole request: what it is given, and what it answers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol
from wsgiref.types import WSGIApplication, WSGIEnvironment

from granian.rsgi import Scope

from video.web.front.streams import CAN_WAIT, EventStream, Later

Headers = list[tuple[str, str]]


class OpenFile(Protocol):
    """A file that a view answers with, opened, at the place where it begins."""

    name: Any

    def read(self, size: int = -1, /) -> bytes: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class FileBody:
    """WSGI's `wsgi.file_wrapper` (PEP 3333): the server sends this file in its own way."""

    file: OpenFile
    block_size: int = 0


@dataclass(frozen=True)
class Answer:
    """What the application said; the body is whole, a file of which `headers` name the length, or comes later."""

    status: int
    headers: Headers
    body: bytes | FileBody | EventStream | Later


def ask(application: WSGIApplication, environ: WSGIEnvironment) -> Answer:
    """Call the application."""
    begun: list[tuple[str, Headers]] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
        begun[:] = [(status, headers)]

    found: Any = application(environ, start_response)
    if isinstance(found, EventStream | Later) and environ["REQUEST_METHOD"] != "HEAD":
        found.close()  # the end of the request for Django
        body: Any = found
    else:
        body = found if isinstance(found, FileBody) else _whole(found)
    status, headers = begun[0]
    return Answer(int(status[:3]), headers, body)


def _whole(parts: Iterable[bytes]) -> bytes:
    try:
        return b"".join(parts)
    finally:
        if close := getattr(parts, "close", None):
            close()


#: In place of a value that granian can't read; no name, token or key may have it.
UNREADABLE = "\xff"


def headers_of(scope: Scope) -> Headers:
    """All header fields. granian leaves out those whose value is not ASCII: who sent such an `Idempotency-Key` must be
    told so, and not be served as if there was none.
    """
    readable: Headers = list(scope.headers.items())
    names = {name for name, _ in readable}
    return readable + [(name, UNREADABLE) for name in scope.headers.keys() if name not in names]  # noqa: SIM118


def environ_of(scope: Scope, headers: Headers, body: bytes, *, can_wait: bool) -> WSGIEnvironment:
    """The request as PEP 3333 has it. `can_wait`: its answer may be one that comes later.

    Names with an underscore are left out, as other servers do: `X_Forwarded_Proto` would pass for `X-Forwarded-Proto`.
    granian has decoded the path, and once is enough: `/%2561dmin/` is not `/admin/` to a proxy that guards the latter.
    """
    host, _, port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": _as_wsgi_has_it(scope.path),
        "QUERY_STRING": _as_wsgi_has_it(scope.query_string),
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileBody,
        CAN_WAIT: can_wait,
    }
    for name, value in headers:
        if "_" in name or name == "transfer-encoding":
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        known = environ.get(key)
        environ[key] = value if known is None else f"{known}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
    if body:  # whole by now, also if it came in chunks
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def _as_wsgi_has_it(text: str) -> str:
    """Each byte of its UTF-8 as one character (PEP 3333)."""
    return text.encode().decode("latin-1")
