"""The state machine of a task: the tables of allowed moves, and the moves of one task.

Batches are claimed and parked in `claims`. Each move here is one conditional UPDATE that carries what the writer
believes (fence, stage, status) and writes its TaskEvent in the same statement. False is a normal answer: another worker
has the task, or it has ended, and the caller drops its progress. An illegal move raises before any SQL. Time is the
database's, never a worker's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from psycopg.types.json import Jsonb

from providers.untrusted import shortened, storable
from video.audit import records
from video.audit.actors import Actor
from video.credits import ledger
from video.engine.claims import WORKER, Claim
from video.engine.sql import RECORD_EVENT
from video.infra import database, metrics
from video.infra.after_commit import after_commit
from video.models import Stage, Status, TaskEvent, VideoTask

Outcome = TaskEvent.Outcome

# Where a task in a stage may go next while it is active. Every other move is refused; final moves (failed, cancelled)
# are open from every stage, success only from save.
MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.GENERATE: frozenset({Stage.GENERATE, Stage.POLL}),  # to itself: it waits for another slot
    Stage.POLL: frozenset({Stage.GENERATE, Stage.DOWNLOAD}),  # back: fallback after a verified end
    Stage.DOWNLOAD: frozenset({Stage.POLL, Stage.TRANSCODE}),  # back: the job must be polled again
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
    """A task's progress in percent while its job renders and has come so far, 0 to 1."""
    begin = PROGRESS_AT[Stage.POLL]
    return begin + int((PROGRESS_AT[Stage.DOWNLOAD] - begin) * render)


def render_fraction(progress: int) -> float:
    """The inverse: how far the job is, 0 to 1, of a task in poll with this progress in percent."""
    begin = PROGRESS_AT[Stage.POLL]
    return max(0, progress - begin) / (PROGRESS_AT[Stage.DOWNLOAD] - begin)


WAITS_FOR_CORE = "waits for a core"
CAME_LATE = "the video came after the task had failed; delivered, the refund stays"
#: Grants a core to tasks `t` that wait for one, and marks them as enqueued. `transcode_slots` says which, in a WHERE.
GRANT_CORE = """UPDATE video_videotask t
    SET core_at = statement_timestamp(), rung_at = statement_timestamp(), park_reason = ''"""


#: The tasks of planned attempts are due now, as `due`, with their events: what follows a WITH. Their messages are sent
#: after the commit. `admission` says which tasks.
ADMIT = f"""due AS (
    UPDATE video_videotask t SET admit_at = NULL, next_run_at = statement_timestamp(),
        rung_at = statement_timestamp(), park_reason = '', tries = 0,
        deadline_at = coalesce(deadline_at, statement_timestamp() + %(deadline)s * interval '1 second')
    FROM unnest(%(tasks)s::text[], %(generations)s::text[], %(details)s::text[]) AS g (task, id, detail)
    WHERE t.id = g.task RETURNING t.id, t.user_id, t.run, t.fence, g.id AS generation, g.detail, t.created_at
), recorded AS (
    {RECORD_EVENT}
    SELECT id, run, generation, 'generate', 'admitted', fence, %(worker)s, detail, detail, '', created_at FROM due
)"""  # noqa: S608 - a constant
#: The submit of a held task is about to be sent: it runs from now on, and its deadline counts from here. So a job is
#: never paid for that would be given up at its first poll, however long its task waited for a slot or a worker. No row:
#: the fence or the lease no longer holds. `records.mark_sent` marks the attempt in the same statement.
MARK_RUNNING = """UPDATE video_videotask
    SET status = 'running', started_at = coalesce(started_at, statement_timestamp()),
        deadline_at = statement_timestamp() + %(deadline)s * interval '1 second'
    WHERE id = %(task)s AND fence = %(fence)s AND stage = 'generate' AND status IN ('pending', 'running')
        AND lease_until > statement_timestamp()"""


class IllegalMove(Exception):
    """The code asked for a move that the table does not have: a bug, never a race."""


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
        "video_fps",
        "video_has_sound",
        "warnings",
        "fetched_again_of",
        "thumbnail_bytes",
        "original_bytes",
        "extra_files",
    }
)


def _move(
    claim: Claim,
    sets: str,
    params: dict[str, Any],
    *,
    outcome: Outcome,
    fields: dict[str, Any] | None = None,
    keeps_core: bool = False,
    **event: Any,
) -> bool:
    """The conditional UPDATE behind every move of a held task, with its event; `event` as for `_update`."""
    fields = fields or {}
    extra = "" if keeps_core else ", core_at = NULL"
    for name in fields:
        if name not in _SETTABLE:
            raise IllegalMove(f"{name} is not a stage's to write")
        extra += f", {name} = %(f_{name})s"
    return _update(
        f"""
        UPDATE video_videotask SET lease_until = NULL, deaths = 0, park_code = '', {sets}{extra}
        WHERE id = %(id)s AND fence = %(fence)s AND stage = %(stage)s AND status IN ('pending', 'running')
        """,  # noqa: S608 - column names from the tables above, values as parameters
        {"id": claim.task.pk, "fence": claim.fence, **params, **_values(fields)},
        stage=claim.stage,
        outcome=outcome,
        token=claim.fence,
        started_at=claim.claimed_at,
        **event,
    )


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        f"f_{name}": Jsonb(value) if name in ("warnings", "extra_files") else value for name, value in fields.items()
    }


def _update(
    statement: str,
    params: dict[str, Any],
    *,
    stage: Stage,
    outcome: Outcome,
    detail: str = "",
    owner_detail: str = "",
    error_code: str = "",
    generation_id: str | None = None,
    token: int | None = None,  # the fence under which the writer believes to move it; None: the row's own
    started_at: datetime | None = None,  # None: now
) -> bool:
    """An UPDATE of one task, with its event in the same statement. False: its condition no longer holds."""
    return database.changed(
        f"""
        WITH moved AS ({statement} RETURNING id, run, fence)
        {RECORD_EVENT}
        SELECT id, run, %(generation)s, %(stage)s, %(outcome)s, coalesce(%(token)s::bigint, fence), %(worker)s,
            %(detail)s, %(owner_detail)s, %(error_code)s, coalesce(%(started_at)s, statement_timestamp())
        FROM moved
        """,  # noqa: S608 - constants, values as parameters
        {
            **params,
            "stage": stage.value,
            "outcome": outcome.value,
            "generation": generation_id,
            "worker": str(WORKER),
            "detail": shortened(detail, 300),
            "owner_detail": shortened(owner_detail, 300),
            "error_code": storable(error_code, 60),
            "token": token,
            "started_at": started_at,
        },
    )


def advance(
    claim: Claim,
    to: Stage,
    *,
    delay_s: float = 0,
    detail: str = "",
    generation_id: str | None = None,
    **fields: Any,
) -> bool:
    """Hand the task to the next stage, due in `delay_s` seconds. False: the claim no longer holds; drop the result.

    It counts as enqueued (`rung_at`) when it is due at once, since the chain's next link is on its way. A transcode is
    enqueued only when a core is granted to it, which the thumbnail then keeps.
    """
    refuse_illegal(claim.stage, to)
    return _move(
        claim,
        """stage = %(to)s, tries = 0, park_reason = %(reason)s, progress = greatest(progress, %(progress)s),
        next_run_at = least(statement_timestamp() + %(delay)s * interval '1 second',
            CASE WHEN deadline_at > statement_timestamp() THEN deadline_at END),
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
        owner_detail=detail,
        generation_id=generation_id,
        keeps_core=to is Stage.THUMBNAIL,
    )


def wait_for_slot(
    claim: Claim,
    *,
    delay_s: float,
    reason: str,
    models: list[str] | None = None,
    generation_id: str | None = None,
) -> bool:
    """The task waits again for a slot, a model and a key; not admitted before `delay_s` seconds from now.

    `models`: those that may run it from now on; None leaves them as they are.
    """
    refuse_illegal(claim.stage, Stage.GENERATE)
    return _move(
        claim,
        """stage = 'generate', next_run_at = NULL, rung_at = NULL, tries = 0, park_reason = %(reason)s,
        admit_at = statement_timestamp() + %(delay)s * interval '1 second'""",
        {"delay": delay_s, "reason": shortened(reason, 300)},
        outcome=Outcome.WAITING,
        fields={"eligible_models": models} if models is not None else None,
        detail=reason,
        generation_id=generation_id,
    )


def succeed(claim: Claim, *, generation_id: str | None, **fields: Any) -> bool:
    """The task's success, from save only; the row points to this fence's files from here on."""
    if claim.stage is not Stage.SAVE:
        raise IllegalMove(f"a task in {claim.stage} can't be done")
    done = _move(
        claim,
        """status = 'success', stage = 'done', progress = 100, next_run_at = NULL, rung_at = NULL, tries = 0,
        park_reason = '', deadline_at = NULL, finished_at = statement_timestamp(),
        expires_at = statement_timestamp() + expires_in_s * interval '1 second'""",
        {},
        outcome=Outcome.SUCCEEDED,
        fields=fields,
        generation_id=generation_id,
    )
    if done:
        after_commit(partial(metrics.task_ended, "success"))
    return done


def fail(claim: Claim, *, code: str, message: str, detail: str = "", generation_id: str | None = None) -> bool:
    """End the task as failed with its refund; `task_moves.fail`, which settles the task's attempt too, calls it."""
    with transaction.atomic():
        moved = _move(
            claim,
            """status = 'failed', next_run_at = NULL, rung_at = NULL, park_reason = '', deadline_at = NULL,
            finished_at = statement_timestamp(), error_code = %(error_code)s, error_message = %(message)s""",
            {"message": storable(message, 1000) or "It failed."},
            outcome=Outcome.FAILED,
            detail=detail or message,
            owner_detail=message,
            error_code=storable(code, 60) or "failed",
            generation_id=generation_id,
        )
        if moved:
            ledger.refund(claim.task.pk, claim.task.run)
            after_commit(partial(metrics.task_ended, "failed", code))
        return moved


def prioritise(task_ids: Sequence[str], priority: int, *, by: Actor) -> set[str]:
    """Give tasks that have not ended another place among their user's, -100 to 100. Returns the ids of those."""
    with transaction.atomic():
        rows = database.fetch(
            "UPDATE video_videotask SET priority = %s WHERE id = ANY(%s) AND finished_at IS NULL RETURNING id",
            [priority, list(task_ids)],
        )
        records.record_each(by, "prioritise", "videotask", ((row[0], f"priority {priority}") for row in rows))
    return {row[0] for row in rows}


def note_work_files(claim: Claim) -> None:
    """The task is about to get work files: they are swept when it has ended."""
    if not claim.task.has_work_files:
        VideoTask.objects.filter(pk=claim.task.pk).update(has_work_files=True)


def forget_work_files(task_id: str) -> None:
    """The work files of an ended task are deleted. Not if it was revived meanwhile: its next stage makes new ones."""
    VideoTask.objects.filter(pk=task_id, finished_at__isnull=False).update(has_work_files=False)


def fail_waiting(task: VideoTask, *, code: str, message: str) -> bool:
    """End a task that waits for a slot, and so is unheld, as failed, with its refund. A second run changes nothing."""
    with transaction.atomic():
        moved = _update(
            """
            UPDATE video_videotask SET status = 'failed', admit_at = NULL, rung_at = NULL, fence = fence + 1,
                deadline_at = NULL, finished_at = statement_timestamp(), error_code = %(error_code)s,
                error_message = %(message)s, park_reason = ''
            WHERE id = %(id)s AND fence = %(fence)s AND admit_at IS NOT NULL
            """,
            {"id": task.pk, "fence": task.fence, "message": storable(message, 1000) or "It failed."},
            stage=Stage.GENERATE,
            outcome=Outcome.FAILED,
            detail=message,
            owner_detail=message,
            error_code=code,
        )
        if moved:
            ledger.refund(task.pk, task.run)
            after_commit(partial(metrics.task_ended, "failed", code))
        return moved


def add_fallback_models(task: VideoTask, models: list[str], reason: str) -> bool:
    """A task that waits for a slot may be run by these models from now on. False: it no longer waits."""
    return _update(
        """
        UPDATE video_videotask SET eligible_models = %(models)s, park_reason = %(detail)s
        WHERE id = %(id)s AND fence = %(fence)s AND admit_at IS NOT NULL
        """,
        {"id": task.pk, "fence": task.fence, "models": models},
        stage=Stage.GENERATE,
        outcome=Outcome.WAITING,
        detail=shortened(reason, 300),
    )


def revive(task_id: str, run: int, generation_id: str) -> bool:
    """A late result: bring a failed task back to download, with a deadline of its own. The refund stays; nothing is
    debited again.

    Only while no newer run and no newer generation exists, and its owner has not deleted it.
    """
    return _update(
        """
        UPDATE video_videotask t SET status = 'running', stage = 'download', error_code = '', error_message = '',
            next_run_at = statement_timestamp(), rung_at = NULL, finished_at = NULL, tries = 0, deaths = 0,
            fence = fence + 1, has_work_files = true, park_reason = '',
            deadline_at = statement_timestamp() + %(deadline)s * interval '1 second'
        WHERE t.id = %(task)s AND t.run = %(run)s AND t.status = 'failed' AND t.gone_why <> 'deleted' AND NOT EXISTS (
            SELECT FROM video_generation newer JOIN video_generation mine ON mine.id = %(generation)s
            WHERE newer.task_id = t.id AND newer.attempt > mine.attempt)
        """,
        {"task": task_id, "run": run, "deadline": settings.TASK_DEADLINE_SECONDS},
        stage=Stage.DOWNLOAD,
        outcome=Outcome.RESUMED,
        detail=CAME_LATE,
        owner_detail=CAME_LATE,
        generation_id=generation_id,
    )
