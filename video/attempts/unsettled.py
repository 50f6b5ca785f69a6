"""Unsettled attempts: they may have cost money, and no running task drives them to an end.

The system settles them in time; the admin and a command show the exposure, and let an operator settle one sooner. Each
action is a compare-and-set like any other fact about an attempt, and leaves an event with the operator's name.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from providers import catalogue
from providers.contract import Submitted
from providers.errors import JobNotFound, ProviderError, SubmissionUnknown
from providers.untrusted import shortened, storable
from video.attempts import observe, poll_records, provider_calls, reconcile, records, unknown_submits
from video.audit import records as audit_records
from video.audit.actors import Actor
from video.engine import dispatch, due
from video.infra.after_commit import after_commit
from video.infra.errors import Refusal
from video.infra.toolkit import toolkit
from video.models import ACTIVE, Generation, Stage, Status, TaskEvent, VideoTask
from video.routing import key_labels

State = Generation.State

LOST_SHOWN_DAYS = 3
MOST_SHOWN = 500
MAX_JOB_ID = 120
_JOB_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:~-]{{0,{MAX_JOB_ID - 1}}}", re.ASCII)
_OUR_ID = re.compile(r"(gen|task|vid)_[0-9a-z]{26}", re.ASCII)


class SettlementRefused(Refusal):
    """The action is not possible; the text is a plain sentence for the operator."""

    code = "not_settleable"


@dataclass(frozen=True)
class UnsettledAttempt:
    """One attempt, and what the system will do about it by itself."""

    generation: Generation  # with its task and the task's user
    open: bool  # False: given up; only late truth can still change it
    age_s: float | None  # since the submit
    doing: str  # what the system does about it
    next_at: datetime | None  # when it does that next
    until: datetime | None  # when it gives up by itself

    @property
    def can_settle(self) -> bool:
        """Whether it may be settled as lost now."""
        return self.open and self.generation.state != State.LOST

    @property
    def can_attach(self) -> bool:
        """Whether a job that was found may be attached."""
        state = self.generation.state
        return state == State.UNKNOWN or (state == State.LOST and not self.generation.job_id)


@dataclass(frozen=True)
class Exposure:
    """What unsettled attempts may have cost, as expected when they were sent. Simulated ones cost nothing."""

    number: int
    usd: Decimal
    simulated_usd: Decimal
    unpriced: int  # of those that are not simulated


def exposure_in_words(generation: Generation) -> str:
    """What the attempt may have cost, in USD and in the provider's own unit."""
    usd = amount(generation.expected_usd, "USD")
    own = amount(generation.expected_cost, generation.cost_unit) if generation.cost_unit != "USD" else ""
    return f"{usd} ({own})" if usd and own else usd or own or "not known"


def amount(value: Decimal | None, unit: str) -> str:
    """A sum with its unit: `$0.60` or `60 credits`; empty for None."""
    if value is None:
        return ""
    plain = f"{value.normalize():f}"
    return f"${value:.2f}" if unit.upper() == "USD" else f"{plain} {unit}".strip()


# --- the list ------------------------------------------------------------------------------------------------------


def find(
    *,
    ids: Sequence[str] | None = None,
    provider: str | None = None,
    older_than_s: float | None = None,
    with_lost: bool = True,
) -> list[UnsettledAttempt]:
    """Unsettled attempts, the oldest first, then those given up in the last days; at most 500 of each.

    With `ids`, these attempts whatever their state.
    """
    now = timezone.now()
    rows = key_labels.with_labels(Generation.objects.select_related("task__user", "account"))
    rows = rows.order_by("sent_at", "id")
    if provider is not None:
        rows = rows.filter(provider=provider)
    if older_than_s is not None:
        rows = rows.filter(sent_at__lte=now - timedelta(seconds=older_than_s))
    if ids is not None:
        return [describe(generation, now) for generation in rows.filter(pk__in=ids)]
    found = list(rows.filter(_open(now))[:MOST_SHOWN])
    if with_lost:
        # All models by name, so that an index by model and time serves it.
        lost = rows.filter(
            state=State.LOST,
            look_at__isnull=True,
            model__in=list(catalogue.BY_ID),
            ended_at__gt=now - timedelta(days=LOST_SHOWN_DAYS),
        )
        found += lost.order_by("-ended_at")[:MOST_SHOWN]
    return [describe(generation, now) for generation in found]


def get(generation_id: str) -> UnsettledAttempt | None:
    """One attempt, whatever its state."""
    return next(iter(find(ids=[generation_id])), None)


def stake(cases: Iterable[UnsettledAttempt]) -> Exposure:
    """The money in those of them that are open."""
    found = [case.generation for case in cases if case.open]
    real = [generation.expected_usd for generation in found if not generation.simulated]
    simulated = [generation.expected_usd for generation in found if generation.simulated]
    return Exposure(len(found), _sum(real), _sum(simulated), real.count(None))


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    return sum(filter(None, amounts), Decimal(0))


def _open(now: datetime) -> Q:
    """Unknown ones whose call is over, jobs whose task has ended, and given-up ones that are still to be checked."""
    call_is_over = (
        Q(unknown_since__isnull=False)
        | Q(sent_at__lte=now - timedelta(seconds=settings.SUBMIT_TIMEOUT_SECONDS + unknown_submits.GRACE_S))
        | ~Q(task__status__in=ACTIVE)
    )
    return (
        (Q(state=State.UNKNOWN) & call_is_over)
        | (Q(state=State.ACCEPTED) & ~Q(task__status__in=ACTIVE))
        | Q(state=State.LOST, look_at__isnull=False)
    )


def describe(generation: Generation, now: datetime) -> UnsettledAttempt:
    """The outlook of an attempt that was read with its task."""
    is_open, doing, next_at, until = _outlook(generation, now)
    age_s = (now - generation.sent_at).total_seconds() if generation.sent_at else None
    return UnsettledAttempt(generation, is_open, age_s, doing, next_at, until)


def _outlook(generation: Generation, now: datetime) -> tuple[bool, str, datetime | None, datetime | None]:
    """(open, doing, next_at, until)"""
    task = generation.task
    if generation.state == State.UNKNOWN:
        return _outlook_unknown(generation, now)
    if generation.state == State.ACCEPTED and task.is_active:
        return False, f"its task runs on it ({task.stage})", task.next_run_at, task.deadline_at
    if generation.state == State.ACCEPTED:
        assert generation.accepted_at is not None
        until = generation.accepted_at + timedelta(seconds=reconcile.KEEP_CHECKING_S)
        if generation.look_at is None:
            return True, "nothing looks at it: run `manage.py reconcile` with its id", None, None
        doing = "looked at now and then; a late video is delivered"
        if task.status == Status.CANCELLED:
            doing = "its task was cancelled: asked to stop, and looked at until it ends; its cost decides the refund"
        elif generation.cancel_wanted_at is not None:
            doing = "asked to stop, and looked at now and then"
        return True, doing, generation.look_at, until
    if generation.state == State.LOST:
        if generation.look_at is not None:
            return True, "given up, but its job became known: looked at once more", generation.look_at, None
        return False, "given up; its possible cost stays booked", None, None
    if generation.state == State.PLANNED:
        return False, "not sent yet", None, None
    return False, f"ended as {generation.state}", None, None


def _outlook_unknown(generation: Generation, now: datetime) -> tuple[bool, str, datetime | None, datetime | None]:
    assert generation.sent_at is not None
    over_at = unknown_submits.over_at(generation)
    if over_at > now and generation.task.is_active:
        return False, "being sent", over_at, over_at
    window_until = generation.sent_at + timedelta(seconds=settings.UNKNOWN_WINDOW_SECONDS[generation.provider])
    provider = toolkit().provider(generation.provider)
    if not generation.task.is_active:
        if generation.task.status == Status.CANCELLED:
            doing = "its task was cancelled: a job that is found is stopped; else it is lost, and the task refunded"
        elif provider.can_look_up:
            doing = "its task has ended: looked up by our reference; a job that is found is waited for"
        else:
            doing = "its task has ended; keeps its slot, then is lost"
        return True, doing, generation.look_at if provider.can_look_up else None, window_until
    times = settings.LOOKUP_SECONDS
    next_at = generation.task.next_run_at
    if provider.can_look_up and generation.lookups < len(times):
        doing = f"look-up {generation.lookups + 1} of {len(times)} by our reference"
        return True, doing, next_at, over_at + timedelta(seconds=times[-1])
    if provider.can_call_back and settings.PUBLIC_BASE_URL and not provider.can_look_up:
        return True, f"waits for {provider.title}'s call", None, window_until
    return True, generation.task.park_reason or "about to be settled", next_at, None


# --- actions -------------------------------------------------------------------------------------------------------


def settle_as_lost(generation_id: str, by: Actor) -> UnsettledAttempt:
    """Give an attempt up: frees its slot, and its possible cost stays booked.

    A task that still waits for its outcome ends with its refund, and so does a cancelled one if no job was ever known.
    Raises SettlementRefused.
    """
    with transaction.atomic():
        generation = _lock(generation_id)
        _refuse_to_settle(generation)
        had_job = generation.state == State.ACCEPTED
        code, message = ("job_lost", "") if had_job else (SubmissionUnknown.code, SubmissionUnknown.user_message)
        if not records.record_lost(generation.pk, code=code, message=message):
            raise SettlementRefused("It was settled a moment ago: look again.")
        audit_records.record(
            by, "settle", "generation", generation.pk, detail=f"as lost, at stake {exposure_in_words(generation)}"
        )
        _note(generation, by.name, f"settled attempt {generation.attempt} as lost; its possible cost stays booked")
        after_commit(lambda: _resume(generation.task_id))
        after_commit(dispatch.request_admission)  # a slot is free
    return _reread(generation.pk)


def _refuse_to_settle(generation: Generation) -> None:
    state, task = generation.state, generation.task
    if state == State.LOST:
        raise SettlementRefused("It is given up as lost already.")
    if state == State.PLANNED:
        raise SettlementRefused("It was never sent, so there is nothing to settle.")
    if state not in {State.UNKNOWN, State.ACCEPTED}:
        raise SettlementRefused(f"It has ended as {state}, so there is nothing to settle.")
    if state == State.ACCEPTED and task.is_active:
        why = f"Its task still runs on this job (stage {task.stage}): let it, or cancel the task first."
        raise SettlementRefused(why)
    if state == State.UNKNOWN and (over_at := unknown_submits.over_at(generation)) > timezone.now():
        raise SettlementRefused(f"Its submit may still be answered: wait until {over_at:%H:%M:%S} UTC.")


def attach_job(generation_id: str, job_id: str, by: str) -> UnsettledAttempt:
    """An operator found the job at the provider: the attempt gets its id, and the next check reads its state.

    The provider is asked first whether it has such a job: an id can't be changed afterwards. Raises SettlementRefused.
    """
    job_id = clean_job_id(job_id)
    generation = refuse_at_once(generation_id, job_id)
    said = _ask_about(generation, job_id)
    try:
        with transaction.atomic():
            generation = _lock(generation_id)
            _refuse_to_attach(generation)
            if not records.record_accepted(generation.pk, Submitted(job_id)):
                raise SettlementRefused("It was settled a moment ago: look again.")
            if not generation.task.is_active or generation.task.stage != Stage.GENERATE:
                records.check_later(generation.pk, 0)  # else its task takes it up
            _note(generation, by, f"attached job {job_id} to attempt {generation.attempt}; {said}")
            after_commit(lambda: _resume(generation.task_id))
    except IntegrityError:
        _refuse_taken(generation, job_id)
        raise SettlementRefused("Its task got another live attempt a moment ago: look again.") from None
    return _reread(generation.pk)


def refuse_at_once(generation_id: str, job_id: str) -> Generation:
    """The attempt, if its rows let this job be attached. Raises SettlementRefused."""
    generation = Generation.objects.select_related("task", "account").filter(pk=generation_id).first()
    if generation is None:
        raise SettlementRefused(f"There is no attempt {generation_id}.")
    _refuse_to_attach(generation)
    _refuse_taken(generation, job_id)
    return generation


def clean_job_id(text: str) -> str:
    """A provider's job id as it was pasted, without blanks around it. Raises SettlementRefused."""
    job_id = text.strip()
    if len(job_id) > MAX_JOB_ID:
        raise SettlementRefused(f"A job id has at most {MAX_JOB_ID} characters; this has {len(job_id)}.")
    if _OUR_ID.fullmatch(job_id):
        raise SettlementRefused("That is an id of ours; the provider's own id of the job is wanted.")
    if not _JOB_ID.fullmatch(job_id):
        raise SettlementRefused(
            "A job id is made of letters, digits and . _ : ~ - only, and begins with a letter or digit."
        )
    return job_id


def _refuse_to_attach(generation: Generation) -> None:
    if generation.job_id:
        raise SettlementRefused(f"It has a job already: {generation.job_id}.")
    if generation.state == State.PLANNED:
        raise SettlementRefused("It was never sent, so no job can be its own.")
    if generation.state not in {State.UNKNOWN, State.LOST}:
        raise SettlementRefused(f"It has ended as {generation.state}: proof that no job is its own.")


def _refuse_taken(generation: Generation, job_id: str) -> None:
    of_job = Generation.objects.filter(provider=generation.provider, job_id=job_id)
    taken = of_job.exclude(pk=generation.pk).first()
    if taken is not None:
        raise SettlementRefused(f"Job {job_id} belongs to attempt {taken.pk} of {taken.task_id}.")


def _ask_about(generation: Generation, job_id: str) -> str:
    """What the provider says of the job, for the event. Raises SettlementRefused if it has none."""
    probe = copy.copy(generation)
    probe.job_id, probe.job_urls = job_id, {}
    title = toolkit().provider(generation.provider).title
    try:
        status = provider_calls.poll(probe)
    except JobNotFound:
        raise SettlementRefused(
            f'{title} knows no job {job_id} for the key "{key_labels.of_generation(generation)}", with which this '
            "attempt was sent."
        ) from None
    except (ProviderError, provider_calls.KeyGone) as err:
        return f"{title} could not be asked ({type(err).__name__})"
    return f"{title} says {status.provider_status or status.state}"


def check_now(case: UnsettledAttempt) -> str:
    """Ask the provider about one attempt at once, and write down what it says. Returns that in a few words."""
    generation = case.generation
    if generation.state not in {State.UNKNOWN, State.ACCEPTED, State.LOST}:
        return "nothing to look at"
    if generation.state == State.ACCEPTED and generation.task.is_active:
        return "left to its task"
    if not generation.job_id:
        return _look_up(case)
    if not poll_records.take_check(generation.pk):
        return "somebody else has settled it"
    reconcile.check(generation)
    return "looked at"


def _look_up(case: UnsettledAttempt) -> str:
    generation = case.generation
    provider = toolkit().provider(generation.provider)
    if generation.state == State.UNKNOWN and not case.open:
        return "left to its task"
    if not provider.can_look_up:
        return f"{provider.title} can't be asked without a job id"
    try:
        found = observe.look_up(generation, counts=False)
    except (ProviderError, provider_calls.KeyGone) as err:
        return f"the look-up failed ({type(err).__name__})"
    if found.job is None:
        return "not found by our reference"
    if not found.written:
        return "somebody else has settled it"
    fresh = _reread(generation.pk)
    if fresh.generation.task.is_active and fresh.generation.state == State.ACCEPTED:
        _resume(generation.task_id)
        return "found by our reference; its task goes on"
    return f"found by our reference; {check_now(fresh)}"


def _reread(generation_id: str) -> UnsettledAttempt:
    return find(ids=[generation_id])[0]


def _lock(generation_id: str) -> Generation:
    """The attempt as it is until the transaction ends: its task first, as every move of a task does."""
    task_ids = Generation.objects.filter(pk=generation_id).values("task_id")
    task = VideoTask.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=task_ids).first()
    if task is None:
        raise SettlementRefused(f"There is no attempt {generation_id}.")
    generation = Generation.objects.select_for_update(no_key=True).get(pk=generation_id)
    generation.task = task
    return generation


def _note(generation: Generation, by: str, detail: str) -> None:
    """An operator's action in the timeline."""
    task = generation.task
    TaskEvent.objects.create(
        task=task,
        run=generation.run,
        generation=generation,
        stage=task.stage,
        outcome=TaskEvent.Outcome.PARKED,
        fence=task.fence,
        worker=storable(f"operator {by}", 120),
        detail=shortened(f"{by} {detail}", 300),
        owner_detail=TaskEvent.BY_OPERATOR,
    )


def _resume(task_id: str) -> None:
    """A task that waited for this attempt's outcome resumes at once."""
    if due.hint(task_id):
        dispatch.resume(task_id, Stage.GENERATE)
