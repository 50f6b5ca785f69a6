"""Claims: taking due stages for a lease, keeping them, and parking them. One task is a batch of one.

A claim takes a new fence, and every later write of the stage carries it: a worker whose claim was taken over finds no
row to write. Rows of one statement are locked in the order of their ids, here and in `dead_workers`, so that no two
statements wait for each other.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils.functional import SimpleLazyObject

from providers.untrusted import shortened, storable
from video.engine.outcomes import Park
from video.engine.sql import RECORD_EVENT, SUBMIT_IS_PAUSED, UNHELD, USERS
from video.infra import database
from video.infra.rows import Columns
from video.models import Generation, Stage, VideoTask

#: A task whose claims crash this often is failed rather than let kill workers for ever.
MAX_CRASHED_CLAIMS = 6


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


WORKER = SimpleLazyObject(_worker_name)


@dataclass
class Claim:
    """A stage of a task, held until its lease ends. `lost` is set when the renewal of leases finds it taken over."""

    task: VideoTask
    stage: Stage
    fence: int
    claimed_at: datetime
    #: What generate, poll and download work on: the last one; in generate the live one, if there is any.
    attempt: Generation | None = None
    user_is_active: bool = True
    is_paused: bool = False  # in generate: operators have paused something that a submit of the attempt needs
    last_by: str = ""  # the worker of the claim before this one
    last_at: datetime | None = None  # when that claim was made
    lost: threading.Event = field(default_factory=threading.Event)
    was_suspended: bool = False  # for longer than a lease, with its whole process
    released: bool = False  # with `lost`: the claim still holds, but the worker stops; park it for another worker
    progress: int = 0  # of the whole task in percent, written with the next renewal
    generation_id: str | None = None  # the attempt that the stage works on, for the timeline

    @property
    def is_past_deadline(self) -> bool:
        """Whether the task's deadline had passed at the claim: a stage that would wait for a provider ends it then."""
        return self.task.deadline_at is not None and self.claimed_at >= self.task.deadline_at


def claim(stage: Stage, task_ids: Sequence[str]) -> list[Claim]:
    """Take those of these tasks that are due in `stage` and unheld, each for one lease and under a new fence.

    A transcode is left out while no core was granted to it: a message that was delivered twice must not start it before
    its turn. An attempt may have changed while the statement waited for its task: what is written about it says what it
    believes.
    """
    rows = database.fetch(
        f"""
        WITH free AS MATERIALIZED (
            SELECT id, claimed_by, claimed_at FROM video_videotask
            WHERE id = ANY(%(ids)s) AND stage = %(stage)s AND status IN ('pending', 'running')
                AND next_run_at <= statement_timestamp()
                AND {UNHELD}
                AND (stage <> 'transcode' OR core_at IS NOT NULL)
            ORDER BY id FOR NO KEY UPDATE
        ), claimed AS (
            UPDATE video_videotask t SET fence = fence + 1, claimed_at = statement_timestamp(),
                claimed_by = %(worker)s, lease_until = statement_timestamp() + %(lease)s * interval '1 second',
                rung_at = NULL, deaths = deaths + 1, core_at = CASE
                    WHEN stage IN ('transcode', 'thumbnail') THEN coalesce(core_at, statement_timestamp()) END
            FROM free WHERE t.id = free.id RETURNING t.*, free.claimed_by AS last_by, free.claimed_at AS last_at
        )
        SELECT t.last_by, t.last_at, u.is_active, t.stage = 'generate' AND {SUBMIT_IS_PAUSED},
            {_TASK.of("t")}, {_ATTEMPT.of("g")}
        FROM claimed t JOIN {USERS} u ON u.id = t.user_id LEFT JOIN LATERAL (
            SELECT * FROM video_generation
            WHERE task_id = t.id AND t.stage IN ('generate', 'poll', 'download')
            ORDER BY t.stage = 'generate' AND state {Generation.LIVE_SQL} DESC, attempt DESC LIMIT 1
        ) g ON true
        """,  # noqa: S608 - a constant
        {
            "ids": list(task_ids),
            "stage": stage.value,
            "worker": str(WORKER),
            "lease": settings.STAGE_LEASE_SECONDS,
        },
    )
    return [_claim_of(stage, *row) for row in rows]


_TASK = Columns(VideoTask)
_ATTEMPT = Columns(Generation, without={"candidates"})  # they are long


def _claim_of(
    stage: Stage, last_by: str, last_at: datetime | None, user_is_active: bool, is_paused: bool, *values: Any
) -> Claim:
    task: VideoTask = _TASK.row(values[: len(_TASK)])
    attempt: Generation | None = _ATTEMPT.row(values[len(_TASK) :])
    assert task.claimed_at is not None
    if attempt is not None:
        attempt.task = task
    return Claim(
        task=task,
        stage=stage,
        fence=task.fence,
        claimed_at=task.claimed_at,
        attempt=attempt,
        user_is_active=user_is_active,
        is_paused=is_paused,
        last_by=last_by,
        last_at=last_at,
        progress=task.progress,
    )


def is_poison(claim: Claim) -> bool:
    """Whether so many claims of this task crashed that it must not be worked on any more."""
    return claim.task.deaths > MAX_CRASHED_CLAIMS


def describe_crashes(claim: Claim) -> str:
    """For operators: how many claims of a poison task crashed, in which stage, the last by which worker and when."""
    found = f"{claim.task.deaths - 1} claims of {claim.stage} ended without a word"
    if not claim.last_by or claim.last_at is None:
        return found
    return f"{found}; the last by {claim.last_by}, begun at {claim.last_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def renew_leases(held: Sequence[Claim]) -> set[tuple[str, int]]:
    """Renew the leases of all these claims in one statement. Returns (task id, fence) of those that still hold."""
    rows = database.fetch(
        """
        WITH known AS MATERIALIZED (
            SELECT * FROM unnest(%s::text[], %s::bigint[], %s::int[]) AS k (id, fence, progress)
        ), held AS MATERIALIZED (
            SELECT t.id, known.progress FROM video_videotask t
            JOIN known ON known.id = t.id AND known.fence = t.fence
            WHERE t.lease_until IS NOT NULL ORDER BY t.id FOR UPDATE OF t
        )
        UPDATE video_videotask t SET lease_until = statement_timestamp() + %s * interval '1 second',
            progress = greatest(t.progress, held.progress)
        FROM held WHERE t.id = held.id
        RETURNING t.id, t.fence
        """,
        [
            [claim.task.pk for claim in held],
            [claim.fence for claim in held],
            [_percent(claim.progress) for claim in held],
            settings.STAGE_LEASE_SECONDS,
        ],
    )
    return {(row[0], row[1]) for row in rows}


def _percent(progress: int) -> int:
    """Progress of a task that has not ended."""
    return min(max(progress, 0), 99)


def _is_same_wait(claim: Claim, park: Park) -> bool:
    """Whether the task was parked with this code before, and nothing else came between."""
    return park.code != "" and claim.task.park_code == park.code


def park(parks: Sequence[tuple[Claim, Park]]) -> set[str]:
    """Leave these stages in the database until they are due again. Returns the ids of tasks whose claim still held.

    A hint newer than the claim (a call-back that came during the poll) makes a task due in `hint_delay_s` if that is
    sooner; so does its deadline, while that is still to come. Only a park that asks for it is recorded as an event. A
    second run, before another claim, parks them anew.
    """
    if not parks:
        return set()
    rows = database.fetch(
        f"""
        WITH given AS MATERIALIZED (
            SELECT * FROM unnest(%(ids)s::text[], %(fences)s::bigint[], %(stages)s::text[], %(delays)s::float8[],
                %(hint_delays)s::float8[], %(reasons)s::text[], %(owner_details)s::text[], %(tries)s::int[],
                %(progress)s::int[], %(records)s::bool[], %(codes)s::text[], %(error_codes)s::text[],
                %(generations)s::text[])
                AS g (id, fence, stage, delay_s, hint_delay_s, reason, owner_detail, tries, progress, record, code,
                    error_code, generation)
        ), held AS MATERIALIZED (
            SELECT t.id FROM video_videotask t
            JOIN given ON given.id = t.id AND given.fence = t.fence AND given.stage = t.stage
            WHERE t.status IN ('pending', 'running')
            ORDER BY t.id FOR NO KEY UPDATE OF t
        ), parked AS (
            UPDATE video_videotask t SET lease_until = NULL, deaths = 0, rung_at = NULL, core_at = NULL,
                next_run_at = least(
                    statement_timestamp() + interval '1 second' * CASE
                        WHEN t.hinted_at > t.claimed_at THEN least(g.hint_delay_s, g.delay_s) ELSE g.delay_s END,
                    CASE WHEN t.deadline_at > statement_timestamp() THEN t.deadline_at END),
                park_reason = left(g.reason, 300), park_code = g.code, tries = t.tries + g.tries,
                progress = greatest(t.progress, g.progress)
            FROM given g JOIN held ON held.id = g.id WHERE t.id = g.id AND t.fence = g.fence
            RETURNING t.id, t.run, t.stage, t.claimed_at
        ), recorded AS (
            {RECORD_EVENT}
            SELECT p.id, p.run, g.generation, p.stage, 'parked', g.fence, %(worker)s, left(g.reason, 300),
                left(g.owner_detail, 300), g.error_code, p.claimed_at
            FROM parked p JOIN given g ON g.id = p.id WHERE g.record
        )
        SELECT id FROM parked
        """,  # noqa: S608 - constants
        {
            "ids": [claim.task.pk for claim, _ in parks],
            "fences": [claim.fence for claim, _ in parks],
            "stages": [claim.stage.value for claim, _ in parks],
            "delays": [park.delay_s for _, park in parks],
            "hint_delays": [park.hint_delay_s for _, park in parks],
            "reasons": [shortened(park.reason, 300) for _, park in parks],
            "owner_details": [shortened(park.owner_detail, 300) for _, park in parks],
            "tries": [int(park.counts_as_try) for _, park in parks],
            "progress": [_percent(park.progress) for _, park in parks],
            "records": [park.record and not _is_same_wait(claim, park) for claim, park in parks],
            "codes": [storable(park.code, 60) for _, park in parks],
            "error_codes": [storable(park.error_code, 60) for _, park in parks],
            "generations": [claim.generation_id for claim, _ in parks],
            "worker": str(WORKER),
        },
    )
    return {row[0] for row in rows}
