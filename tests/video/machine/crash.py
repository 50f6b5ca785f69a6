"""Deaths and meetings at a chosen moment: before the n-th statement of an actor, or before its commit.

A crash closes the connection, as the death of a process does, and is a BaseException, so that no code survives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, connections

MOST_STATEMENTS = 24


class Crash(BaseException):
    """The actor is gone; what it had not committed is gone too."""


@contextmanager
def before_write(number: int, do: Callable[[], None]) -> Iterator[None]:
    """Call `do` once, before the statement or commit of this thread's connection that has this number (from 0)."""
    left = number
    commit = connection.commit

    def count() -> None:
        nonlocal left
        left -= 1
        if left == -1:
            do()

    def around(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        count()
        return execute(sql, params, many, context)

    def counted_commit() -> None:
        count()
        commit()

    connection.commit = counted_commit  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(around):
            yield
    finally:
        connection.commit = commit  # type: ignore[method-assign]


def die() -> None:
    """Go without a word."""
    connection.close()
    raise Crash


class Stranger:
    """A second actor with a thread and a connection of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pid = self._pool.submit(self._connect).result()
        self._monitor = psycopg.connect(**connection.get_connection_params(), autocommit=True)

    def close(self) -> None:
        self._pool.submit(connections.close_all).result()
        self._pool.shutdown()
        self._monitor.close()

    def begin(self, act: Callable[[], Any]) -> Future[Any]:
        """Start `act`; returns when it is done or stands behind a lock, so that the order is the same each time."""
        future = self.start(act)
        while not wait([future], timeout=0.002).done:
            row = self._monitor.execute("SELECT cardinality(pg_blocking_pids(%s))", [self._pid]).fetchone()
            if row and row[0]:
                break
        return future

    def start(self, act: Callable[[], Any]) -> Future[Any]:
        """Start `act`, and wait for nothing."""
        return self._pool.submit(act)

    @staticmethod
    def _connect() -> int:
        connection.ensure_connection()
        return int(connection.connection.info.backend_pid)
