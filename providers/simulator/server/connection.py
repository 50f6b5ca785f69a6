"""HTTP/1.1 on a plain asyncio protocol: just enough of it, and free to break it.

Why not a ready server: a simulator must be able to answer nothing at all, to reset the connection, to promise more
bytes than it sends. ASGI servers turn each of these into a tidy 500. It is also the cheapest way: a poll is parsed,
answered and written in one callback, without a task. Parsing and framing take 8 µs a request here; with h11 they took
130 µs, which would have made a poll two and a half times as dear.

Supported: keep-alive, pipelining, Content-Length and chunked bodies, `Expect: 100-continue`, TLS. Not supported:
upgrades, trailers. Meant for loopback, not for the internet.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import traceback
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, cast

from providers.dialect.messages import Answer, Cut, Handler, Reply, Request

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
_REASONS = {int(status): status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
_NO_BODY = frozenset({204, 304})


class BadRequest(Exception):
    """The bytes are not HTTP that we read."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.Protocol):
    """One client connection: parses, calls the handler, writes; one request at a time."""

    def __init__(self, handler: Handler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._continued = False
        self._transport: asyncio.Transport
        self._peer = ""
        self._scheme = "http"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._advance()
        elif len(self._buffer) > MAX_BODY_BYTES + MAX_HEAD_BYTES:
            self.abort()

    def abort(self, *, reset: bool = False) -> None:
        """Close without another byte; with `reset` the peer sees ECONNRESET instead of an orderly end."""
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # --- reading ---

    def _advance(self) -> None:
        """Answer every whole request in the buffer, until one needs a task."""
        while self._buffer and self._task is None and not self._transport.is_closing():
            try:
                request = self._parse()
            except BadRequest as err:
                self._write(Reply(err.status, b'{"error":"bad request"}'), keep=False, head_only=False)
                return
            if request is None:
                return
            keep = request.headers.get("connection", "").lower() != "close"
            head_only = request.method == "HEAD"
            try:
                answer = self._handler(request)
            except Exception:
                _report()
                answer = Reply(500, b'{"error":"simulator bug, see its stderr"}')
            if isinstance(answer, Reply) and answer.stream is None:
                self._write(answer, keep=keep, head_only=head_only)
            elif isinstance(answer, Cut):
                self.abort(reset=answer.reset)
            else:
                self._task = asyncio.get_running_loop().create_task(self._finish(answer, keep, head_only))

    def _parse(self) -> Request | None:
        """The next whole request, taken off the buffer; None while it is incomplete."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise BadRequest(431)
            return None
        start_line, *lines = buffer[:end].decode("latin-1").split("\r\n")
        parts = start_line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequest(400)
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequest(400)
            headers[name.lower()] = value.strip()
        if parts[2] == "HTTP/1.0" and headers.get("connection", "").lower() != "keep-alive":
            headers["connection"] = "close"
        start = end + 4
        body: bytes | None = b""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body, start = _dechunk(buffer, start)
        elif "content-length" in headers:
            if not headers["content-length"].isdecimal():
                raise BadRequest(400)
            size = int(headers["content-length"])
            if size > MAX_BODY_BYTES:
                raise BadRequest(413)
            body = bytes(buffer[start : start + size]) if len(buffer) - start >= size else None
            start += size
        if body is None:
            if not self._continued and headers.get("expect", "").lower() == "100-continue":
                self._continued = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        self._continued = False
        del buffer[:start]
        return Request(parts[0], parts[1], headers, body, self._peer, self._scheme)

    # --- writing ---

    async def _finish(self, answer: Reply | Coroutine[Any, Any, Answer], keep: bool, head_only: bool) -> None:
        """An answer that takes time. Cancelled when the client leaves."""
        try:
            final = answer if isinstance(answer, Reply) else await answer
            if isinstance(final, Cut):
                self.abort(reset=final.reset)
            elif final.stream is None or head_only:
                self._write(final, keep=keep, head_only=head_only)
            else:
                await self._send_stream(final, keep)
        except ConnectionError:
            self.abort()
        except Exception:
            _report()
            self.abort()
        finally:
            self._task = None
        self._advance()

    def _write(self, reply: Reply, *, keep: bool, head_only: bool) -> None:
        length = len(reply.body) if reply.length is None else reply.length
        head = _head(reply, None if reply.status in _NO_BODY else length, keep)
        self._transport.write(head if head_only else head + reply.body)
        if not keep:
            self._transport.close()

    async def _send_stream(self, reply: Reply, keep: bool) -> None:
        assert reply.stream is not None
        chunked = reply.length is None
        self._transport.write(_head(reply, reply.length, keep, chunked=chunked))
        sent = 0
        async for piece in reply.stream:
            sent += len(piece)
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self._writable.wait()
            if self._transport.is_closing():
                return
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        elif sent != reply.length:
            self._transport.close()  # flushes what was written: the client sees a body that stops in the middle
            return
        if not keep:
            self._transport.close()


def _head(reply: Reply, length: int | None, keep: bool, *, chunked: bool = False) -> bytes:
    head = "".join(_interim_head(status) for status in reply.interim)
    head += f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Unknown')}\r\n"
    if length is not None:
        head += f"content-type: {reply.content_type}\r\ncontent-length: {length}\r\n"
    elif chunked:
        head += f"content-type: {reply.content_type}\r\ntransfer-encoding: chunked\r\n"
    for name, value in reply.headers:
        head += f"{name}: {value}\r\n"
    return (head + ("\r\n" if keep else "connection: close\r\n\r\n")).encode("latin-1")


def _interim_head(status: int) -> str:
    hint = "link: </style.css>; rel=preload; as=style\r\n" if status == HTTPStatus.EARLY_HINTS else ""
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n{hint}\r\n"


def _dechunk(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    """The body of a chunked request and where it ends; None while it is incomplete."""
    pieces: list[bytes] = []
    total = 0
    while (line_end := buffer.find(b"\r\n", at)) >= 0:
        try:
            size = int(bytes(buffer[at:line_end]).split(b";")[0], 16)
        except ValueError:
            raise BadRequest(400) from None
        total += size
        if size < 0 or total > MAX_BODY_BYTES:
            raise BadRequest(413)
        at = line_end + 2
        if len(buffer) < at + size + 2:
            return None, at
        if size == 0:
            return b"".join(pieces), at + 2
        pieces.append(bytes(buffer[at : at + size]))
        at += size + 2
    return None, at


def _report() -> None:
    """Print a bug of ours for the operator of the simulator; a traceback holds code, never a header or an address."""
    traceback.print_exc(file=sys.stderr)
