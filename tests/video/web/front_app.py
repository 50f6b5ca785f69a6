"""A small application behind the front, for granian in a process of its own: it says what it was asked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from video.web.front.bodies import Receiver
from video.web.front.server import Front


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """`/file`, `/part`: all of FRONT_FILE or its bytes 5 to 14. `/busy`: reads a named pipe until somebody writes."""
    path = environ["PATH_INFO"]
    if path in ("/file", "/part"):
        file = Path(os.environ["FRONT_FILE"]).open("rb")  # noqa: SIM115 - the server closes it
        file.seek(5 if path == "/part" else 0)
        length = 10 if path == "/part" else os.path.getsize(file.name)
        start_response("200 OK", [("Content-Length", str(length))])
        found: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 4096)
        return found
    if path == "/sockets":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(list(options(int(environ["SERVER_PORT"])))).encode()]
    if path in ("/busy", "/storage/busy"):
        Path(os.environ["FRONT_PIPE"]).read_bytes()
    if path.endswith("/fails"):
        raise RuntimeError("as asked")
    body = environ["wsgi.input"].read()
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Type", "application/json")])
    return [json.dumps(told | {"body": len(body)}).encode()]


def options(port: int) -> Iterator[tuple[int, int, int]]:
    """Time limit, bound of unsent bytes, and keep-alive of each connection of this process at the port."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(link.name))) as one:
            is_bound = one.family == socket.AF_INET and one.getsockname()[1] == port
            if is_bound and (one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or one.getpeername()):
                yield (
                    one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                    one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
                    one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                )


receiver = Receiver(within_s=1.5, most_bytes=300_000, large={"/api/large": 1_000_000}, most_large_bytes=1_500_000)
front = Front(application, threads=2, receiver=receiver, waiting=4)
