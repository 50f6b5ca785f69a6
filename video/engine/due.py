"""Tasks that are due: which to enqueue, which were enqueued, and which messages no worker acknowledged."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from video.engine.sql import UNHELD
from video.infra import database
from video.models import Stage


def hint(task_id: str, *, least_interval_s: float = 0) -> bool:
    """There may be news of the job (a call-back, a late reply): make an unheld, running task due soon.

    Due no sooner than `least_interval_s` seconds after the last poll. False: the task does not wait for a time. The
    hint is trusted no further; a second run changes nothing.
    """
    return database.changed(
        f"""
        UPDATE video_videotask t SET hinted_at = statement_timestamp(),
            next_run_at = CASE WHEN {UNHELD}
                THEN least(t.next_run_at, greatest(statement_timestamp(), (
                    SELECT max(g.last_polled_at) + %s * interval '1 second'
                    FROM video_generation g WHERE g.task_id = t.id)))
                ELSE t.next_run_at END
        WHERE t.id = %s AND t.next_run_at IS NOT NULL
        """,  # noqa: S608 - a constant
        [least_interval_s, task_id],
    )


#: Stages that the sweeper enqueues; a transcode is dispatched when a core is granted to it.
BY_SWEEPER = (Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.THUMBNAIL, Stage.SAVE)
#: Jobs that one batch polls. More would make its last job wait for its first, and one crash stop too many.
BATCH_SIZE = 100


@dataclass(frozen=True)
class Due:
    """A task that is due. `account`, in poll, is the row of the provider's account and model that has its job."""

    task_id: str
    stage: Stage
    account: int
    crashed: bool  # the worker of its last claim died


def enqueue_due(
    limit: int, stages: Collection[Stage] = BY_SWEEPER, *, again_after_s: float = 10
) -> list[tuple[Stage, list[str]]]:
    """Up to `limit` tasks of `stages` that are due, unheld and not enqueued in the last `again_after_s` seconds, as
    batches (see `in_batches`) to send; marks them as enqueued, so a second run finds only what became due since.

    Downloads come first, the one whose result expires soonest before all.
    """
    rows = database.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM video_videotask
            WHERE next_run_at <= statement_timestamp() AND stage = ANY(%s)
                AND {UNHELD}
                AND (rung_at IS NULL OR rung_at < statement_timestamp() - %s * interval '1 second')
            ORDER BY next_run_at LIMIT %s FOR UPDATE SKIP LOCKED
        ), enqueued AS (
            UPDATE video_videotask t SET rung_at = statement_timestamp() FROM due WHERE t.id = due.id
            RETURNING t.id, t.stage, t.next_run_at, t.deaths
        )
        SELECT e.id, e.stage, coalesce(g.account_id, 0), e.deaths > 0 FROM enqueued e LEFT JOIN LATERAL (
            SELECT account_id, result_dies_at FROM video_generation g
            WHERE g.task_id = e.id AND e.stage IN ('poll', 'download') ORDER BY attempt DESC LIMIT 1
        ) g ON true
        ORDER BY e.stage <> 'download', g.result_dies_at, e.next_run_at
        """,  # noqa: S608 - a constant
        [[stage.value for stage in BY_SWEEPER if stage in stages], again_after_s, limit],
    )
    return in_batches(Due(row[0], Stage(row[1]), *row[2:]) for row in rows)


def wake_overdue() -> int:
    """Make due the tasks that were parked before their deadline and whose deadline has passed, whatever they are parked
    for; each stage decides then how the task goes on. Returns how many.

    Only rows of an older version wait beyond their deadline (see `claims.park`). Each is woken once: the claim that
    follows is later than the deadline. Reads all parked tasks by the index `task_due`.
    """
    return database.execute(
        f"""
        WITH overdue AS MATERIALIZED (
            SELECT id FROM video_videotask
            WHERE next_run_at > statement_timestamp() AND deadline_at <= statement_timestamp()
                AND (claimed_at IS NULL OR claimed_at < deadline_at) AND {UNHELD}
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE video_videotask t SET next_run_at = statement_timestamp(), rung_at = NULL
        FROM overdue WHERE t.id = overdue.id
        """  # noqa: S608 - a constant
    )


def in_batches(found: Iterable[Due]) -> list[tuple[Stage, list[str]]]:
    """Polls by account, at most BATCH_SIZE together, the longest due first; every other task alone, before them. A poll
    whose last worker crashed is alone too, since its task may be what kills workers."""
    alone: list[tuple[Stage, list[str]]] = []
    by_account: dict[int, list[list[str]]] = {}
    for due in found:
        if due.stage is not Stage.POLL or due.crashed:
            alone.append((due.stage, [due.task_id]))
            continue
        batches = by_account.setdefault(due.account, [[]])
        if len(batches[-1]) == BATCH_SIZE:
            batches.append([])
        batches[-1].append(due.task_id)
    return alone + [(Stage.POLL, batch) for batches in by_account.values() for batch in batches]


def requeue(task_ids: list[str], stage: Stage) -> None:
    """The messages of these tasks were acknowledged, but no worker claimed them: they may be enqueued again at once."""
    database.execute(
        f"""
        UPDATE video_videotask SET rung_at = NULL
        WHERE id = ANY(%s) AND stage = %s AND next_run_at <= statement_timestamp() AND {UNHELD}
        """,  # noqa: S608 - a constant
        [task_ids, stage.value],
    )


def has_unacknowledged(stages: list[Stage], *, for_s: float, enqueued_within_s: float) -> bool:
    """Whether a task in these stages has been due for `for_s` seconds, was enqueued in the last `enqueued_within_s`
    seconds, and no worker has claimed it."""
    return database.value(
        """
        SELECT EXISTS (
            SELECT FROM video_videotask
            WHERE next_run_at <= statement_timestamp() - %(for)s * interval '1 second' AND stage = ANY(%(stages)s)
                AND (lease_until IS NULL OR lease_until < statement_timestamp() - %(for)s * interval '1 second')
                AND rung_at > statement_timestamp() - %(lately)s * interval '1 second')
        """,
        {"for": for_s, "stages": [stage.value for stage in stages], "lately": enqueued_within_s},
    )
