"""The sweeper: a small process that makes sure that nothing is forgotten. Any number of copies are harmless.

It rings what is due and unheld, admits, and runs the periodic jobs. With the broker down it goes on asking; with the
database down it waits for it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import close_old_connections, connection

from media_pipeline.errors import MediaError
from video.attempts import reconcile
from video.engine import claims, dead_workers, dispatch, due, workers
from video.infra import outage
from video.infra.toolkit import toolkit
from video.models import Stage, WorkerSign
from video.pipeline import media_stages
from video.routing import accounts
from video.scheduling import admission, transcode_slots

log = logging.getLogger(__name__)

TICK_S = 0.5
PERIODIC_TICK_S = 5.0
JOIN_S = 3.0  # given to a periodic job at the end; each is safe to be cut
ACCOUNT_AGE_S = 600.0  # between two account calls with one key
RING_BATCH = 500
RING_POLLS = 2000  # in waves of a hundred, so they cost the broker little


def tick() -> int:
    """Ring what is due, also of dead workers, admit who can be admitted, to slots and to cores. Returns how many tasks
    were rung."""
    dead_workers.release_dead()
    room = dispatch.stages_below_limit()
    rung = dispatch.resume_all(due.enqueue_due(RING_BATCH, room))
    if Stage.POLL in room:
        rung += dispatch.send_poll_batches(claims.enqueue_due_polls(RING_POLLS))
    rung += dispatch.resume_all(admission.admit(), urgent=False)
    return rung + dispatch.resume_all(transcode_slots.grant())


def take_period(name: str, every_s: float) -> bool:
    """Whether this process is the one to run a periodic job now: the first to write the period's unique row."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO video_periodicrun (name, period)
            VALUES (%(name)s, to_timestamp(floor(extract(epoch FROM statement_timestamp()) / %(every)s) * %(every)s))
            ON CONFLICT (name, period) DO NOTHING
            """,
            {"name": name, "every": every_s},
        )
        taken = cursor.rowcount == 1
        if taken:
            cursor.execute(
                "DELETE FROM video_periodicrun WHERE name = %s AND period < statement_timestamp() - interval '2 days'",
                [name],
            )
        return taken


def sweep_work_files() -> int:
    """Delete work files that are past their time: at once after success, KEEP_FAILED_DAYS after a failure."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id FROM video_videotask
            WHERE has_work_files AND finished_at IS NOT NULL
                AND finished_at < statement_timestamp() - interval '1 day' *
                    CASE WHEN status = 'success' THEN %s ELSE %s END
            ORDER BY finished_at LIMIT 500
            """,
            [settings.KEEP_SOURCE_DAYS, settings.KEEP_FAILED_DAYS],
        )
        found = [row[0] for row in cursor.fetchall()]
    for task_id in found:
        try:
            media_stages.drop_work_files(task_id)
        except MediaError as err:
            log.warning("sweeper: the work files of %s stay for now: %s", task_id, err)
            break  # what is wrong with the storage is wrong for the others too; the next sweep does them
        with connection.cursor() as cursor:
            # Not if it was brought back to life meanwhile: its next stage makes new files.
            cursor.execute(
                "UPDATE video_videotask SET has_work_files = false WHERE id = %s AND finished_at IS NOT NULL", [task_id]
            )
    return len(found)


SCRATCH_S = 24 * 3600.0  # longer than any stage works


def sweep_scratch() -> int:
    """Delete what workers of this host that were killed left in scratch."""
    return toolkit().storage.sweep_scratch(older_than_s=SCRATCH_S, now=time.time())


PERIODIC: tuple[tuple[str, float, Callable[[], int]], ...] = (
    ("reconcile", 15, reconcile.reconcile),
    ("waiting", 60, admission.expire_waiting),
    ("work_files", 60, sweep_work_files),
    (f"scratch@{socket.gethostname()[-30:]}", 3600, sweep_scratch),  # each host has a disk of its own
    ("accounts", 60, lambda: accounts.refresh(ACCOUNT_AGE_S)),
    ("signs", 3600, workers.sweep_old),
)


def run(stop: threading.Event) -> None:
    """Tick until `stop` is set; the periodic jobs, some of which talk to providers, never hold a tick up."""
    log.info("sweeper: ringing what is due every %.1f s", TICK_S)
    periodic = threading.Thread(
        target=_repeat, args=(stop, PERIODIC_TICK_S, run_periodic), name="periodic", daemon=True
    )
    periodic.start()
    sign = workers.Presence(WorkerSign.Kind.SWEEPER)
    sign.start()
    _repeat(stop, TICK_S, tick)
    sign.drain()
    periodic.join(JOIN_S)
    sign.end()


def run_periodic() -> None:
    """Each periodic job whose period nobody has taken yet. One that fails keeps no other from its turn."""
    for name, every_s, job in PERIODIC:
        try:
            if take_period(name, every_s):
                job()
        except outage.ERRORS:
            raise
        except Exception:  # the boundary of a job: its next period tries again
            log.exception("sweeper: the periodic job %s failed; it runs again in its next period", name)


def _repeat(stop: threading.Event, pause_s: float, work: Callable[[], object]) -> None:
    well = True
    while not stop.is_set():
        try:
            work()
        except Exception as err:  # the boundary of a turn: nothing may end the loop that everything else rests on
            if not well:
                log.debug("sweeper: still failing: %s", err)
            elif isinstance(err, outage.ERRORS):
                log.warning("sweeper: the database can't be used (%s); trying again until it can", err)
            else:
                log.exception("sweeper: a turn failed; trying again")
            well = False
            connection.close()
        else:
            if not well:
                log.info("sweeper: all is well again")
            well = True
        finally:
            close_old_connections()
        stop.wait(pause_s)
