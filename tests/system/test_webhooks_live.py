"""Call-backs of the simulator, signed as the providers sign theirs, against the real web process."""

from __future__ import annotations

import socket

import pytest
import requests

from tests.factories import make_task, reload
from tests.system.system import Simulator, System, until
from video.models import Generation, VideoTask


@pytest.fixture
def reachable(system: System) -> System:
    """A system that providers can call, and that by itself would look at a job once a minute only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    system.env.update(
        PUBLIC_BASE_URL=f"http://127.0.0.1:{port}", POLL_INTERVAL_SECONDS="60", CIRCUIT_FAULTS="1000", COOKIE_SECURE="0"
    )
    system.web(port)
    system.worker()
    system.sweeper()
    return system


def ended(task: VideoTask) -> VideoTask:
    found: VideoTask = until(f"{task.pk} ends", lambda: (now := reload(task)).finished_at and now)
    return found


@pytest.mark.parametrize("model", ["pika-2.2", "kling-2.5-turbo"])
def test_a_call_brings_the_video_long_before_the_next_poll(reachable: System, model: str) -> None:
    task = ended(make_task(prompt=f"call {model} [[sim render=1]]", model_requested=model))
    assert task.status == "success"
    assert Generation.objects.get(task=task).polls <= 3


def test_fals_signed_call_settles_a_submit_whose_answer_was_lost(reachable: System, simulator: Simulator) -> None:
    task = ended(make_task(prompt="call lost [[sim lost_reply=1 render=1]]", model_requested="pika-2.2"))
    assert (task.status, task.error_code) == ("success", "")
    assert simulator.submits(task.prompt)["created"] == 1
    assert Generation.objects.get(task=task).state == "succeeded"


def test_a_forged_call_moves_nothing(reachable: System) -> None:
    task = make_task(prompt="call forged [[sim callback=forged render=1]]", model_requested="pika-2.2")
    generation = until("it is accepted", lambda: Generation.objects.filter(task=task, state="accepted").first())
    until("the forged call was refused", lambda: "401" in reachable_log(reachable) or None)
    generation.refresh_from_db()
    assert (generation.state, generation.polls) == ("accepted", 0)


def reachable_log(system: System) -> str:
    """What the web process, or the simulator that calls it, says of the call."""
    answers = requests.get(f"{system.simulator.url}/_sim/callbacks", timeout=30).json()["answers"]
    return str(answers)
