"""Generate and poll, the two stages at the provider.

A stage takes a claim, works outside any transaction, and returns what it decided.

Facts about the attempt are written as soon as they are known (`attempts.py`); the task's own move is made afterwards,
in one place (`pipeline.py`). A stage that runs again finds what the last try wrote, and goes on from there.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings

from providers.base import JobState, JobStatus
from providers.errors import (
    Busy,
    JobNotFound,
    KeyRefused,
    NotSent,
    ProviderDown,
    ProviderError,
    RequestRejected,
    SubmissionUnknown,
)
from video import accounts, attempts, jobs
from video.failpoints import failpoint
from video.models import Generation, Stage
from video.outcomes import Advance, Dropped, Fail, Outcome, Park, TryAgain, WaitForSlot
from video.states import PROGRESS_AT, Claim

log = logging.getLogger(__name__)
State = Generation.State

# Beyond the HTTP deadline, before an answer that never came is believed never to come.
SETTLE_GRACE_S = 10.0
HOUR_S = 3600.0
# Of submits that can't leave this machine: with the growing delays about a quarter of an hour, longer than most outages.
MOST_TRIES_TO_REACH = 20


# --- generate ------------------------------------------------------------------------------------------------------


def generate(claim: Claim) -> Outcome:
    """Submit the planned attempt, once; or go on from what an earlier try of this stage left behind."""
    generation = attempts.live(claim.task.pk)
    if generation is None:
        return _after_attempt(attempts.latest(claim.task.pk))
    claim.generation_id = generation.pk
    if generation.state == State.ACCEPTED:
        return _accepted(generation)
    if generation.state == State.UNKNOWN:
        return _settle(claim, generation)
    return _submit(claim, generation)


def _submit(claim: Claim, generation: Generation) -> Outcome:
    try:
        submission = jobs.Submission(claim.task, generation)
    except RequestRejected as err:
        attempts.record_rejected(generation.pk, code=err.code, message=err.user_message)
        return Fail(err.code, err.user_message, str(err))
    except accounts.ACCOUNT_ERRORS as err:
        return _refused(generation, err)
    except jobs.KeyGone:
        attempts.record_rejected(generation.pk, code="key_refused", message="The key is no longer configured.")
        return WaitForSlot(f"key {generation.key_fingerprint} is no longer configured")
    failpoint("generate.before_mark_sent")
    if not attempts.mark_sent(claim, generation):
        return Dropped()
    try:
        failpoint("generate.after_mark_sent")
        submitted = submission.send()
    except NotSent as err:
        attempts.put_back(generation.pk)
        return TryAgain(
            "provider_unreachable",
            "The video provider can't be reached.",
            str(err),
            most_tries=MOST_TRIES_TO_REACH,
        )
    except SubmissionUnknown as err:
        return _unknown_for_ever(str(err))
    except accounts.ACCOUNT_ERRORS as err:
        return _refused(generation, err)
    except ProviderError as err:
        attempts.record_rejected(generation.pk, code=err.code, message=err.user_message)
        return Fail(err.code, err.user_message, str(err))
    attempts.record_accepted(generation.pk, submitted)
    failpoint("generate.after_record")
    return _accepted(generation)


def _refused(generation: Generation, err: ProviderError) -> Outcome:
    """Trouble of the key or its account: it takes the consequences, the task waits for a better one."""
    attempts.record_rejected(generation.pk, code=err.code, message=err.user_message)
    accounts.note_refusal(generation, err)
    return WaitForSlot(str(err))


def _accepted(generation: Generation) -> Outcome:
    return Advance(
        Stage.POLL, delay_s=jobs.poll_interval_s(generation.provider), detail=f"{generation.provider} has the job"
    )


def _settle(claim: Claim, generation: Generation) -> Outcome:
    """A submit whose outcome nobody wrote down: wait until no answer can come any more, then settle it."""
    assert generation.sent_at is not None
    settle_at = generation.sent_at + timedelta(seconds=settings.SUBMIT_TIMEOUT_SECONDS + SETTLE_GRACE_S)
    left_s = (settle_at - claim.claimed_at).total_seconds()
    if left_s > 0:
        return Park(left_s, "the submit's answer may still come", record=False)
    return _unknown_for_ever("the worker that sent it never came back")


def _unknown_for_ever(detail: str) -> Outcome:
    """Runway has no look-up by our reference and no call-back: no truth can come. The slot stays taken for a while."""
    return Fail(SubmissionUnknown.code, SubmissionUnknown.user_message, detail)


def _after_attempt(last: Generation | None) -> Outcome:
    """No attempt is live: what the last one's end means for the task."""
    if last is None:
        return WaitForSlot("no attempt was planned")
    if last.state == State.REJECTED and last.error_code in accounts.NOT_THE_TASKS_FAULT:
        return WaitForSlot(last.error_message or last.error_code)
    if last.state == State.SUCCEEDED:
        return Advance(Stage.POLL)
    code = last.error_code or "generation_failed"
    return Fail(code, last.error_message or "The video provider could not make this video.", f"attempt {last.state}")


# --- poll ----------------------------------------------------------------------------------------------------------


def poll(claim: Claim) -> Outcome:
    """Look at the job once."""
    generation = attempts.latest(claim.task.pk)
    if generation is None or generation.state in {State.PLANNED, State.UNKNOWN}:
        raise RuntimeError(f"{claim.task.pk} polls without an accepted job")
    claim.generation_id = generation.pk
    if generation.state != State.ACCEPTED:
        if generation.state == State.SUCCEEDED:
            return _to_download(generation)
        return _after_attempt(generation)
    try:
        status = jobs.look(generation)
    except JobNotFound as err:
        return _not_found(generation, str(err))
    except (ProviderDown, KeyRefused, Busy) as err:
        return _no_look(claim, generation, err)
    except jobs.KeyGone:
        log.error(  # noqa: TRY400 - the traceback tells nothing
            "%s: key %s is gone while a paid job hangs on it; put it back", claim.task.pk, generation.key_fingerprint
        )
        return _overdue(claim, generation) or Park(30, f"key {generation.key_fingerprint} is gone: put it back")
    failpoint("poll.after_read")
    return _decide(claim, generation, status)


def _decide(claim: Claim, generation: Generation, status: JobStatus) -> Outcome:
    """What one look at a job means."""
    if status.state is JobState.SUCCEEDED:
        attempts.record_ended(generation.pk, State.SUCCEEDED, cost=status.cost, provider_status=status.provider_status)
        failpoint("poll.after_record")
        return _to_download(generation)
    if status.state is JobState.FAILED or status.state is JobState.CANCELLED:
        error = status.error
        code = error.code if error else "generation_cancelled"
        message = error.user_message if error else "The video provider stopped this job."
        attempts.record_ended(
            generation.pk,
            State.FAILED if status.state is JobState.FAILED else State.CANCELLED,
            cost=status.cost,
            provider_status=status.provider_status,
            code=code,
            message=message,
        )
        failpoint("poll.after_record")
        return Fail(code, message, str(error or status.provider_status))
    if status.state is JobState.UNRECOGNISED:
        log.error(
            "%s: %s says %r, a status that we do not know; waiting",
            claim.task.pk,
            generation.provider,
            status.provider_status,
        )
    attempts.record_look(generation.pk, status)
    interval_s = jobs.poll_interval_s(generation.provider)
    span = PROGRESS_AT[Stage.DOWNLOAD] - PROGRESS_AT[Stage.POLL]
    return _overdue(claim, generation) or Park(
        interval_s,
        f"{generation.provider}: {status.provider_status.lower()}",
        progress=PROGRESS_AT[Stage.POLL] + int(span * (status.progress or 0)),
        hint_delay_s=interval_s,
        record=generation.provider_status != status.provider_status,
    )


def _to_download(generation: Generation) -> Outcome:
    # Marked before the first file is made, so that a crash never leaves work files that nobody sweeps.
    return Advance(Stage.DOWNLOAD, detail=f"{generation.provider} is done", fields={"has_work_files": True})


def _not_found(generation: Generation, detail: str) -> Outcome:
    if not attempts.record_not_found(generation.pk):
        return Park(20, "the provider does not know the job; asking again", record=generation.not_found == 0)
    attempts.record_lost(generation.pk, code="job_lost")
    return Fail("job_lost", "The video provider lost this job.", detail)


def _no_look(claim: Claim, generation: Generation, err: ProviderError) -> Outcome:
    """A look that could not be had never fails a paid job."""
    in_a_row = attempts.record_failed_look(generation.pk)
    delay_s = max(jobs.poll_interval_s(generation.provider), min(60.0, 2.0 ** min(in_a_row, 6)))
    if isinstance(err, Busy) and err.retry_after_s:
        delay_s = max(delay_s, err.retry_after_s)
    return _overdue(claim, generation) or Park(delay_s, str(err), error_code=err.code, record=in_a_row == 1)


def _overdue(claim: Claim, generation: Generation) -> Outcome | None:
    """Past the task's deadline: ask the provider to stop, and end the task. The job is still looked at, rarely."""
    if claim.task.deadline_at is None or claim.claimed_at < claim.task.deadline_at:
        return None
    try:
        jobs.cancel(generation)
    except (ProviderError, jobs.KeyGone) as err:
        log.warning("%s: the job could not be cancelled: %s", claim.task.pk, err)
    attempts.look_later(generation.pk, HOUR_S)
    return Fail("timeout", "The video provider took too long.", "deadline passed with the job still open")
