"""The state machine of a task: claim, advance, park, wait, finish. The only writers of status, stage and clocks.

Each move is one conditional UPDATE that carries what the writer believes (fence, stage, status) and writes its
TaskEvent in the same statement. Losing is a normal answer (False or None): somebody else has the task, and the loser
drops its progress. An illegal move raises before any SQL. Time is the database's, never a worker's.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils.functional import SimpleLazyObject

from video.credits import ledger
from video.models import Stage, Status, TaskEvent, VideoTask

Outcome = TaskEvent.Outcome

# Where a task in a stage may go next while it is active. Every other move is refused; final moves (failed, cancelled)
# are open from everywhere, success only from save.
MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.GENERATE: frozenset({Stage.GENERATE, Stage.POLL}),  # to itself: back in line for another slot
    Stage.POLL: frozenset({Stage.GENERATE, Stage.DOWNLOAD}),  # back: fallback after a verified end
    Stage.DOWNLOAD: frozenset({Stage.POLL, Stage.TRANSCODE}),  # back: the job must be looked at again
    Stage.TRANSCODE: frozenset({Stage.DOWNLOAD, Stage.THUMBNAIL}),  # back: the source is gone from storage
    Stage.THUMBNAIL: frozenset({Stage.TRANSCODE, Stage.SAVE}),
    Stage.SAVE: frozenset({Stage.TRANSCODE}),
    Stage.DONE: frozenset(),
}
# Where a status may go. Back from failed: a retry, or a video that came late; from cancelled: a retry only.
STATUS_MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.SUCCESS, Status.FAILED, Status.CANCELLED}),
    Status.SUCCESS: frozenset(),
    Status.FAILED: frozenset({Status.RUNNING}),
    Status.CANCELLED: frozenset({Status.RUNNING}),
}
# Where an ended task may go on: with a new attempt, or with what the last one left.
RESUMES_AT = frozenset({Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.TRANSCODE})
# A task whose claims end without a word this often is set aside rather than let kill workers for ever.
MAX_CRASHED_CLAIMS = 6
# Percent done when a stage begins. Measured shares of a usual job: the provider's render is most of the wait.
PROGRESS_AT: dict[Stage, int] = {
    Stage.GENERATE: 0,
    Stage.POLL: 5,
    Stage.DOWNLOAD: 70,
    Stage.TRANSCODE: 75,
    Stage.THUMBNAIL: 95,
    Stage.SAVE: 97,
    Stage.DONE: 100,
}
STAGES = tuple(Stage)


def progress_in_poll(render: float) -> int:
    """A task's progress in percent while its job renders and is so far, 0 to 1."""
    begin = PROGRESS_AT[Stage.POLL]
    return begin + int((PROGRESS_AT[Stage.DOWNLOAD] - begin) * render)


def render_fraction(progress: int) -> float:
    """The other way round: how far the job is of a task in poll with this progress."""
    begin = PROGRESS_AT[Stage.POLL]
    return max(0, progress - begin) / (PROGRESS_AT[Stage.DOWNLOAD] - begin)


WAITS_FOR_CORE = "waits for a core"


class IllegalMove(Exception):
    """The code asked for a move that the table does not have: a bug, never a race."""


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


WORKER = SimpleLazyObject(_worker_name)


@dataclass
class Claim:
    """A stage of a task, held until its lease ends. `lost` is set when the heartbeat finds it no longer ours."""

    task: VideoTask
    stage: Stage
    fence: int
    claimed_at: datetime
    lost: threading.Event = field(default_factory=threading.Event)
    was_suspended: bool = False  # for longer than a lease, with its whole process
    released: bool = False  # with `lost`: it is still ours, but the worker stops; park it for another
    progress: int = 0  # of the whole task, written by the next heartbeat
    generation_id: str | None = None  # the attempt that the stage works on, for the timeline


def refuse_illegal(stage: Stage, to: Stage) -> None:
    """Raise IllegalMove unless an active task in `stage` may go to `to`."""
    if to not in MOVES[stage]:
        raise IllegalMove(f"a task in {stage} can't go to {to}")


def statuses_before(to: Status) -> list[str]:
    """From where a task may come into this status."""
    return [status.value for status, after in STATUS_MOVES.items() if to in after]


def next_stage(stage: Stage) -> Stage:
    """The stage after this one."""
    return STAGES[STAGES.index(stage) + 1]


def claim(task_id: str, stage: Stage) -> Claim | None:
    """Take a due stage for one lease, under a new fence.

    None: not due, not there any more, or somebody has it; a transcode also when no core was given to it, as with a bell
    that was rung twice: its turn is still to come.
    """
    rows = VideoTask.objects.raw(
        """
        UPDATE video_videotask t SET fence = t.fence + 1, claimed_at = statement_timestamp(), claimed_by = %(worker)s,
            lease_until = statement_timestamp() + %(lease)s * interval '1 second',
            rung_at = NULL, deaths = t.deaths + 1,
            core_at = CASE WHEN t.stage IN ('transcode', 'thumbnail')
                THEN coalesce(t.core_at, statement_timestamp()) END
        FROM (SELECT id, claimed_by, claimed_at FROM video_videotask WHERE id = %(id)s) was
        WHERE t.id = was.id AND t.stage = %(stage)s AND t.status IN ('pending', 'running')
            AND t.next_run_at <= statement_timestamp()
            AND (t.lease_until IS NULL OR t.lease_until < statement_timestamp())
            AND (t.stage <> 'transcode' OR t.core_at IS NOT NULL)
        RETURNING t.*, was.claimed_by AS last_by, was.claimed_at AS last_at
        """,
        {"worker": str(WORKER), "lease": settings.STAGE_LEASE_SECONDS, "id": task_id, "stage": stage.value},
    )
    for task in rows:
        assert task.claimed_at is not None
        return Claim(task=task, stage=stage, fence=task.fence, claimed_at=task.claimed_at, progress=task.progress)
    return None


def describe_crashes(claim: Claim) -> str:
    """What is known of a task whose workers die of it: how often, in which stage, and who was the last, since when."""
    task = claim.task
    told = f"{task.deaths - 1} claims of {claim.stage} ended without a word"
    last_by, last_at = getattr(task, "last_by", ""), getattr(task, "last_at", None)
    if not last_by or last_at is None:
        return told
    return f"{told}; the last by {last_by}, begun at {last_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def renew_leases(claims: list[Claim]) -> set[tuple[str, int]]:
    """Renew the leases of all these claims in one statement; returns (task id, fence) of those that still hold."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH known AS MATERIALIZED (
                SELECT * FROM unnest(%s::text[], %s::bigint[], %s::int[]) AS k (id, fence, progress)
            ), held AS MATERIALIZED (
                -- In the order of ids, as waves lock theirs.
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
                [c.task.pk for c in claims],
                [c.fence for c in claims],
                [c.progress for c in claims],
                settings.STAGE_LEASE_SECONDS,
            ],
        )
        return {(row[0], row[1]) for row in cursor.fetchall()}


_SETTABLE = frozenset(
    {
        "eligible_models",
        "source_key",
        "output_key",
        "thumbnail_key",
        "has_work_files",
        "video_id",
        "video_bytes",
        "video_width_px",
        "video_height_px",
        "video_duration_s",
    }
)


def _move(
    claim: Claim,
    sets: str,
    params: dict[str, Any],
    *,
    outcome: Outcome,
    fields: dict[str, Any] | None = None,
    detail: str = "",
    error_code: str = "",
    generation_id: str | None = None,
    record: bool = True,
    keeps_core: bool = False,
) -> bool:
    """The one conditional UPDATE behind every move of a held task, with its event in the same statement."""
    extra = "" if keeps_core else ", core_at = NULL"
    for name in fields or {}:
        if name not in _SETTABLE:
            raise IllegalMove(f"{name} is not a stage's to write")
        extra += f", {name} = %(f_{name})s"
    update = f"""
        UPDATE video_videotask SET lease_until = NULL, deaths = 0, {sets}{extra}
        WHERE id = %(id)s AND fence = %(fence)s AND stage = %(stage)s AND status IN ('pending', 'running')
        RETURNING id, run
    """  # noqa: S608 - column names from the tables above, values as parameters
    if record:
        update = f"""
            WITH moved AS ({update})
            INSERT INTO video_taskevent
                (task_id, run, generation_id, stage, outcome, fence, worker, detail, error_code, started_at)
            SELECT id, run, %(generation)s, %(stage)s, %(outcome)s, %(fence)s, %(worker)s, %(detail)s,
                %(error_code)s, %(claimed_at)s
            FROM moved
        """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            update,
            {
                **params,
                **{f"f_{name}": value for name, value in (fields or {}).items()},
                "id": claim.task.pk,
                "fence": claim.fence,
                "stage": claim.stage.value,
                "worker": str(WORKER),
                "outcome": outcome.value,
                "detail": detail[:300],
                "error_code": error_code,
                "generation": generation_id,
                "claimed_at": claim.claimed_at,
            },
        )
        return cursor.rowcount == 1


def advance(
    claim: Claim,
    to: Stage,
    *,
    delay_s: float = 0,
    detail: str = "",
    generation_id: str | None = None,
    **fields: Any,
) -> bool:
    """Hand the task to the next stage, due in `delay_s` seconds. False: it is no longer ours, drop the result.

    `rung_at` is set when it is due at once, since the chain's next link is on its way; but before a transcode it waits
    for a core (`cores.py`), which the thumbnail then keeps.
    """
    refuse_illegal(claim.stage, to)
    return _move(
        claim,
        """stage = %(to)s, tries = 0, park_reason = %(reason)s, progress = greatest(progress, %(progress)s),
        next_run_at = statement_timestamp() + %(delay)s * interval '1 second',
        rung_at = CASE WHEN %(delay)s = 0 AND %(to)s <> 'transcode' THEN statement_timestamp() END""",
        {
            "to": to.value,
            "progress": PROGRESS_AT[to],
            "delay": delay_s,
            "reason": WAITS_FOR_CORE if to is Stage.TRANSCODE else "",
        },
        outcome=Outcome.ADVANCED,
        fields=fields,
        detail=detail,
        generation_id=generation_id,
        keeps_core=to is Stage.THUMBNAIL,
    )


def park(
    claim: Claim,
    *,
    delay_s: float,
    reason: str,
    hint_delay_s: float = 0,
    counts_as_try: bool = False,
    progress: int = 0,
    error_code: str = "",
    generation_id: str | None = None,
    record: bool = True,
) -> bool:
    """Leave the stage in the database until it is due again, in `delay_s` seconds.

    A hint newer than the claim (a call-back came while we looked) makes it due in `hint_delay_s` instead. A park that
    changed nothing is not recorded.
    """
    return _move(
        claim,
        """next_run_at = statement_timestamp() + interval '1 second' *
            CASE WHEN hinted_at > claimed_at THEN least(%(hint_delay)s, %(delay)s) ELSE %(delay)s END,
        rung_at = NULL, park_reason = %(reason)s, tries = tries + %(tries)s,
        progress = greatest(progress, %(progress)s)""",
        {
            "delay": delay_s,
            "hint_delay": hint_delay_s,
            "reason": reason[:200],
            "tries": int(counts_as_try),
            "progress": min(progress, 99),
        },
        outcome=Outcome.PARKED,
        detail=reason,
        error_code=error_code,
        generation_id=generation_id,
        record=record,
    )


def wait_for_slot(
    claim: Claim,
    *,
    delay_s: float,
    reason: str,
    models: list[str] | None = None,
    generation_id: str | None = None,
) -> bool:
    """Put the task back in line for a slot, a model and a key; not before `delay_s` seconds from now.

    `models`: those that may run it from now on; None leaves them as they are.
    """
    refuse_illegal(claim.stage, Stage.GENERATE)
    return _move(
        claim,
        """stage = 'generate', next_run_at = NULL, rung_at = NULL, tries = 0, park_reason = %(reason)s,
        admit_at = statement_timestamp() + %(delay)s * interval '1 second'""",
        {"delay": delay_s, "reason": reason[:200]},
        outcome=Outcome.WAITING,
        fields={"eligible_models": models} if models is not None else None,
        detail=reason,
        generation_id=generation_id,
    )


def succeed(claim: Claim, *, generation_id: str | None, **fields: Any) -> bool:
    """The task's success, from save only; the row points to this fence's files from here on."""
    if claim.stage is not Stage.SAVE:
        raise IllegalMove(f"a task in {claim.stage} can't be done")
    return _move(
        claim,
        """status = 'success', stage = 'done', progress = 100, next_run_at = NULL, rung_at = NULL, tries = 0,
        park_reason = '', deadline_at = NULL, finished_at = statement_timestamp()""",
        {},
        outcome=Outcome.SUCCEEDED,
        fields=fields,
        generation_id=generation_id,
    )


def fail(claim: Claim, *, code: str, message: str, detail: str = "", generation_id: str | None = None) -> bool:
    """End the task as failed and give its credits back, in one transaction. A planned attempt ends as rejected.

    `message` is a plain sentence for the user; `detail` is for operators.
    """
    with transaction.atomic():
        moved = _move(
            claim,
            """status = 'failed', next_run_at = NULL, rung_at = NULL, park_reason = '', deadline_at = NULL,
            finished_at = statement_timestamp(), error_code = %(code)s, error_message = %(message)s""",
            {"code": code, "message": message},
            outcome=Outcome.FAILED,
            detail=detail or message,
            error_code=code,
            generation_id=generation_id,
        )
        if moved:
            _leave_attempt(claim.task.pk, claim.stage)
            ledger.refund(claim.task.pk, claim.task.run)
        return moved


def _leave_attempt(task_id: str, stage: Stage) -> None:
    """The attempt of a task that fails in `stage`: one that was never sent frees its slot, an open job is looked at
    later, an unanswered submit is looked up where its provider can tell, and one that somebody else has just seen end
    well is delivered late."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_generation SET state = 'rejected', ended_at = statement_timestamp(), error_code = 'task_ended'
            WHERE task_id = %s AND state = 'planned'
            """,
            [task_id],
        )
        cursor.execute(
            """
            UPDATE video_generation SET look_at = statement_timestamp() + interval '1 hour' * (state = 'accepted')::int
            WHERE task_id = %s AND state IN ('accepted', 'unknown') AND look_at IS NULL
            """,
            [task_id],
        )
        if stage in {Stage.GENERATE, Stage.POLL}:
            cursor.execute(
                """
                UPDATE video_generation SET look_at = statement_timestamp()
                WHERE task_id = %s AND state = 'succeeded' AND look_at IS NULL
                """,
                [task_id],
            )


def fail_waiting(task: VideoTask, *, code: str, message: str) -> bool:
    """End a task that waits for a slot (nobody holds it) as failed, with its refund."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                """
                WITH moved AS (
                    UPDATE video_videotask SET status = 'failed', admit_at = NULL, rung_at = NULL, fence = fence + 1,
                        deadline_at = NULL, finished_at = statement_timestamp(), error_code = %(code)s,
                        error_message = %(message)s, park_reason = ''
                    WHERE id = %(id)s AND fence = %(fence)s AND admit_at IS NOT NULL RETURNING id, run, fence
                )
                INSERT INTO video_taskevent (task_id, run, stage, outcome, fence, worker, detail, error_code)
                SELECT id, run, 'generate', 'failed', fence, %(worker)s, %(message)s, %(code)s FROM moved
                """,
                {
                    "code": code,
                    "message": message,
                    "id": task.pk,
                    "fence": task.fence,
                    "worker": str(WORKER),
                },
            )
            moved = cursor.rowcount == 1
        if moved:
            ledger.refund(task.pk, task.run)
        return moved


def add_fallback_models(task: VideoTask, models: list[str], reason: str) -> bool:
    """A waiting task may be run by these models from now on."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH moved AS (
                UPDATE video_videotask SET eligible_models = %(models)s, park_reason = %(reason)s
                WHERE id = %(id)s AND fence = %(fence)s AND admit_at IS NOT NULL RETURNING id, run, fence
            )
            INSERT INTO video_taskevent (task_id, run, stage, outcome, fence, worker, detail, error_code)
            SELECT id, run, 'generate', 'waiting', fence, %(worker)s, %(reason)s, '' FROM moved
            """,
            {"models": models, "reason": reason[:200], "id": task.pk, "fence": task.fence, "worker": str(WORKER)},
        )
        return cursor.rowcount == 1


def revive(task_id: str, run: int, generation_id: str) -> bool:
    """A late result: bring a failed task back to download. The refund stays; nothing is debited again.

    Only while no newer run and no newer generation exists.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH moved AS (
                UPDATE video_videotask t SET status = 'running', stage = 'download', error_code = '',
                    error_message = '', next_run_at = statement_timestamp(), rung_at = NULL, finished_at = NULL,
                    tries = 0, deaths = 0, fence = fence + 1, has_work_files = true, park_reason = ''
                WHERE t.id = %(task)s AND t.run = %(run)s AND t.status = 'failed' AND NOT EXISTS (
                    SELECT FROM video_generation newer JOIN video_generation mine ON mine.id = %(generation)s
                    WHERE newer.task_id = t.id AND newer.attempt > mine.attempt)
                RETURNING id, run, fence
            )
            INSERT INTO video_taskevent (task_id, run, generation_id, stage, outcome, fence, worker, detail, error_code)
            SELECT id, run, %(generation)s, 'download', 'resumed', fence, %(worker)s,
                'the video came after the task had failed; delivered, the refund stays', '' FROM moved
            """,
            {"task": task_id, "run": run, "generation": generation_id, "worker": str(WORKER)},
        )
        return cursor.rowcount == 1
