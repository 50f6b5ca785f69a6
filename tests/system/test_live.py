"""The whole way through real Celery workers, the sweeper, Valkey and the simulator's HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

from tests.factories import make_task, reload
from tests.system.system import Simulator, System, broker, until
from video.credits import ledger
from video.models import CreditEntry, Generation, TaskEvent, VideoTask


def ended(task: VideoTask) -> VideoTask:
    """The task, once it has ended."""
    return until(f"{task.pk} ends", lambda: (found := reload(task)).finished_at and found)


def check_done(task: VideoTask, simulator: Simulator) -> None:
    assert (task.status, task.error_message) == ("success", "")
    assert simulator.submits(task.prompt)["created"] == 1
    assert ledger.balance(task.user_id) == 990
    assert (Path(settings.STORAGE_LOCAL_PATH) / task.output_key).is_file()


def test_a_prompt_becomes_a_video(system: System, simulator: Simulator) -> None:
    system.worker()
    system.sweeper()
    task = ended(make_task(prompt="live one"))
    check_done(task, simulator)
    moves = list(TaskEvent.objects.filter(task=task).exclude(outcome="parked").order_by("id"))
    assert [(event.stage, event.outcome) for event in moves] == [
        ("generate", "created"),
        ("generate", "admitted"),
        ("generate", "advanced"),
        ("poll", "advanced"),
        ("download", "advanced"),
        ("transcode", "advanced"),
        ("thumbnail", "advanced"),
        ("save", "succeeded"),
    ]
    until("work files are gone", lambda: not any(Path(settings.STORAGE_LOCAL_PATH).glob(f"work/{task.pk}/*")))


@pytest.mark.parametrize(
    "point",
    [
        "generate.claimed",
        "poll.after_read",
        "download.after_work",
        "transcode.after_work",
        "thumbnail.after_put",
        "save.after_video",
    ],
)
def test_a_worker_killed_in_a_stage_costs_only_time(system: System, simulator: Simulator, point: str) -> None:
    doomed = system.worker("doomed", failpoint=f"{point}=kill")
    system.sweeper()
    task = make_task(prompt=f"live kill {point}")
    until("the worker dies", lambda: not doomed.alive)
    system.worker("next")
    check_done(ended(task), simulator)


def test_a_worker_killed_while_it_submits_ends_as_outcome_unknown_with_one_refund(
    system: System, simulator: Simulator
) -> None:
    doomed = system.worker("doomed", failpoint="generate.after_send=kill")
    system.sweeper()
    task = make_task(prompt="live kill while submitting")
    until("the worker dies", lambda: not doomed.alive)
    system.worker("next")
    task = ended(task)
    assert (task.status, task.error_code) == ("failed", "outcome_unknown")
    assert simulator.submits(task.prompt)["received"] == 1
    assert list(CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", flat=True)) == [
        "debit",
        "refund",
    ]


def test_two_workers_do_each_stage_once(system: System, simulator: Simulator) -> None:
    from video.engine import dispatch
    from video.models import Stage

    system.worker("one")
    system.worker("two")
    system.sweeper()
    tasks = [make_task(prompt=f"live twice {number}.") for number in range(6)]
    for task in tasks:  # every message there can be, several times
        for stage in dispatch.CHAIN:
            dispatch.resume(task.pk, Stage(stage))
            dispatch.resume(task.pk, Stage(stage))
    for task in tasks:
        done = ended(task)
        check_done(done, simulator)
        moves = list(
            TaskEvent.objects.filter(task=done, outcome__in=["advanced", "succeeded"]).values_list("stage", flat=True)
        )
        assert sorted(moves) == sorted(["generate", "poll", "download", "transcode", "thumbnail", "save"])


def test_a_wiped_broker_costs_only_time(system: System, simulator: Simulator) -> None:
    task = make_task(prompt="live wiped")  # rung into a queue that nobody reads yet
    broker().flushdb()
    system.worker()
    system.sweeper()
    check_done(ended(task), simulator)


def test_a_corrupt_file_fails_the_task_with_a_clear_error_and_a_refund(system: System, simulator: Simulator) -> None:
    system.worker()
    system.sweeper()
    task = ended(make_task(prompt="live corrupt [[sim file=corrupt]]"))
    assert task.status == "failed"
    assert task.error_code == "not_a_video"
    assert "video" in task.error_message
    assert ledger.balance(task.user_id) == 1000
    assert not any(Path(settings.STORAGE_LOCAL_PATH).glob(f"{task.user_id}/**/*.mp4"))
    assert Generation.objects.get(task=task).state == "succeeded"


@pytest.mark.parametrize(
    ("directive", "code"),
    [
        ("fail=INTERNAL.BAD_OUTPUT.CODE01", "generation_failed"),
        ("fail=SAFETY.OUTPUT.VIDEO", "moderation"),
        ("moderation", "moderation"),
    ],
)
def test_a_failure_at_the_provider_is_told_and_refunded(system: System, directive: str, code: str) -> None:
    system.worker()
    system.sweeper()
    task = ended(make_task(prompt=f"live fail [[sim {directive}]]"))
    assert (task.status, task.error_code) == ("failed", code)
    assert task.error_message
    assert ledger.balance(task.user_id) == 1000


@pytest.mark.parametrize(
    "directive",
    [
        "status=429x1 retry_after=1",
        "link_expired=1",
        "poll_status=503x2",
        "not_found=1",
        "file=truncatedx1",
        "unknown_status=0.5",
    ],
)
def test_trouble_that_passes_costs_only_time(system: System, simulator: Simulator, directive: str) -> None:
    system.worker()
    system.sweeper()
    task = ended(make_task(prompt=f"live pass [[sim {directive}]]"))
    check_done(task, simulator)


@pytest.mark.parametrize("directive", ["lost_reply", "status_after=500", "garbage", "status=503"])
def test_an_answer_that_proves_nothing_ends_the_task_and_is_never_sent_again(
    system: System, simulator: Simulator, directive: str
) -> None:
    system.worker()
    system.sweeper()
    task = ended(make_task(prompt=f"live unknown [[sim {directive}]]"))
    assert (task.status, task.error_code) == ("failed", "outcome_unknown")
    assert simulator.submits("live unknown")["received"] >= 1
    assert simulator.submits(f"[[sim {directive}]]")["received"] <= 1
    assert ledger.balance(task.user_id) == 1000
    assert Generation.objects.get(task=task).state == "unknown"
