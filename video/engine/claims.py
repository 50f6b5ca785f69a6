"""Waves: claiming and parking many tasks in poll, and noting looks at their jobs, each in one statement.

The same moves as `states.claim` and `states.park` make for one task of any stage, under the same conditions. Rows are
locked in the order of their ids, as the heartbeat's are (`states.beat`), so that no two waves wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from providers.contract import JobStatus
from video.engine.outcomes import Park
from video.engine.transitions import WORKER, Claim
from video.models import Stage, VideoTask

#: Jobs that one wave looks at. More would let its last jobs wait for its first, and one worker's death stop too many.
BATCH_SIZE = 100


@dataclass(frozen=True)
class DuePoll:
    """A task that is due in poll. `account` is the row of the provider's account and model that its job is at."""

    task_id: str
    account: int
    died: bool  # the worker of its last claim never came back


def enqueue_due_polls(limit: int, *, again_after_s: float = 10) -> list[list[str]]:
    """Up to `limit` polls that are due, unheld and were not rung for a while, as waves; marks them as rung."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS MATERIALIZED (
                SELECT id FROM video_videotask
                WHERE next_run_at <= statement_timestamp() AND stage = 'poll'
                    AND (lease_until IS NULL OR lease_until < statement_timestamp())
                    AND (rung_at IS NULL OR rung_at < statement_timestamp() - %s * interval '1 second')
                ORDER BY next_run_at LIMIT %s FOR UPDATE SKIP LOCKED
            ), rung AS (
                UPDATE video_videotask t SET rung_at = statement_timestamp() FROM due WHERE t.id = due.id
                RETURNING t.id, t.next_run_at, t.deaths
            )
            SELECT r.id, coalesce(g.account_id, 0), r.deaths > 0
            FROM rung r LEFT JOIN video_generation g
                ON g.task_id = r.id AND g.state IN ('planned', 'unknown', 'accepted')
            ORDER BY r.next_run_at
            """,
            [again_after_s, limit],
        )
        return in_batches(DuePoll(*row) for row in cursor.fetchall())


def in_batches(due: Iterable[DuePoll]) -> list[list[str]]:
    """Task ids by account, at most `MOST_IN_WAVE` together, the longest due first.

    One whose last worker died is looked at alone: if it is the one that kills workers, it kills no others with it.
    """
    alone: list[list[str]] = []
    waves: dict[int, list[list[str]]] = {}
    for poll in due:
        if poll.died:
            alone.append([poll.task_id])
            continue
        of_account = waves.setdefault(poll.account, [[]])
        if len(of_account[-1]) == BATCH_SIZE:
            of_account.append([])
        of_account[-1].append(poll.task_id)
    return [wave for of_account in waves.values() for wave in of_account] + alone


def claim(task_ids: Sequence[str]) -> list[Claim]:
    """Take those that are due in poll and held by nobody, each for one lease and under a new fence."""
    rows = VideoTask.objects.raw(
        """
        WITH free AS MATERIALIZED (
            SELECT id FROM video_videotask
            WHERE id = ANY(%(ids)s) AND stage = 'poll' AND status IN ('pending', 'running')
                AND next_run_at <= statement_timestamp()
                AND (lease_until IS NULL OR lease_until < statement_timestamp())
            ORDER BY id FOR UPDATE
        )
        UPDATE video_videotask t SET fence = fence + 1, claimed_at = statement_timestamp(), claimed_by = %(worker)s,
            lease_until = statement_timestamp() + %(lease)s * interval '1 second',
            rung_at = NULL, deaths = deaths + 1
        FROM free WHERE t.id = free.id RETURNING t.*
        """,
        {"ids": list(task_ids), "worker": str(WORKER), "lease": settings.STAGE_LEASE_SECONDS},
    )
    claims = []
    for task in rows:
        assert task.claimed_at is not None
        claims.append(
            Claim(task=task, stage=Stage.POLL, fence=task.fence, claimed_at=task.claimed_at, progress=task.progress)
        )
    return claims


def park(parks: Sequence[tuple[Claim, Park]]) -> set[str]:
    """Leave these in poll until they are due again; an event each only where something changed.

    Returns the ids of those that were still ours.
    """
    if not parks:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(%(ids)s::text[], %(fences)s::bigint[], %(delays)s::float8[],
                    %(hint_delays)s::float8[], %(reasons)s::text[], %(progress)s::int[], %(records)s::bool[],
                    %(codes)s::text[], %(generations)s::text[])
                    AS g (id, fence, delay_s, hint_delay_s, reason, progress, record, code, generation)
            ), held AS MATERIALIZED (
                SELECT t.id FROM video_videotask t JOIN given ON given.id = t.id AND given.fence = t.fence
                WHERE t.stage = 'poll' AND t.status IN ('pending', 'running')
                ORDER BY t.id FOR UPDATE OF t
            ), parked AS (
                UPDATE video_videotask t SET lease_until = NULL, deaths = 0, rung_at = NULL,
                    next_run_at = statement_timestamp() + interval '1 second' * CASE
                        WHEN t.hinted_at > t.claimed_at THEN least(g.hint_delay_s, g.delay_s) ELSE g.delay_s END,
                    park_reason = left(g.reason, 200), progress = greatest(t.progress, g.progress)
                FROM given g JOIN held ON held.id = g.id WHERE t.id = g.id AND t.fence = g.fence
                RETURNING t.id, t.run, t.fence, t.claimed_at
            ), told AS (
                INSERT INTO video_taskevent
                    (task_id, run, generation_id, stage, outcome, fence, worker, detail, error_code, started_at)
                SELECT p.id, p.run, g.generation, 'poll', 'parked', p.fence, %(worker)s, left(g.reason, 300), g.code,
                    p.claimed_at
                FROM parked p JOIN given g ON g.id = p.id WHERE g.record
            )
            SELECT id FROM parked
            """,
            {
                "ids": [claim.task.pk for claim, _ in parks],
                "fences": [claim.fence for claim, _ in parks],
                "delays": [float(park.delay_s) for _, park in parks],
                "hint_delays": [float(park.hint_delay_s) for _, park in parks],
                "reasons": [park.reason for _, park in parks],
                "progress": [min(park.progress, 99) for _, park in parks],
                "records": [park.record for _, park in parks],
                "codes": [park.error_code for _, park in parks],
                "generations": [claim.generation_id for claim, _ in parks],
                "worker": str(WORKER),
            },
        )
        return {row[0] for row in cursor.fetchall()}


def record_polls(looks: Sequence[tuple[str, JobStatus]]) -> None:
    """Looks at these attempts' jobs were answered, and the jobs go on: remember when, and what was said."""
    if not looks:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH said AS MATERIALIZED (
                SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[]) AS s (id, word, progress)
            ), open AS MATERIALIZED (
                SELECT g.id FROM video_generation g JOIN said ON said.id = g.id
                WHERE g.state = 'accepted' ORDER BY g.id FOR UPDATE OF g
            )
            UPDATE video_generation g SET last_polled_at = statement_timestamp(), polls = g.polls + 1, poll_errors = 0,
                not_found = 0, not_found_since = NULL, provider_status = said.word,
                provider_progress = coalesce(greatest(g.provider_progress, said.progress), said.progress)
            FROM said JOIN open ON open.id = said.id WHERE g.id = said.id
            """,
            [
                [generation_id for generation_id, _ in looks],
                [status.provider_status[:60] for _, status in looks],
                [None if status.progress is None else float(status.progress) for _, status in looks],
            ],
        )


def record_failed_polls(generation_ids: Sequence[str]) -> dict[str, int]:
    """Looks at these attempts' jobs could not be had; how many in a row now, by attempt."""
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
