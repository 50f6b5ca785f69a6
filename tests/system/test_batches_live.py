"""Waves through a real worker, the sweeper and the simulator's HTTP."""

from __future__ import annotations

import requests
from django.db import connection

from tests.factories import make_task, make_user, reload
from tests.system.system import Simulator, System, until
from video.models import Generation, TaskEvent, VideoTask

JOBS = 25  # of each model
MODELS = ("gen4.5", "kling-2.6")


def due(tasks: list[VideoTask], in_s: float) -> None:
    """All of them fall due together, `in_s` seconds from now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET next_run_at = statement_timestamp() + %s * interval '1 second'
            WHERE id = ANY(%s) AND stage = 'poll' AND lease_until IS NULL
            """,
            [in_s, [task.pk for task in tasks]],
        )
        assert cursor.rowcount == len(tasks)


def polls(simulator: Simulator) -> list[int]:
    """Looks that each job has had, by the simulator's own count."""
    found = requests.get(f"{simulator.url}/_sim/jobs", params={"contains": "in a wave"}, timeout=30).json()
    return [job["polls"] for job in found["jobs"]]


def test_many_due_jobs_are_looked_at_in_one_wave_an_account_and_those_that_ended_go_on(
    system: System, simulator: Simulator
) -> None:
    user = make_user()
    tasks = [
        make_task(user, prompt=f"{number} in a wave [[sim render=900]]", model_requested=model)
        for model in MODELS
        for number in range(JOBS)
    ]
    system.env["POLL_INTERVAL_SECONDS"] = "600"  # the test says when they are due
    worker = system.worker()
    sweeper = system.sweeper()
    in_poll = VideoTask.objects.filter(pk__in=[task.pk for task in tasks], stage="poll", lease_until=None)
    until("all jobs are at their provider", lambda: in_poll.count() == len(tasks))
    assert polls(simulator) == [0] * len(tasks)
    rung_before = worker.log().count("video.poll[")

    done = Generation.objects.get(task=tasks[0])
    requests.post(
        f"{simulator.url}/_sim/jobs/{done.job_id}", json={"state": "succeeded"}, timeout=30
    ).raise_for_status()
    due(tasks, 1)
    looked = Generation.objects.filter(task__in=tasks, polls=1)
    until("each job was looked at", lambda: looked.count() == len(tasks))
    until("the one that had ended is a video", lambda: reload(tasks[0]).status == "success")
    assert sorted(polls(simulator)) == [1] * (len(tasks) - 1) + [2]  # the download asks for a fresh link
    assert worker.log().count("video.poll[") - rung_before <= 2 * 2 * len(MODELS)  # received and succeeded, two ticks

    sweeper.kill()
    events = TaskEvent.objects.filter(task__in=tasks, outcome="parked").count()
    assert events == len(tasks) - 1  # the provider's first word
    assert in_poll.count() == len(tasks) - 1


def test_a_worker_that_dies_in_a_wave_costs_its_tasks_only_time(system: System, simulator: Simulator) -> None:
    user = make_user()
    tasks = [make_task(user, prompt=f"{number} survives [[sim render=2]]") for number in range(6)]
    system.env["POLL_INTERVAL_SECONDS"] = "1"
    doomed = system.worker("doomed", failpoint="poll.after_read=kill")
    system.sweeper()
    until("the worker is dead", lambda: not doomed.alive)
    system.worker("healthy")
    until("all are videos", lambda: {reload(task).status for task in tasks} == {"success"})
    assert Generation.objects.filter(task__in=tasks).count() == len(tasks)
    assert all(simulator.submits(task.prompt)["created"] == 1 for task in tasks)
