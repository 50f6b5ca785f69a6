"""Renews the leases of all stages that this process works on, in one statement every few seconds.

A claim that was taken over, or that could not be renewed before its lease ended, is marked lost: the thread that works
on it stops, and kills its child process.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import Error, close_old_connections, connection

from video.engine.claims import Claim, renew_leases

log = logging.getLogger(__name__)


class Heartbeat:
    """One thread for all claims of a process; it exists only while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[tuple[str, int], Claim] = {}
        self._renewed: dict[tuple[str, int], float] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._pid = os.getpid()

    @contextmanager
    def keep(self, *claims: Claim) -> Iterator[None]:
        """Renew the leases of these claims for as long as the block runs."""
        kept = {(claim.task.pk, claim.fence): claim for claim in claims}
        with self._lock:
            if self._pid != os.getpid():  # a forked child has the dict, but not the thread
                self._pid, self._thread, self._wake = os.getpid(), None, threading.Event()
                self._claims.clear()
                self._renewed.clear()
            self._claims.update(kept)
            self._renewed.update(dict.fromkeys(kept, time.monotonic()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                for key in kept:
                    self._claims.pop(key, None)
                    self._renewed.pop(key, None)

    def claims(self) -> list[Claim]:
        """What this process works on now."""
        with self._lock:
            return list(self._claims.values()) if self._pid == os.getpid() else []

    def was_suspended(self, claim: Claim) -> bool:
        """Whether this process was suspended for longer than a lease while it worked on this: a deadline that passed
        meanwhile says nothing of the work."""
        with self._lock:
            renewed_at = self._renewed.get((claim.task.pk, claim.fence))
        return claim.was_suspended or (renewed_at is not None and _is_long_ago(renewed_at))

    def held(self) -> int:
        """How many stages this process works on now."""
        return len(self.claims())

    def _run(self) -> None:
        interval_s = settings.STAGE_LEASE_SECONDS / 4
        while not self._wake.wait(interval_s):
            with self._lock:
                held = list(self._claims.values())
            if held:
                self._renew(held)

    def _renew(self, held: list[Claim]) -> None:
        asked_at = time.monotonic()
        try:
            ours = renew_leases(held)
        except Exception as err:  # whatever it is, this thread must go on: it renews all leases of the process
            log.warning(
                "heartbeat: leases can't be renewed now (%s); without it they run out by themselves",
                type(err).__name__,
                exc_info=not isinstance(err, Error),
            )
            connection.close()
            ours = None
        finally:
            close_old_connections()
        for claim in held:
            key = (claim.task.pk, claim.fence)
            with self._lock:
                if key not in self._claims:
                    continue  # it ended while the statement ran
                outlived = _is_long_ago(self._renewed[key])
                if ours is not None and key in ours:
                    claim.was_suspended |= outlived
                    self._renewed[key] = asked_at
                    continue
            if ours is not None or outlived:
                log.warning("%s %s: the lease is lost, the work on it stops here", claim.task.pk, claim.stage)
                claim.lost.set()


def _is_long_ago(at: float) -> bool:
    return time.monotonic() - at > settings.STAGE_LEASE_SECONDS


heartbeat = Heartbeat()
