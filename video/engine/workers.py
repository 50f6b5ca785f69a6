"""Presence: each worker and each sweeper writes a row every few seconds, from which others read what runs.

A process that ends in good order deletes its row. The row of a process that was killed is marked by a sweeper of its
host (`dead_workers`), or grows old: it is not counted after ALIVE_S.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path

from django.conf import settings
from django.db import Error, close_old_connections, connection
from django.db.models.functions import Now

from media_pipeline.disk import free_bytes
from video.engine.claims import WORKER
from video.engine.leases import heartbeat
from video.engine.queues import MEDIA_QUEUE, VIDEO_QUEUE
from video.engine.sql import LISTENING
from video.infra import database
from video.infra.toolkit import toolkit
from video.models import WorkerSign

log = logging.getLogger(__name__)

PRESENCE_EVERY_S = 5.0
ALIVE_S = 20.0
KEEP_DAYS = 1
DISK_FULL = "no worker has room on its disk for another video; make some, and it goes on by itself"


class Presence:
    """This process's row, renewed by a thread of its own, which outlives every error of the database."""

    def __init__(
        self,
        kind: WorkerSign.Kind,
        *,
        queues: Sequence[str] = (),
        threads: int = 1,
        report: Callable[[], None] = lambda: None,
    ) -> None:
        """`report` writes what the process has measured; it is called after each time, and once more at the end."""
        self.draining = False
        self._kind = kind
        self._queues = ",".join(sorted(queues))
        self._threads = threads
        self._wake = threading.Event()
        self._ended = False
        self._first = True
        self._failing: set[str] = set()
        self._watch: Callable[[], None] = lambda: None
        self._report = report
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self, *, watch: Callable[[], None] = lambda: None) -> None:
        """Begin to write the row; `watch` is called after each time."""
        self._watch = watch
        self._thread.start()

    def drain(self) -> None:
        """Write at once that this process stops and takes nothing new."""
        self.draining = True
        self._wake.set()

    def end(self) -> None:
        """Delete the row: this process ends. Waits two seconds for the database, and no longer."""
        self._ended = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=2)

    def write(self) -> None:
        """Insert or renew the row. Raises the database's errors."""
        free = free_bytes(toolkit().storage.scratch_root)
        values = {
            "kind": self._kind,
            "host": socket.gethostname()[:100],
            "queues": self._queues[:100],
            "threads": self._threads,
            "held": min(heartbeat.held(), 32_767),
            "draining": self.draining,
            "memory_bytes": resident_bytes(),
            "disk_free_bytes": free,
            "disk_low": free < settings.MIN_FREE_BYTES,
            "pid_space": pid_space(),
            "pid": os.getpid(),
            "gone_at": None,
            "seen_at": Now(),
        }
        # The name may have been another process's before.
        written = [*values, "started_at"] if self._first else list(values)
        WorkerSign.objects.bulk_create(
            [WorkerSign(name=str(WORKER), started_at=Now(), **values)],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=written,
        )
        self._first = False

    def _run(self) -> None:
        while not self._ended:
            self._once("write its presence", self.write)
            self._once("watch over itself", self._watch)
            self._once("write its figures", self._report)
            self._wake.wait(PRESENCE_EVERY_S)
            self._wake.clear()
        self._once("delete its presence", self.remove)
        self._once("write its figures", self._report)

    def _once(self, what: str, work: Callable[[], None]) -> None:
        """Do it, and log once when it begins to fail."""
        try:
            work()
        except Exception as err:  # whatever it is, the row must be renewed next time
            is_outage = isinstance(err, Error)
            if is_outage:
                connection.close()
            if what not in self._failing:
                log.warning("this process can't %s (%s); trying again", what, err, exc_info=not is_outage)
            self._failing.add(what)
        else:
            self._failing.discard(what)
        finally:
            close_old_connections()

    def remove(self) -> None:
        """Delete the row. Raises the database's errors."""
        WorkerSign.objects.filter(name=str(WORKER)).delete()


@cache
def pid_space() -> str:
    """What makes a process id of this host unique: boot and pid namespace. Empty where the system can't tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def media_cores() -> int:
    """Threads that transcode, over all live workers that take new work."""
    return database.value(
        f"SELECT coalesce(sum(threads), 0) FROM video_workersign WHERE {LISTENING}",  # noqa: S608 - a constant
        {"alive": ALIVE_S, "queue": MEDIA_QUEUE},
    )


#: In SQL: whether no worker that could fetch a video has room for one. Without any live worker nothing is known: false.
DISK_FULL = f"(SELECT coalesce(bool_and(disk_low), false) FROM video_workersign WHERE {LISTENING})"  # noqa: S608
DISK_FULL_PARAMS = {"alive": ALIVE_S, "queue": VIDEO_QUEUE}


def is_disk_full() -> bool:
    """Whether no worker that could fetch a video has room for one."""
    return database.value(f"SELECT {DISK_FULL}", DISK_FULL_PARAMS)


def sweep_old() -> int:
    """Delete the rows of processes that were not seen for KEEP_DAYS. Returns how many."""
    deleted, _ = WorkerSign.objects.filter(seen_at__lt=Now() - timedelta(days=KEEP_DAYS)).delete()
    return deleted


def resident_bytes() -> int:
    """Memory that this process has in RAM now; where the system can't tell, the most that it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
