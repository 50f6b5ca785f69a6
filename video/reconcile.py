"""Attempts that no running task drives any more: late truth, and slots to be given up.

A job whose task ended (deadline, unknown outcome) may still end well. It is looked at rarely; a video that comes late
is delivered without a new debit, if nothing newer stands in its way.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import connection

from providers.base import JobState
from providers.errors import JobNotFound, ProviderError
from video import attempts, bell, jobs, states
from video.models import Generation, Stage
from video.stages import HOUR_S

log = logging.getLogger(__name__)
State = Generation.State
KEEP_LOOKING_S = 24 * HOUR_S
BATCH = 50


def reconcile() -> int:
    """One pass; safe to run twice at once. Returns how many attempts were settled or looked at."""
    done = attempts.expire_unknown(settings.UNKNOWN_WINDOW_SECONDS)
    for generation in _due_for_a_look():
        look(generation)
        done += 1
    return done


def _due_for_a_look() -> list[Generation]:
    """Take due ones by pushing their next look an hour away, so that another sweeper does not look as well."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS MATERIALIZED (
                SELECT id FROM video_generation WHERE look_at <= statement_timestamp()
                ORDER BY look_at LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE video_generation g SET look_at = statement_timestamp() + %s * interval '1 second'
            FROM due WHERE g.id = due.id RETURNING g.id
            """,
            [BATCH, HOUR_S],
        )
        found = [row[0] for row in cursor.fetchall()]
    return list(Generation.objects.filter(pk__in=found).select_related("account", "task"))


def look(generation: Generation) -> None:
    """Look at one job that no running task drives, and write down what became of it."""
    try:
        if generation.cancel_wanted_at is not None and generation.state == State.ACCEPTED:
            jobs.cancel(generation)
        status = jobs.look(generation)
    except JobNotFound:
        if generation.state == State.LOST:
            attempts.stop_looking(generation.pk)
        elif generation.cancel_wanted_at is not None:  # some providers forget a job that was cancelled
            attempts.record_ended(generation.pk, State.CANCELLED, provider_status="gone after our cancel")
        elif attempts.record_not_found(generation.pk):
            attempts.record_lost(generation.pk, code="job_lost")
        return
    except (ProviderError, jobs.KeyGone) as err:
        log.warning("%s: a look at an open job failed: %s", generation.pk, err)
        _give_up_if_old(generation)
        return
    if status.state is JobState.SUCCEEDED:
        attempts.record_ended(generation.pk, State.SUCCEEDED, cost=status.cost, provider_status=status.provider_status)
        if states.revive(generation.task_id, generation.run, generation.pk):
            log.info("%s: its video came late and is delivered; the refund stays", generation.task_id)
            bell.resume(generation.task_id, Stage.DOWNLOAD)
    elif status.state in {JobState.FAILED, JobState.CANCELLED}:
        attempts.record_ended(
            generation.pk,
            State.FAILED if status.state is JobState.FAILED else State.CANCELLED,
            cost=status.cost,
            provider_status=status.provider_status,
            code=status.error.code if status.error else "",
        )
    else:
        attempts.record_look(generation.pk, status)
        _give_up_if_old(generation)


def _give_up_if_old(generation: Generation) -> None:
    """A day after it was accepted, nobody believes in it any more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT accepted_at < statement_timestamp() - %s * interval '1 second' FROM video_generation WHERE id = %s",
            [KEEP_LOOKING_S, generation.pk],
        )
        row = cursor.fetchone()
    if row and row[0]:
        attempts.record_lost(generation.pk, code="job_lost")
        attempts.stop_looking(generation.pk)
