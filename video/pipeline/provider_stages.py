"""Generate and poll, the two stages at the provider.

A stage takes a claim, works outside any transaction, and returns what it decided.

Facts about the attempt are written as soon as they are known (`video.attempts`); the task's own move is made
afterwards, in one place (`runner.py`). A stage that runs again finds what the last try wrote, and goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import IntegrityError

from providers import catalogue
from providers.contract import JobState, JobStatus, StartImage, Submitted
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
    clamped,
    last_answers,
    observe,
    poll_policy,
    poll_statistics,
    provider_calls,
    records,
    unknown_submits,
)
from video.attempts.observe import Meaning
from video.attempts.poll_policy import HOUR_S
from video.engine.claims import Claim
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, TryAgain, WaitForSlot
from video.engine.transitions import progress_in_poll, render_fraction
from video.infra import outage
from video.infra.failpoints import failpoint
from video.models import Generation, Stage
from video.pipeline import start_images
from video.routing import accounts, health, key_labels, model_choice, refusals

log = logging.getLogger(__name__)
State = Generation.State

NOT_FOUND_DELAY_S = 20.0
PAUSED = "paused by the operators: nothing new is sent"
UNKNOWN_STILL = "whether the job began is not known yet"
# Of submits that can't leave this machine: with the growing delays about a quarter of an hour.
MOST_TRIES_TO_REACH = 20
# A submit that can't leave this machine is tried this often at one provider before another model may run the task.
TRIES_TO_REACH = 3


# --- generate ------------------------------------------------------------------------------------------------------


def generate(claim: Claim) -> Outcome:
    """Submit the planned attempt, once; or go on from what an earlier try of this stage left behind."""
    generation = claim.attempt
    if generation is None or generation.state not in Generation.LIVE:
        return _after_attempt(claim, generation)
    claim.generation_id = generation.pk
    if generation.state == State.ACCEPTED:  # by a worker that is gone, or by a call-back: it may have ended already
        return _to_poll(generation, at_once=True)
    if generation.state == State.PLANNED:
        if not claim.user_is_active:
            return _not_begun(generation, records.USER_OFF, "its user is switched off")
        return _paused(generation) if claim.is_paused else _submit(claim, generation)
    settled = unknown_submits.settle(claim, generation)
    if settled is None:
        return Park(unknown_submits.LOOKUP_RETRY_S, PAUSED) if claim.is_paused else _submit(claim, generation)
    if isinstance(settled, Submitted):
        return _to_poll(generation, at_once=claim.is_past_deadline)
    return settled


def _paused(generation: Generation) -> Outcome:
    refusals.end_try(generation)
    return _not_begun(generation, records.PAUSED, PAUSED)


def _not_begun(generation: Generation, code: str, reason: str) -> Outcome:
    """An operator has switched something off since the admission: nothing is sent, and the slot is given back."""
    health.give_back_probe(generation.model, generation.user_id)
    records.record_rejected(generation.pk, code=code, message="")
    return WaitForSlot(reason)


def _submit(claim: Claim, generation: Generation) -> Outcome:
    """Send a planned attempt; or an unknown one again, with the same reference, where that makes no second job."""
    again = generation.state == State.UNKNOWN
    try:
        image = start_images.start_image(claim, generation.model)
    except start_images.ImageWaits as err:
        return Park(start_images.WAITS_S, str(err), code=err.code)
    except start_images.ImageUnreachable as err:
        return _image_unreachable(claim, generation, err, again=again)
    except start_images.ImageRefused as err:
        return _image_refused(claim, generation, err, again=again)
    with start_images.memory_for(image):
        return _send(claim, generation, image, again=again)


def _image_unreachable(
    claim: Claim, generation: Generation, err: start_images.ImageUnreachable, *, again: bool
) -> Outcome:
    """Nothing was sent: the host of the start image is asked again, within a bound."""
    if again or claim.task.tries + 1 >= start_images.TRIES:
        refused = start_images.ImageRefused(err.code, err.message, f"{err}; try {claim.task.tries + 1}")
        return _image_refused(claim, generation, refused, again=again)
    return TryAgain(err.code, err.message, str(err), at_least_s=err.retry_after_s, most_tries=start_images.TRIES)


def _image_refused(claim: Claim, generation: Generation, err: start_images.ImageRefused, *, again: bool) -> Outcome:
    """Nothing was sent, and this model will never begin with that image; perhaps another one will."""
    if again:  # the first send is still unknown: only the look-ups can tell
        return Park(unknown_submits.LOOKUP_RETRY_S, f"{UNKNOWN_STILL}: {err}", error_code=err.code)
    _give_back(generation)
    records.record_rejected(generation.pk, code=err.code, message=err.message)
    if err.another_model_could:
        return fall_back(claim, err.code, err.message, str(err))
    return Fail(err.code, err.message, str(err))


def _send(claim: Claim, generation: Generation, image: StartImage | None, *, again: bool) -> Outcome:
    """The submit itself, and what its answer means."""
    try:
        submission = provider_calls.Submission(claim.task, generation, image)
    except RequestRejected as err:
        return _rejected(generation, err)
    except accounts.ACCOUNT_ERRORS as err:
        return _refused(generation, err)
    except provider_calls.KeyGone:
        _give_back(generation)
        records.record_rejected(generation.pk, code="key_refused", message="The key is no longer configured.")
        return WaitForSlot(f'key "{key_labels.of_generation(generation)}" is no longer configured')
    failpoint("generate.before_mark_sent")
    marked = (
        records.mark_resent(claim, generation)
        if again
        else records.mark_sent(claim, generation, expects_call=submission.expects_call)
    )
    if not marked:  # the task is somebody else's by now, or a pause began since the claim
        return _paused(generation) if not again and records.is_paused(generation.pk) else Dropped()
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
    if isinstance(answer, ProviderError):
        last_answers.keep({generation.pk: answer.answer})
    match answer:
        case Submitted():
            try:
                records.record_accepted(generation.pk, answer)
            except IntegrityError:  # job ids are unique: somebody on the way repeated an older answer
                log.exception("%s: the answer to its submit names the job of another attempt", generation.pk)
                return unknown_submits.after_unknown(generation, SubmissionUnknown("answered with another's job"))
            clamped.warn(generation, answer.clamped)
            failpoint("generate.after_record")
            return _to_poll(generation)
        case NotSent():
            return _not_sent(claim, generation, answer, again=again)
        case SubmissionUnknown():
            refusals.end_try(generation)
            if health.is_fault(answer):
                health.note_fault(generation.model, generation.provider, str(answer), generation.user_id)
            return unknown_submits.after_unknown(generation, answer)
    if isinstance(answer, accounts.ACCOUNT_ERRORS):
        return _refused(generation, answer)
    return _rejected(generation, answer)


def _rejected(generation: Generation, err: ProviderError) -> Outcome:
    """The request itself is at fault: the task ends, and neither key nor model is blamed."""
    _give_back(generation)
    records.record_rejected(generation.pk, code=err.code, message=err.user_message)
    return Fail(err.code, err.user_message, str(err))


def _refused(generation: Generation, err: ProviderError) -> Outcome:
    """Trouble of the key or its account, which is marked: the task waits for another."""
    health.give_back_probe(generation.model, generation.user_id)
    records.record_rejected(generation.pk, code=err.code, message=err.user_message)
    accounts.note_refusal(generation, err)
    return WaitForSlot(f"waits for another slot: {err}")


def _give_back(generation: Generation) -> None:
    """The attempt ended without a verdict on its model, key and account: another may try those that are in doubt."""
    health.give_back_probe(generation.model, generation.user_id)
    refusals.end_try(generation)


def _not_sent(claim: Claim, generation: Generation, err: NotSent, *, again: bool) -> Outcome:
    """No byte left: the same row is sent later; if that goes on, another model may run the task."""
    # No byte of the request left, so nothing in it is the cause: it would have befallen anybody's.
    health.note_fault(generation.model, generation.provider, str(err))
    if again:  # the first send is still unknown: only the look-ups can tell
        records.record_unknown(generation.pk)
        return Park(unknown_submits.LOOKUP_RETRY_S, f"{UNKNOWN_STILL}: {err}", error_code=err.code)
    code, message = "provider_unreachable", "The video provider can't be reached."
    records.put_back(generation.pk)
    if claim.task.tries + 1 >= TRIES_TO_REACH and model_choice.fallbacks(claim.task, _tried(claim)):
        records.record_rejected(generation.pk, code=code, message=message)
        return fall_back(claim, code, message, str(err))
    return TryAgain(code, message, str(err), most_tries=MOST_TRIES_TO_REACH)


def _to_poll(generation: Generation, *, at_once: bool = False) -> Outcome:
    accounts.note_accepted(generation)
    delay_s = 0.0 if at_once else poll_statistics.next_look_s(generation, 0.0)
    return Advance(Stage.POLL, delay_s=delay_s, detail=f"{generation.provider} has the job")


def _tried(claim: Claim) -> set[str]:
    """Models that this run has tried and that could not do it."""
    return records.models_tried(claim.task.pk, claim.task.run)


def fall_back(claim: Claim, code: str, message: str, detail: str) -> Outcome:
    """The last attempt is proven to be over, and another model may succeed: the task waits for a slot of one.

    Where the client wants no other model, or none is left, the task ends with the cause.
    """
    models = model_choice.fallbacks(claim.task, _tried(claim))
    if not models:
        return Fail(code, message, detail)
    return WaitForSlot(f"falling back: {detail}", models=models)


def _after_attempt(claim: Claim, last: Generation | None) -> Outcome:
    """No attempt is live: what the last one's end means for the task."""
    if last is None:
        return WaitForSlot("no attempt was planned")
    claim.generation_id = last.pk
    code = last.error_code or "generation_failed"
    message = last.error_message or "The video provider could not make this video."
    if last.state == State.SUCCEEDED:
        return _to_download(last) if claim.stage is Stage.POLL else Advance(Stage.POLL)
    if last.state == State.REJECTED and code in (*accounts.NOT_THE_TASKS_FAULT, *records.NOT_BEGUN):
        return WaitForSlot(message)
    if last.state == State.LOST and not last.job_id and settings.RETRY_UNKNOWN_SUBMITS:
        return WaitForSlot("the outcome stayed unknown; trying again, as RETRY_UNKNOWN_SUBMITS says")
    ended = last.state in {State.REJECTED, State.FAILED, State.CANCELLED}
    if ended and last.another_model_could and code not in NO_OTHER_MODEL_COULD:
        return fall_back(claim, code, message, f"attempt {last.attempt} ended as {last.state}")
    return Fail(code, message, f"attempt {last.attempt} ended as {last.state}")


# Causes in the request itself: no other model could get past them.
NO_OTHER_MODEL_COULD = frozenset({"bad_request", "moderation"}) | start_images.FINAL_CODES


# --- poll ----------------------------------------------------------------------------------------------------------


def poll(claims: Sequence[Claim]) -> list[tuple[Claim, Callable[[], Outcome]]]:
    """Poll the jobs of all these tasks, together; each with the decision that is left to be made.

    A fixed number of statements for those whose jobs go on, however many they are.
    """
    found = [claim.attempt for claim in claims if claim.attempt is not None]
    last = {claim.attempt.pk for claim in claims if claim.is_past_deadline and claim.attempt is not None}
    answers = provider_calls.poll_many([one for one in found if one.state == State.ACCEPTED], last=last)
    failpoint("poll.after_read")
    observe.note_failed(found, answers)
    return [(claim, partial(_decide, claim, claim.attempt, answers)) for claim in claims]


def _decide(claim: Claim, generation: Generation | None, answers: Mapping[str, provider_calls.PollAnswer]) -> Outcome:
    """What the poll of this task's job means for the task."""
    if generation is None or generation.state in {State.PLANNED, State.UNKNOWN}:
        raise RuntimeError(f"{claim.task.pk} polls without an accepted job")
    claim.generation_id = generation.pk
    if generation.state != State.ACCEPTED:
        return _after_attempt(claim, generation)
    match answers[generation.pk]:
        case JobStatus() as status if status.state not in observe.ENDS:
            return _still_open(claim, generation, status)
        case JobStatus() | JobNotFound() as answer:
            return _ended(claim, generation, answer)
        case ProviderDown() | KeyRefused() | OutOfCredits() | Busy() as err:
            return _poll_failed(claim, generation, err)
        case provider_calls.Paused() as err:
            delay_s = err.wait_s + poll_statistics.spread_s(generation)
            park = Park(delay_s, f"asked again later: {err}", hint_delay_s=err.wait_s, code="provider_paused")
            return _overdue(claim, generation) or park
        case provider_calls.KeyGone():
            label = key_labels.of(generation.provider, generation.key_fingerprint)
            log.error('%s: key "%s" is gone while a paid job hangs on it; put it back', claim.task.pk, label)
            reason = f'key "{label}" is gone: put it back'
            return _overdue(claim, generation) or Park(30, reason, hint_delay_s=30, code="key_gone")
        case err:
            raise err


def _ended(claim: Claim, generation: Generation, answer: JobStatus | JobNotFound) -> Outcome:
    """The job has ended, or its provider does not know it."""
    seen = observe.note(generation, answer, stop_requested=generation.cancel_wanted_at is not None)
    if seen.meaning is Meaning.NOT_FOUND:
        return _overdue(claim, generation) or Park(
            NOT_FOUND_DELAY_S,
            "the provider does not know the job; asking again",
            progress=_shown_progress(claim, generation),
            hint_delay_s=callbacks.least_interval_s(generation.provider),
            record=generation.not_found == 0,
        )
    if seen.meaning is Meaning.LOST:
        return Fail(seen.code, seen.message, str(answer))
    failpoint("poll.after_record")
    if seen.meaning is Meaning.SUCCEEDED:
        return _to_download(generation)
    detail = str(answer.error or answer.provider_status) if isinstance(answer, JobStatus) else "gone after our cancel"
    if not seen.is_understood:
        detail = f"not understood, so no other model is asked (see Failure texts): {detail}"
    if not seen.another_model_could:
        return Fail(seen.code, seen.message, detail)
    return fall_back(claim, seen.code, seen.message, detail)


def _still_open(claim: Claim, generation: Generation, status: JobStatus) -> Outcome:
    """The job goes on. The poll is written with those of the whole batch, unless the task ends."""
    if status.state is JobState.UNRECOGNISED:
        log.error(
            "%s: %s says %r, a status that we do not know; waiting",
            claim.task.pk,
            generation.provider,
            status.provider_status,
        )
    over = _overdue(claim, generation)
    if over is not None:
        observe.note(generation, status)
        return over
    clamped.warn(generation, status.clamped)
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
    """How far the render is, 0 to 1: as the provider says, else by the usual time, and never quite done."""
    if status.progress is not None:
        return status.progress
    if status.state is not JobState.RUNNING:
        return 0.0
    return poll_policy.progress(poll_statistics.render_s(generation.model), _age_s(claim, generation))


def _shown_progress(claim: Claim, generation: Generation) -> int:
    """The progress that the API shows at this moment, so that what is written never falls behind it."""
    accepted_at, last = generation.accepted_at, generation.last_polled_at
    if accepted_at is None or last is None:
        return claim.task.progress
    share = poll_policy.progress_since(
        render_fraction(claim.task.progress), (last - accepted_at).total_seconds(), _age_s(claim, generation)
    )
    return progress_in_poll(share)


def _age_s(claim: Claim, generation: Generation) -> float:
    """Seconds from the provider's acceptance to this poll, by the database's clock."""
    since = generation.accepted_at
    return 0.0 if since is None else max(0.0, (claim.claimed_at - since).total_seconds())


def _to_download(generation: Generation) -> Outcome:
    # Marked before the first file is made, so that a crash never leaves work files that nobody sweeps.
    return Advance(Stage.DOWNLOAD, detail=f"{generation.provider} is done", fields={"has_work_files": True})


def _poll_failed(claim: Claim, generation: Generation, err: ProviderError) -> Outcome:
    """A poll that failed never fails a paid job."""
    in_a_row = generation.poll_errors
    delay_s = max(provider_calls.poll_interval_s(generation.provider), min(60.0, 2.0 ** min(in_a_row, 6)))
    if isinstance(err, Busy):
        delay_s = max(delay_s, provider_calls.asked_wait_s(err))
    # A hint does not make a provider in trouble any better.
    return _overdue(claim, generation) or Park(
        delay_s,
        f"asking for its state failed, it is asked again: {err}",
        progress=_shown_progress(claim, generation),
        hint_delay_s=delay_s,
        error_code=err.code,
        record=in_a_row == 1,
    )


def _overdue(claim: Claim, generation: Generation) -> Outcome | None:
    """Past the model's longest render time the provider is asked to stop; past the task's deadline the task ends.

    The job of an ended task is still checked, rarely: a video that comes late is delivered.
    """
    longest = timedelta(seconds=catalogue.BY_ID[generation.model].longest_render_s)
    if generation.accepted_at is not None and claim.claimed_at > generation.accepted_at + longest:
        _ask_to_stop(generation)
    if not claim.is_past_deadline:
        return None
    _ask_to_stop(generation)
    records.check_later(generation.pk, HOUR_S)
    return Fail("timeout", "The video provider took too long.", "deadline passed with the job still open")


def _ask_to_stop(generation: Generation) -> None:
    records.want_cancel(generation.pk)  # written once; asked again at each poll until the job has ended
    try:
        provider_calls.cancel(generation)
    except (ProviderError, provider_calls.KeyGone) as err:
        log.warning("%s: the job could not be cancelled: %s", generation.pk, err)
