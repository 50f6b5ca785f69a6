"""What sweepers do of the jobs that operators ask for: one at a time in each sweeper, the oldest first.

A task is retried or cancelled in one transaction with the note that it was dealt with, so whoever goes on with a job
after a death begins with the next task. All other kinds are safe to be done again from their beginning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.db import transaction

from media_pipeline.errors import MediaError
from video.actions import cancel, retry
from video.actions import jobs as asked
from video.attempts import unsettled
from video.credits import audit
from video.engine import jobs
from video.engine.jobs import JobLost, Line
from video.infra import outage
from video.infra.durations import count
from video.infra.errors import Refusal
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import OperatorJob
from video.processes import key_check, storage_sweep
from video.processes.storage_sweep import Lost
from video.routing import slots

log = logging.getLogger(__name__)

BATCH = 200  # tasks whose ids are read at once
MOST_COUNTED = 100_000  # tasks; of more, nobody is told how many there are


@dataclass
class Work:
    """A claimed job, and whether to leave off: this sweeper stops, or the job is not ours any more."""

    job: OperatorJob
    stop: threading.Event
    lost: threading.Event

    def check(self) -> None:
        """Raises JobLost, or Leaving when this sweeper stops."""
        if self.lost.is_set():
            raise JobLost
        if self.stop.is_set():
            raise Leaving


class Leaving(Exception):
    """This sweeper stops: another one goes on with the job."""


def work(stop: threading.Event) -> bool:
    """Do the oldest job that nobody holds, until it ends or `stop` is set. False: there is none.

    Raises the database's errors; the job is then taken over when its lease is over.
    """
    job = jobs.claim()
    if job is None:
        return False
    if job.deaths > jobs.MAX_DEATHS:
        jobs.finish(job, f"{job.deaths - 1} sweepers died of it one after another; their logs say why.", failed=True)
        return True
    with jobs.kept(job) as lost:
        try:
            summary = _DO[OperatorJob.Kind(job.kind)](Work(job, stop, lost))
        except Leaving:
            jobs.release(job)
        except JobLost:
            log.info("job %s was stopped or taken over; the work on it ends here", job.pk)
        except outage.ERRORS:
            raise
        except Refusal as err:
            jobs.finish(job, str(err), failed=True)
        except MediaError as err:
            jobs.finish(job, f"The storage can't be used: {err}", failed=True)
        except Exception as err:  # the boundary of a job: the next one has nothing to do with it
            log.exception("job %s failed", job.pk)
            jobs.finish(job, f"It failed ({type(err).__name__}); the sweeper's log says why.", failed=True)
        else:
            jobs.finish(job, summary)
    return True


# --- tasks ---------------------------------------------------------------------------------------------------------


def _retry(work: Work) -> str:
    job = work.job
    free = bool(job.arguments.get("free"))
    act = partial(retry.retry, by=asked.actor_of(job), free=free, regenerate=bool(job.arguments.get("regenerate")))
    return _each_task(work, lambda task_id: act(task_id).words, "retried")


def _cancel(work: Work) -> str:
    by = asked.actor_of(work.job)
    return _each_task(work, lambda task_id: cancel.cancel(task_id, by=by).words, "cancelled")


def _each_task(work: Work, act: Callable[[str], str], done: str) -> str:
    job = work.job
    rows = asked.rows_of(OperatorJob.Kind(job.kind), job.arguments)
    if job.of is None:
        number = rows.order_by()[: MOST_COUNTED + 1].count()
        jobs.advance(job, items=0, of=number if number <= MOST_COUNTED else None)
    while True:
        ids = list(rows.filter(pk__gt=job.cursor).order_by("pk").values_list("pk", flat=True)[:BATCH])
        for task_id in ids:
            work.check()
            _one_task(job, task_id, act)
        if not ids:
            break
    if not job.done:
        return "No task matched any more."
    return f"{count(job.done - job.refused, 'task')} {done}" + (f", {job.refused} refused." if job.refused else ".")


def _one_task(job: OperatorJob, task_id: str, act: Callable[[str], str]) -> None:
    """The act and its note in one transaction, under the lock of the job: either both are there, or none."""
    try:
        with transaction.atomic():
            jobs.hold(job)
            line = _result(task_id, act)
            jobs.advance(job, line, refused=int(not line.ok), cursor=task_id)
            failpoint("job.item_done")
    except (JobLost, *outage.ERRORS):
        raise
    except Exception as err:  # the boundary of one task: nothing of it was done, and the others go on
        log.exception("job %s: %s could not be dealt with", job.pk, task_id)
        line = Line(f"{task_id}: it failed ({type(err).__name__}); the sweeper's log says why", ok=False)
        jobs.advance(job, line, refused=1, cursor=task_id)
    failpoint("job.item_committed")


def _result(task_id: str, act: Callable[[str], str]) -> Line:
    try:
        return Line(f"{task_id}: {act(task_id)}")
    except Refusal as err:
        return Line(f"{task_id}: {err}", ok=False)


# --- the rest ------------------------------------------------------------------------------------------------------


def _check_ledger(work: Work) -> str:
    job, checks = work.job, audit.CHECKS
    jobs.begin_anew(job, of=len(checks))
    found = 0
    for check in checks:
        work.check()
        differences = list(check())
        found += len(differences)
        lines = [Line(f"user {one.user_id} {one.task_id} {one.sentence}", ok=False) for one in differences]
        jobs.advance(job, *lines[: jobs.MOST_LINES], refused=int(bool(differences)))
    extent = audit.extent()
    size = f"{extent.entries} entries in {extent.accounts} accounts, {extent.balance} credits in all"
    return f"{count(found, 'difference')}; {size}." if found else f"The ledger is whole: {size}."


def _clean_up(work: Work) -> str:
    job, seen = work.job, storage_sweep.Seen()
    dry_run = bool(job.arguments["dryRun"])
    look = None if dry_run else OperatorJob.objects.get(pk=job.arguments["look"])
    # What had to stay at the look because it was young stays now, too.
    now = time.time() if look is None or look.started_at is None else look.started_at.timestamp()
    jobs.begin_anew(job)
    freed = told = 0
    for one in storage_sweep.clean_up(toolkit().storage, seen, now=now, dry_run=dry_run):
        work.check()
        if isinstance(one, Lost):
            state = "is there again" if one.is_back else "is not there"
            jobs.advance(job, Line(f"{one.task_id}: its {one.what} {state}: {one.key}", ok=one.is_back))
        elif one.error:
            jobs.advance(job, Line(f"{one.orphan.key} could not be deleted: {one.error}", ok=False), refused=1)
        else:
            freed += one.orphan.size_bytes
            jobs.advance(job, Line(f"{one.orphan.key}, {one.orphan.size_bytes:,} bytes"))
        told += 1
    word = "would be deleted" if dry_run else "deleted"
    return (
        f"{seen.files} files seen, {count(told, 'thing')} found, {freed / 1e6:.1f} MB {word}; {seen.young} too young "
        f"to tell, {seen.foreign} not named as ours."
    )


def _reconcile(work: Work) -> str:
    job = work.job
    cases = unsettled.find(with_lost=False)
    jobs.begin_anew(job, of=len(cases))
    for case in cases:
        work.check()
        said = unsettled.check_now(case)
        jobs.advance(job, Line(f"{case.generation.pk} of {case.generation.task_id}: {said}"))
    left = sum(case.open for case in unsettled.find(with_lost=False))
    return f"{count(len(cases), 'open attempt')} looked at; {left} open now."


def _check_keys(work: Work) -> str:
    job, wanted = work.job, work.job.arguments
    keys = [
        (provider, key)
        for provider, key, account in slots.configured()
        if wanted["provider"] in {"", provider}
        and wanted["fingerprint"] in {"", key.fingerprint}
        and wanted["account"] in {"", account}
    ]
    if not keys:
        return "No such key is configured here."
    jobs.begin_anew(job, of=len(keys))
    rows = key_check.check(keys)
    for row in rows:
        verdict = row.verdict.replace("_", " ") + (f": {row.last_error}" if row.last_error else "")
        line = Line(f"{row.key.provider} {row.key.fingerprint}: {verdict}", ok=row.good)
        jobs.advance(job, line, refused=int(not row.good))
    bad = sum(not row.good for row in rows)
    simulated = " Everything is simulated." if settings.SIMULATE else ""
    return (f"{bad} of {count(len(rows), 'key')} not good." if bad else "All are good.") + simulated


_DO: dict[OperatorJob.Kind, Callable[[Work], str]] = {
    OperatorJob.Kind.RETRY: _retry,
    OperatorJob.Kind.CANCEL: _cancel,
    OperatorJob.Kind.CHECK_LEDGER: _check_ledger,
    OperatorJob.Kind.CLEANUP_STORAGE: _clean_up,
    OperatorJob.Kind.RECONCILE: _reconcile,
    OperatorJob.Kind.CHECK_KEYS: _check_keys,
}
