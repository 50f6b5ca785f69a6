"""The sweeper: a small process that makes sure that no task is forgotten. Any number of copies may run.

It enqueues what is due and unheld, webhooks too, admits, grants cores, and runs the periodic jobs. It works on while
the broker is away, and waits while the database is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from django.db import close_old_connections, connection

from video.engine import dead_workers, dispatch, due, workers
from video.infra import metrics, outage
from video.models import Stage, WorkerSign
from video.monitoring import process_figures
from video.processes import alerting, operator_jobs, periodic
from video.scheduling import admission, transcode_slots
from video.webhooks import deliveries

log = logging.getLogger(__name__)

TICK_S = 0.5
PERIODIC_TICK_S = 5.0
JOBS_TICK_S = 1.0
JOIN_S = 3.0  # given to a periodic job and an operator's at the end; each is safe to be cut
MOST_ENQUEUED = 500  # tasks a tick
MOST_POLLS_ENQUEUED = 2000  # in batches of a hundred, so they cost the broker little


def tick() -> int:
    """Enqueue what is due, also what dead workers held, and webhooks; admit; grant cores. Returns how many messages."""
    with metrics.timed(metrics.SWEEPS):
        return _turn()


def _turn() -> int:
    dead_workers.release_dead()
    below_limit = dispatch.stages_below_limit()
    found = due.enqueue_due(MOST_ENQUEUED, [stage for stage in below_limit if stage is not Stage.POLL])
    sent = dispatch.resume_all((task_ids[0], stage) for stage, task_ids in found)
    if Stage.POLL in below_limit:
        polls = due.enqueue_due(MOST_POLLS_ENQUEUED, [Stage.POLL])
        sent += dispatch.send_poll_batches(task_ids for _, task_ids in polls)
    sent += dispatch.resume_all(admission.admit(), urgent=False)
    sent += dispatch.resume_all(transcode_slots.grant())
    return sent + (dispatch.send_deliveries(deliveries.enqueue_due()) if dispatch.has_room_for_deliveries() else 0)


def run(stop: threading.Event) -> None:
    """Tick until `stop` is set. The periodic jobs, some of which call providers, the jobs that operators ask for, and
    alerts run in a thread of their own each."""
    log.info("sweeper: ringing what is due every %.1f s", TICK_S)
    beside = [
        threading.Thread(target=_repeat, args=(stop, pause_s, work), name=name, daemon=True)
        for name, pause_s, work in (
            ("periodic", PERIODIC_TICK_S, periodic.run_periodic),
            ("jobs", JOBS_TICK_S, partial(operator_jobs.work, stop)),
            ("alerts", PERIODIC_TICK_S, alerting.turn),  # a receiver that hangs delays nothing else
        )
    ]
    for one in beside:
        one.start()
    presence = workers.Presence(WorkerSign.Kind.SWEEPER, report=partial(process_figures.write, "sweeper"))
    presence.start()
    _repeat(stop, TICK_S, tick)
    presence.drain()
    for one in beside:
        one.join(JOIN_S)
    presence.end()


def _repeat(stop: threading.Event, pause_s: float, work: Callable[[], object]) -> None:
    well = True
    while not stop.is_set():
        try:
            work()
        except Exception as err:  # the boundary of a turn: nothing may end this loop
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
