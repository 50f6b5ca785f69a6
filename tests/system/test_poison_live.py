"""A task that kills every worker that works on it."""

from __future__ import annotations

import signal

from django.db.models import F

from tests.factories import end_lease, make_task, reload
from tests.system.system import Process, System, until
from video.credits import ledger
from video.engine.claims import MAX_CRASHED_CLAIMS
from video.models import TaskEvent, VideoTask


def test_a_task_that_kills_its_workers_is_set_aside_with_its_cause_and_the_next_one_lives(system: System) -> None:
    system.worker("video", queues="videoQueue")
    system.sweeper()
    task, dead = make_task(prompt="poison."), list[Process]()
    while True:
        media = system.worker("media", queues="mediaQueue", threads=1, failpoint="transcode.after_work=kill")
        until("the worker dies of it, or sets it aside", lambda media=media: not media.alive or _ended(task))
        if _ended(task):
            break
        assert media.returncode == -signal.SIGKILL
        dead.append(media)
        if len(dead) == 1:  # three more workers could die of it, and a test takes time
            VideoTask.objects.filter(pk=task.pk).update(deaths=F("deaths") + 3)
        end_lease(task)
    assert len(dead) == MAX_CRASHED_CLAIMS - 3
    assert media.alive
    found = reload(task)
    assert (found.status, found.error_code) == ("failed", "worker_lost")
    assert ledger.balance(task.user_id) == 1000
    (event,) = TaskEvent.objects.filter(task=task, outcome="failed")
    assert f"{MAX_CRASHED_CLAIMS} claims of transcode ended without a word" in event.detail
    assert f":{dead[-1].pid}" in event.detail  # whose log to read


def _ended(task: VideoTask) -> bool:
    return reload(task).finished_at is not None
