"""What a Celery worker does about itself: it shows its presence, watches itself, and ends in good order."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial

from video.engine import shutdown, workers
from video.engine.queues import QUEUES
from video.infra.toolkit import toolkit
from video.models import WorkerSign
from video.monitoring import process_figures
from video.processes import watchdog

log = logging.getLogger(__name__)

_presence: workers.Presence | None = None


def begin(*, queues: Sequence[str], threads: int) -> None:
    """The worker is ready. Celery calls this after each reconnection; only the first call does something."""
    global _presence
    if _presence is None:
        if not set(queues).isdisjoint(QUEUES):  # a worker of webhooks reads no media
            log.info("ffmpeg is isolated: %s", toolkit().ffmpeg.isolation)
        report = partial(process_figures.write, "worker", queues)
        _presence = workers.Presence(WorkerSign.Kind.WORKER, queues=queues, threads=threads, report=report)
        _presence.start(watch=watchdog.Watchdog(queues, _exit_stalled).check)


def _exit_stalled() -> None:
    """End at once, from the presence's thread: no stage is held, and the main thread would not react."""
    if _presence is not None:
        _presence.remove()
    logging.shutdown()
    os._exit(watchdog.EXIT_CODE)


def stop() -> None:
    """The worker got a signal to stop. Called in the signal's handler: nothing here waits or writes."""
    if _presence is not None:
        _presence.drain()
    shutdown.begin(end)


def end() -> None:
    """The worker has stopped: its row is deleted."""
    if _presence is not None:
        _presence.end()
