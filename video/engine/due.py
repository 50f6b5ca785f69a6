"""What is due: rows that wait for a bell, who was rung, and who was rung and not heard. Nobody is claimed here."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connection

from video.models import Stage


def hint(task_id: str, *, least_interval_s: float = 0) -> bool:
    """Something says that there is news (a call-back, a late reply): make an unheld, running task due soon.

    Never believed beyond that. Due no sooner than `least_interval_s` after the last look at the job.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask t SET hinted_at = statement_timestamp(),
                next_run_at = CASE WHEN t.lease_until IS NULL OR t.lease_until < statement_timestamp()
                    THEN least(t.next_run_at, greatest(statement_timestamp(), (
                        SELECT max(g.last_polled_at) + %s * interval '1 second'
                        FROM video_generation g WHERE g.task_id = t.id)))
                    ELSE t.next_run_at END
            WHERE t.id = %s AND t.next_run_at IS NOT NULL
            """,
            [least_interval_s, task_id],
        )
        return cursor.rowcount == 1


#: Polls are rung in waves (`waves.ring_due`), transcodes when a core is free (`cores.py`).
SENT_ALONE = (Stage.GENERATE, Stage.DOWNLOAD, Stage.THUMBNAIL, Stage.SAVE)


def enqueue_due(
    limit: int, stages: Collection[Stage] = SENT_ALONE, *, again_after_s: float = 10
) -> list[tuple[str, Stage]]:
    """Up to `limit` tasks of those of `stages` that are rung alone: due, unheld and not rung for a while; marks them as
    rung. Downloads come first, the one whose video dies soonest before all.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS MATERIALIZED (
                SELECT id FROM video_videotask
                WHERE next_run_at <= statement_timestamp() AND stage = ANY(%s)
                    AND (lease_until IS NULL OR lease_until < statement_timestamp())
                    AND (rung_at IS NULL OR rung_at < statement_timestamp() - %s * interval '1 second')
                ORDER BY next_run_at LIMIT %s FOR UPDATE SKIP LOCKED
            ), rung AS (
                UPDATE video_videotask t SET rung_at = statement_timestamp() FROM due WHERE t.id = due.id
                RETURNING t.id, t.stage, t.next_run_at
            )
            SELECT r.id, r.stage FROM rung r LEFT JOIN LATERAL (
                SELECT result_dies_at FROM video_generation g
                WHERE g.task_id = r.id AND r.stage = 'download' ORDER BY attempt DESC LIMIT 1
            ) g ON true
            ORDER BY r.stage <> 'download', g.result_dies_at, r.next_run_at
            """,
            [[stage.value for stage in SENT_ALONE if stage in stages], again_after_s, limit],
        )
        return [(row[0], Stage(row[1])) for row in cursor.fetchall()]


def requeue(task_ids: list[str], stage: Stage) -> None:
    """Their bell was heard, and nobody came: they may be rung again at once."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET rung_at = NULL
            WHERE id = ANY(%s) AND stage = %s AND next_run_at <= statement_timestamp()
                AND (lease_until IS NULL OR lease_until < statement_timestamp())
            """,
            [task_ids, stage.value],
        )


def has_unacknowledged(stages: list[Stage], *, for_s: float, enqueued_within_s: float) -> bool:
    """Whether a task in these stages has been due for `for_s` seconds, was rung lately, and nobody has it."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM video_videotask
                WHERE next_run_at <= statement_timestamp() - %(for)s * interval '1 second' AND stage = ANY(%(stages)s)
                    AND (lease_until IS NULL OR lease_until < statement_timestamp() - %(for)s * interval '1 second')
                    AND rung_at > statement_timestamp() - %(lately)s * interval '1 second')
            """,
            {"for": for_s, "stages": [stage.value for stage in stages], "lately": enqueued_within_s},
        )
        return bool(cursor.fetchone()[0])
