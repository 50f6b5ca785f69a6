"""A TCP proxy before a server of the tests, that can be cut: a restart, or a lost network, as seen from outside."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Listens on a free port of this machine and passes bytes to a unix socket, until it is cut; over TLS if told."""

    def __init__(self, path: str, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._path = path
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, and each new one as soon as it comes."""
        with self._lock:
            self._cut = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._tls is not None:
                try:
                    near = self._tls.wrap_socket(near, server_side=True)
                except OSError:  # the client did not trust us
                    near.close()
                    continue
            far = socket.socket(socket.AF_UNIX)
            with self._lock:
                if self._cut:
                    near.close()
                    far.close()
                    continue
                far.connect(self._path)
                self._open |= {near, far}
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, target}


def postgres_behind(url: str) -> tuple[Proxy, str]:
    """A proxy before the server of postgres://user@/name?host=folder&port=…, and the address through it."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    proxy = Proxy(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}")
    return proxy, f"postgres://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"


def valkey_behind(url: str, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> tuple[Proxy, str]:
    """The same for the broker; with `tls` the address is one of rediss://."""
    path, _, query = url.removeprefix("redis+socket://").partition("?")
    number = query.split("virtual_host=")[1].split("&")[0]
    proxy = Proxy(path, tls=tls, host=host)
    at = f"[{host}]" if ":" in host else host
    return proxy, f"{'rediss' if tls else 'redis'}://{at}:{proxy.port}/{number}"
