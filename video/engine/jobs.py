"""Jobs of operators as rows: taking one for a lease, keeping it, writing down how far it is, ending it.

A claim takes a new fence, and every later write carries it: a sweeper whose job was taken over, or stopped by an
operator, finds no row to write. `hold` locks the row, so that an item and the note that it is done are one transaction:
no item is done twice, whenever a process dies.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.db import close_old_connections, connection
from django.db.models.functions import Now

from providers.untrusted import storable
from video.engine.claims import WORKER
from video.engine.sql import UNHELD
from video.infra import database
from video.models import OperatorJob

log = logging.getLogger(__name__)

LEASE_S = 60.0
#: A job whose sweepers die this often without any progress is failed rather than let kill sweepers for ever.
MAX_DEATHS = 4
MOST_LINES = 200
KEEP_DAYS = 90
MOST_LINES_OF_DONE = 100  # so that the refused ones of a long job find room


class JobLost(Exception):
    """Another sweeper has the job, or an operator has stopped it: nothing more of it may be done here."""


@dataclass(frozen=True)
class Line:
    """The result of one item."""

    text: str
    ok: bool = True


def claim() -> OperatorJob | None:
    """Take the oldest job that nobody holds, for one lease and under a new fence. One or two statements."""
    row = database.fetch_one(
        f"""
        WITH free AS (
            SELECT id FROM video_operatorjob
            WHERE state IN ('waiting', 'running') AND {UNHELD}
            ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE video_operatorjob j SET state = 'running', fence = fence + 1, claimed_by = %(worker)s,
            lease_until = statement_timestamp() + %(lease)s * interval '1 second', deaths = deaths + 1,
            started_at = coalesce(started_at, statement_timestamp())
        FROM free WHERE j.id = free.id RETURNING j.id
        """,  # noqa: S608 - a constant
        {"worker": str(WORKER), "lease": LEASE_S},
    )
    return None if row is None else OperatorJob.objects.get(pk=row[0])


def hold(job: OperatorJob) -> None:
    """Lock the row until the transaction ends. Raises JobLost."""
    held = database.fetch_one(
        "SELECT id FROM video_operatorjob WHERE id = %s AND fence = %s AND state = 'running' FOR NO KEY UPDATE",
        [job.pk, job.fence],
    )
    if held is None:
        raise JobLost


def advance(
    job: OperatorJob, *lines: Line, items: int = 1, refused: int = 0, cursor: str | None = None, of: int | None = None
) -> None:
    """Write down what was done: so many `items`, with these lines as far as there is room. Raises JobLost.

    `cursor`: the last item, after which another sweeper would go on. `of`: how many there are in all.
    """
    row = database.fetch_one(
        """
        UPDATE video_operatorjob j SET done = done + %(items)s, refused = refused + %(refused)s,
            cursor = coalesce(%(cursor)s, cursor), of = coalesce(%(of)s, of), deaths = 0,
            lease_until = statement_timestamp() + %(lease)s * interval '1 second',
            lines = lines || coalesce((
                SELECT jsonb_agg(line) FROM (
                    SELECT line FROM jsonb_array_elements(%(lines)s::jsonb) WITH ORDINALITY given (line, place)
                    WHERE jsonb_array_length(lines) + place
                        <= CASE WHEN (line ->> 'ok')::boolean THEN %(of_done)s ELSE %(most)s END
                    ORDER BY place) room
            ), '[]')
        WHERE id = %(id)s AND fence = %(fence)s AND state = 'running' RETURNING done, refused, cursor, of
        """,
        {
            "id": job.pk,
            "fence": job.fence,
            "items": items,
            "refused": refused,
            "cursor": cursor,
            "of": of,
            "lease": LEASE_S,
            "lines": json.dumps([{"ok": line.ok, "text": storable(line.text, 300)} for line in lines]),
            "most": MOST_LINES,
            "of_done": MOST_LINES_OF_DONE,
        },
    )
    if row is None:
        raise JobLost
    job.done, job.refused, job.cursor, job.of = row


def begin_anew(job: OperatorJob, *, of: int | None = None) -> None:
    """Forget what was counted and told by a sweeper before, of work that begins at its beginning. Raises JobLost."""
    written = database.changed(
        """
        UPDATE video_operatorjob SET done = 0, refused = 0, cursor = '', lines = '[]', of = %(of)s
        WHERE id = %(id)s AND fence = %(fence)s AND state = 'running'
        """,
        {"id": job.pk, "fence": job.fence, "of": of},
    )
    if not written:
        raise JobLost
    job.done, job.refused, job.cursor, job.of = 0, 0, "", of


def finish(job: OperatorJob, summary: str, *, failed: bool = False) -> bool:
    """End it. False: it is not ours any more."""
    return database.changed(
        """
        UPDATE video_operatorjob SET state = %(state)s, summary = %(summary)s, ended_at = statement_timestamp(),
            lease_until = NULL
        WHERE id = %(id)s AND fence = %(fence)s AND state = 'running'
        """,
        {
            "id": job.pk,
            "fence": job.fence,
            "state": OperatorJob.State.FAILED if failed else OperatorJob.State.DONE,
            "summary": storable(summary, 300),
        },
    )


def release(job: OperatorJob) -> bool:
    """Let another sweeper go on with it at once: this one stops. That is no death."""
    return database.changed(
        "UPDATE video_operatorjob SET lease_until = NULL, deaths = 0 "
        "WHERE id = %s AND fence = %s AND state = 'running'",
        [job.pk, job.fence],
    )


def stop(job_id: int, summary: str) -> bool:
    """End an open job for an operator: the item that is being done is done, no other is. False: it has ended."""
    return database.changed(
        """
        UPDATE video_operatorjob SET state = 'stopped', summary = %(summary)s, ended_at = statement_timestamp(),
            lease_until = NULL, fence = fence + 1
        WHERE id = %(id)s AND state IN ('waiting', 'running')
        """,
        {"id": job_id, "summary": storable(summary, 300)},
    )


def sweep_old() -> int:
    """Delete jobs that ended KEEP_DAYS ago; the audit keeps who asked. Returns how many."""
    ended = OperatorJob.objects.filter(ended_at__lt=Now() - timedelta(days=KEEP_DAYS))
    return ended.delete()[0]


@contextmanager
def kept(job: OperatorJob) -> Iterator[threading.Event]:
    """Renew the lease for as long as the block runs; the event is set when the job is not ours any more."""
    lost, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=_renew, args=(job, lost, ended), name="job lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()


def _renew(job: OperatorJob, lost: threading.Event, ended: threading.Event) -> None:
    try:
        while not ended.wait(LEASE_S / 4):
            if not _renew_once(job):
                lost.set()
                return
    finally:
        connection.close()  # this thread's own, if it needed one


def _renew_once(job: OperatorJob) -> bool:
    """Whether the job is still ours, as far as is known."""
    try:
        return database.changed(
            "UPDATE video_operatorjob SET lease_until = statement_timestamp() + %s * interval '1 second' "
            "WHERE id = %s AND fence = %s AND state = 'running'",
            [LEASE_S, job.pk, job.fence],
        )
    except Exception as err:  # whatever it is, this thread must go on; without it the lease runs out by itself
        log.warning("job %s: its lease can't be renewed now (%s); trying again", job.pk, type(err).__name__)
        connection.close()
        return True
    finally:
        close_old_connections()
