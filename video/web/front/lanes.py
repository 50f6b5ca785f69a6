"""Threads that answer requests, and the queues before them. No client can hold one: they meet whole requests only."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

#: A request that waited longer for a thread is answered 503 instead: its sender has given up, or soon will.
WAITS_S = 10.0
#: Threads that take what comes. More of them would only take Python's one lock from each other: beside 8 connections
#: that ask for a status, 2 threads answer 15% more requests a second than 16.
FIRST = 2
#: A request that has waited for so long finds the first threads waiting themselves, for the database: another helps.
LATE_S = 0.02

Work = Callable[[bool], None]


class Lane:
    """Some threads and one queue of at most `waiting` requests. `take` is for the event loop."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._queue: deque[tuple[float, Work]] = deque()
        # One for each request of the queue, which a thread can't wait for by itself; False: end.
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()  # for helpers
        self._waiting = waiting
        self._is_watched = False
        self._first = [self._thread(f"{name}-{n}", self._run) for n in range(min(FIRST, threads))]
        self._helpers = [self._thread(f"{name}-{n}", self._help) for n in range(FIRST, threads)]

    @staticmethod
    def _thread(name: str, runs: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=runs, name=name, daemon=True)

    def start(self) -> None:
        """Start the threads: in the process that serves, never before a fork."""
        for thread in (*self._first, *self._helpers):
            thread.start()

    def take(self, work: Work) -> bool:
        """Let a thread call `work(in_time)` soon; False when as many as may are waiting already."""
        if len(self._queue) >= self._waiting:
            return False
        self._queue.append((time.monotonic(), work))
        self._permits.put(True)
        if self._helpers and not self._is_watched:
            self._is_watched = True
            asyncio.get_running_loop().call_later(LATE_S, self._watch)
        return True

    def stop(self, within_s: float) -> None:
        """Let the threads end after what they have taken."""
        for _ in self._first:
            self._permits.put(False)
        for _ in self._helpers:
            self._calls.put(False)
        until = time.monotonic() + within_s
        for thread in (*self._first, *self._helpers):
            thread.join(max(0.0, until - time.monotonic()))

    def _watch(self) -> None:
        """In the event loop, while requests wait: call a helper when the oldest is late."""
        if self._is_late() and self._calls.empty():
            self._calls.put(True)
        self._is_watched = bool(self._queue)
        if self._is_watched:
            asyncio.get_running_loop().call_later(LATE_S, self._watch)

    def _is_late(self) -> bool:
        try:
            since, _ = self._queue[0]
        except IndexError:
            return False
        return time.monotonic() - since >= LATE_S

    def _run(self) -> None:
        while self._permits.get():
            self._answer()

    def _help(self) -> None:
        while self._calls.get():
            while self._is_late():
                try:
                    goes_on = self._permits.get_nowait()
                except queue.Empty:
                    break
                if not goes_on:
                    self._permits.put(False)  # it is for one of the first
                    break
                self._answer()

    def _answer(self) -> None:
        since, work = self._queue.popleft()
        try:
            work(time.monotonic() - since <= WAITS_S)
        except Exception:
            log.exception("a request could not be answered")
