"""Records a provider's answer about an attempt, for stages, reconcile and operators.

Each function writes the facts about the attempt, its cost and refund, and the circuit of its model, and returns what
they mean. What follows for the task is the caller's to decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from django.conf import settings
from django.db import IntegrityError, transaction

from providers.contract import JobState, JobStatus, Submitted
from providers.errors import JobNotFound, ProviderDown, ProviderError
from video.attempts import clamped, failure_texts, last_answers, poll_records, provider_calls, records
from video.infra.toolkit import toolkit
from video.models import Generation, Status
from video.routing import health

State = Generation.State
ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Meaning(Enum):
    """How a job stands after a poll."""

    OPEN = "it goes on"
    SUCCEEDED = "its video is ready"
    ENDED = "it ended without a video"
    NOT_FOUND = "the provider does not know it; asked again later"
    LOST = "the provider does not know it, and it is given up"


@dataclass(frozen=True)
class Observation:
    """The meaning of one poll; for an end without a video its cause, as written to the attempt."""

    meaning: Meaning
    code: str = ""
    message: str = ""  # a plain sentence for the user
    another_model_could: bool = True
    is_understood: bool = True  # False: nobody has said yet what the provider's text means


def note(generation: Generation, answer: JobStatus | JobNotFound, *, stop_requested: bool = False) -> Observation:
    """Record the answer to a poll. Harmless when done twice: each fact is a compare-and-set.

    `stop_requested`: the provider was asked to stop the job. Some providers forget such a job, so "not found" is its
    end. `generation.task` is read, for the cause of a stop.
    """
    last_answers.keep({generation.pk: answer.answer})
    if isinstance(answer, JobNotFound):
        return _note_not_found(generation, stop_requested=stop_requested)
    clamped.warn(generation, answer.clamped)
    provider = toolkit().provider(generation.provider)
    if answer.state is JobState.SUCCEEDED:
        records.record_ended(
            generation.pk,
            State.SUCCEEDED,
            cost=answer.cost,
            provider_status=answer.provider_status,
            result_life_s=provider.result_life_s,
        )
        health.note_success(generation.model, generation.provider, generation.user_id)
        return Observation(Meaning.SUCCEEDED)
    if answer.state in ENDS:
        took_nothing = provider.took_nothing(answer, before=generation.provider_status)
        return _note_end(generation, answer, took_nothing=took_nothing)
    poll_records.record_polls([(generation.pk, answer)])
    return Observation(Meaning.OPEN)


def _note_end(generation: Generation, status: JobStatus, *, took_nothing: bool) -> Observation:
    """Verified: the job ended without a video.

    A failure that no adapter knows is counted with its end, and means what operators said.
    """
    unknown = status.error if status.error is not None and not status.error.is_known else None
    if unknown is not None:
        status = replace(status, error=failure_texts.understood(generation, unknown))
    error = status.error
    code, message = _cause(generation, status)
    another_model_could = error is None or error.another_model_could
    record = partial(
        records.record_ended,
        generation.pk,
        State.FAILED if status.state is JobState.FAILED else State.CANCELLED,
        cost=status.cost,
        provider_status=status.provider_status,
        code=code,
        message=message,
        another_model_could=another_model_could,
        took_nothing=took_nothing,
    )
    if unknown is None:
        record()
    else:
        with transaction.atomic():
            if record():
                failure_texts.count(generation, unknown)
    if error is not None and health.is_fault(error):
        health.note_fault(generation.model, generation.provider, str(error), generation.user_id)
    else:  # stopped, by us or at the provider; or the request itself was at fault
        health.give_back_probe(generation.model, generation.user_id)
    return Observation(Meaning.ENDED, code, message, another_model_could, error is None or error.is_known)


def _cause(generation: Generation, status: JobStatus) -> tuple[str, str]:
    """(code, message for the user) of an end without a video."""
    if status.state is JobState.CANCELLED and generation.cancel_wanted_at is not None:
        if generation.task.status == Status.CANCELLED:
            return "generation_cancelled", "The job was stopped, since its task was cancelled."
        return "timeout", "The video provider took too long."
    if status.error is not None:
        return status.error.code, status.error.user_message
    return "generation_cancelled", "The video provider stopped this job."


def _note_not_found(generation: Generation, *, stop_requested: bool) -> Observation:
    code, message = "job_lost", "The video provider lost this job."
    if generation.state == State.LOST:
        records.stop_checking(generation.pk)
    elif stop_requested:  # that it took nothing is not proven
        gone = JobStatus(JobState.CANCELLED, "gone after our cancel")
        return _note_end(generation, gone, took_nothing=False)
    elif records.record_not_found(generation.pk):
        records.record_lost(generation.pk, code=code, message=message)
    else:
        return Observation(Meaning.NOT_FOUND)
    return Observation(Meaning.LOST, code, message)


def note_failed(generations: Collection[Generation], answers: Mapping[str, provider_calls.PollAnswer]) -> None:
    """Record which of these polls failed, and set each one's `poll_errors`, in a row; 0 for those that did not.

    A failed read counts against its model: each request once, and no more often than opens a circuit; those of many
    users before many of one.
    """
    failed = [pk for pk, answer in answers.items() if isinstance(answer, provider_calls.READ_TROUBLE)]
    in_a_row = poll_records.record_failed_polls(failed)
    last_answers.keep({pk: said.answer for pk in failed if isinstance(said := answers[pk], ProviderError)})
    faults: dict[tuple[str, str], dict[int, tuple[str, set[int]]]] = {}  # by request: its error, and whose jobs
    for generation in generations:
        generation.poll_errors = in_a_row.get(generation.pk, 0)
        answer = answers.get(generation.pk)
        if isinstance(answer, ProviderDown):
            of_model = faults.setdefault((generation.model, generation.provider), {})
            of_model.setdefault(id(answer), (str(answer), set()))[1].add(generation.user_id)
    for (model, provider), of_model in faults.items():
        told = [(text, users.pop() if len(users) == 1 else health.NOBODYS) for text, users in of_model.values()]
        for text, user_id in _of_many_first(told)[: settings.CIRCUIT_FAULTS]:
            health.note_fault(model, provider, text, user_id)


def _of_many_first(told: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """(error, user) in such an order that each user's first comes before any user's second."""
    seen: Counter[int] = Counter()
    places: list[int] = []
    for _, user_id in told:
        places.append(seen[user_id])
        seen[user_id] += 1
    return [one for _, one in sorted(zip(places, told, strict=True), key=lambda pair: pair[0])]


@dataclass(frozen=True)
class LookUp:
    """A look-up by our reference. `written`: the attempt has the job now; False when it was settled meanwhile."""

    job: Submitted | None
    written: bool = False


def look_up(generation: Generation, *, counts: bool = True) -> LookUp:
    """Ask for the job that holds our reference, and record what was found, or that nothing was.

    Sets `generation.lookups`. `counts`: whether an answer without a job counts as one of the planned look-ups.
    Raises KeyGone and READ_TROUBLE.
    """
    job = provider_calls.look_up(generation)
    if job is not None:
        try:
            written = records.record_accepted(generation.pk, job)
        except IntegrityError:  # job ids are unique
            raise ProviderDown("the answer to a look-up names the job of another attempt") from None
        clamped.warn(generation, job.clamped)
        return LookUp(job, written)
    if counts:
        generation.lookups = records.record_not_found_by_reference(generation.pk)
    return LookUp(None)
