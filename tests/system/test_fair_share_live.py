"""Fair share through real workers, sweeper and simulator; decided by the order of events, not by a stopwatch."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest

from tests.factories import make_task, make_user, reload
from tests.system.system import System, broker, until
from video.attempts import configured_keys
from video.models import ProviderAccount, Stage, TaskEvent, VideoTask

SLOTS = 3


@pytest.fixture(autouse=True)
def _few_slots(database: str) -> Iterator[None]:
    configured_keys.sync()
    ProviderAccount.objects.filter(model="gen4.5").update(slots=SLOTS)
    yield
    ProviderAccount.objects.filter(model="gen4.5").update(slots=1000)


def event(task: VideoTask, outcome: str) -> int:
    """Place of a task's event among all."""
    return TaskEvent.objects.values_list("id", flat=True).get(task=task, outcome=outcome)


def test_ten_users_with_one_job_do_not_wait_for_somebody_with_two_hundred(system: System) -> None:
    long = make_user(credit=5000)
    for number in range(200):
        make_task(long, prompt=f"fair long {number}.")
    system.worker()
    system.sweeper()
    given = TaskEvent.objects.filter(task__user=long, outcome="admitted")
    until("the long line moves", lambda: given.count() >= SLOTS + 2)
    tasks = [make_task(prompt=f"fair short {number}.") for number in range(10)]
    until(
        "the ten have a slot",
        lambda: TaskEvent.objects.filter(task__in=tasks, outcome="admitted").count() == len(tasks),
    )
    for task in tasks:
        # One pass of admission may have been under way when the task was made.
        before = given.filter(id__gt=event(task, "created"), id__lt=event(task, "admitted")).count()
        assert before <= SLOTS, f"{before} of the long line went before {task.prompt}"
    assert given.count() < 150
    VideoTask.objects.filter(user=long, admit_at__isnull=False).update(admit_at="2100-01-01T00:00:00Z")
    for task in tasks:
        done = until(f"{task.prompt} ends", lambda task=task: (found := reload(task)).finished_at and found)
        assert done.status == "success"


def at_once(events: list[TaskEvent]) -> int:
    """The most of these that went on at the same time."""
    edges = sorted([(one.started_at, 1) for one in events] + [(one.finished_at, -1) for one in events])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def rung() -> set[str]:
    """The tasks that the media workers' queue holds a message for. One that nobody took in time is rung again."""
    messages = [json.loads(one) for one in broker().lrange("mediaQueue", 0, -1)]
    return {json.loads(base64.b64decode(message["body"]))[0][0] for message in messages}


def test_the_broker_holds_no_more_transcodes_than_there_are_cores_on_all_hosts(system: System) -> None:
    ProviderAccount.objects.filter(model="gen4.5").update(slots=1000)
    cores = 2
    system.worker("video", queues="videoQueue")
    for name in ("here", "there"):
        system.worker(name, queues="mediaQueue", threads=1)
    system.sweeper()
    user = make_user()
    # Another frame rate than the simulator's: each is really encoded.
    tasks = [make_task(user, prompt=f"fair core {number}.", fps=24, resolution="480p") for number in range(6)]
    longest, waited = 0, set()
    deadline = time.monotonic() + 240
    while VideoTask.objects.filter(pk__in=[task.pk for task in tasks], finished_at__isnull=True).exists():
        assert time.monotonic() < deadline, "they did not end in four minutes"
        longest = max(longest, len(rung()))
        waited |= set(
            VideoTask.objects.filter(stage=Stage.TRANSCODE, rung_at=None, lease_until=None, core_at=None).values_list(
                "id", flat=True
            )
        )
        time.sleep(0.02)
    assert {reload(task).status for task in tasks} == {"success"}
    moves = TaskEvent.objects.filter(task__in=tasks, stage__in=["transcode", "thumbnail"], outcome="advanced")
    assert at_once(list(moves)) <= cores
    assert longest <= cores
    assert waited, "no task ever waited for a core, so nothing was shown"
    assert len(set(moves.values_list("worker", flat=True))) == 2


def test_the_core_of_a_killed_worker_comes_back(system: System) -> None:
    ProviderAccount.objects.filter(model="gen4.5").update(slots=1000)
    system.worker("video", queues="videoQueue")
    doomed = system.worker("doomed", queues="mediaQueue", threads=1, failpoint="transcode.after_work=kill")
    system.sweeper()
    tasks = [make_task(prompt=f"fair killed {number}.") for number in range(2)]
    until("the media worker dies", lambda: not doomed.alive)
    system.worker("next", queues="mediaQueue", threads=1)
    for task in tasks:
        done = until(f"{task.prompt} ends", lambda task=task: (found := reload(task)).finished_at and found)
        assert done.status == "success"
