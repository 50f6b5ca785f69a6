"""Processes of this host that died: their leases end at once instead of running out.

A worker of the same host is known to be dead when no process has its id any more. Then all that it held may be taken
over, and its cores are free. Only what is certain counts: its presence must hold its process id and have been written
in this very boot and pid namespace (containers may share a host's name and have the same ids). Otherwise the leases run
out by themselves.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path

from django.db import transaction
from django.db.models.functions import Now

from video.engine import workers
from video.infra import database
from video.models import WorkerSign

log = logging.getLogger(__name__)


def release_dead() -> int:
    """End the leases of this host's dead processes. Returns how many stages may be taken over."""
    space = workers.pid_space()
    if not space:
        return 0
    lately = Now() - timedelta(days=workers.KEEP_DAYS)
    of_host = WorkerSign.objects.filter(pid_space=space, pid__isnull=False, gone_at=None, seen_at__gt=lately)
    dead = [name for name, pid in of_host.values_list("name", "pid") if pid is not None and not is_alive(pid)]
    return sum(_release(name, space) for name in dead)


def _release(name: str, space: str) -> int:
    """Another sweeper may do the same at the same time: only one of them finds the row without `gone_at`."""
    with transaction.atomic():
        if not WorkerSign.objects.filter(name=name, pid_space=space, gone_at=None).update(gone_at=Now()):
            return 0
        released = database.execute(
            """
            WITH left_over AS MATERIALIZED (
                -- In the order of ids, as in `claims`.
                SELECT id FROM video_videotask
                WHERE claimed_by = %s AND next_run_at <= statement_timestamp() AND lease_until > statement_timestamp()
                ORDER BY id FOR UPDATE
            )
            UPDATE video_videotask t SET lease_until = statement_timestamp(), rung_at = NULL,
                core_at = CASE WHEN t.stage <> 'transcode' THEN t.core_at END
            FROM left_over WHERE t.id = left_over.id
            """,
            [name],
        )
    log.warning("%s died without a word; stages that it held and others may take over now: %s", name, released)
    return released


def is_alive(pid: int) -> bool:
    """Whether a process has this id; one that waits to be reaped by its parent is dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
