"""One statement on Django's connection, where the ORM can't say it: its row count, rows, row, or value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections

Params = Sequence[Any] | Mapping[str, Any] | None

_looked_at: WeakSet[psycopg.Connection[Any]] = WeakSet()


def execute(statement: str, params: Params = None) -> int:
    """How many rows it wrote."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.rowcount


def changed(statement: str, params: Params = None) -> bool:
    """Whether it wrote any row."""
    return execute(statement, params) > 0


def fetch(statement: str, params: Params = None) -> list[tuple[Any, ...]]:
    """All rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall()


def fetch_one(statement: str, params: Params = None) -> tuple[Any, ...] | None:
    """The first row, if there is any."""
    return next(iter(fetch(statement, params)), None)


def fetch_prepared(statement: str, params: Params = None) -> list[tuple[Any, ...]]:
    """All rows of a statement that each request sends: a session of PostgreSQL parses and plans it once.

    The values travel apart from the text, so PostgreSQL must be able to tell the type of each from its place. Behind a
    pooler, which gives each transaction another session, it is planned each time as all others are.
    """
    ours = connections[DEFAULT_DB_ALIAS]  # each look at `connection` finds it anew
    ours.ensure_connection()
    raw = ours.connection
    if raw not in _looked_at:
        with ours.wrap_database_errors:
            raw.prepare_threshold = 0 if _is_direct(raw) else None
        _looked_at.add(raw)
    # Django's own cursor writes the values into the text, which is then another statement each time.
    wrap = ours.make_debug_cursor if ours.queries_logged else ours.make_cursor
    with wrap(psycopg.Cursor(raw)) as cursor:  # type: ignore[arg-type]  # the stubs want a wrapped one
        cursor.execute(statement, params)
        return cursor.fetchall()


def value(statement: str, params: Params = None) -> Any:
    """The first column of the only row."""
    return fetch(statement, params)[0][0]


def _is_direct(raw: psycopg.Connection[Any]) -> bool:
    """Whether no pooler is in between: each that is known tells clients a process id of its own, not PostgreSQL's."""
    return raw.execute("SELECT pg_backend_pid()").fetchone() == (raw.info.backend_pid,)
