"""Settles a submit whose outcome is unknown, by the means that its provider offers.

Nothing is looked up before the call is surely over: at once when our own sender saw its end, else after the HTTP
deadline and a grace. Some providers are asked by our reference, others may call back with it. Where neither is possible
the task ends with its refund, and the attempt keeps its slot for the longest render time.

The task's deadline ends the waiting: a provider that can be asked is asked once more, then the task ends, and
`reconcile` settles the attempt.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings

from providers.contract import Submitted
from providers.errors import DuplicateReference, SubmissionUnknown
from video.attempts import observe, provider_calls, records
from video.engine.claims import Claim
from video.engine.outcomes import Fail, Outcome, Park, WaitForSlot
from video.infra.toolkit import toolkit
from video.models import Generation

# Beyond the HTTP deadline, before an answer that never came is believed never to come.
GRACE_S = 10.0
LOOKUP_RETRY_S = 15.0
# A call-back was quicker than our giving up: the stage runs again at once, and finds the job accepted.
THE_JOB_CAME = Park(0, "the provider called back with the job")


def over_at(generation: Generation) -> datetime:
    """When the submit's call was surely over."""
    assert generation.sent_at is not None
    return generation.unknown_since or generation.sent_at + timedelta(seconds=settings.SUBMIT_TIMEOUT_SECONDS + GRACE_S)


def settle(claim: Claim, generation: Generation) -> Outcome | Submitted | None:
    """Wait, adopt the job that was found (Submitted), send again where that can't double (None), or give up."""
    left_s = (over_at(generation) - claim.claimed_at).total_seconds()
    if left_s > 0:
        if claim.is_past_deadline:
            return _end_at_deadline("the submit's answer might still have come")
        return Park(left_s, "the submit's answer may still come", record=False)
    provider = toolkit().provider(generation.provider)
    if provider.can_look_up:
        return _look_up(claim, generation)
    if provider.can_call_back and settings.PUBLIC_BASE_URL:
        left_s = _left_of_window(claim, generation)
        if left_s > 0:
            if claim.is_past_deadline:
                return _end_at_deadline(f"{provider.title} might still have called back")
            return Park(left_s, f"{provider.title} may still call back with the job", hint_delay_s=0)
        if not _lose(generation):
            return THE_JOB_CAME
    return give_up(generation, f"{provider.title} can't tell whether the job began")


def give_up(generation: Generation, detail: str) -> Outcome:
    """The outcome stays unknown: the task ends with its refund; or, where the operator chose so, is tried again."""
    if settings.RETRY_UNKNOWN_SUBMITS:
        if generation.state == Generation.State.UNKNOWN and not _lose(generation):
            return THE_JOB_CAME
        return WaitForSlot(f"outcome unknown; trying again, as RETRY_UNKNOWN_SUBMITS says: {detail}")
    return Fail(SubmissionUnknown.code, SubmissionUnknown.user_message, detail)


def _end_at_deadline(detail: str) -> Outcome:
    """The task ends with its refund. The attempt stays unknown: late truth may still come."""
    return Fail(SubmissionUnknown.code, SubmissionUnknown.user_message, f"the deadline passed; {detail}")


def _lose(generation: Generation) -> bool:
    if records.give_up_unknown(generation.pk):
        generation.state = Generation.State.LOST
        return True
    return False


def _left_of_window(claim: Claim, generation: Generation) -> float:
    assert generation.sent_at is not None
    window_s = settings.UNKNOWN_WINDOW_SECONDS[generation.provider]
    return (generation.sent_at + timedelta(seconds=window_s) - claim.claimed_at).total_seconds()


def lookup_at(generation: Generation) -> datetime:
    """When to ask by our reference next: a few times with growing distance, since a new job may show late."""
    times = settings.LOOKUP_SECONDS
    return over_at(generation) + timedelta(seconds=times[min(generation.lookups, len(times) - 1)])


def _look_up(claim: Claim, generation: Generation) -> Outcome | Submitted | None:
    """Ask by our reference, and say what follows."""
    times = settings.LOOKUP_SECONDS
    left_s = (lookup_at(generation) - claim.claimed_at).total_seconds()
    if left_s > 0 and not claim.is_past_deadline:
        return Park(left_s, f"look-up {generation.lookups + 1} of {len(times)} by our reference", hint_delay_s=0)
    try:
        found = observe.look_up(generation)
    except (*provider_calls.READ_TROUBLE, provider_calls.KeyGone) as err:
        if claim.is_past_deadline:
            return give_up(generation, f"it could not be looked up until the task's deadline: {err}")
        return Park(LOOKUP_RETRY_S, f"the look-up failed: {err}", error_code="provider_down")
    if found.job is not None:
        return found.job
    lookups = generation.lookups
    if claim.is_past_deadline:
        return _end_at_deadline("not found by our reference")
    if lookups < len(times):
        return Park(times[lookups] - times[lookups - 1], "not found by our reference; asking again", record=False)
    if provider_calls.refuses_duplicates(generation) and not generation.resent:
        return None
    if not _lose(generation):
        return THE_JOB_CAME
    return give_up(generation, f"not found by our reference, asked {lookups} times")


def after_unknown(generation: Generation, error: SubmissionUnknown) -> Outcome:
    """Our own call ended without proof: note when, and what comes next."""
    records.record_unknown(generation.pk)
    provider = toolkit().provider(generation.provider)
    if isinstance(error, DuplicateReference):
        return Park(0, f"{provider.title} already has a job with our reference; looking it up")
    if provider.can_look_up:
        return Park(settings.LOOKUP_SECONDS[0], f"outcome unknown, it is looked up by our reference: {error}")
    if provider.can_call_back and settings.PUBLIC_BASE_URL:
        return Park(
            settings.UNKNOWN_WINDOW_SECONDS[generation.provider],
            f"outcome unknown, {provider.title}'s call is waited for: {error}",
            hint_delay_s=0,
        )
    return give_up(generation, str(error))
