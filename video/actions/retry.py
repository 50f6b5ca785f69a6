"""Retry a failed or cancelled task: one code path for the API, the admin and the commands.

Locks as `cancel` does, and takes a new fence. No provider is called here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.db import transaction

from providers.catalogue import UnknownModel
from video.actions import task_rows
from video.actions.task_rows import ActionRefused, TaskDeleted
from video.attempts import task_moves
from video.audit import records
from video.audit.actors import Actor, Unaudited, words_of
from video.credits import key_spend, ledger, price
from video.engine import dispatch, transitions
from video.engine.transitions import PROGRESS_AT, RESUMES_AT
from video.infra import database
from video.infra.after_commit import after_commit
from video.infra.errors import Refusal
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, Status, TaskEvent, VideoTask
from video.models.order import Order
from video.routing import model_choice
from video.scheduling import backlog, storage_quota, transcode_slots

State = Generation.State


@dataclass(frozen=True)
class Retried:
    """A task that runs again."""

    task_id: str
    run: int
    stage: Stage  # where it goes on; generate: it waits for a slot, model and key
    debited: int  # credits
    granted: int  # credits, given for it by an operator

    @property
    def words(self) -> str:
        """For people: where it goes on, and what that costs."""
        where = "in line for a new attempt" if self.stage is Stage.GENERATE else f"at {self.stage}"
        costs = f"{self.debited} credits" if self.debited else "nothing debited"
        return f"{where}; run {self.run}, {costs}" + (", granted for it" if self.granted else "")


@dataclass(frozen=True)
class RetryPlan:
    """What a retry would do."""

    stage: Stage
    run: int
    debit: int  # credits
    models: Sequence[str] | None  # that may run a new attempt; None: no new attempt is needed


def retry(
    task_id: str,
    *,
    by: Actor | Unaudited,
    user_id: int | None = None,
    free: bool = False,
    regenerate: bool = False,
    api_key: str | None = None,
    most_credits: int | None = None,
) -> Retried:
    """Let a failed or cancelled task go on where it stopped; of this user only, if one is given.

    `by`: whom the timeline names; what an operator does is recorded. `free`: what it costs is granted first.
    `regenerate`: another attempt at a provider, whatever is stored already. `api_key`: the id of the key that asks for
    it, whose limit counts. `most_credits`: what the client is ready to pay. Raises NoSuchTask, DearerThanAllowed,
    InsufficientCredits, KeyLimitReached, ActionRefused as `plan_retry` does, and TooManyWaiting, TooManyLive and
    StorageFull for a user whose backlog or storage is full (operators may overfill all of them); nothing is changed
    then. A second run is refused, since the task is under way.
    """
    with transaction.atomic():
        task = task_rows.find(task_id, user_id, lock=True)
        last = task_rows.last_attempt(task_id, lock=True)
        plan = plan_retry(task, last, regenerate=regenerate)
        price.refuse_dearer(0 if free else plan.debit, most_credits)
        if plan.models is not None and user_id is not None:
            backlog.check(user_id, list(plan.models))
            storage_quota.check(user_id)
        elif user_id is not None:
            backlog.check_live(user_id)
        fence = _resume_row(task, plan)
        if last is not None and plan.models is None:
            task_moves.continue_in_run(last, plan.run)
        granted = _pay(task, plan, free=free, by=by)
        if api_key is not None:
            key_spend.spend(api_key, plan.debit)
        event = task_rows.event_of(
            task.pk,
            plan.run,
            last,
            plan.stage,
            TaskEvent.Outcome.RESUMED,
            fence=fence,
            by=by,
            action="retried",
            consequence=_costs(plan, free=free) + (", made anew" if regenerate else ""),
        )
        task_rows.record_events([event])
        _dispatch_after_commit(task.pk, plan)
        done = Retried(task.pk, plan.run, plan.stage, plan.debit, granted)
        records.record(by, "retry", "videotask", task.pk, detail=done.words)
    return done


def retry_many(
    task_ids: Sequence[str],
    *,
    by: Unaudited,
    user_id: int,
    free: bool = False,
    regenerate: bool = False,
    api_key: str | None = None,
    most_credits: int | None = None,
) -> dict[str, Retried | Refusal]:
    """Retry several tasks of a user, in this order: by id, what was done or why not, as `retry` would say it of each.

    One transaction. All tasks are locked first, then all attempts, then the account, so that it never waits for a
    transition that waits for it. Each task costs its own statements: what it may do depends on what the others before
    it took.
    """
    found: dict[str, Retried | Refusal] = {}
    with transaction.atomic():
        own = VideoTask.objects.filter(pk__in=list(task_ids), user_id=user_id)
        locked = own.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True)
        task_rows.last_attempts(list(locked), lock=True)
        for task_id in task_ids:
            try:
                found[task_id] = retry(
                    task_id,
                    by=by,
                    user_id=user_id,
                    free=free,
                    regenerate=regenerate,
                    api_key=api_key,
                    most_credits=most_credits,
                )
            except Refusal as err:
                found[task_id] = err
    return found


def would_retry(task_id: str, *, free: bool = False, regenerate: bool = False) -> Retried:
    """What `retry` would answer now; changes nothing. Raises as it does."""
    task = task_rows.find(task_id, None)
    plan = plan_retry(task, task_rows.last_attempt(task_id), regenerate=regenerate)
    balance = ledger.balance(task.user_id)
    if not free and balance < plan.debit:
        raise ledger.InsufficientCredits(needed=plan.debit, balance=balance)
    return Retried(task_id, plan.run, plan.stage, plan.debit, plan.debit if free else 0)


def plan_retry(task: VideoTask, last: Generation | None, *, regenerate: bool = False) -> RetryPlan:
    """Where a retry would go on and what it costs, by the task and its last attempt. Raises ActionRefused:

    `task_deleted`: its owner has deleted it. `not_retryable`: the task runs, or its video was made.
    `attempt_unsettled`: whether the last attempt has made a job is not known yet, or its job is still being stopped.
    `source_gone`: its video is neither in storage nor at the provider, so only `regenerate` helps. `user_off`: it needs
    a new attempt, and its user is switched off. `model_unavailable`: no model can make it now.
    """
    if task.is_deleted:
        raise TaskDeleted
    if Status.RUNNING not in transitions.STATUS_MOVES[Status(task.status)] or task.is_active:
        made = "its video was made, and is gone now" if task.gone_why else "its video is stored"
        how = made if task.status == Status.SUCCESS else "it is still under way"
        raise ActionRefused("not_retryable", f"This task can't be retried: {how}.")
    if task.render_of_id is not None:
        _refuse_render_without_source(task, regenerate=regenerate)
    stage = Stage.GENERATE if regenerate else _resume_stage(task, last)
    if stage is Stage.GENERATE:
        _refuse_unsettled(last)
        if not task.user.is_active:
            why = "its user is switched off, so a new attempt would get no slot"
            raise ActionRefused("user_off", f"This task can't be retried now: {why}.")
        # A new attempt is always a run of its own, paid for by itself: its provider charges again.
        return RetryPlan(stage, task.run + 1, price.credits_of(task), _models(task))
    if task_rows.is_refunded(task):
        return RetryPlan(stage, task.run + 1, price.credits_of(task), None)
    return RetryPlan(stage, task.run, 0, None)


def _refuse_render_without_source(task: VideoTask, *, regenerate: bool) -> None:
    if regenerate:
        raise ActionRefused(
            "not_retryable", "This task is a render: no provider can make it. Retry it without regenerate."
        )
    if not task.has_work_files or task.error_code == "source_gone":
        raise ActionRefused(
            "source_gone",
            f"The copy of the original that this render had is deleted: render {task.render_of_id} again.",
        )


def _resume_stage(task: VideoTask, last: Generation | None) -> Stage:
    """The stage that goes on, by the last attempt and the stored files; it is never stored itself."""
    if last is None:
        return Stage.GENERATE if task.render_of_id is None else Stage.TRANSCODE
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
    # If the source is gone from storage, transcode goes back to the download by itself.
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
    """Models that may run the task, as if it were created now."""
    order = Order.of(task)
    try:
        found = model_choice.eligible_models(order)
        model_choice.check_switched_on(order, found)
        return found
    except (UnknownModel, model_choice.NoCapableModel) as err:
        raise ActionRefused("model_unavailable", f"No model here can make this video now: {err}") from None


def _resume_row(task: VideoTask, plan: RetryPlan) -> int:
    """Make the row active again; returns its new fence. The caller holds its lock."""
    assert plan.stage in RESUMES_AT
    waits = plan.models is not None
    fence: int = database.value(
        """
        UPDATE video_videotask SET status = 'running', stage = %(stage)s, run = %(run)s, fence = fence + 1,
            price_credits = CASE WHEN run = %(run)s THEN price_credits ELSE %(price)s END,
            rerun = true, progress = CASE WHEN run = %(run)s THEN greatest(progress, %(progress)s)
                ELSE %(progress)s END,
            admit_at = CASE WHEN %(waits)s THEN statement_timestamp() END,
            next_run_at = CASE WHEN NOT %(waits)s THEN statement_timestamp() END,
            -- A transcode waits for a core, and is dispatched when it is given one.
            rung_at = CASE WHEN NOT %(waits)s AND %(stage)s <> 'transcode' THEN statement_timestamp() END,
            -- Admission sets the deadline of a new attempt.
            deadline_at = CASE WHEN NOT %(waits)s
                THEN statement_timestamp() + %(deadline)s * interval '1 second' END,
            eligible_models = coalesce(%(models)s::varchar[], eligible_models),
            source_key = CASE WHEN %(waits)s THEN '' ELSE source_key END,
            output_key = CASE WHEN %(waits)s THEN '' ELSE output_key END,
            thumbnail_key = CASE WHEN %(waits)s THEN '' ELSE thumbnail_key END,
            warnings = CASE WHEN %(waits)s THEN '[]' ELSE warnings END,
            extra_files = CASE WHEN %(waits)s THEN '{}' ELSE extra_files END,
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
            "stage": plan.stage.value,
            "run": plan.run,
            "progress": PROGRESS_AT[plan.stage],
            "price": plan.debit,
            "waits": waits,
            "deadline": settings.TASK_DEADLINE_SECONDS,
            "models": list(plan.models) if plan.models is not None else None,
        },
    )
    return fence


def _pay(task: VideoTask, plan: RetryPlan, *, free: bool, by: Actor | Unaudited) -> int:
    """Debit what the run costs, after granting it if it is `free`. Returns the credits granted."""
    granted = plan.debit if free else 0
    if granted:
        note = f"free retry of {task.pk}, run {plan.run}, by {words_of(by)}"
        ledger.grant(task.user_id, granted, note=note, task_id=task.pk, run=plan.run)
    ledger.debit(task.user_id, plan.debit, task_id=task.pk, run=plan.run)
    return granted


def _dispatch_after_commit(task_id: str, plan: RetryPlan) -> None:
    if plan.stage is Stage.TRANSCODE:
        after_commit(transcode_slots.dispatch_granted)
    elif plan.models is None:
        after_commit(partial(dispatch.resume, task_id, plan.stage))
    else:
        after_commit(dispatch.request_admission)


def _costs(plan: RetryPlan, *, free: bool) -> str:
    if not plan.debit:
        return "nothing is debited again"
    return f"{plan.debit} credits, granted for it" if free else f"{plan.debit} credits"
