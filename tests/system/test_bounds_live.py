"""Polls that ask for an absurd wait, through the real system: the finished job is fetched by its deadline.

All tasks of a round are made at once; each case then looks at its own.
"""

from __future__ import annotations

import pytest

from tests.factories import make_task, make_user, reload
from tests.system.system import Simulator, running, until
from video.models import VideoTask

MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo"}
NO_WAITS = ("1e308", "-5", "nan")  # read as if nothing was asked
#: A wait holds for all polls of a key, so each provider gets one such task, and after the others.
LONG_WAITS = {"runway": "86400", "pika": "9" * 70, "kling": "86400"}
ROUNDS = [
    [(provider, wait) for provider in MODELS for wait in NO_WAITS],
    list(LONG_WAITS.items()),
]
DEADLINE_S = 20
SOON_S = 120  # beyond the deadline; the machine may be busy


@pytest.fixture(scope="module")
def tasks(
    database: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], VideoTask]:
    """Each case's task, ended."""
    user = make_user()
    made: dict[tuple[str, str], VideoTask] = {}
    with running(tmp_path_factory.mktemp("bounds"), simulator) as system:
        system.env.update(TASK_DEADLINE_SECONDS=str(DEADLINE_S), CIRCUIT_FAULTS="100000")
        system.worker("io", queues="videoQueue", threads=16)
        system.worker("media", queues="mediaQueue", threads=2)
        system.sweeper()
        for cases in ROUNDS:
            for provider, wait in cases:
                prompt = f"bounds [[sim poll_status=429x1 retry_after={wait}]]"
                made[provider, wait] = make_task(user, prompt, model_requested=MODELS[provider])
            for task in made.values():
                until(f"{task.pk} ends", lambda task=task: reload(task).finished_at, seconds=DEADLINE_S + SOON_S)
    return made


@pytest.mark.parametrize(("provider", "wait"), [case for cases in ROUNDS for case in cases])
def test_a_poll_that_asks_for_an_absurd_wait_costs_no_job(
    tasks: dict[tuple[str, str], VideoTask], provider: str, wait: str
) -> None:
    task = reload(tasks[provider, wait])
    assert (task.status, task.error_code) == ("success", ""), task.error_message
    assert task.generations.count() == 1
