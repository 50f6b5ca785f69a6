"""Cuts a download's connection when its time is up or its caller cancels."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from media_pipeline.errors import Cancelled, DownloadTimeout

CHECK_INTERVAL_S = 0.15  # of the cancel signal


class Lever:
    """Cuts the current connection when the time is up or the caller cancels, wherever the reader is blocked just then.

    Socket time-outs alone cannot: a header line a byte at a time restarts them for ever.
    """

    def __init__(self, deadline: float, cancelled: threading.Event) -> None:
        self._deadline = deadline
        self._cancelled = cancelled
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._fired = False
        self._thread = threading.Thread(target=self._watch, name="download-lever", daemon=True)

    def __enter__(self) -> Lever:
        self.check()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._hold(None)

    def attach(self, connection: socket.socket) -> None:
        """Hold a second handle on a new connection: TLS takes the first one over, this one still reaches the wire."""
        self._hold(connection.dup())
        if self._fired:
            self._cut()

    def check(self) -> None:
        """Raise Cancelled or DownloadTimeout if there is a reason to stop."""
        if self._cancelled.is_set():
            raise Cancelled("cancelled while downloading")
        if time.monotonic() > self._deadline:
            raise DownloadTimeout("the download passed its deadline")

    def left_s(self) -> float:
        """Seconds until the deadline, never quite none."""
        return max(0.01, self._deadline - time.monotonic())

    def _hold(self, connection: socket.socket | None) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = connection

    def _watch(self) -> None:
        while not self._done.wait(CHECK_INTERVAL_S):
            if self._cancelled.is_set() or time.monotonic() > self._deadline:
                self._fired = True
                self._cut()
                return

    def _cut(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
