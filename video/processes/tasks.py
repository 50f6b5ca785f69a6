"""The Celery tasks: the six links of a job's chain, the bell of admission, and a look at what was cancelled.

Each takes an id, may run twice, holds no rules. Correctness never depends on a message: the sweeper rings whatever is
due and was not heard.
"""

from __future__ import annotations

import logging
import threading

from celery import Task, shared_task
from django.db import connection

from video.attempts import reconcile
from video.engine import dispatch, shutdown
from video.infra import outage
from video.models import Stage
from video.pipeline import runner
from video.scheduling import admission

log = logging.getLogger(__name__)


def _link(task: Task, stage: Stage, task_id: str) -> None:
    """Run one stage, unless this worker stops. When the next one is not due right now the rest of the chain is
    dropped, and rung when it is."""
    if shutdown.begun():
        shutdown.hand_over([task_id], stage)
        task.request.chain = None
    elif not _run(stage, task_id):
        task.request.chain = None


def _run(stage: Stage, task_id: str) -> bool:
    try:
        return runner.run_stage(stage, task_id)
    except outage.ERRORS as err:
        connection.close()
        log.warning("%s %s: the database can't be used (%s); rung again when it can", task_id, stage, err)
        return False


def _run_batch(task_ids: list[str]) -> list[str]:
    try:
        return runner.run_batch(task_ids)
    except outage.ERRORS as err:
        connection.close()
        log.warning("a wave of %s looks: the database can't be used (%s); rung again when it can", len(task_ids), err)
        return []


@shared_task(bind=True, name="video.generate")
def generate(self: Task, task_id: str) -> None:
    """Submit once."""
    _link(self, Stage.GENERATE, task_id)


@shared_task(bind=True, name="video.poll")
def poll(self: Task, task_ids: list[str]) -> None:
    """Look at jobs: the chain's link is a wave of one, the sweeper sends larger ones."""
    if shutdown.begun():
        shutdown.hand_over(task_ids, Stage.POLL)
        self.request.chain = None
        return
    on_their_way = _run_batch(task_ids)
    if self.request.chain and not on_their_way:
        self.request.chain = None
    elif not self.request.chain:
        for task_id in on_their_way:
            dispatch.resume(task_id, Stage.DOWNLOAD)


@shared_task(bind=True, name="video.download")
def download(self: Task, task_id: str) -> None:
    """Fetch the result into storage."""
    _link(self, Stage.DOWNLOAD, task_id)


@shared_task(bind=True, name="video.transcode")
def transcode(self: Task, task_id: str) -> None:
    """Make it the MP4 that was asked for."""
    _link(self, Stage.TRANSCODE, task_id)


@shared_task(bind=True, name="video.thumbnail")
def thumbnail(self: Task, task_id: str) -> None:
    """Cut the first frame."""
    _link(self, Stage.THUMBNAIL, task_id)


@shared_task(bind=True, name="video.save")
def save(self: Task, task_id: str) -> None:
    """Give both their final names."""
    _link(self, Stage.SAVE, task_id)


_admitting = threading.Lock()
_came_meanwhile = threading.Event()


@shared_task(name="video.admit")
def admit() -> None:
    """Give free slots to those who wait.

    One thread a worker: more would only wait for each other's lock, and a crowd of creates would take all threads away
    from the jobs. Who comes meanwhile is served by one more pass, or by the sweeper's next.
    """
    if shutdown.begun():  # the sweeper admits them
        return
    _came_meanwhile.set()
    if not _admitting.acquire(blocking=False):
        return
    try:
        while _came_meanwhile.is_set():
            _came_meanwhile.clear()
            dispatch.resume_all(admission.admit(), urgent=False)
    finally:
        _admitting.release()


@shared_task(name="video.look")
def look(generation_id: str) -> None:
    """Look at an attempt whose task has ended: stop its job, or see how it ended."""
    reconcile.check_if_due(generation_id)
