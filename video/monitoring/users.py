"""The figures that one user may see: their own tasks and credits, and the state of the system in one word."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

from video.monitoring import providers, workers
from video.monitoring.stages import QUEUES


@dataclass(frozen=True)
class OwnFigures:
    """One user's tasks."""

    by_status: dict[str, int]  # active ones
    by_stage: dict[str, int]  # active ones
    waiting: int  # for a slot at a provider
    oldest_wait_s: float | None
    last_day: dict[str, int]  # made in the last 24 hours, by how they ended
    balance: int
    system: str  # ok: takes jobs; busy: they wait for a slot; paused: nothing starts now

    @property
    def active(self) -> int:
        return sum(self.by_stage.values())


def of_user(user_id: int) -> OwnFigures:
    """One user's figures; seven statements."""
    by_status: dict[str, int] = {}
    by_stage: dict[str, int] = {}
    waiting, oldest_wait_s = 0, None
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT status, stage, count(*), count(*) FILTER (WHERE admit_at IS NOT NULL),
                extract(epoch FROM statement_timestamp()
                    - min(admit_at) FILTER (WHERE admit_at <= statement_timestamp()))::float8
            FROM video_videotask WHERE user_id = %s AND finished_at IS NULL GROUP BY status, stage
            """,
            [user_id],
        )
        for status, stage, number, in_line, wait_s in cursor.fetchall():
            by_status[status] = by_status.get(status, 0) + number
            by_stage[stage] = by_stage.get(stage, 0) + number
            waiting += in_line
            if wait_s is not None:
                oldest_wait_s = max(oldest_wait_s or 0.0, wait_s)
        cursor.execute(
            """
            SELECT status, count(*) FROM video_videotask
            WHERE user_id = %s AND created_at > statement_timestamp() - interval '24 hours'
                AND finished_at IS NOT NULL GROUP BY status
            """,
            [user_id],
        )
        last_day = dict(cursor.fetchall())
        cursor.execute("SELECT balance FROM video_account WHERE user_id = %s", [user_id])
        row = cursor.fetchone()
    return OwnFigures(by_status, by_stage, waiting, oldest_wait_s, last_day, row[0] if row else 0, word())


def word() -> str:
    """The state of the system in one word, without its parts."""
    there = workers.workers()
    accounts = providers.accounts(providers.keys())
    if not workers.sweeping(there) or not all(workers.listening(there, queue) for queue in QUEUES):
        return "paused"
    if not any(account.open for account in accounts):
        return "paused"
    return "ok" if any(account.free for account in accounts) else "busy"
