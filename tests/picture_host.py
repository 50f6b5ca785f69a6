"""A host of pictures on this machine, which says what it is told to and counts who asks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class PictureHost(ThreadingHTTPServer):
    """`answers` by path: (status, body), or several that are given one after the other, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[tuple[int, bytes]]] = {}
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        """As in PRIVATE_HOSTS_ALLOWED."""
        return f"127.0.0.1:{self.server_port}"

    def serves(self, path: str, *answers: bytes | int) -> str:
        """The address of a path that answers so from now on: a picture, or a status without one."""
        self.answers[path] = [(one, b"") if isinstance(one, int) else (200, one) for one in answers]
        return f"http://{self.name}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no trouble here."""


class _Handler(BaseHTTPRequestHandler):
    server: PictureHost

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        answers = self.server.answers.get(path, [(404, b"")])
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")  # nobody believes it
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def picture_host() -> Iterator[PictureHost]:
    host = PictureHost()
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
        thread.join()
