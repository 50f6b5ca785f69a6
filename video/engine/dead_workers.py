"""Processes of this host that died: their leases end at once instead of running out.

A lease says for how long a worker may be silent, wherever it runs. Of a worker on the same host more can be known: no
process has its id any more. Then all that it held may be taken over, and its cores are free. Only what is certain
counts. The row of its presence must hold its process id and have been written in this very boot and pid namespace
(containers may share a host's name and have the same ids). Otherwise, as for workers of an older version, which wrote
no process id, the leases run out by themselves.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from django.db import connection, transaction

from video.engine import workers

log = logging.getLogger(__name__)


def release_dead() -> int:
    """End the leases of this host's dead processes. Returns how many stages may be taken over."""
    space = workers.pid_space()
    if not space:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT name, pid FROM video_workersign
            WHERE pid_space = %s AND pid IS NOT NULL AND gone_at IS NULL
                AND seen_at > statement_timestamp() - %s * interval '1 day'
            """,
            [space, workers.KEEP_DAYS],
        )
        dead = [name for name, pid in cursor.fetchall() if not is_alive(pid)]
    return sum(_release(name, space) for name in dead)


def _release(name: str, space: str) -> int:
    """Another sweeper may do the same at the same time: only one of them finds the row without `gone_at`."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_workersign SET gone_at = statement_timestamp()
            WHERE name = %s AND pid_space = %s AND gone_at IS NULL
            """,
            [name, space],
        )
        if not cursor.rowcount:
            return 0
        cursor.execute(
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
        released = cursor.rowcount
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
