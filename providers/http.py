"""Sends what adapters build: `submit` for what costs money, `read` for everything else.

A submit goes out once, on a connection of its own, and ends in a reply, NotSent, or SubmissionUnknown. That no byte
left is shown by our own connection class (it knows whether connecting had ended), not guessed from an exception's type:
`requests` documents only ConnectTimeout as safe, and reports other failures under names that changed over the years
(https://github.com/psf/requests/issues/5517). Nothing here retries a submit, follows a redirect, reads a proxy or netrc
from the environment, keeps a cookie, or sends anything outside the provider's own origin.

A deadline is for the whole call. Socket timeouts start anew with each byte, so a watchdog thread shuts the socket down
when the time is over; a name that does not resolve is bounded by the system's resolver only, and nothing is sent then.
"""

from __future__ import annotations

import contextlib
import contextvars
import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from providers.api_keys import fingerprint
from providers.contract import HttpReply, HttpRequest
from providers.errors import ForeignOrigin, NotSent, ProviderDown, ProviderError, SubmissionUnknown
from providers.interim import FinalResponse
from providers.untrusted import hide_credentials, origin_of, same_origin

#: Replies are small JSON; a larger one is not from the API.
MAX_REPLY_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0

_CHUNK_BYTES = 64 << 10


def redact(text: str, keys: Iterable[str]) -> str:
    """The text with each key (also percent-encoded, also each half of a pair) replaced by its fingerprint.

    Anything else that looks like a credential goes too. For text that is about to be logged or stored.
    """
    names: dict[str, str] = {}
    for key in keys:
        shown = f"[key:{fingerprint(key)}]"
        for part in (key, *key.split(":")):
            if len(part) >= 6:  # a shorter one would tear ordinary words apart, and is no secret
                names[part] = names[quote(part, safe="")] = shown
    for part in sorted(names, key=len, reverse=True):
        text = text.replace(part, names[part])
    return hide_credentials(text)


class _GuardError(Exception):
    """Carries what `before_send` raised through urllib3, which would wrap an OSError."""


class _Watchdog:
    """One daemon thread for all deadlines; a thread a call would cost more than the call's own work."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, _Guard]] = []
        self._numbers = itertools.count()
        self._running = False

    def watch(self, guard: _Guard) -> None:
        with self._wake:
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="http-deadlines", daemon=True).start()
            heapq.heappush(self._due, (guard.deadline, next(self._numbers), guard))
            if self._due[0][2] is guard:
                self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._due:
                    self._wake.wait()
                wait_s = self._due[0][0] - time.monotonic()
                if wait_s > 0 and not self._due[0][2].done:
                    self._wake.wait(wait_s)
                    continue
                guard = heapq.heappop(self._due)[2]
            guard.expire()  # does nothing when its call has ended


class _Guard:
    """What is known of one call's socket: whether it was connected, and how to cut it from another thread."""

    def __init__(self, deadline_s: float, before_send: Callable[[], None] | None = None) -> None:
        self.deadline = time.monotonic() + deadline_s
        self.before_send = before_send
        self.hook_error: BaseException | None = None
        self.connecting = False  # our connection class was asked for a new connection
        self.connected = False  # it has one, TLS and all: from here on bytes may leave
        self.expired = False
        self.done = False
        self._lock = threading.Lock()
        self._cutter: socket.socket | None = None

    def remaining_s(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def attach(self, sock: socket.socket) -> None:
        """Keeps a duplicate of the socket's descriptor: TLS wrapping detaches the original, and closing it early is
        what http.client does under `Connection: close`."""
        cutter = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        with self._lock:
            old, self._cutter = self._cutter, cutter
            if self.expired:
                self._cut()
        if old is not None:
            old.close()

    def ready_to_send(self) -> None:
        """Called by the connection when it is up and nothing has been written."""
        self._check_time()
        if self.before_send is not None:
            try:
                self.before_send()
            except BaseException as err:  # raised again by submit()
                self.hook_error = err
                raise _GuardError("stopped by the caller before anything was sent") from None
            self._check_time()
        self.connected = True

    def _check_time(self) -> None:
        if self.expired or self.remaining_s() == 0.0:
            self.expired = True
            raise _GuardError("the time was over before anything was sent")

    def expire(self) -> None:
        with self._lock:
            if not self.done:
                self.expired = True
                self._cut()

    def end(self) -> None:
        with self._lock:
            self.done = True
            if self._cutter is not None:
                self._cutter.close()
                self._cutter = None

    def _cut(self) -> None:
        if self._cutter is not None:
            with contextlib.suppress(OSError):  # the other side was faster
                self._cutter.shutdown(socket.SHUT_RDWR)


_current: contextvars.ContextVar[_Guard | None] = contextvars.ContextVar("current_call", default=None)
_watchdog = _Watchdog()
# The child of a fork has no watchdog thread, and may have inherited its lock in a locked state.
os.register_at_fork(after_in_child=_watchdog.__init__)  # type: ignore[misc]


class _Watched:
    """Mixed into urllib3's connections: reports to the guard of the call that uses them."""

    sock: Any

    def _new_conn(self) -> socket.socket:
        # urllib3's own seam between "resolved and connected" and "TLS"; the tests on real sockets hold it in place.
        guard = _current.get()
        if guard is not None:
            guard.connecting = True
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        if guard is not None:
            guard.attach(sock)
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        guard = _current.get()
        if guard is not None:
            try:
                guard.ready_to_send()
            except _GuardError:
                self.close()  # type: ignore[attr-defined]
                raise

    def request(self, *args: Any, **kwargs: Any) -> None:
        guard = _current.get()
        if guard is not None and self.sock is not None and not guard.connecting:
            guard.attach(self.sock)  # a kept-alive connection
        super().request(*args, **kwargs)  # type: ignore[misc]


class _WatchedHTTP(_Watched, HTTPConnection):
    response_class = FinalResponse


class _WatchedHTTPS(_Watched, HTTPSConnection):
    response_class = FinalResponse


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


class Sender:
    """Talks to one provider's origin. Safe between threads; make one a provider and keep it.

    `base_url`'s origin is the only one that anything is sent to. `ca_bundle` is a path for a private certificate
    authority (a proxy, a simulator under TLS).
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        ca_bundle: str | None = None,
    ) -> None:
        origin_of(base_url)  # a bad one stops the start, not the first job
        self.base_url = base_url
        self.max_reply_bytes = max_reply_bytes
        self._verify: bool | str = ca_bundle or True
        self._local = threading.local()

    def submit(
        self, request: HttpRequest, *, deadline_s: float, before_send: Callable[[], None] | None = None
    ) -> HttpReply:
        """Sends once, on a fresh connection, and returns any whole reply, redirects and errors included.

        `before_send` is called when the connection is up and no byte of the request has been written: the place for a
        last check of the clock. If it raises, nothing is sent and its exception comes out as it is.
        (A test's double in place of the transport never gets that far, so it is not called there.)

        Raises NotSent only when that is proven (name not resolved, refused, connect timeout, TLS failure, another
        origin), and SubmissionUnknown for everything else.
        """
        check_origin(request, self.base_url)
        guard = _Guard(deadline_s, before_send)
        with self._new_session() as session:
            prepared = self._prepare(session, request, NotSent, close=True)
            try:
                with self._watched(guard):
                    return self._exchange(session, prepared, guard)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, _GuardError, _BadReply) as err:
                if guard.hook_error is None:
                    where = f"{request.method} {bare_url(request.url)}: {_reason(err, guard)}"
                    # `from None` here and below: the cause's text holds the whole URL, query and all.
                    if _nothing_was_sent(err, guard):
                        raise NotSent(f"nothing was sent: {where}") from None
                    raise SubmissionUnknown(f"no readable answer to a request that was sent: {where}") from None
        raise guard.hook_error  # out here, so that it keeps its own cause and context

    def read(self, request: HttpRequest, *, deadline_s: float) -> HttpReply:
        """Sends a request that may be repeated (poll, look-up, cancel) on a kept-alive connection of this thread.

        Raises ProviderDown for every failure of transport. A GET on an idle connection that the server had closed in
        the meantime is sent again once, within the same deadline: that says nothing about the provider's health.
        """
        check_origin(request, self.base_url)
        session = self._thread_session()
        deadline = time.monotonic() + deadline_s
        prepared = self._prepare(session, request, ProviderDown, close=False)
        resend = request.method == "GET"
        while True:
            guard = _Guard(deadline - time.monotonic())
            try:
                with self._watched(guard):
                    return self._exchange(session, prepared, guard)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, _GuardError, _BadReply) as err:
                if resend and _was_stale(err, guard):
                    resend = False
                    session.close()  # its other idle connections are as old; the next try opens a fresh one
                    continue
                where = f"{request.method} {bare_url(request.url)}: {_reason(err, guard)}"
                raise ProviderDown(f"the read failed: {where}") from None

    def _prepare(
        self, session: requests.Session, request: HttpRequest, failure: type[ProviderError], *, close: bool
    ) -> requests.PreparedRequest:
        """The request as bytes to be. Raises `failure` for what is not valid HTTP."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "reelworks", **request.headers}
        if close:
            headers["Connection"] = "close"
        try:
            for value in headers.values():
                value.encode("latin-1")  # else http.client fails on it when the connection is already up
            return session.prepare_request(
                requests.Request(
                    request.method, request.url, headers=headers, params=request.params, json=request.json, cookies={}
                )
            )
        except (requests.RequestException, ValueError, TypeError):
            # Its text quotes the header or the URL that it does not like.
            raise failure(f"cannot be written as HTTP: {request.method} {bare_url(request.url)}") from None

    def _exchange(self, session: requests.Session, prepared: requests.PreparedRequest, guard: _Guard) -> HttpReply:
        # The socket timeout is the whole time that is left: the watchdog cuts what drips, this ends what is silent.
        left_s = max(guard.remaining_s(), 0.001)
        with session.send(
            prepared,
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_TIMEOUT_S, left_s), left_s),
            verify=self._verify,
            proxies={},
        ) as response:
            body = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                body += chunk
                if len(body) > self.max_reply_bytes:
                    raise _BadReply(f"the reply is longer than {self.max_reply_bytes} bytes")
                if guard.remaining_s() == 0.0:
                    guard.expired = True
                if guard.expired:
                    break
            if guard.expired:  # a socket that was shut down reads as a normal end
                raise _BadReply("the time was over before the reply had ended")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return HttpReply(response.status_code, headers, bytes(body))

    @contextlib.contextmanager
    def _watched(self, guard: _Guard) -> Iterator[None]:
        token = _current.set(guard)
        _watchdog.watch(guard)
        try:
            yield
        finally:
            guard.end()
            _current.reset(token)

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no proxy variables, no netrc: a key goes where the base URL says
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.headers.clear()
        adapter = _Adapter(pool_connections=2, pool_maxsize=2, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _thread_session(self) -> requests.Session:
        # One a thread, since requests does not promise that a Session is safe between threads; and one a process, since
        # two processes on one inherited connection would read each other's replies.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid = os.getpid()
            self._local.session = self._new_session()
        session: requests.Session = self._local.session
        return session


class _BadReply(Exception):
    """A reply that does not end in time or in size."""


def _nothing_was_sent(err: BaseException, guard: _Guard) -> bool:
    if guard.connected:
        return False
    if guard.connecting:
        return True  # our own connection never got as far as being usable
    # Another transport (a test's double) was in place: believe only the types that are raised before a connection is.
    return any(isinstance(e, (requests.ConnectTimeout, NewConnectionError, ConnectTimeoutError)) for e in _chain(err))


def _was_stale(err: BaseException, guard: _Guard) -> bool:
    """Whether a kept-alive connection turned out to be closed: no new one was made, and the time is not over."""
    return (
        not guard.connecting
        and not guard.expired
        and guard.remaining_s() > 0.0
        and any(isinstance(e, (ConnectionResetError, BrokenPipeError)) for e in _chain(err))
    )


def _chain(err: BaseException) -> Iterator[BaseException]:
    """The exception and everything under it: requests and urllib3 put causes into args, `reason`, and the chain."""
    seen: set[int] = set()
    queue: list[object] = [err]
    while queue:
        item = queue.pop(0)
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            yield item
            queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _reason(err: BaseException, guard: _Guard) -> str:
    """Type names and system error texts only: an exception's own text may quote the URL or a header."""
    if guard.expired:
        return "the time was over"
    if isinstance(err, _BadReply):
        return str(err)
    return error_words(err)


def error_words(err: BaseException) -> str:
    """What an exception may be called in a log: type names and system error texts, of it and what is under it."""
    words: list[str] = []
    for item in _chain(err):
        word = type(item).__name__
        if isinstance(item, OSError) and item.errno and item.strerror:
            word += f" ({item.strerror})"
        if word not in words:
            words.append(word)
    return " < ".join(words[:4])


def check_origin(request: HttpRequest, base_url: str) -> None:
    """Raises ForeignOrigin for a request that would leave the provider's origin."""
    if not same_origin(request.url, base_url):
        raise ForeignOrigin(f"refused to send to another origin than {bare_url(base_url)}: {bare_url(request.url)}")


def bare_url(url: str) -> str:
    """A URL as it may be logged: no user, no query, no fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable URL)"
    return f"{parts.scheme}://{host}{port}{parts.path}"
