"""A file host in trouble: the finished video is waited for, however long that takes, and nothing is paid for twice.

The whole minute of the promise is a run of its own (`-m scale`); the suite's own run is a few seconds long.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings

from tests.factories import make_task, make_user, reload
from tests.system.system import Simulator, System, until
from video.actions import cancel
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import CreditEntry, Generation, TaskEvent, VideoTask

MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo"}
SHORT_PAUSES = {"DOWNLOAD_RETRY_SECONDS": "0.2,0.4,0.8"}


@dataclass(frozen=True)
class Trouble:
    """What the file host does, and for how many seconds in the suite and in the long run."""

    directive: str
    suite_s: float
    long_s: float

    def prompt(self, provider: str, *, long: bool) -> str:
        lasts_s = self.long_s if long else self.suite_s
        return f"host {provider} {'long' if long else 'short'} [[sim {self.directive} file_for={lasts_s:g}]]"


TROUBLES = (
    Trouble("file_status=503", 3, 60),
    Trouble("file_status=429 retry_after=1", 3, 60),
    Trouble("file=html", 2, 20),
    Trouble("file=reset", 2, 60),
)
REFUSED = Trouble("file=refusedx1", 2, 60)
CUT = Trouble("file=cut", 600, 600)


def scratch() -> Path:
    return Path(settings.STORAGE_LOCAL_PATH) / ".scratch"


def check_paid_once(task: VideoTask, simulator: Simulator) -> None:
    """Success, exactly one submit, no refund, and no try used up."""
    done = reload(task)
    assert (done.status, done.error_code) == ("success", ""), done.error_message
    submits = simulator.submits(task.prompt)
    assert (submits["received"], submits["created"]) == (1, 1)
    assert list(CreditEntry.objects.filter(task=task).values_list("kind", flat=True)) == ["debit"]
    assert Generation.objects.get(task=task).fetch_errors == 0


def run_all(system: System, simulator: Simulator, *, long: bool) -> None:
    """Every trouble at every provider, side by side; then the host that refuses, which all of them meet."""
    system.worker("io", queues="videoQueue", threads=16)
    system.worker("media", queues="mediaQueue", threads=2)
    system.sweeper()
    user = make_user()
    tasks = [
        make_task(user, trouble.prompt(provider, long=long), model_requested=model)
        for trouble in (*TROUBLES, CUT)
        for provider, model in MODELS.items()
    ]
    for task in tasks:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
        check_paid_once(task, simulator)
        waits = TaskEvent.objects.filter(task=task, stage="download", outcome="parked")
        assert waits.count() <= 2  # one wait is recorded once, and the end of a cut body may be told in two ways
        assert set(waits.values_list("owner_detail", flat=True)) == {
            "the video is finished; fetching it is tried again"
        }
    for provider, model in MODELS.items():
        task = make_task(user, REFUSED.prompt(provider, long=long), model_requested=model)
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
        check_paid_once(task, simulator)
    assert ledger.differences() == []
    assert not list(scratch().glob("part-*"))


def test_a_host_that_is_down_for_some_seconds_costs_only_time(system: System, simulator: Simulator) -> None:
    system.env.update(SHORT_PAUSES)
    run_all(system, simulator, long=False)


@pytest.mark.scale
def test_a_host_that_is_down_for_a_minute_costs_only_time(system: System, simulator: Simulator) -> None:
    run_all(system, simulator, long=True)


def test_an_operator_sees_what_a_finished_video_waits_for_and_may_cancel_it(
    system: System, simulator: Simulator
) -> None:
    system.env.update(SHORT_PAUSES)
    system.worker()
    system.sweeper()
    task = make_task(prompt="host down [[sim file_status=503]]")
    waits = VideoTask.objects.filter(pk=task.pk, park_code="download_failed", lease_until=None)
    until("it waits", lambda: waits.filter(park_reason__regex="^fetch [0-9]+ of .* answered 503").exists())
    assert reload(task).tries == 0
    assert cancel.cancel(task.pk, by=Unaudited("its user")).refund is cancel.Refund.NONE
    assert reload(task).status == "cancelled"
    assert simulator.submits(task.prompt)["created"] == 1


def test_the_part_of_a_killed_worker_is_gone_on_with(system: System, simulator: Simulator) -> None:
    """And so is that of a worker that was stopped."""
    system.env.update(SHORT_PAUSES)
    system.sweeper()
    killed = system.worker("killed")
    task = make_task(prompt="host drips [[sim file=dripx2]]")

    def has(size: int) -> bool:
        return any(path.stat().st_size > size for path in scratch().glob(f"part-{task.pk}-*/bytes"))

    until("some bytes came", lambda: has(1000))
    killed.signal(signal.SIGKILL)
    until("it is dead", lambda: not killed.alive)
    (bytes_path,) = scratch().glob(f"part-{task.pk}-*/bytes")
    came = bytes_path.stat().st_size
    stopped = system.worker("stopped")
    until("the next worker goes on with them", lambda: has(came + 1000))
    assert len(list(scratch().glob(f"part-{task.pk}-*"))) == 1
    stopped.signal(signal.SIGTERM)
    until("it is gone", lambda: not stopped.alive)
    assert has(came + 1000)
    system.worker("last")
    until("the video is stored", lambda: reload(task).status == "success")
    check_paid_once(task, simulator)
    assert not list(scratch().glob("part-*"))
