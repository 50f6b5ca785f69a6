"""A worker that is told to stop: nothing is lost, nothing is done twice, and it is gone within its time."""

from __future__ import annotations

import signal

import pytest
from django.db import connection

from tests.factories import make_task, make_user, reload
from tests.system.system import Process, Simulator, System, until
from video.credits import ledger
from video.models import CreditEntry, Generation, TaskEvent, VideoTask, WorkerSign


def stop(process: Process) -> None:
    """SIGTERM, as from a supervisor; it must end by itself. Far more time than DRAIN_SECONDS, less than any timeout."""
    process.signal(signal.SIGTERM)
    until("the worker ends by itself", lambda: not process.alive, seconds=60)
    assert process.returncode == 0, process.log()[-3000:]
    assert not WorkerSign.objects.filter(name__endswith=f":{process.pid}").exists()


def held_in(task: VideoTask, stage: str) -> bool:
    found = reload(task)
    return found.stage == stage and found.lease_until is not None


def check_let_go(task: VideoTask, stage: str) -> None:
    """Due at once for anybody, with nothing held against it."""
    task = reload(task)
    assert (task.stage, task.lease_until, task.rung_at) == (stage, None, None)
    assert (task.tries, task.deaths) == (0, 0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT next_run_at <= statement_timestamp() FROM video_videotask WHERE id = %s", [task.pk])
        assert cursor.fetchone() == (True,)
    event = TaskEvent.objects.filter(task=task).latest("id")
    assert (event.outcome, event.detail) == ("parked", "its worker stopped")


@pytest.fixture
def patient(system: System) -> System:
    """With leases so long that a test would fail if it had to wait for one."""
    system.env.update(STAGE_LEASE_SECONDS="20", DRAIN_SECONDS="3", SUBMIT_TIMEOUT_SECONDS="60")
    return system


@pytest.mark.parametrize(("stage", "more"), [("transcode", {"fps": 60}), ("download", {})])
def test_a_long_stage_is_handed_to_another_worker(
    patient: System, simulator: Simulator, stage: str, more: dict[str, int]
) -> None:
    first = patient.worker("first")
    sweeper = patient.sweeper()
    directive = "file=dripx1" if stage == "download" else ""
    task = make_task(prompt=f"handed over in {stage} [[sim {directive}]]", quality="high", **more)
    until(f"it is in {stage}", lambda: held_in(task, stage))
    sweeper.kill()  # so that what the worker left can be looked at
    stop(first)
    check_let_go(task, stage)
    patient.sweeper()
    patient.worker("second")
    until("another worker has it", lambda: held_in(task, stage) or reload(task).stage != stage, seconds=60)
    until("it is done", lambda: reload(task).status == "success")
    assert simulator.submits(task.prompt)["created"] == 1


def test_a_submit_under_way_is_waited_for(patient: System, simulator: Simulator) -> None:
    patient.env["DRAIN_SECONDS"] = "20"
    worker = patient.worker()
    patient.sweeper()
    task = make_task(prompt="slow submit [[sim hang=3]]")
    until("it is being sent", lambda: simulator.submits("slow submit")["received"])
    stop(worker)
    generation = Generation.objects.get(task=task)
    assert (generation.state, reload(task).stage) == ("accepted", "poll")
    assert simulator.submits("slow submit")["received"] == 1


def test_a_worker_ends_though_a_provider_does_not_answer(patient: System, simulator: Simulator) -> None:
    worker = patient.worker()
    sweeper = patient.sweeper()
    looked_at = make_task(prompt="silent look [[sim poll_hang=60]]")
    until("it is being looked at", lambda: held_in(looked_at, "poll"))
    sent = make_task(prompt="silent submit [[sim hang=60]]")
    until("it is being sent", lambda: simulator.submits("silent submit")["received"])
    sweeper.kill()
    stop(worker)
    check_let_go(looked_at, "poll")
    # The submit's outcome is settled by the rules for that: its claim stays until the lease is over.
    assert Generation.objects.get(task=sent).state == "unknown"
    assert reload(sent).lease_until is not None


def test_jobs_that_wait_for_a_thread_go_to_another_worker(patient: System) -> None:
    """More jobs than threads: some messages are with the worker, or on their way to it, when it is told to stop."""
    worker = patient.worker(threads=2)
    sweeper = patient.sweeper()
    user = make_user()
    tasks = [make_task(user, prompt=f"late message {n} [[sim hang=1]]") for n in range(8)]
    until("two are held", lambda: VideoTask.objects.filter(user=user, lease_until__isnull=False).count() == 2)
    stop(worker)
    assert not VideoTask.objects.filter(user=user, lease_until__isnull=False).exists()
    assert sweeper.alive
    patient.worker()
    for task in tasks:
        until(f"{task.pk} is done", lambda task=task: reload(task).status == "success")


def test_rolling_restarts_under_load_lose_and_repeat_nothing(system: System, simulator: Simulator) -> None:
    """Two workers are replaced one after the other, twice, with jobs in all stages all the while."""
    system.env.update(STAGE_LEASE_SECONDS="20", DRAIN_SECONDS="4")
    user = make_user(10_000)
    system.sweeper()
    workers = [system.worker("old", threads=6), system.worker("old", threads=6)]
    tasks: list[VideoTask] = []
    for number in range(4):
        for n in range(6):
            directive = ("hang=0.3", "render=2", "poll_hang=0.3", "throttled=1", "callback=never", "render=1")[n]
            more = {"fps": 24} if n == 5 else {}  # the only one that needs a transcode
            tasks.append(make_task(user, prompt=f"rolling {number} {n} [[sim {directive}]]", **more))
        until("the new ones are under way", lambda: reload(tasks[-1]).stage != "generate")
        old = workers.pop(0)
        workers.append(system.worker("new", threads=6))
        stop(old)
    for task in tasks:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
    assert {reload(task).status for task in tasks} == {"success"}
    submits = simulator.submits("rolling")
    assert (submits["created"], submits["received"], submits["doubled"]) == (len(tasks), len(tasks), 0)
    assert Generation.objects.filter(task__in=tasks).count() == len(tasks)
    assert set(CreditEntry.objects.filter(task__in=tasks).values_list("kind", flat=True)) == {"debit"}
    assert ledger.differences() == []
