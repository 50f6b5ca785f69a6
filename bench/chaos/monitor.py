"""Watches the tables while the system runs: tasks that make no progress though they could, and writes by late workers.

Two triggers of our own note what no move may do: take a stage from a holder whose lease still runs, and move a task
under a token that is not its newest.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from bench.chaos.fleet import MEDIA_THREADS, Fleet
from bench.chaos.plan import MEDIA

EVERY_S = 0.5
WATCH = """
CREATE TABLE chaos_note (
    task_id text NOT NULL, what text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION chaos_stolen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_note (task_id, what) VALUES (NEW.id, format(
        '%s taken by %s from %s, whose lease ran for another %s',
        OLD.stage, NEW.claimed_by, OLD.claimed_by, OLD.lease_until - statement_timestamp()));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_stolen AFTER UPDATE OF fence ON video_videotask FOR EACH ROW
    WHEN (NEW.fence > OLD.fence AND OLD.lease_until > statement_timestamp() AND NEW.lease_until IS NOT NULL)
    EXECUTE FUNCTION chaos_stolen();
CREATE FUNCTION chaos_stale() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_note (task_id, what)
        SELECT id, format('moved by %s (%s %s) under token %s, the newest is %s',
            NEW.worker, NEW.stage, NEW.outcome, NEW.fence, fence)
        FROM video_videotask WHERE id = NEW.task_id AND fence > NEW.fence;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_stale AFTER INSERT ON video_taskevent FOR EACH ROW EXECUTE FUNCTION chaos_stale();
"""
# Tasks that have not ended, and since when each could have moved by itself; NULL: it waits for its provider, or it is
# being worked on by a process that lives.
STANDING = """
WITH open_model AS (
    SELECT DISTINCT a.model FROM video_provideraccount a
    WHERE a.closed_reason = '' AND a.refusals = 0
        AND coalesce(a.cooldown_until, '-infinity') <= statement_timestamp()
        AND NOT EXISTS (
            SELECT FROM video_circuit c WHERE c.model = a.model AND c.open_until > statement_timestamp())
        AND (SELECT count(*) FROM video_generation g
            WHERE g.account_id = a.id AND g.state IN ('planned', 'unknown', 'accepted')) < %(slots)s
)
SELECT t.id, t.stage, t.lease_until > statement_timestamp() AND t.claimed_by = ANY(%(living)s),
    extract(epoch FROM statement_timestamp())::float8, extract(epoch FROM CASE
    WHEN t.admit_at IS NOT NULL THEN
        CASE WHEN t.eligible_models && ARRAY(SELECT model FROM open_model) THEN t.admit_at END
    WHEN t.lease_until > statement_timestamp() THEN
        CASE WHEN NOT t.claimed_by = ANY(%(living)s) THEN t.claimed_at END
    WHEN t.next_run_at <= statement_timestamp() THEN greatest(t.next_run_at, t.lease_until)
    -- Parked for a fault of our own counts, too.
    WHEN t.stage NOT IN ('generate', 'poll') AND (
        SELECT e.error_code IN ('disk_full', 'internal_error') FROM video_taskevent e
        WHERE e.task_id = t.id ORDER BY e.id DESC LIMIT 1) THEN t.claimed_at
    END)::float8
FROM video_videotask t WHERE t.finished_at IS NULL
"""


def watch_moves() -> None:
    """Install the triggers; before the first task."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(WATCH)


@dataclass
class Recovery:
    """How long each task that was open after the last fault made no progress though it could have, in seconds."""

    stood: dict[str, tuple[float, str]] = field(default_factory=dict)  # by task: longest, and the stage
    last_s: float = 0.0  # from the last fault until no task stood still for more than a second

    def note(self, task_id: str, seconds: float, stage: str) -> None:
        """Keep the longest."""
        if seconds >= self.stood.get(task_id, (0.0, ""))[0]:
            self.stood[task_id] = (max(0.0, seconds), stage)


class Monitor:
    """A thread that checks twice a second, on a connection of its own that it opens again when it is cut."""

    def __init__(self, fleet: Fleet, *, slots: int) -> None:
        self.recovery = Recovery()
        self._fleet, self._slots = fleet, slots
        self._last_fault: float | None = None
        self._cores_busy_at = 0.0  # when all of them were last seen at work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def last_fault_was(self, at: float) -> None:
        """From here on standing still counts, since that moment (seconds since the epoch)."""
        self._last_fault = at

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection: psycopg.Connection | None = None
        while not self._stop.wait(EVERY_S):
            if self._last_fault is None:
                continue
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
                self._check(connection, self._last_fault)
            except psycopg.Error:
                with suppress(psycopg.Error):
                    if connection is not None:
                        connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _check(self, connection: psycopg.Connection, last_fault: float) -> None:
        living = [f"{socket.gethostname()}:{pid}" for pid in self._fleet.pids()]
        rows = connection.execute(STANDING, {"slots": self._slots, "living": living}).fetchall()
        # A transcode that waits while every core is at work does not stand still: the work before it moves.
        at_work = sum(1 for _, stage, works, *_ in rows if works and stage in {"transcode", "thumbnail"})
        if rows and at_work >= len(MEDIA) * MEDIA_THREADS:
            self._cores_busy_at = rows[0][3]
        standing = 0
        for task_id, stage, _, now, since in rows:
            if since is None:
                seconds = 0.0
            elif stage == "transcode":
                seconds = now - max(since, last_fault, self._cores_busy_at)
            else:
                seconds = now - max(since, last_fault)
            standing += seconds > 1
            self.recovery.note(task_id, seconds, stage)
        if standing:
            self.recovery.last_s = time.time() - last_fault
