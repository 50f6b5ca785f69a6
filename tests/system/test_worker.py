"""How a worker behaves as a consumer of its queue."""

from __future__ import annotations

import re

from celery import current_app

from tests.system.system import System, broker, until
from video.engine import dispatch
from video.infra.broker import lengths, sub_queue_of
from video.models import Stage


def test_a_worker_with_all_threads_busy_goes_on_as_soon_as_one_is_free(system: System) -> None:
    """Celery's main loop sleeps on for up to a second then; 100 short tasks would take most of a minute."""
    system.worker(threads=2)
    for _ in range(100):
        current_app.send_task("video.admit")
    valkey = broker()
    until("the queue is empty", lambda: valkey.llen("videoQueue") == 0, seconds=25)


def test_what_is_nearer_its_end_is_served_first_and_what_is_urgent_before_all(system: System) -> None:
    """Rung in the opposite order, for tasks that do not exist."""
    for number in range(5):
        dispatch.resume(f"task_{number}", Stage.GENERATE, urgent=False)
    dispatch.send_poll_batches([[f"task_{number}"] for number in range(5)])
    for number in range(5):
        dispatch.resume(f"task_{number}", Stage.DOWNLOAD)
    dispatch.resume("task_news", Stage.POLL)
    dispatch.resume("task_unheard", Stage.GENERATE)
    lines = [sub_queue_of("video.generate"), sub_queue_of("video.poll"), sub_queue_of("video.download")]
    assert lengths(lines) == [5, 5, 7]
    system.env |= {"LOG_LEVEL": "DEBUG"}  # with it Celery says what it receives
    worker = system.worker(threads=1)
    until("all are served", lambda: not any(lengths(lines)))
    until("the last is noted", lambda: len(served(worker.log_path.read_text())) == 17)
    assert served(worker.log_path.read_text()) == (
        ["download"] * 5 + ["poll", "generate"] + ["poll"] * 5 + ["generate"] * 5
    )


def served(log: str) -> list[str]:
    """Names of tasks in the order in which a worker received them."""
    return re.findall(r"Task video\.(\w+)\[[^]]*\] received", log)


def test_a_link_of_a_chain_stands_in_the_line_of_its_own_stage() -> None:
    """Celery sends the next link with `priority=None`, which must not make it urgent."""
    lines = [sub_queue_of("video.poll"), sub_queue_of("video.poll", urgent=True)]
    before = lengths(lines)
    current_app.signature("video.poll", args=([],), immutable=True).apply_async(priority=None)
    assert lengths(lines) == [before[0] + 1, before[1]]
