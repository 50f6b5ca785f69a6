"""Two hosts that start a new version at once: one migrates, the other waits, and neither waits for the other."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from config.management.commands import up


@pytest.mark.django_db(transaction=True)
def test_a_host_that_waits_holds_no_index_up_that_the_other_builds_concurrently() -> None:
    """Such a build waits for every older snapshot: that of a statement that waits for a lock, too."""
    waits, had_its_turn = threading.Event(), threading.Event()

    def other() -> None:
        waits.set()
        with up._one_at_a_time():
            had_its_turn.set()

    thread = threading.Thread(target=other, daemon=True)
    with up._one_at_a_time():
        thread.start()
        assert waits.wait(10)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = 0")
            cursor.execute("SET statement_timeout = '8s'")
            for _ in range(3):  # the other is at the lock by then
                cursor.execute("SELECT pg_sleep(0.1)")
                cursor.execute("CREATE INDEX CONCURRENTLY for_a_moment ON video_periodicrun (period)")
                cursor.execute("DROP INDEX CONCURRENTLY for_a_moment")
            cursor.execute("RESET statement_timeout; RESET lock_timeout")
        assert not had_its_turn.is_set()
    thread.join(10)
    assert had_its_turn.is_set()
