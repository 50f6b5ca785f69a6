"""What a move of the task does to its attempts: admission plans one, a failure or a cancel leaves it, a retry goes on.

Each is called in the transaction that moves the task, and after the task's row was written: that is the order in which
all moves lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from video.engine import dispatch, transitions
from video.engine.claims import Claim
from video.infra import database
from video.infra.after_commit import after_commit
from video.models import Generation, Stage
from video.routing import health, refusals

State = Generation.State


def plan(generations: Iterable[Generation]) -> None:
    """Insert the planned attempts of admitted tasks. Each takes a slot with this."""
    Generation.objects.bulk_create(generations)


def fail(claim: Claim, *, code: str, message: str, detail: str = "", generation_id: str | None = None) -> bool:
    """End the task as failed with its refund, and leave its attempt; one transaction. False: it is no longer ours.

    `message` is a plain sentence for the user; `detail` is for operators.
    """
    with transaction.atomic():
        moved = transitions.fail(claim, code=code, message=message, detail=detail, generation_id=generation_id)
        if moved:
            _leave_failed(claim.task.pk, claim.stage)
        return moved


def _leave_failed(task_id: str, stage: Stage) -> None:
    """The attempt of a task that fails in `stage`.

    One that was never sent frees its slot. An open job is checked later. An unanswered submit is looked up where its
    provider can. A job whose success another process has just written is delivered late.
    """
    attempts = Generation.objects.filter(task_id=task_id)
    _reject(attempts.filter(state=State.PLANNED))
    database.execute(
        """
        UPDATE video_generation SET look_at = statement_timestamp() + interval '1 hour' * (state = 'accepted')::int
        WHERE task_id = %s AND state IN ('accepted', 'unknown') AND look_at IS NULL
        """,
        [task_id],
    )
    if stage in {Stage.GENERATE, Stage.POLL}:
        attempts.filter(state=State.SUCCEEDED, look_at__isnull=True).update(look_at=Now())


def _reject(planned: QuerySet[Generation]) -> None:
    planned.update(state=State.REJECTED, ended_at=Now(), error_code="task_ended")


def leave_cancelled(attempts: Iterable[Generation]) -> None:
    """The last attempts of tasks that are cancelled, all locked: one that was not sent frees its slot, the job of
    another one is to be stopped. Two statements at most.

    Call it in the cancel's transaction; probes, admission and checks follow after the commit.
    """
    last = list(attempts)
    planned = [one for one in last if one.state == State.PLANNED]
    if planned:
        _reject(Generation.objects.filter(pk__in=[one.pk for one in planned]))
        # After the commit: admission locks circuits and credit accounts in another order.
        for model, user_id in {(one.model, one.user_id) for one in planned}:
            after_commit(partial(health.give_back_probe, model, user_id))
        for one in planned:
            after_commit(partial(refusals.end_try, one))
        after_commit(dispatch.request_admission)
    open_jobs = [one.pk for one in last if one.state in {State.UNKNOWN, State.ACCEPTED}]
    if open_jobs:
        jobs = Generation.objects.filter(pk__in=open_jobs)
        jobs.update(look_at=Now(), cancel_wanted_at=Coalesce("cancel_wanted_at", Now()))
        for job in open_jobs:
            after_commit(partial(dispatch.request_check, job))


def continue_in_run(last: Generation, run: int) -> None:
    """The last attempt, locked, goes on in the run of a retry: that run pays for it, and its task polls it again."""
    wanted_at = None if last.state == State.ACCEPTED else last.cancel_wanted_at
    Generation.objects.filter(pk=last.pk).update(run=run, look_at=None, cancel_wanted_at=wanted_at, fetch_errors=0)
