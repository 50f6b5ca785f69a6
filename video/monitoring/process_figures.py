"""What each process measures of itself, carried to whoever is asked for `/metrics` by a row of the database.

So one address tells of all processes of all hosts and containers, no process opens a port for it, and nothing is left
on a disk. A process that is killed loses what it counted in the last seconds; the tables hold what matters.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Sequence
from datetime import timedelta

from django.db import Error, connection
from django.db.models.functions import Now

from video.engine.claims import WORKER
from video.infra import database, metrics
from video.models import ProcessFigures

log = logging.getLogger(__name__)

EVERY_S = 5.0
#: For so long the last figures of a process that has ended are shown, so that a scrape a minute gets them.
SHOWN_S = 150.0

Samples = list[tuple[str, list[tuple[str, dict[str, str], float]]]]


def write(kind: str, queues: Sequence[str] = ()) -> None:
    """Insert or renew the row of this process. Raises the database's errors."""
    database.execute(
        """
        INSERT INTO video_processfigures (name, kind, queues, samples, written_at)
        VALUES (%s, %s, %s, %s, statement_timestamp())
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, queues = excluded.queues, samples = excluded.samples,
            written_at = excluded.written_at
        """,
        [str(WORKER), kind, ",".join(sorted(queues))[:100], metrics.packed()],
    )


def of_others() -> tuple[int, list[tuple[str, str, Samples]]]:
    """The credits of all users together, and (process, its kind or queues, samples) of all processes but this one; one
    statement for both.

    What another release wrote and nobody here can read is left out.
    """
    found: list[tuple[str, str, Samples]] = []
    rows = database.fetch(
        """
        SELECT credits.sum, f.name, f.kind, f.queues, f.samples
        FROM (SELECT coalesce(sum(balance), 0)::bigint AS sum FROM video_account) credits
        LEFT JOIN video_processfigures f
            ON f.written_at > statement_timestamp() - %s * interval '1 second' AND f.name <> %s
        ORDER BY f.name
        """,
        [SHOWN_S, str(WORKER)],
    )
    for _, name, kind, queues, samples in rows if rows[0][1] is not None else ():
        try:
            found.append((name, role(kind, queues), metrics.unpacked(bytes(samples))))
        except (ValueError, TypeError, zlib.error):
            log.warning("the figures of process %s can't be read; they are not in /metrics", name)
    return rows[0][0], found


def role(kind: str, queues: str) -> str:
    """What a process is for: `web`, `sweeper`, or a worker's queues."""
    return queues if kind == "worker" and queues else kind


def sweep() -> int:
    """Delete the rows of processes that have ended. Returns how many."""
    deleted, _ = ProcessFigures.objects.filter(written_at__lt=Now() - timedelta(seconds=2 * SHOWN_S)).delete()
    return deleted


def write_from_web(stop: threading.Event) -> None:
    """The thread of a web process: renews its row until `stop`, through every outage of the database."""
    well = True
    while not stop.wait(EVERY_S):
        try:
            write("web")
        except Exception as err:  # whatever it is, the row must be renewed next time
            if well:
                is_outage = isinstance(err, Error)
                log.warning(
                    "the figures of this process can't be written (%s); trying again", err, exc_info=not is_outage
                )
            well = False
        else:
            well = True
        finally:
            connection.close()
