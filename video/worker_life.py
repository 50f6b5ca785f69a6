"""From a Celery worker's first message to its end: it shows signs of life."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from video import workers
from video.models import WorkerSign

log = logging.getLogger(__name__)

_sign: workers.Sign | None = None


def begin(*, queues: Sequence[str], threads: int) -> None:
    """The worker is ready: say so from now on. Celery says it anew after each reconnection; once is enough."""
    global _sign
    if _sign is None:
        _sign = workers.Sign(WorkerSign.Kind.WORKER, queues=queues, threads=threads)
        _sign.start()


def end() -> None:
    """The worker has stopped in good order."""
    if _sign is not None:
        _sign.end()
