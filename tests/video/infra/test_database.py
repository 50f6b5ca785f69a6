"""Statements that a session prepares: once, and only where no pooler may give the next one another session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from config.embedded import postgres
from tests.pgbouncer import need_pgbouncer, pgbouncer
from tests.system.system import database_url
from video.infra import database


@pytest.fixture
def own_connection() -> Iterator[None]:
    """Statements are prepared in a session of this test's own."""
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]
    yield
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]


def prepared(text: str) -> list[tuple[int, int]]:
    """How often each prepared statement with this text was planned for its values, and by its plan for all."""
    return database.fetch(
        "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE %s", [f"SELECT {text}%"]
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("own_connection")
def test_a_statement_is_parsed_once_a_session_and_soon_planned_no_more() -> None:
    for number in range(20):
        assert database.fetch_prepared("SELECT 'kept', %(number)s::int + 1", {"number": number}) == [
            ("kept", number + 1)
        ]
    ((custom, generic),) = prepared("'kept'")
    assert (custom, generic) == (5, 15)  # PostgreSQL compares its first five plans with the one for all values


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("own_connection")
def test_it_works_on_after_a_transaction_was_rolled_back() -> None:
    assert database.fetch_prepared("SELECT 'rolled', %s::int", [1]) == [("rolled", 1)]
    database.execute("BEGIN; ROLLBACK")
    assert database.fetch_prepared("SELECT 'rolled', %s::int", [2]) == [("rolled", 2)]


@pytest.mark.django_db(transaction=True)
def test_a_pooler_is_told_from_postgresql_itself() -> None:
    need_pgbouncer()
    name, role = connection.settings_dict["NAME"], f"pooled_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database_url(), user=postgres.ADMIN, autocommit=True) as direct:
        assert database._is_direct(direct)
        direct.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        try:
            pooler = pgbouncer(name, user=role, mode="transaction", ignore_options=True)
            with pooler as url, psycopg.connect(url) as pooled:
                assert not database._is_direct(pooled)
        finally:
            direct.execute(f"DROP ROLE {role}")
