"""Generate and poll, the two stages at the provider.

A stage takes a claim, works outside any transaction, and returns what it decided.

Facts about the attempt are written as soon as they are known (`attempts.py`); the task's own move is made afterwards,
in one place (`pipeline.py`). A stage that runs again finds what the last try wrote, and goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from django.conf import settings

from providers import catalogue
from providers.contract import JobState, JobStatus, Submitted
from providers.errors import (
    Busy,
    JobNotFound,
    KeyRefused,
    NotSent,
    OutOfCredits,
    ProviderDown,
    ProviderError,
    RequestRejected,
    SubmissionUnknown,
)
from video.attempts import (
    callbacks,
    poll_policy,
    poll_records,
    poll_statistics,
    provider_calls,
    records,
    unknown_submits,
)
from video.attempts.poll_policy import HOUR_S
from video.engine.claims import Claim
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, TryAgain, WaitForSlot
from video.engine.transitions import progress_in_poll, render_fraction
from video.infra import outage
from video.infra.failpoints import failpoint
from video.models import Generation, Stage
from video.routing import accounts, health, model_choice

log = logging.getLogger(__name__)
State = Generation.State

NOT_FOUND_DELAY_S = 20.0
# Of submits that can't leave this machine: with the growing delays about a quarter of an hour.
MOST_TRIES_TO_REACH = 20
# A submit that can't leave this machine is tried this often at one provider before another may have the task.
TRIES_TO_REACH = 3


# --- generate ------------------------------------------------------------------------------------------------------


def generate(claim: Claim) -> Outcome:
    """Submit the planned attempt, once; or go on from what an earlier try of this stage left behind."""
    generation = records.live(claim.task.pk)
    if generation is None:
        return _after_attempt(claim, records.latest(claim.task.pk))
    claim.generation_id = generation.pk
    if generation.state == State.ACCEPTED:  # by a worker that is gone, or by a call-back: it may have ended already
        return _to_poll(generation, at_once=True)
    if generation.state == State.PLANNED:
        return _submit(claim, generation)
    settled = unknown_submits.settle(claim, generation)
    if settled is None:
        return _submit(claim, generation)
    if isinstance(settled, Submitted):
        records.record_accepted(generation.pk, settled)
        return _to_poll(generation)
    return settled


def _submit(claim: Claim, generation: Generation) -> Outcome:
    """Send a planned attempt; or an unknown one again, with the same reference, where that makes no second job."""
    again = generation.state == State.UNKNOWN
    try:
        submission = provider_calls.Submission(claim.task, generation)
    except RequestRejected as err:
        return _rejected(generation, err)
    except accounts.ACCOUNT_ERRORS as err:
        return _refused(generation, err)
    except provider_calls.KeyGone:
        health.give_back_probe(generation.model)
        records.record_rejected(generation.pk, code="key_refused", message="The key is no longer configured.")
        return WaitForSlot(f"key {generation.key_fingerprint} is no longer configured")
    failpoint("generate.before_mark_sent")
    marked = (
        records.mark_resent(claim, generation)
        if again
        else records.mark_sent(claim, generation, expects_call=submission.expects_call)
    )
    if not marked:
        return Dropped()
    try:
        failpoint("generate.after_mark_sent")
        answer: Submitted | ProviderError = submission.send()
    except ProviderError as err:
        answer = err
    # It may be a paid job's id: not forgotten because the database is away at this moment.
    return outage.retry_while_unavailable(
        lambda: _answered(claim, generation, answer, again=again), f"{claim.task.pk} submit"
    )


def _answered(claim: Claim, generation: Generation, answer: Submitted | ProviderError, *, again: bool) -> Outcome:
    """Write down what the submit's end says of the attempt. Harmless when done twice."""
    match answer:
        case Submitted():
            records.record_accepted(generation.pk, answer)
            failpoint("generate.after_record")
            return _to_poll(generation)
        case NotSent():
            return _not_sent(claim, generation, answer, again=again)
        case SubmissionUnknown():
            if health.is_fault(answer):
                health.note_fault(generation.model, generation.provider, str(answer))
            return unknown_submits.after_unknown(generation, answer)
    if isinstance(answer, accounts.ACCOUNT_ERRORS):
        return _refused(generation, answer)
    return _rejected(generation, answer)


def _rejected(generation: Generation, err: ProviderError) -> Outcome:
    """The request itself is at fault: the task ends, and neither key nor model is blamed."""
    health.give_back_probe(generation.model)
    records.record_rejected(generation.pk, code=err.code, message=err.user_message)
    return Fail(err.code, err.user_message, str(err))


def _refused(generation: Generation, err: ProviderError) -> Outcome:
    """Trouble of the key or its account: it takes the consequences, the task waits for a better one."""
    health.give_back_probe(generation.model)
    records.record_rejected(generation.pk, code=err.code, message=err.user_message)
    accounts.note_refusal(generation, err)
    return WaitForSlot(str(err))


def _not_sent(claim: Claim, generation: Generation, err: NotSent, *, again: bool) -> Outcome:
    """No byte left: the same row is sent later; when the provider stays out of reach, another model may have a go."""
    health.note_fault(generation.model, generation.provider, str(err))
    if again:  # the first send is still unknown: only the look-ups can tell
        records.record_unknown(generation.pk)
        return Park(unknown_submits.LOOKUP_TROUBLE_S, str(err), error_code=err.code)
    code, message = "provider_unreachable", "The video provider can't be reached."
    records.put_back(generation.pk)
    if claim.task.tries + 1 >= TRIES_TO_REACH and model_choice.fallbacks(claim.task, _tried(claim)):
        records.record_rejected(generation.pk, code=code, message=message)
        return fall_back(claim, code, message, str(err))
    return TryAgain(code, message, str(err), most_tries=MOST_TRIES_TO_REACH)


def _to_poll(generation: Generation, *, at_once: bool = False) -> Outcome:
    delay_s = 0.0 if at_once else poll_statistics.next_look_s(generation, 0.0)
    return Advance(Stage.POLL, delay_s=delay_s, detail=f"{generation.provider} has the job")


def _tried(claim: Claim) -> set[str]:
    """Models that this run has tried and that could not do it."""
    return records.models_tried(claim.task.pk, claim.task.run)


def fall_back(claim: Claim, code: str, message: str, detail: str) -> Outcome:
    """The last attempt is proven to be over, and another model may get past its trouble: back in line for one.

    Where the client wants no other model, or none is left, the task ends with the cause.
    """
    models = model_choice.fallbacks(claim.task, _tried(claim))
    if not models:
        return Fail(code, message, detail)
    return WaitForSlot(f"{detail}; falling back", models=models)


def _after_attempt(claim: Claim, last: Generation | None) -> Outcome:
    """No attempt is live: what the last one's end means for the task."""
    if last is None:
        return WaitForSlot("no attempt was planned")
    claim.generation_id = last.pk
    code = last.error_code or "generation_failed"
    message = last.error_message or "The video provider could not make this video."
    if last.state == State.SUCCEEDED:
        return _to_download(last) if claim.stage is Stage.POLL else Advance(Stage.POLL)
    if last.state == State.REJECTED and code in accounts.NOT_THE_TASKS_FAULT:
        return WaitForSlot(message)
    if last.state == State.LOST and not last.job_id and settings.RETRY_UNKNOWN_SUBMITS:
        return WaitForSlot("the outcome stayed unknown; trying again, as RETRY_UNKNOWN_SUBMITS says")
    if last.state in {State.REJECTED, State.FAILED, State.CANCELLED} and code not in NO_OTHER_MODEL_COULD:
        return fall_back(claim, code, message, f"attempt {last.attempt} ended as {last.state}")
    return Fail(code, message, f"attempt {last.attempt} ended as {last.state}")


# Causes in the request itself: no other model could get past them.
NO_OTHER_MODEL_COULD = frozenset({"bad_request", "moderation"})


# --- poll ----------------------------------------------------------------------------------------------------------


def polls(claims: Sequence[Claim]) -> list[tuple[Claim, Callable[[], Outcome]]]:
    """Look once at the jobs of all these tasks, together; each with the decision that is left to be made.

    A fixed number of statements for those whose jobs go on, however many they are.
    """
    found = records.latest_of([claim.task.pk for claim in claims])
    for claim in claims:
        if claim.task.pk in found:
            found[claim.task.pk].task = claim.task
    answers = provider_calls.poll_many([one for one in found.values() if one.state == State.ACCEPTED])
    failpoint("poll.after_read")
    trouble = [pk for pk, answer in answers.items() if isinstance(answer, provider_calls.READ_TROUBLE)]
    in_a_row = poll_records.record_failed_polls(trouble)
    for generation in found.values():
        generation.poll_errors = in_a_row.get(generation.pk, 0)
    _note_faults(found.values(), answers)
    return [(claim, partial(_poll, claim, found.get(claim.task.pk), answers)) for claim in claims]


def _note_faults(generations: Iterable[Generation], answers: Mapping[str, provider_calls.Answer]) -> None:
    """Reads that failed count against their models: each request once, and no more than open a circuit."""
    faults: dict[str, dict[int, Generation]] = {}
    for generation in generations:
        answer = answers.get(generation.pk)
        if isinstance(answer, ProviderDown):
            faults.setdefault(generation.model, {})[id(answer)] = generation
    for model, of_model in faults.items():
        for generation in list(of_model.values())[: settings.CIRCUIT_FAULTS]:
            health.note_fault(model, generation.provider, str(answers[generation.pk]))


def _poll(claim: Claim, generation: Generation | None, answers: Mapping[str, provider_calls.Answer]) -> Outcome:
    """What the look at this task's job means."""
    if generation is None or generation.state in {State.PLANNED, State.UNKNOWN}:
        raise RuntimeError(f"{claim.task.pk} polls without an accepted job")
    claim.generation_id = generation.pk
    if generation.state != State.ACCEPTED:
        return _after_attempt(claim, generation)
    match answers[generation.pk]:
        case JobStatus() as status:
            return _decide(claim, generation, status)
        case JobNotFound() as err:
            return _not_found(claim, generation, str(err))
        case ProviderDown() | KeyRefused() | OutOfCredits() | Busy() as err:
            return _no_look(claim, generation, err)
        case provider_calls.Paused() as err:
            delay_s = err.wait_s + poll_statistics.spread_s(generation)
            return _overdue(claim, generation) or _quiet(claim, Park(delay_s, str(err), hint_delay_s=err.wait_s))
        case provider_calls.KeyGone():
            log.error(
                "%s: key %s is gone while a paid job hangs on it; put it back",
                claim.task.pk,
                generation.key_fingerprint,
            )
            reason = f"key {generation.key_fingerprint} is gone: put it back"
            return _overdue(claim, generation) or _quiet(claim, Park(30, reason, hint_delay_s=30))
        case err:
            raise err


def _quiet(claim: Claim, park: Park) -> Park:
    """The same park, recorded only when the task did not wait for this very reason before."""
    return replace(park, record=claim.task.park_reason != park.reason)


def _decide(claim: Claim, generation: Generation, status: JobStatus) -> Outcome:
    """What one look at a job means."""
    if status.state is JobState.SUCCEEDED:
        records.record_ended(
            generation.pk,
            State.SUCCEEDED,
            cost=status.cost,
            provider_status=status.provider_status,
            result_life_s=provider_calls.result_life_s(generation.provider),
        )
        health.note_success(generation.model, generation.provider)
        failpoint("poll.after_record")
        return _to_download(generation)
    if status.state in {JobState.FAILED, JobState.CANCELLED}:
        return _ended_badly(claim, generation, status)
    if status.state is JobState.UNRECOGNISED:
        log.error(
            "%s: %s says %r, a status that we do not know; waiting",
            claim.task.pk,
            generation.provider,
            status.provider_status,
        )
    over = _overdue(claim, generation)
    if over is not None:
        poll_records.record_polls([(generation.pk, status)])
        return over
    said = f"{generation.provider}: {status.provider_status.lower()}"
    return Park(
        poll_statistics.next_look_s(generation, _age_s(claim, generation)),
        said,
        owner_detail=said,
        progress=max(_shown_progress(claim, generation), progress_in_poll(_progress(claim, generation, status))),
        hint_delay_s=callbacks.least_interval_s(generation.provider),
        record=generation.provider_status != status.provider_status,
        look=status,
    )


def _progress(claim: Claim, generation: Generation, status: JobStatus) -> float:
    """How far the render is, 0 to 1: as told, else by the time it usually takes, and never quite done."""
    if status.progress is not None:
        return status.progress
    if status.state is not JobState.RUNNING:
        return 0.0
    return poll_policy.progress(poll_statistics.render_s(generation.model), _age_s(claim, generation))


def _shown_progress(claim: Claim, generation: Generation) -> int:
    """What a status says at this moment, so that what is written never falls behind it."""
    accepted_at, last = generation.accepted_at, generation.last_polled_at
    if accepted_at is None or last is None:
        return claim.task.progress
    share = poll_policy.progress_since(
        render_fraction(claim.task.progress), (last - accepted_at).total_seconds(), _age_s(claim, generation)
    )
    return progress_in_poll(share)


def _age_s(claim: Claim, generation: Generation) -> float:
    """Seconds from the provider's acceptance to this look, by the database's clock."""
    since = generation.accepted_at
    return 0.0 if since is None else max(0.0, (claim.claimed_at - since).total_seconds())


def _ended_badly(claim: Claim, generation: Generation, status: JobStatus) -> Outcome:
    """Verified: the job ended without a video. Another model may have a go, unless the request itself is at fault."""
    error = status.error
    code = error.code if error else "generation_cancelled"
    message = error.user_message if error else "The video provider stopped this job."
    if status.state is JobState.CANCELLED and generation.cancel_wanted_at is not None:
        code, message = "timeout", "The video provider took too long."
    records.record_ended(
        generation.pk,
        State.FAILED if status.state is JobState.FAILED else State.CANCELLED,
        cost=status.cost,
        provider_status=status.provider_status,
        code=code,
        message=message,
        took_nothing=provider_calls.took_nothing(generation, status),
    )
    failpoint("poll.after_record")
    detail = str(error or status.provider_status)
    if error is not None and not error.another_model_could:
        health.give_back_probe(generation.model)
        return Fail(code, message, detail)
    if error is not None:
        health.note_fault(generation.model, generation.provider, detail)
    else:  # stopped, by us or by hand
        health.give_back_probe(generation.model)
    return fall_back(claim, code, message, detail)


def _to_download(generation: Generation) -> Outcome:
    # Marked before the first file is made, so that a crash never leaves work files that nobody sweeps.
    return Advance(Stage.DOWNLOAD, detail=f"{generation.provider} is done", fields={"has_work_files": True})


def _not_found(claim: Claim, generation: Generation, detail: str) -> Outcome:
    if generation.cancel_wanted_at is not None:  # some providers forget a job that was cancelled
        return _ended_badly(claim, generation, JobStatus(JobState.CANCELLED, "gone after our cancel"))
    if not records.record_not_found(generation.pk):
        return Park(
            NOT_FOUND_DELAY_S,
            "the provider does not know the job; asking again",
            progress=_shown_progress(claim, generation),
            hint_delay_s=callbacks.least_interval_s(generation.provider),
            record=generation.not_found == 0,
        )
    records.record_lost(generation.pk, code="job_lost")
    return Fail("job_lost", "The video provider lost this job.", detail)


def _no_look(claim: Claim, generation: Generation, err: ProviderError) -> Outcome:
    """A look that could not be had never fails a paid job."""
    in_a_row = generation.poll_errors
    delay_s = max(provider_calls.poll_interval_s(generation.provider), min(60.0, 2.0 ** min(in_a_row, 6)))
    if isinstance(err, Busy) and err.retry_after_s:
        delay_s = max(delay_s, err.retry_after_s)
    # A hint does not make a provider in trouble any better.
    return _overdue(claim, generation) or Park(
        delay_s,
        str(err),
        progress=_shown_progress(claim, generation),
        hint_delay_s=delay_s,
        error_code=err.code,
        record=in_a_row == 1,
    )


def _overdue(claim: Claim, generation: Generation) -> Outcome | None:
    """Past the model's longest render time the provider is asked to stop; past the task's deadline the task ends.

    The job of an ended task is still looked at, rarely: a video that comes late is delivered.
    """
    longest = timedelta(seconds=catalogue.BY_ID[generation.model].longest_render_s)
    if generation.accepted_at is not None and claim.claimed_at > generation.accepted_at + longest:
        _ask_to_stop(generation)
    if claim.task.deadline_at is None or claim.claimed_at < claim.task.deadline_at:
        return None
    _ask_to_stop(generation)
    records.check_later(generation.pk, HOUR_S)
    return Fail("timeout", "The video provider took too long.", "deadline passed with the job still open")


def _ask_to_stop(generation: Generation) -> None:
    records.want_cancel(generation.pk)  # noted once; asked again at each look until the job has ended
    try:
        provider_calls.cancel(generation)
    except (ProviderError, provider_calls.KeyGone) as err:
        log.warning("%s: the job could not be cancelled: %s", generation.pk, err)
