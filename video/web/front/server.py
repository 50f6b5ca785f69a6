"""The RSGI application: takes requests from granian, lets Django answer them, and sends what it answered."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope

from video.infra import tracing
from video.web import access, request_ids
from video.web.front import bodies, sockets, streams, wsgi
from video.web.front.changes import Changes, TooMany
from video.web.front.lanes import Lane
from video.web.front.refusals import refusal
from video.web.front.streams import EventStream, Later
from video.web.versions import unversioned

log = logging.getLogger(__name__)

#: After SIGTERM, for what the threads have begun.
STOPS_WITHIN_S = 5.0
#: Each costs a password's hash, some 0.2 s of a core. Two are made at once, and few wait for their turn in a thread
#: (`video.web.logins`).
PASSWORDS = frozenset(
    {
        *("/api/auth/login", "/api/auth/password", "/api/auth/sign-up", "/api/auth/password-reset/confirm"),
        *("/admin/login/", "/admin/password_change/"),
    }
)
NO_BODY = frozenset({204, 304})
#: An answer leaves from the thread that made it. That its request is over, the event loop hears with the next request,
#: or so much later: to wake it for each would cost a fifth of a status's CPU.
TIDIES_AFTER_S = 0.05


class Front:
    """One a process. The application answers `threads` requests at once; `waiting` more may wait for their turn."""

    def __init__(
        self,
        application: WSGIApplication,
        *,
        threads: int,
        waiting: int = 2000,
        receiver: bodies.Receiver | None = None,
    ) -> None:
        self._application = application
        self._bodies = receiver or bodies.Receiver()
        self._pages = Lane("web", threads=threads, waiting=waiting)
        self._passwords = Lane("passwords", threads=8, waiting=100)
        self._files = Lane("files", threads=8, waiting=waiting)  # they need the disk alone, which may be a slow one
        self._pictures = Lane("pictures", threads=2, waiting=50)  # each is decoded, in one of two children
        self._health = Lane("health", threads=1, waiting=100)
        self._lanes = (self._pages, self._passwords, self._files, self._pictures, self._health)
        self._changes = Changes()
        self._has_bounds = False
        self._answered: deque[asyncio.Future[wsgi.Answer | None]] = deque()
        self._open, self._is_tidying = 0, False

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        for lane in self._lanes:
            lane.start()
        self._changes.start(loop)
        self._stopping: asyncio.Future[None] = loop.create_future()
        # granian waits for open streams, and tells no application that it does. Its own handler hears of the signal all
        # the same: asyncio's come by the wake-up descriptor.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: _finish(self._stopping))

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._changes.stop()
        for lane in self._lanes:
            lane.stop(STOPS_WITHIN_S)
        tracing.end()  # this process ends without what Python does at an end

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one request. The body first: it is whole before a thread is taken."""
        if not self._has_bounds:  # granian opens its listening socket after __rsgi_init__
            self._has_bounds = True
            sockets.bound()
        headers = wsgi.headers_of(scope)
        try:
            body = await self._bodies.receive(headers, protocol, path=scope.path)
        except bodies.BadBody as bad:
            _refuse(protocol, scope, bad.status, bad.code, bad.sentence)
            return
        except (bodies.SenderGone, ProtocolClosed):
            return
        try:
            answer = await self._ask(scope, headers, body, protocol, can_wait=True)
        finally:
            self._bodies.release(body, path=scope.path)
        if answer is None:
            return
        listener = answer.body.listener
        try:
            self._changes.add(listener)
        except TooMany:
            _overloaded(protocol, scope)
            return
        try:
            if isinstance(answer.body, EventStream):
                await streams.send(answer.body, answer.headers, protocol, self._stopping)
                return
            await streams.changed(listener, answer.body.seconds, self._stopping)
        finally:
            self._changes.remove(listener)
        await self._ask(scope, headers, body, protocol, can_wait=False)

    async def _ask(
        self, scope: Scope, headers: wsgi.Headers, body: bytes, protocol: HTTPProtocol, *, can_wait: bool
    ) -> Any:
        """Let a thread answer. None, or the answer if it is one that comes later."""
        self._end_answered()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[wsgi.Answer | None] = loop.create_future()
        environ = wsgi.environ_of(scope, headers, body, can_wait=can_wait)
        is_large = len(body) > bodies.LONGEST_OF_API
        if not self._lane(scope.path, body).take(partial(self._answer, scope, environ, protocol, done, is_large)):
            _overloaded(protocol, scope)
            return None
        self._open += 1
        if not self._is_tidying:
            self._is_tidying = True
            loop.call_later(TIDIES_AFTER_S, self._tidy)
        try:
            return await done
        finally:
            self._open -= 1

    def _tidy(self) -> None:
        """In the event loop, again and again while requests are open."""
        self._end_answered()
        self._is_tidying = self._open > 0
        if self._is_tidying:
            asyncio.get_running_loop().call_later(TIDIES_AFTER_S, self._tidy)

    def _end_answered(self) -> None:
        while self._answered:
            _finish(self._answered.popleft())

    def _lane(self, path: str, body: bytes) -> Lane:
        path = unversioned(path)
        if path in PASSWORDS:
            return self._passwords
        if path.startswith("/storage/"):
            return self._files
        if path == bodies.UPLOAD or len(body) > bodies.LONGEST:
            return self._pictures
        return self._health if path == "/healthz" else self._pages

    def _answer(
        self,
        scope: Scope,
        environ: WSGIEnvironment,
        protocol: HTTPProtocol,
        done: asyncio.Future[wsgi.Answer | None],
        is_large: bool,
        in_time: bool,
    ) -> None:
        """In a thread of a lane. The answer leaves from here, which spares the loop a turn."""
        later = None
        try:
            if not in_time:
                _overloaded(protocol, scope)
                return
            answer = wsgi.ask(self._application, environ)
            if isinstance(answer.body, EventStream | Later):
                later = answer
            else:
                _send(protocol, environ["REQUEST_METHOD"], answer, answer.body)
        except Exception:  # not of a view, whose errors Django answers; the lane logs it
            _refuse(protocol, scope, 500, "internal_error", "Something broke on our side. The server's log has it.")
            raise
        finally:
            if later is None and not is_large:  # the room of a large body is free at once
                self._answered.append(done)
            else:
                done.get_loop().call_soon_threadsafe(_finish, done, later)


def _finish(done: asyncio.Future[Any], result: Any = None) -> None:
    if not done.done():
        done.set_result(result)


def _send(protocol: HTTPProtocol, method: str, answer: wsgi.Answer, body: bytes | wsgi.FileBody) -> None:
    """Hand an answer to the server, which waits for the client by itself."""
    if isinstance(body, wsgi.FileBody):
        _send_file(protocol, method, answer.status, answer.headers, body.file)
    elif answer.status in NO_BODY:
        protocol.response_empty(answer.status, answer.headers)
    else:
        protocol.response_bytes(answer.status, answer.headers, body)


def _send_file(protocol: HTTPProtocol, method: str, status: int, headers: wsgi.Headers, file: wsgi.OpenFile) -> None:
    """The part of a file that Content-Length names, from its position: the server reads it, as its client does."""
    try:
        name = getattr(file, "name", None)
        length = next((int(value) for key, value in headers if key.lower() == "content-length"), None)
        if method != "HEAD" and isinstance(name, str) and Path(name).is_absolute() and length:
            start = file.tell()
            protocol.response_file_range(status, headers, name, start, start + length)
        else:
            protocol.response_bytes(status, headers, b"" if method == "HEAD" else file.read())
    finally:
        file.close()


def _overloaded(protocol: HTTPProtocol, scope: Scope) -> None:
    sentence = "More is being asked here than can be answered. Please try again in a moment."
    _refuse(protocol, scope, 503, "overloaded", sentence)


def _refuse(protocol: HTTPProtocol, scope: Scope, status: int, code: str, sentence: str) -> None:
    """An answer that Django does not give; the connection ends with it, and with what its sender still wants to say."""
    asked = {"origin": scope.headers.get("origin"), "request_id": scope.headers.get("x-request-id")}
    headers, text = refusal(scope.path, status, code, sentence, **asked)
    address = scope.client.rpartition(":")[0].strip("[]")
    access.refused(scope.method, status, address=address, request_id=headers[request_ids.HEADER])
    headers |= {"Connection": "close", **({"Retry-After": "2"} if status == 503 else {})}
    protocol.response_bytes(status, list(headers.items()), text)
