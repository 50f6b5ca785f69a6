"""Cancel and retry: one code path each, for the API, the admin and the commands.

Both are one transaction that locks the task first, then its last attempt, then the credit account, as every other move
does. They take a new fence, so whatever a worker still writes finds no row, and its next heartbeat tells it to stop.
No provider is called here: a job that is to stop carries `cancel_wanted_at` and is worked off by `reconcile.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from providers.catalogue import UnknownModel
from video.credits import ledger
from video.engine import dispatch, transitions
from video.engine.transitions import PROGRESS_AT, RESUMES_AT
from video.infra.toolkit import toolkit
from video.models import CreditEntry, Generation, Stage, Status, TaskEvent, VideoTask
from video.order import Order
from video.routing import health, model_choice
from video.scheduling import backlog, transcode_slots

State = Generation.State


class Refund(StrEnum):
    """What a cancel does to the credits of the run."""

    DONE = "refunded"
    PENDING = "pending"  # decided when the provider has said how its job ended
    NONE = "none"  # the provider has done its work, or the run cost nothing

    @property
    def words(self) -> str:
        """For people."""
        said = {Refund.DONE: "refunded", Refund.PENDING: "the refund is decided when its job has ended"}
        return said.get(self, "no refund")


@dataclass(frozen=True)
class Cancelled:
    """A task that is cancelled now."""

    task_id: str
    run: int
    stage: Stage  # where it stood
    refund: Refund
    changed: bool  # False: it had been cancelled before
    asks_provider: bool = False  # its job is to be stopped

    @property
    def words(self) -> str:
        """For people: where it stood and what follows."""
        asked = "; its provider is asked to stop" if self.asks_provider else ""
        return f"in {self.stage}; {self.refund.words}{asked}"


@dataclass(frozen=True)
class Retried:
    """A task that runs again."""

    task_id: str
    run: int
    stage: Stage  # where it goes on; generate: in line for a slot, model and key
    debited: int  # credits
    granted: int  # credits, given for it by an operator

    @property
    def words(self) -> str:
        """For people: where it goes on, and what that costs."""
        where = "in line for a new attempt" if self.stage is Stage.GENERATE else f"at {self.stage}"
        costs = f"{self.debited} credits" if self.debited else "nothing debited"
        return f"{where}; run {self.run}, {costs}" + (", granted for it" if self.granted else "")


class ActionRefused(Exception):
    """Not possible now. `code` is for programs, the text for people; nothing was changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NoSuchTask(ActionRefused):
    """There is no such task, or it is somebody else's."""

    def __init__(self, task_id: str) -> None:
        super().__init__("not_found", f"There is no task {task_id}.")


# --- cancel --------------------------------------------------------------------------------------------------------


def cancel(task_id: str, *, by: str, user_id: int | None = None) -> Cancelled:
    """Cancel a task, wherever it stands; of this user only, if one is given. `by` is told in the timeline.

    Raises NoSuchTask, and Refused (`not_cancellable`) once it has ended otherwise. Safe to repeat.
    """
    with transaction.atomic():
        moved = _cancel_row(task_id, user_id)
        if moved is None:
            return _cancelled_before(_find(task_id, user_id))
        run, stage, fence = moved
        last = _lock_last(task_id)
        refund = refund_of(last, run)
        _leave(last)
        if refund is Refund.DONE and not ledger.refund(task_id, run):
            refund = Refund.NONE  # it was never paid, or had been refunded when its run failed
        asks = last is not None and last.state == State.ACCEPTED
        _note(task_id, run, last, stage, TaskEvent.Outcome.CANCELLED, fence, by, f"cancelled by {by}; {refund.words}")
    return Cancelled(task_id, run, stage, refund, changed=True, asks_provider=asks)


def would_cancel(task_id: str) -> Cancelled:
    """What `cancel` would answer now; changes nothing. Raises as it does."""
    task = _find(task_id, None)
    if not task.is_active:
        return _cancelled_before(task)
    last = _last(task_id)
    asks = last is not None and last.state == State.ACCEPTED
    return Cancelled(task_id, task.run, Stage(task.stage), refund_of(last, task.run), changed=True, asks_provider=asks)


def refund_of(last: Generation | None, run: int) -> Refund:
    """What a cancel now would do to the credits of this run, by its last attempt."""
    if last is None or last.run != run:
        return Refund.DONE
    if last.state in {State.UNKNOWN, State.ACCEPTED}:
        return Refund.PENDING
    return Refund.NONE if last.state == State.SUCCEEDED else Refund.DONE


def _cancel_row(task_id: str, user_id: int | None) -> tuple[int, Stage, int] | None:
    """The one conditional UPDATE: (run, stage, new fence), or None if the task is not there or has ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET status = 'cancelled', fence = fence + 1, lease_until = NULL, next_run_at = NULL,
                admit_at = NULL, rung_at = NULL, core_at = NULL, deadline_at = NULL, park_reason = '',
                finished_at = statement_timestamp()
            WHERE id = %(id)s AND status = ANY(%(active)s) AND user_id = coalesce(%(user)s, user_id)
            RETURNING run, stage, fence
            """,
            {"id": task_id, "active": transitions.statuses_before(Status.CANCELLED), "user": user_id},
        )
        row = cursor.fetchone()
    return None if row is None else (row[0], Stage(row[1]), row[2])


def _leave(last: Generation | None) -> None:
    """The attempt of a task that is cancelled: not sent, it frees its slot; else its job is to be stopped."""
    if last is None:
        return
    with connection.cursor() as cursor:
        if last.state == State.PLANNED:
            cursor.execute(
                """
                UPDATE video_generation SET state = 'rejected', ended_at = statement_timestamp(),
                    error_code = 'task_ended' WHERE id = %s
                """,
                [last.pk],
            )
            # After the commit: admission locks circuits and credit accounts in another order.
            transaction.on_commit(partial(health.give_back_probe, last.model))
            transaction.on_commit(dispatch.request_admission)
        elif last.state in {State.UNKNOWN, State.ACCEPTED}:
            cursor.execute(
                """
                UPDATE video_generation SET look_at = statement_timestamp(),
                    cancel_wanted_at = coalesce(cancel_wanted_at, statement_timestamp()) WHERE id = %s
                """,
                [last.pk],
            )
            transaction.on_commit(partial(dispatch.request_check, last.pk))


def _cancelled_before(task: VideoTask) -> Cancelled:
    """The answer to a cancel that changes nothing. Raises Refused if the task has ended otherwise."""
    if task.status != Status.CANCELLED:
        how = "its video is stored" if task.status == Status.SUCCESS else "it has failed, and its credits came back"
        raise ActionRefused("not_cancellable", f"This task can't be cancelled any more: {how}.")
    refund = refund_of(_last(task.pk), task.run)
    if _is_refunded(task):  # read after the attempt, whose end brings the refund
        refund = Refund.DONE
    elif refund is not Refund.PENDING:
        refund = Refund.NONE
    return Cancelled(task.pk, task.run, Stage(task.stage), refund, changed=False)


# --- retry ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a retry would do."""

    stage: Stage
    run: int
    debit: int  # credits
    models: Sequence[str] | None  # that may run a new attempt; None: no new attempt is needed


def retry(
    task_id: str, *, by: str, user_id: int | None = None, free: bool = False, regenerate: bool = False
) -> Retried:
    """Let a failed or cancelled task go on where it stopped; of this user only, if one is given.

    `free`: what it costs is granted first. `regenerate`: another attempt at a provider, whatever is there already.
    Raises NoSuchTask, InsufficientCredits, Refused as `plan` does, and TooManyWaiting for a user whose task would have
    to wait in a full line (operators may overfill it); nothing is changed then.
    """
    with transaction.atomic():
        task = _find(task_id, user_id, lock=True)
        last = _lock_last(task_id)
        chosen = plan(task, last, regenerate=regenerate)
        if chosen.models is not None and user_id is not None:
            backlog.check(user_id, list(chosen.models))
        fence = _resume_row(task, chosen)
        if last is not None and chosen.models is None:
            _take_along(last, chosen.run)
        granted = chosen.debit if free else 0
        if granted:
            note = f"free retry of {task.pk}, run {chosen.run}, by {by}"[:200]
            ledger.grant(task.user_id, granted, note=note, task_id=task.pk, run=chosen.run)
        ledger.debit(task.user_id, chosen.debit, task_id=task.pk, run=chosen.run)
        says = f"retried by {by}; {_costs(chosen, free=free)}" + (", made anew" if regenerate else "")
        _note(task.pk, chosen.run, last, chosen.stage, TaskEvent.Outcome.RESUMED, fence, by, says)
        if chosen.stage is Stage.TRANSCODE:
            transaction.on_commit(transcode_slots.dispatch_granted)
        elif chosen.models is None:
            transaction.on_commit(partial(dispatch.resume, task.pk, chosen.stage))
        else:
            transaction.on_commit(dispatch.request_admission)
    return Retried(task.pk, chosen.run, chosen.stage, chosen.debit, granted)


def would_retry(task_id: str, *, free: bool = False, regenerate: bool = False) -> Retried:
    """What `retry` would answer now; changes nothing. Raises as it does."""
    task = _find(task_id, None)
    chosen = plan(task, _last(task_id), regenerate=regenerate)
    balance = ledger.balance(task.user_id)
    if not free and balance < chosen.debit:
        raise ledger.InsufficientCredits(needed=chosen.debit, balance=balance)
    return Retried(task_id, chosen.run, chosen.stage, chosen.debit, chosen.debit if free else 0)


def plan(task: VideoTask, last: Generation | None, *, regenerate: bool = False) -> Plan:
    """Where a retry would go on and what it costs, by the task and its last attempt. Raises Refused:

    `not_retryable`: it runs, or its video is stored. `attempt_unsettled`: nobody knows yet whether the last attempt
    has made a job, or its job is still being stopped. `source_gone`: its video is gone everywhere, so only
    `regenerate` helps. `model_unavailable`: no model can make it now.
    """
    if Status.RUNNING not in transitions.STATUS_MOVES[Status(task.status)] or task.is_active:
        how = "its video is stored" if task.status == Status.SUCCESS else "it is still under way"
        raise ActionRefused("not_retryable", f"This task can't be retried: {how}.")
    stage = Stage.GENERATE if regenerate else _goes_on_at(task, last)
    if stage is Stage.GENERATE:
        _refuse_unsettled(last)
        # A new attempt is always a run of its own, paid for by itself: its provider charges again.
        return Plan(stage, task.run + 1, settings.CREDITS_PER_VIDEO, _models(task))
    if _is_refunded(task):
        return Plan(stage, task.run + 1, settings.CREDITS_PER_VIDEO, None)
    return Plan(stage, task.run, 0, None)


def _goes_on_at(task: VideoTask, last: Generation | None) -> Stage:
    """Derived from what is there, never stored."""
    if last is None:
        return Stage.GENERATE
    if last.state == State.ACCEPTED:
        if last.cancel_wanted_at is not None and toolkit().provider(last.provider).can_cancel:
            _refuse_unsettled(last)
        return Stage.POLL
    if last.state != State.SUCCEEDED:
        return Stage.GENERATE
    if task.error_code == "source_gone":
        raise ActionRefused(
            "source_gone",
            "Its video is no longer at the provider, so it would have to be generated anew, which is paid for again: "
            "retry it with regenerate.",
        )
    # If it is gone from storage, transcode goes back to the download by itself.
    return Stage.TRANSCODE if task.source_key else Stage.DOWNLOAD


def _refuse_unsettled(last: Generation | None) -> None:
    if last is None or last.state not in {State.UNKNOWN, State.ACCEPTED}:
        return
    why = (
        "nobody knows yet whether its last attempt has begun"
        if last.state == State.UNKNOWN
        else "its last job has not ended at the provider yet"
    )
    raise ActionRefused("attempt_unsettled", f"This task can't be retried yet: {why}. Try again later.")


def _models(task: VideoTask) -> Sequence[str]:
    """Those that may run it, as if it were ordered now."""
    order = Order(**{field.name: getattr(task, field.name) for field in fields(Order)})
    try:
        return model_choice.eligible_models(order)
    except (UnknownModel, model_choice.NoCapableModel) as err:
        raise ActionRefused("model_unavailable", f"No model here can make this video now: {err}") from None


def _resume_row(task: VideoTask, chosen: Plan) -> int:
    """Bring the row back to life; returns its new fence. The caller holds its lock."""
    assert chosen.stage in RESUMES_AT
    in_line = chosen.models is not None
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET status = 'running', stage = %(stage)s, run = %(run)s, fence = fence + 1,
                rerun = true, progress = CASE WHEN run = %(run)s THEN greatest(progress, %(progress)s)
                    ELSE %(progress)s END,
                admit_at = CASE WHEN %(in_line)s THEN statement_timestamp() END,
                next_run_at = CASE WHEN NOT %(in_line)s THEN statement_timestamp() END,
                -- A transcode waits for a core, and is rung when it is given one.
                rung_at = CASE WHEN NOT %(in_line)s AND %(stage)s <> 'transcode' THEN statement_timestamp() END,
                -- Admission sets the deadline of a new attempt.
                deadline_at = CASE WHEN NOT %(in_line)s
                    THEN statement_timestamp() + %(deadline)s * interval '1 second' END,
                eligible_models = coalesce(%(models)s::varchar[], eligible_models),
                source_key = CASE WHEN %(in_line)s THEN '' ELSE source_key END,
                output_key = CASE WHEN %(in_line)s THEN '' ELSE output_key END,
                thumbnail_key = CASE WHEN %(in_line)s THEN '' ELSE thumbnail_key END,
                has_work_files = has_work_files OR %(stage)s IN ('download', 'transcode'),
                tries = 0, deaths = 0, park_reason = '', hinted_at = NULL, finished_at = NULL,
                error_code = '', error_message = ''
            WHERE id = %(id)s AND status = ANY(%(ended)s) AND fence = %(fence)s
            RETURNING fence
            """,
            {
                "id": task.pk,
                "fence": task.fence,
                "ended": [status.value for status in (Status.FAILED, Status.CANCELLED)],
                "stage": chosen.stage.value,
                "run": chosen.run,
                "progress": PROGRESS_AT[chosen.stage],
                "in_line": in_line,
                "deadline": settings.TASK_DEADLINE_SECONDS,
                "models": list(chosen.models) if chosen.models is not None else None,
            },
        )
        row: tuple[int] = cursor.fetchone()
        return row[0]


def _take_along(last: Generation, run: int) -> None:
    """The attempt that goes on belongs to the run that pays for it from now on, and its task looks at it again."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_generation SET run = %(run)s, look_at = NULL,
                cancel_wanted_at = CASE WHEN state = 'accepted' THEN NULL ELSE cancel_wanted_at END
            WHERE id = %(id)s
            """,
            {"id": last.pk, "run": run},
        )


def _costs(chosen: Plan, *, free: bool) -> str:
    if not chosen.debit:
        return "nothing is debited again"
    return f"{chosen.debit} credits, granted for it" if free else f"{chosen.debit} credits"


# --- rows ----------------------------------------------------------------------------------------------------------


def _find(task_id: str, user_id: int | None, *, lock: bool = False) -> VideoTask:
    # no_key: a refund's entry refers to the task, and its writer, who holds the attempt, must not wait for us.
    rows = VideoTask.objects.select_for_update(no_key=True) if lock else VideoTask.objects.all()
    rows = rows.filter(pk=task_id)
    task = (rows if user_id is None else rows.filter(user_id=user_id)).first()
    if task is None:
        raise NoSuchTask(task_id)
    return task


def _last(task_id: str) -> Generation | None:
    return Generation.objects.filter(task_id=task_id).order_by("-attempt").first()


def _lock_last(task_id: str) -> Generation | None:
    """The last attempt as it is until the transaction ends; waits for whoever is writing a fact about it."""
    return Generation.objects.select_for_update(no_key=True).filter(task_id=task_id).order_by("-attempt").first()


def _is_refunded(task: VideoTask) -> bool:
    return CreditEntry.objects.filter(task=task, run=task.run, kind=CreditEntry.Kind.REFUND).exists()


def _note(
    task_id: str, run: int, last: Generation | None, stage: Stage, outcome: Any, fence: int, by: str, detail: str
) -> None:
    TaskEvent.objects.create(
        task_id=task_id,
        run=run,
        generation=last,
        stage=stage,
        outcome=outcome,
        fence=fence,
        worker=by[:120],
        detail=detail[:300],
    )
