"""Notices that this worker is deaf: connected to the broker, idle, and no message reaches it.

Celery's known wound after a broker's restart. Such a worker looks well from outside, so it watches itself: when it has
been idle for WATCHDOG_SECONDS, while a row of its queue has been due as long, was rung lately and nobody came, and
messages lie in that very queue, it ends with EXIT_CODE, and whoever started it starts it again.

It does not bark when nothing was rung (a task waits for a core or for a time, or no sweeper runs), when the broker
is away for everybody, while it stops, or because of one look: it must find all of it twice in a row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from celery.worker import state as celery_state
from django.conf import settings

from video.engine import due, shutdown
from video.engine.leases import heartbeat
from video.infra import broker
from video.monitoring.stages import QUEUE_OF

log = logging.getLogger(__name__)

EXIT_CODE = 70
RUNG_LATELY_S = 30.0  # before the idling began; where messages stand in a long line, none is rung again meanwhile


class Watchdog:
    """One a worker; `bark` is called once, from `look`."""

    def __init__(self, queues: Sequence[str], bark: Callable[[], None]) -> None:
        self._queues = tuple(queues)
        self._bark = bark
        self._heard = -1
        self._idle_since = time.monotonic()
        self._suspected = False

    def look(self) -> None:
        """Every few seconds. Raises the database's errors."""
        suspected, self._suspected = self._suspected, False
        heard = celery_state.all_total_count[0]
        if heard != self._heard or celery_state.active_requests or heartbeat.held() or shutdown.begun():
            self._heard, self._idle_since = heard, time.monotonic()
            return
        if time.monotonic() - self._idle_since < settings.WATCHDOG_SECONDS:
            return
        deaf = [queue for queue in self._queues if self._is_stalled(queue)]
        if not deaf:
            return
        if not suspected:
            self._suspected = True
            return
        log.critical(
            "idle for %.0f s while due tasks of %s wait and their messages lie at the broker: this worker hears "
            "nothing any more; it ends with exit code %d, to be started again",
            time.monotonic() - self._idle_since,
            ", ".join(deaf),
            EXIT_CODE,
        )
        self._bark()

    def _is_stalled(self, queue: str) -> bool:
        stages = [stage for stage, its_queue in QUEUE_OF.items() if its_queue == queue]
        if not due.has_unacknowledged(
            stages, for_s=settings.WATCHDOG_SECONDS, enqueued_within_s=settings.WATCHDOG_SECONDS + RUNG_LATELY_S
        ):
            return False
        try:
            return broker.depth(queue) > 0
        except broker.BrokerUnavailable as err:
            log.warning("due tasks wait, and the broker can't be reached (%s); waiting for it", err)
            return False
