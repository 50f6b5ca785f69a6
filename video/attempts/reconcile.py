"""Checks attempts that no running task polls any more: late videos, jobs to be stopped, slots to be freed.

A job whose task ended (deadline, unknown outcome) may still succeed. It is checked rarely; its late video is delivered
without a new debit, unless the task has a newer run or attempt. The job of a cancelled task is asked to stop until it
has ended; its end decides the refund, in the transaction that writes it.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from providers.contract import CancelOutcome, JobState, JobStatus
from providers.errors import JobNotFound, ProviderError
from video.attempts import observe, poll_records, provider_calls, records, unknown_submits
from video.attempts.poll_policy import HOUR_S
from video.engine import dispatch, transitions
from video.infra import outage
from video.infra.toolkit import toolkit
from video.models import Generation, Stage
from video.routing import health, refusals

log = logging.getLogger(__name__)
State = Generation.State
KEEP_CHECKING_S = 24 * HOUR_S
STILL_LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.UNRECOGNISED)


def reconcile() -> int:
    """One pass; safe to run twice at once. Returns how many attempts were settled or checked."""
    done = records.expire_unknown(settings.UNKNOWN_WINDOW_SECONDS)
    for generation in _take_due():
        try:
            check(generation)
        except outage.ERRORS:
            raise
        except Exception:  # the boundary of one attempt: the others of this pass are due too
            log.exception("%s: the check of its job failed; it is checked again in an hour", generation.pk)
        done += 1
    return done


def check_if_due(generation_id: str) -> bool:
    """Check one attempt if that is due and no other process is checking it. Returns whether it did."""
    found = _take_due(generation_id)
    for generation in found:
        check(generation)
    return bool(found)


def _take_due(generation_id: str | None = None) -> list[Generation]:
    found = poll_records.take_due_checks(generation_id)
    return list(Generation.objects.filter(pk__in=found).select_related("account", "task"))


def check(generation: Generation) -> None:
    """Poll one job that no running task drives, ask it to stop if that is wanted, and write the answer down."""
    if generation.state == State.UNKNOWN:
        _look_up(generation)
        return
    if generation.state == State.SUCCEEDED:  # by a process that could not deliver it
        _deliver(generation)
        return
    asked: CancelOutcome | None = None
    try:
        answer = _poll(generation)
        is_to_stop = generation.cancel_wanted_at is not None and generation.state == State.ACCEPTED
        if is_to_stop and (isinstance(answer, JobNotFound) or answer.state in STILL_LIVE):
            # Polled first: the last status before the stop tells what the end costs, and a finished video is kept.
            if isinstance(answer, JobStatus):
                observe.note(generation, answer)
                generation.provider_status = answer.provider_status
            asked = provider_calls.cancel(generation)
            answer = _poll(generation) if asked is not None else answer
    except (ProviderError, provider_calls.KeyGone) as err:
        log.warning("%s: an open job could not be checked: %s", generation.pk, err)
        _check_again(generation)
        return
    match observe.note(generation, answer, stop_requested=asked is CancelOutcome.REQUESTED).meaning:
        case observe.Meaning.SUCCEEDED:
            _deliver(generation)
        case observe.Meaning.OPEN:
            _check_again(generation)


def _poll(generation: Generation) -> JobStatus | JobNotFound:
    try:
        return provider_calls.poll(generation)
    except JobNotFound as err:
        return err


def _look_up(generation: Generation) -> None:
    """A submit whose answer never came, and whose task has ended: look it up by our reference where the provider can.

    It is never sent again. At other providers it is lost when its window is over (`records.expire_unknown`).
    """
    if not toolkit().provider(generation.provider).can_look_up:
        records.look_up_later(generation.pk, HOUR_S)
        return
    left_s = (unknown_submits.lookup_at(generation) - timezone.now()).total_seconds()
    if left_s > 0:
        records.look_up_later(generation.pk, left_s)
        return
    try:
        found = observe.look_up(generation)
    except (ProviderError, provider_calls.KeyGone) as err:
        log.warning("%s: a look-up of an unanswered submit failed: %s", generation.pk, err)
        records.look_up_later(generation.pk, unknown_submits.LOOKUP_RETRY_S)
        return
    if found.job is not None:
        dispatch.request_check(generation.pk)
    elif generation.lookups < len(settings.LOOKUP_SECONDS):
        left_s = (unknown_submits.lookup_at(generation) - timezone.now()).total_seconds()
        records.look_up_later(generation.pk, max(0.0, left_s))
    elif records.give_up_unknown(generation.pk):
        health.give_back_probe(generation.model, generation.user_id)
        refusals.end_try(generation)


def _check_again(generation: Generation) -> None:
    """Its job goes on, as far as is known."""
    records.check_again(generation.pk, 2 * provider_calls.poll_interval_s(generation.provider))
    _give_up_if_old(generation)


def _deliver(generation: Generation) -> None:
    """A video that came after its task had failed: the task goes on, unless it has a newer run or attempt."""
    with transaction.atomic():
        revived = transitions.revive(generation.task_id, generation.run, generation.pk)
        records.stop_checking(generation.pk)
    if revived:
        log.info("%s: its video came late and is delivered; the refund stays", generation.task_id)
        dispatch.resume(generation.task_id, Stage.DOWNLOAD)


def _give_up_if_old(generation: Generation) -> None:
    """A day after it was accepted, the job is given up."""
    long_ago = Now() - timedelta(seconds=KEEP_CHECKING_S)
    if Generation.objects.filter(pk=generation.pk, accepted_at__lt=long_ago).exists():
        records.record_lost(generation.pk, code="job_lost")
        records.stop_checking(generation.pk)
