"""From a Celery worker's first message to its end: signs of life, a watch over itself, and an end in good order."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from video.engine import shutdown, workers
from video.models import WorkerSign
from video.processes import watchdog

_sign: workers.Presence | None = None


def begin(*, queues: Sequence[str], threads: int) -> None:
    """The worker is ready. Celery says so anew after each reconnection; once is enough."""
    global _sign
    if _sign is None:
        _sign = workers.Presence(WorkerSign.Kind.WORKER, queues=queues, threads=threads)
        _sign.start(watch=watchdog.Watchdog(queues, _start_over).look)


def _start_over() -> None:
    """End at once, from the sign's thread: nothing is held, and the main thread would not listen."""
    if _sign is not None:
        _sign.remove()
    logging.shutdown()
    os._exit(watchdog.EXIT_CODE)


def stop() -> None:
    """It was told to stop. Called in a signal handler: nothing here waits or writes."""
    if _sign is not None:
        _sign.drain()
    shutdown.begin(end)


def end() -> None:
    """It has stopped."""
    if _sign is not None:
        _sign.end()
