"""Facts that polls of an accepted job bring while the job goes on, and the claim that keeps two checks of it apart.

Written for many attempts at once, in the order of their ids, so that no two batches wait for each other. The end of a
job is in `records.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from providers.contract import JobStatus
from providers.untrusted import safe_share, storable
from video.attempts.poll_policy import HOUR_S

BATCH = 50
# A process that took a job to be stopped and died with it: another takes it up so much later.
STOP_RETRY_S = 60.0


def record_polls(polls: Sequence[tuple[str, JobStatus]]) -> None:
    """These polls were answered and the jobs go on: write down when, and the status of each. One statement."""
    if not polls:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[]) AS s (id, word, progress)
            ), open AS MATERIALIZED (
                SELECT g.id FROM video_generation g JOIN given ON given.id = g.id
                WHERE g.state = 'accepted' ORDER BY g.id FOR UPDATE OF g
            )
            UPDATE video_generation g SET last_polled_at = statement_timestamp(), polls = g.polls + 1, poll_errors = 0,
                not_found = 0, not_found_since = NULL, provider_status = given.word,
                provider_progress = coalesce(greatest(g.provider_progress, given.progress), given.progress)
            FROM given JOIN open ON open.id = given.id WHERE g.id = given.id
            """,
            [
                [generation_id for generation_id, _ in polls],
                [storable(status.provider_status, 60) for _, status in polls],
                [safe_share(status.progress) for _, status in polls],
            ],
        )


def record_failed_polls(generation_ids: Sequence[str]) -> dict[str, int]:
    """These attempts could not be polled; returns how often in a row now, by attempt. One statement."""
    if not generation_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH open AS MATERIALIZED (
                SELECT id FROM video_generation WHERE id = ANY(%s) AND state = 'accepted' ORDER BY id FOR UPDATE
            )
            UPDATE video_generation g SET last_polled_at = statement_timestamp(), polls = polls + 1,
                poll_errors = poll_errors + 1
            FROM open WHERE g.id = open.id RETURNING g.id, g.poll_errors
            """,
            [list(generation_ids)],
        )
        return dict(cursor.fetchall())


def take_due_checks(generation_id: str | None = None) -> list[str]:
    """Take attempts whose check is due (or this one, if it is), at most 50, and put their next check off.

    So that no two processes check one attempt at once. Returns their ids.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH due AS MATERIALIZED (
                SELECT id FROM video_generation
                WHERE look_at <= statement_timestamp() {"AND id = %(id)s" if generation_id else ""}
                ORDER BY look_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
            )
            UPDATE video_generation g SET look_at = statement_timestamp() + interval '1 second' *
                CASE WHEN g.cancel_wanted_at IS NULL THEN %(hour)s ELSE %(stop)s END
            FROM due WHERE g.id = due.id RETURNING g.id
            """,  # noqa: S608 - one of two fixed texts
            {"id": generation_id, "batch": BATCH, "hour": HOUR_S, "stop": STOP_RETRY_S},
        )
        return [row[0] for row in cursor.fetchall()]


def take_check(generation_id: str) -> bool:
    """Put the next check of a job an hour off, whether it is due or not, so that no sweeper checks it as well.

    False: it has been settled meanwhile.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_generation SET look_at = statement_timestamp() + interval '1 hour'
            WHERE id = %s AND job_id <> '' AND state IN ('accepted', 'lost')
            """,
            [generation_id],
        )
        return cursor.rowcount == 1
