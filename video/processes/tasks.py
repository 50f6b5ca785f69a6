"""The Celery tasks: the six links of a job's chain, admission, the status check of an attempt, and webhooks.

Each takes ids, may run twice and holds no rules. Correctness never depends on a message: the sweeper enqueues again
whatever is due and was not claimed.
"""

from __future__ import annotations

import logging
import threading

from celery import Task, shared_task
from django.db import connection

from video.attempts import attach_requests, reconcile
from video.engine import dispatch, due, queues, shutdown
from video.infra import outage
from video.models import Stage
from video.pipeline import runner
from video.scheduling import admission
from video.webhooks import deliver as webhooks

log = logging.getLogger(__name__)


def _run_link(task: Task, stage: Stage, task_ids: list[str]) -> list[str]:
    """Run one stage, unless this worker stops. Returns the ids of tasks whose next stage is due now.

    When there are none the rest of the chain is dropped: the next stage is dispatched when it is due.
    """
    due_now: list[str] = []
    if shutdown.begun():
        due.requeue(task_ids, stage)
    else:
        due_now = _run(stage, task_ids)
    if not due_now:
        task.request.chain = None
    return due_now


def _run(stage: Stage, task_ids: list[str]) -> list[str]:
    try:
        if stage is Stage.POLL:
            return runner.run_batch(task_ids)
        return [task_id for task_id in task_ids if runner.run_stage(stage, task_id)]
    except outage.ERRORS as err:
        connection.close()
        log.warning(
            "%s %s: the database can't be used (%s); enqueued again when it can", ", ".join(task_ids[:3]), stage, err
        )
        return []


@shared_task(bind=True, name=queues.task_of(Stage.GENERATE))
def generate(self: Task, task_id: str) -> None:
    """Submit once."""
    _run_link(self, Stage.GENERATE, [task_id])


@shared_task(bind=True, name=queues.task_of(Stage.POLL))
def poll(self: Task, task_ids: list[str]) -> None:
    """Poll jobs: one in a chain, or a batch that the sweeper sent."""
    is_batch = not self.request.chain
    due_now = _run_link(self, Stage.POLL, task_ids)
    if is_batch:
        dispatch.resume_all((task_id, Stage.DOWNLOAD) for task_id in due_now)


@shared_task(bind=True, name=queues.task_of(Stage.DOWNLOAD))
def download(self: Task, task_id: str) -> None:
    """Fetch the result into storage."""
    _run_link(self, Stage.DOWNLOAD, [task_id])


@shared_task(bind=True, name=queues.task_of(Stage.TRANSCODE))
def transcode(self: Task, task_id: str) -> None:
    """Make it the MP4 that was asked for."""
    _run_link(self, Stage.TRANSCODE, [task_id])


@shared_task(bind=True, name=queues.task_of(Stage.THUMBNAIL))
def thumbnail(self: Task, task_id: str) -> None:
    """Cut the first frame."""
    _run_link(self, Stage.THUMBNAIL, [task_id])


@shared_task(bind=True, name=queues.task_of(Stage.SAVE))
def save(self: Task, task_id: str) -> None:
    """Give both their final names."""
    _run_link(self, Stage.SAVE, [task_id])


_admitting = threading.Lock()
_asked_again = threading.Event()


@shared_task(name=queues.ADMIT)
def admit() -> None:
    """Give free slots to waiting tasks.

    One thread of a worker at a time, so that many creates don't take all threads from the jobs. A message that comes
    meanwhile causes one more pass.
    """
    if shutdown.begun():  # the sweeper admits them
        return
    _asked_again.set()
    if not _admitting.acquire(blocking=False):
        return
    try:
        while _asked_again.is_set():
            _asked_again.clear()
            dispatch.resume_all(admission.admit(), urgent=False)
    finally:
        _admitting.release()


@shared_task(name=queues.CHECK)
def look(generation_id: str) -> None:
    """Attach a job to an attempt, or check one whose task has ended: stop its job, or record its end."""
    if not attach_requests.take_up(generation_id):
        reconcile.check_if_due(generation_id)


@shared_task(name=queues.DELIVER)
def deliver(delivery_id: str) -> None:
    """Try one webhook. While this worker stops none is begun: the sweeper sends it again."""
    if shutdown.begun():
        return
    try:
        webhooks.deliver(delivery_id)
    except outage.ERRORS as err:
        connection.close()
        log.warning("%s: the database can't be used (%s); tried again when it can", delivery_id, err)
