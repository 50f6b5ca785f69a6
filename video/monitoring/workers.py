"""Workers and sweepers, as their last signs of life describe them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from video.engine.workers import ALIVE_S
from video.models import WorkerSign

SHOWN_S = 3600.0  # a process that died is shown for so long


@dataclass(frozen=True)
class Worker:
    """One process, as of its last sign of life."""

    name: str
    kind: str  # worker, sweeper
    host: str
    queues: tuple[str, ...]
    threads: int
    held: int
    draining: bool
    memory_bytes: int
    disk_free_bytes: int
    disk_low: bool
    started_at: datetime
    gone: bool  # found to have died
    seen_s: float  # since its last sign of life

    @property
    def alive(self) -> bool:
        return not self.gone and self.seen_s < ALIVE_S

    @property
    def state(self) -> str:
        """In a word: died, silent, draining, alive."""
        if not self.alive:
            return "died" if self.gone else "silent"
        return "draining" if self.draining else "alive"


def workers() -> list[Worker]:
    """Processes with a sign of life in the last hour; one statement, by the index `worker_seen_lately`."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT name, kind, host, queues, threads, held, draining, memory_bytes, disk_free_bytes, disk_low,
                started_at, gone_at IS NOT NULL,
                greatest(0, extract(epoch FROM statement_timestamp() - seen_at))::float8
            FROM video_workersign WHERE seen_at > statement_timestamp() - %s * interval '1 second'
            ORDER BY kind DESC, queues DESC, name
            """,
            [SHOWN_S],
        )
        return [
            Worker(name, kind, host, tuple(filter(None, queues.split(","))), *rest)
            for name, kind, host, queues, *rest in cursor.fetchall()
        ]


def listening(found: Iterable[Worker], queue: str) -> list[Worker]:
    """Living workers that take new work from a queue."""
    return [
        one
        for one in found
        if one.alive and one.kind == WorkerSign.Kind.WORKER and queue in one.queues and not one.draining
    ]


def sweeping(found: Iterable[Worker]) -> list[Worker]:
    """Living sweepers."""
    return [one for one in found if one.alive and one.kind == WorkerSign.Kind.SWEEPER]
