"""The orderly end of a worker: it claims nothing new, ends its short stages, and releases its long ones in time.

All within DRAIN_SECONDS. Downloads, transcodes and what is made beside a video may finish in the first half of them;
then they are stopped and parked, due at once, so that another worker goes on without waiting for a lease. Shortly
before the end the other stages are parked too: what their threads still learn of a job is written, and their move of
the task finds the fence taken. A submit alone is never released; when the time is over, the rules for an unknown
outcome hold, as after a crash.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import Error, connection

from video.engine import claims
from video.engine.claims import Claim
from video.engine.leases import heartbeat
from video.engine.outcomes import Park
from video.models import Stage

log = logging.getLogger(__name__)

LONG = frozenset({Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL})  # those that end early when their claim is lost
REASON = "its worker stopped"

_begun = threading.Event()


def begun() -> bool:
    """Whether this process takes nothing new any more."""
    return _begun.is_set()


def begin(at_end: Callable[[], None] = lambda: None) -> None:
    """Start to drain, in a thread; safe in a signal handler.

    The process is gone after DRAIN_SECONDS if it has not ended by itself; `at_end` is called before.
    """
    if not _begun.is_set():
        _begun.set()
        threading.Thread(target=_drain, args=(at_end,), name="drain", daemon=True).start()


def _drain(at_end: Callable[[], None]) -> None:
    began, grace_s = time.monotonic(), settings.DRAIN_SECONDS
    log.info("stopping: %s stages under way have %.0f s", heartbeat.held(), grace_s)
    _sleep_until(began + grace_s / 2)
    for claim in heartbeat.claims():
        if claim.stage in LONG:
            claim.released = True
            claim.lost.set()
    _sleep_until(began + grace_s - min(1.0, grace_s / 4))
    for claim in heartbeat.claims():
        if claim.stage is not Stage.GENERATE:
            _release(claim)
    _sleep_until(began + grace_s)
    for claim in heartbeat.claims():
        if claim.stage is Stage.GENERATE:
            log.warning("%s: no time was left to wait for the answer to its submit", claim.task.pk)
    at_end()
    log.info("stopping: the time is over")
    logging.shutdown()
    os._exit(0)  # threads that still wait would hold a normal exit up


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _release(claim: Claim) -> None:
    try:
        claims.park([(claim, Park(0, REASON))])
    except Error as err:
        connection.close()
        log.warning("%s %s: not parked (%s); its lease will end", claim.task.pk, claim.stage, type(err).__name__)
