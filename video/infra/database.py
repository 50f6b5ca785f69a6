"""One statement on Django's connection, where the ORM can't say it: its row count, rows, row, or value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

Params = Sequence[Any] | Mapping[str, Any] | None


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


def value(statement: str, params: Params = None) -> Any:
    """The first column of the only row."""
    return fetch(statement, params)[0][0]
