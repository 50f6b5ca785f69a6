"""A receiver of webhooks on this machine: it answers as it is told to, and keeps what it got."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

HANG, DRIP, DROP = "hang", "drip", "drop"


@dataclass
class Request:
    """One request as it came."""

    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are given in turn, the last one for ever: a status, a raw head, or

    `hang`: nothing until the sender gives up; `drip`: a head without an end, a byte at a time; `drop`: the connection
    ends once the request is there.
    """

    listener: socket.socket
    port: int
    answers: list[int | bytes | str] = field(default_factory=lambda: [204])
    got: list[Request] = field(default_factory=list)
    connections: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        """As the setting of private hosts names it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it takes requests."""
        return f"http://{self.host}/hook?token=of-its-owner"

    def serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = _read(connection)
            if request is None:
                return
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            self.got.append(request)
            if answer == DROP:
                return
            if answer == DRIP:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not self._over.wait(0.02):
                    connection.sendall(b"x")
            elif answer == HANG:
                connection.recv(1)  # until the sender hangs up
            else:
                connection.sendall(answer if isinstance(answer, bytes) else _head(int(answer)))


def _head(status: int, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status} Said", "Content-Length: 2", "Connection: close", *more)
    return ("\r\n".join(lines) + "\r\n\r\nok").encode()


def redirect_to(url: str, status: int = 307) -> bytes:
    """The answer of a receiver that has moved."""
    return _head(status, f"Location: {url}")


def busy_for(seconds: int) -> bytes:
    """The answer of a receiver that asks for a pause."""
    return _head(503, f"Retry-After: {seconds}")


def _read(connection: socket.socket) -> Request | None:
    if not connection.recv(1, socket.MSG_PEEK).isalpha():  # TLS, which it does not speak
        return None
    stream: Any = connection.makefile("rb")
    line = stream.readline().decode("latin-1").split()
    if len(line) < 3:
        return None
    headers = {}
    while (text := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    return Request(line[1], headers, stream.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that answers 204 until it is told otherwise."""
    listener = socket.create_server(("127.0.0.1", 0))
    receiver = Receiver(listener, listener.getsockname()[1])
    thread = threading.Thread(target=receiver.serve, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stop()
        thread.join()
