"""Cancel a task: one code path for the API, the admin and the commands.

One transaction locks the task, then its last attempt, then the credit account, as every other transition does. It takes
a new fence, so a worker that still writes finds no row. No provider is called here: a job that must stop gets
`cancel_wanted_at`, and `attempts/reconcile.py` asks its provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from django.db import transaction

from video.actions import task_rows
from video.actions.task_rows import ActionRefused, NoSuchTask, TaskDeleted
from video.attempts import task_moves
from video.audit import records
from video.audit.actors import Actor, Unaudited
from video.credits import ledger
from video.engine import transitions
from video.infra import database, metrics
from video.infra.after_commit import after_commit
from video.models import Generation, Stage, Status, TaskEvent, VideoTask

State = Generation.State
#: What a cancel makes of a row.
_ENDED = """status = 'cancelled', fence = fence + 1, lease_until = NULL, next_run_at = NULL,
            admit_at = NULL, rung_at = NULL, core_at = NULL, deadline_at = NULL, park_reason = '', park_code = '',
            finished_at = statement_timestamp()"""


class Refund(StrEnum):
    """What a cancel does to the credits of the run."""

    DONE = "refunded"
    PENDING = "pending"  # decided when the provider's job has ended
    NONE = "none"  # the provider has done its work, or the run cost nothing

    @property
    def words(self) -> str:
        """For people."""
        if self is Refund.PENDING:
            return "the refund is decided when its job has ended"
        return "refunded" if self is Refund.DONE else "no refund"


@dataclass(frozen=True)
class Cancelled:
    """A task that is cancelled now."""

    task_id: str
    run: int
    stage: Stage  # where it was when it was cancelled
    refund: Refund
    changed: bool  # False: it had been cancelled before
    asks_provider: bool = False  # its provider is asked to stop its job

    @property
    def words(self) -> str:
        """For people: where it was, and what follows."""
        asked = "; its provider is asked to stop" if self.asks_provider else ""
        return f"in {self.stage}; {self.refund.words}{asked}"


def cancel(task_id: str, *, by: Actor | Unaudited, user_id: int | None = None, only_waiting: bool = False) -> Cancelled:
    """Cancel a task in any stage; of this user only, if one is given. `by`: whom the timeline names; what an operator
    does is recorded.

    Raises NoSuchTask, and ActionRefused: `not_cancellable` once the task has ended otherwise, `not_waiting` if it has a
    slot by now and `only_waiting` tasks are to be cancelled. Safe to repeat: a second run changes nothing and answers
    with `changed=False`.
    """
    with transaction.atomic():
        moved = _cancel_row(task_id, user_id, only_waiting=only_waiting)
        if moved is None:
            task = task_rows.find(task_id, user_id)
            if only_waiting and task.is_active:
                raise ActionRefused("not_waiting", "This task was not cancelled: it got a slot a moment ago.")
            return _cancelled_before(task)
        run, stage, _ = moved
        last = task_rows.last_attempt(task_id, lock=True)
        refund = refund_of(last, run)
        task_moves.leave_cancelled([] if last is None else [last])
        if refund is Refund.DONE and not ledger.refund(task_id, run):
            refund = Refund.NONE  # it was never paid, or had been refunded when its run failed
        event = _event(task_id, moved, last, refund, by=by)
        task_rows.record_events([event])
        done = Cancelled(task_id, run, stage, refund, changed=True, asks_provider=_has_job(last))
        records.record(by, "cancel", "videotask", task_id, detail=done.words)
        after_commit(partial(metrics.task_ended, "cancelled"))
    return done


def _event(
    task_id: str, moved: tuple[int, Stage, int], last: Generation | None, refund: Refund, *, by: Actor | Unaudited
) -> TaskEvent:
    """What the timeline says of a cancel. `moved`: as of `_cancel_row`."""
    run, stage, fence = moved
    cancelled = TaskEvent.Outcome.CANCELLED
    return task_rows.event_of(
        task_id, run, last, stage, cancelled, fence=fence, by=by, action="cancelled", consequence=refund.words
    )


def would_cancel(task_id: str) -> Cancelled:
    """What `cancel` would answer now; changes nothing. Raises as it does."""
    task = task_rows.find(task_id, None)
    if not task.is_active:
        return _cancelled_before(task)
    last = task_rows.last_attempt(task_id)
    refund = refund_of(last, task.run)
    return Cancelled(task_id, task.run, Stage(task.stage), refund, changed=True, asks_provider=_has_job(last))


def refund_of(last: Generation | None, run: int) -> Refund:
    """What a cancel now would do to the credits of this run, by the task's last attempt."""
    if last is None or last.run != run:
        return Refund.DONE
    if last.state in {State.UNKNOWN, State.ACCEPTED}:
        return Refund.PENDING
    return Refund.NONE if last.state == State.SUCCEEDED else Refund.DONE


def _has_job(last: Generation | None) -> bool:
    return last is not None and last.state == State.ACCEPTED


def _cancel_row(task_id: str, user_id: int | None, *, only_waiting: bool) -> tuple[int, Stage, int] | None:
    """The one conditional UPDATE: (run, stage, new fence), or None if the task does not exist or has ended."""
    row = database.fetch_one(
        f"""
        UPDATE video_videotask SET {_ENDED}
        WHERE id = %(id)s AND status = ANY(%(active)s) AND user_id = coalesce(%(user)s, user_id)
            AND (admit_at IS NOT NULL OR NOT %(only_waiting)s)
        RETURNING run, stage, fence
        """,  # noqa: S608 - a constant
        {
            "id": task_id,
            "active": transitions.statuses_before(Status.CANCELLED),
            "user": user_id,
            "only_waiting": only_waiting,
        },
    )
    return None if row is None else (row[0], Stage(row[1]), row[2])


def _cancelled_before(task: VideoTask) -> Cancelled:
    """The answer to a cancel that changes nothing. Raises ActionRefused if the task has ended otherwise."""
    last = task_rows.last_attempt(task.pk) if task.status == Status.CANCELLED else None
    return _ended_before(
        task, last, is_refunded=task_rows.is_refunded(task)
    )  # read after the attempt, whose end refunds


def _ended_before(task: VideoTask, last: Generation | None, *, is_refunded: bool) -> Cancelled:
    if task.is_deleted:
        raise TaskDeleted
    if task.status != Status.CANCELLED:
        made = "its video was made, and is gone now" if task.gone_why else "its video is stored"
        how = made if task.status == Status.SUCCESS else "it has failed, and its credits came back"
        raise ActionRefused("not_cancellable", f"This task can't be cancelled any more: {how}.")
    refund = refund_of(last, task.run)
    if is_refunded:
        refund = Refund.DONE
    elif refund is not Refund.PENDING:
        refund = Refund.NONE
    return Cancelled(task.pk, task.run, Stage(task.stage), refund, changed=False)


def cancel_many(task_ids: Sequence[str], *, by: Unaudited, user_id: int) -> dict[str, Cancelled | ActionRefused]:
    """Cancel several tasks of a user: by id, what was done or why not, as `cancel` would say it of each.

    One transaction, and a fixed number of statements however many they are. It locks all tasks, then all attempts, then
    the account, so that it never waits for a transition that waits for it.
    """
    with transaction.atomic():
        moved = _cancel_rows(task_ids, user_id)
        last = task_rows.last_attempts(moved, lock=True)
        refunds = {one: refund_of(last.get(one), run) for one, (run, _, _) in moved.items()}
        task_moves.leave_cancelled(last.values())
        paid = ledger.refund_many([(one, moved[one][0]) for one, refund in refunds.items() if refund is Refund.DONE])
        found: dict[str, Cancelled | ActionRefused] = {}
        for one, (run, stage, _) in moved.items():
            if refunds[one] is Refund.DONE and one not in paid:
                refunds[one] = Refund.NONE
            found[one] = Cancelled(one, run, stage, refunds[one], changed=True, asks_provider=_has_job(last.get(one)))
        task_rows.record_events([_event(one, row, last.get(one), refunds[one], by=by) for one, row in moved.items()])
        return found | _not_cancelled([one for one in task_ids if one not in moved], user_id)


def _cancel_rows(task_ids: Sequence[str], user_id: int) -> dict[str, tuple[int, Stage, int]]:
    """`_cancel_row` for several: (run, stage, new fence) of those that were active, by id."""
    rows = database.fetch(
        f"""
        UPDATE video_videotask SET {_ENDED}
        WHERE id IN (
            SELECT id FROM video_videotask WHERE id = ANY(%(ids)s) AND status = ANY(%(active)s) AND user_id = %(user)s
            ORDER BY id FOR NO KEY UPDATE)
        RETURNING id, run, stage, fence
        """,  # noqa: S608 - a constant
        {"ids": list(task_ids), "active": transitions.statuses_before(Status.CANCELLED), "user": user_id},
    )
    return {row[0]: (row[1], Stage(row[2]), row[3]) for row in sorted(rows)}


def _not_cancelled(task_ids: Sequence[str], user_id: int) -> dict[str, Cancelled | ActionRefused]:
    """`_cancelled_before` for several."""
    if not task_ids:
        return {}
    tasks = {task.pk: task for task in VideoTask.objects.filter(pk__in=task_ids, user_id=user_id)}
    last = task_rows.last_attempts([one for one, task in tasks.items() if task.status == Status.CANCELLED])
    refunded = task_rows.refunded(tasks)
    found: dict[str, Cancelled | ActionRefused] = {}
    for one in task_ids:
        try:
            if one not in tasks:
                raise NoSuchTask(one)
            found[one] = _ended_before(tasks[one], last.get(one), is_refunded=one in refunded)
        except ActionRefused as err:
            found[one] = err
    return found
