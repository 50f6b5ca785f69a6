"""A pause and a submit at the same moment, on connections of their own."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, connections, transaction

from tests.factories import admitted, claimed, make_task, make_user
from video.actions import pause as pausing
from video.actions.pause import EVERYTHING
from video.attempts import records
from video.audit.actors import Actor
from video.models import AuditRecord, Generation, Pause

pytestmark = pytest.mark.django_db(transaction=True)
ANN = Actor("ann", AuditRecord.Via.COMMAND, "web-1")


def elsewhere(work: object) -> threading.Thread:
    def run() -> None:
        try:
            work()  # type: ignore[operator]
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_from_its_commit_on_no_submit_begins() -> None:
    """Before the commit a submit is marked as usual; the same submit is not from the commit on."""
    one, other = make_task(make_user()), make_task(make_user())
    first, second = admitted(one), admitted(other)
    claims = claimed(one), claimed(other)
    begun, go_on = threading.Event(), threading.Event()

    def pause_slowly() -> None:
        with transaction.atomic():
            pausing.pause(EVERYTHING, actor=ANN)
            begun.set()
            go_on.wait(20)

    thread = elsewhere(pause_slowly)
    assert begun.wait(20)
    assert records.mark_sent(claims[0], first)
    go_on.set()
    thread.join(20)
    assert not records.mark_sent(claims[1], second)
    assert list(Generation.objects.order_by("planned_at", "pk").values_list("state", flat=True)) in (
        ["unknown", "planned"],
        ["planned", "unknown"],
    )


def test_two_at_once_make_one_pause_and_two_records() -> None:
    start = threading.Barrier(3, timeout=20)

    def pause() -> None:
        start.wait()
        pausing.pause(EVERYTHING, actor=ANN, reason="fire")

    threads = [elsewhere(pause) for _ in range(3)]
    for thread in threads:
        thread.join(20)
    assert Pause.objects.filter(ended_at=None).count() == 1
    assert AuditRecord.objects.filter(action="pause").count() == 3
    with connection.cursor() as cursor:  # the audit takes no DELETE
        cursor.execute("TRUNCATE video_auditrecord")
