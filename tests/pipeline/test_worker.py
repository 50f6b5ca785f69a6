"""How a worker behaves as a consumer of its queue."""

from __future__ import annotations

from celery import current_app

from tests.pipeline.system import System, broker, until


def test_a_worker_with_all_threads_busy_goes_on_as_soon_as_one_is_free(system: System) -> None:
    """Celery's main loop sleeps on for up to a second then; 100 short tasks would take most of a minute."""
    system.worker(threads=2)
    for _ in range(100):
        current_app.send_task("video.admit")
    valkey = broker()
    until("the queue is empty", lambda: valkey.llen("videoQueue") == 0, seconds=25)
