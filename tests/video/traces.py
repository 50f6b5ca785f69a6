"""Where in the database a word stands: asked of every column of every table."""

from __future__ import annotations

from django.db import connection


def tables_with(word: str) -> set[str]:
    """The tables that have a row with this word in it, in any case."""
    found = set()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT EXISTS (SELECT FROM "{table}" t WHERE t::text ILIKE %s)', [f"%{word}%"])
            if cursor.fetchone()[0]:
                found.add(table)
    return found
