"""Signs of life for tests: rows as workers and sweepers write them."""

from __future__ import annotations

from django.db import connection

from video.models import WorkerSign


def sign(name: str, queues: str = "", *, age_s: float = 0, **more: object) -> WorkerSign:
    """One process; without a queue it is a sweeper."""
    kind = WorkerSign.Kind.WORKER if queues else WorkerSign.Kind.SWEEPER
    row = WorkerSign.objects.create(name=name, host=name.partition(":")[0], kind=kind, queues=queues, **more)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_workersign SET seen_at = statement_timestamp() - %s * interval '1 second' WHERE name = %s",
            [age_s, name],
        )
    return row


def everybody() -> None:
    """One sweeper, and one worker for each queue."""
    sign("one:1")
    sign("one:2", "videoQueue", threads=16)
    sign("one:3", "mediaQueue", threads=2)
