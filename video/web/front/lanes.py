"""Threads that answer requests, and the queues before them. No client can hold one: they meet whole requests only."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

#: A request that waited longer for a thread is answered 503 instead: its sender has given up, or soon will.
WAITS_S = 10.0


class Lane:
    """Some threads and one queue of at most `waiting` requests."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._queue: queue.SimpleQueue[tuple[float, Callable[[bool], None]] | None] = queue.SimpleQueue()
        self._waiting = waiting
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(threads)]

    def start(self) -> None:
        """Start the threads: in the process that serves, never before a fork."""
        for thread in self._threads:
            thread.start()

    def take(self, work: Callable[[bool], None]) -> bool:
        """Let a thread call `work(in_time)` soon; False when as many as may are waiting already."""
        if self._queue.qsize() >= self._waiting:
            return False
        self._queue.put((time.monotonic(), work))
        return True

    def stop(self, within_s: float) -> None:
        """Let the threads end after what they have taken."""
        for _ in self._threads:
            self._queue.put(None)
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            since, work = item
            try:
                work(time.monotonic() - since <= WAITS_S)
            except Exception:
                log.exception("a request could not be answered")
