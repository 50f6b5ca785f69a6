"""Many reads at once: what `Sender.read` is for one call, for a batch of polls.

A poll costs a few hundred bytes, and a provider answers in a fifth of a second. With a thread and a session for each
poll, a machine could do a thousand polls a second and nothing else. So all batches of a process share one event loop in
one thread, and each provider has one small pool of connections.

The rules are `http.py`'s: only GET (which may be repeated), only the provider's own origin, no redirect, no proxy or
netrc from the environment, no cookie, a limit of size, one deadline for the whole batch, and errors without keys,
queries or texts of strangers.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import re
import ssl
import threading
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlencode

import aiohttp
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from yarl import URL

from providers.contract import HttpReply, HttpRequest
from providers.errors import ForeignOrigin, ProviderDown
from providers.http import CONNECT_TIMEOUT_S, MAX_REPLY_BYTES, bare_url, check_origin, error_words
from providers.untrusted import origin_of

#: At one provider and process. More would be a crowd at its door; at 0.2 s an answer these are 160 looks a second.
CONNECTIONS = 32
_CHUNK_BYTES = 64 << 10
_HEAD_BYTES = 64 << 10  # of one header or the first line, as http.client allows
_GRACE_S = 5.0  # for the loop to say that the time was over
_WRITABLE = re.compile(r"[\x20-\x7e]*")


class BatchReader:
    """Reads from one provider's origin. Safe between threads and after a fork; make one a provider and keep it."""

    def __init__(self, base_url: str, *, connections: int = CONNECTIONS) -> None:
        origin_of(base_url)
        self.base_url = base_url
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def read_many(self, wanted: Sequence[HttpRequest], *, deadline_s: float) -> list[HttpReply | ProviderDown]:
        """Sends these GETs at once and returns, in their order, each one's whole reply or why there is none.

        `deadline_s` is for all of them: what has not been answered then counts as not to be had. Raises ValueError for
        another method.
        """
        if any(request.method != "GET" for request in wanted):
            raise ValueError("only GET may be sent in a batch")
        if not wanted:
            return []
        running = asyncio.run_coroutine_threadsafe(self._read_all(wanted, deadline_s), _loops.get())
        try:
            return running.result(deadline_s + _GRACE_S)
        except concurrent.futures.TimeoutError:  # the loop hangs: should not be, and must not hold a worker up
            running.cancel()
            return [_down(request, "the time was over") for request in wanted]

    async def _read_all(self, wanted: Sequence[HttpRequest], deadline_s: float) -> list[HttpReply | ProviderDown]:
        session = self._get_session()
        until = asyncio.get_running_loop().time() + deadline_s
        return list(await asyncio.gather(*(self._read(session, request, until) for request in wanted)))

    def _get_session(self) -> aiohttp.ClientSession:
        """The session of this process's loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    ssl=ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH),  # the same roots as for other calls
                    resolver=aiohttp.ThreadedResolver(),
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                trust_env=False,
                max_line_size=_HEAD_BYTES,
                max_field_size=_HEAD_BYTES,
            )
            self._loop = loop
            _loops.sessions.append(self._session)
        return self._session

    async def _read(
        self, session: aiohttp.ClientSession, request: HttpRequest, until: float
    ) -> HttpReply | ProviderDown:
        try:
            check_origin(request, self.base_url)
        except ForeignOrigin as err:
            return err
        headers = {"Accept-Encoding": "identity", "User-Agent": "reelworks", **request.headers}
        query = f"?{urlencode(request.params)}" if request.params else ""
        if not all(_WRITABLE.fullmatch(f"{name}{value}") for name, value in headers.items()):
            return ProviderDown(f"cannot be written as HTTP: GET {bare_url(request.url)}")
        try:
            async with (
                asyncio.timeout_at(until),
                session.get(URL(request.url + query, encoded=True), headers=headers, allow_redirects=False) as response,
            ):
                if response.status == HTTPStatus.SWITCHING_PROTOCOLS:  # aiohttp reads past the other interim answers
                    response.close()
                    return _down(request, "101 was not asked for")
                body = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > MAX_REPLY_BYTES:
                        response.close()
                        return _down(request, f"the reply is longer than {MAX_REPLY_BYTES} bytes")
                replied = {name.lower(): value for name, value in response.headers.items()}
                return HttpReply(response.status, replied, bytes(body))
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as err:
            if isinstance(err, TimeoutError) and asyncio.get_running_loop().time() >= until:
                return _down(request, "the time was over")
            return _down(request, error_words(err))


def _down(request: HttpRequest, why: str) -> ProviderDown:
    return ProviderDown(f"the read failed: GET {bare_url(request.url)}: {why}")


class _Loops:
    """One event loop a process, in a daemon thread, from the first batch on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.sessions: list[aiohttp.ClientSession] = []
        self._inherited: list[aiohttp.ClientSession] = []

    def forked(self) -> None:
        """The child of a fork has neither the thread nor a right to the connections, which it must not close."""
        inherited = self._inherited + self.sessions
        self.__init__()  # type: ignore[misc]  # the lock may have been held
        self._inherited = inherited

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="http-batches", daemon=True).start()
            return self._loop

    def close(self) -> None:
        """At the end of the process: connections are closed in good order."""
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close_sessions(), loop).result(2)
        loop.call_soon_threadsafe(loop.stop)

    async def _close_sessions(self) -> None:
        for session in self.sessions:
            await session.close()


_loops = _Loops()
atexit.register(_loops.close)
os.register_at_fork(after_in_child=_loops.forked)
