"""Ends this worker when its consumer is stalled, as Celery's may be after a restart of the broker.

The worker exits with EXIT_CODE, for its supervisor to start it again, when all of this holds at two checks in a row: it
has been idle for WATCHDOG_SECONDS; a task or webhook of its queue has been due as long, was enqueued lately and is
unheld; and there are messages in that very queue. It stays when nothing was enqueued (a task waits for a core or for a
time, or no sweeper runs), when the broker can't be reached, and while it stops.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from celery.worker import state as celery_state
from django.conf import settings

from video.engine import due, queues, shutdown
from video.engine.leases import heartbeat
from video.infra import broker
from video.models import Stage
from video.webhooks import deliveries

log = logging.getLogger(__name__)

EXIT_CODE = 70
ENQUEUED_LATELY_S = 30.0  # before the worker was idle: a task whose queue is full is not enqueued again meanwhile


class Watchdog:
    """One for each worker; `exit_stalled` is called once, from `check`."""

    def __init__(self, queues: Sequence[str], exit_stalled: Callable[[], None]) -> None:
        self._queues = tuple(queues)
        self._exit_stalled = exit_stalled
        self._received = -1
        self._idle_since = time.monotonic()
        self._suspected = False

    def check(self) -> None:
        """To be called every few seconds. Raises the database's errors."""
        suspected, self._suspected = self._suspected, False
        received = celery_state.all_total_count[0]
        if received != self._received or celery_state.active_requests or heartbeat.held() or shutdown.begun():
            self._received, self._idle_since = received, time.monotonic()
            return
        if time.monotonic() - self._idle_since < settings.WATCHDOG_SECONDS:
            return
        stalled = [queue for queue in self._queues if self._is_stalled(queue)]
        if not stalled:
            return
        if not suspected:
            self._suspected = True
            return
        log.critical(
            "idle for %.0f s while due tasks of %s wait and their messages lie at the broker: this worker hears "
            "nothing any more; it ends with exit code %d, to be started again",
            time.monotonic() - self._idle_since,
            ", ".join(stalled),
            EXIT_CODE,
        )
        self._exit_stalled()

    def _is_stalled(self, queue: str) -> bool:
        for_s, lately_s = settings.WATCHDOG_SECONDS, settings.WATCHDOG_SECONDS + ENQUEUED_LATELY_S
        if queue == queues.WEBHOOK_QUEUE:
            waits = deliveries.has_unacknowledged(for_s=for_s, enqueued_within_s=lately_s)
        else:
            stages = [Stage(stage) for stage in queues.stages_of(queue)]
            waits = due.has_unacknowledged(stages, for_s=for_s, enqueued_within_s=lately_s)
        if not waits:
            return False
        try:
            return broker.depth(queue) > 0
        except broker.BrokerUnavailable as err:
            log.warning("due tasks wait, and the broker can't be reached (%s); waiting for it", err)
            return False
