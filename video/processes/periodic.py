"""The sweeper's periodic jobs: what is done once a period, by whichever sweeper takes the period first."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from media_pipeline.errors import MediaError
from media_pipeline.fetch import parts
from video.attempts import attach_requests, configured_keys, reconcile
from video.costs import roll_up
from video.engine import due, jobs, transitions, workers
from video.infra import database, metrics, outage
from video.infra.toolkit import toolkit
from video.models import PeriodicRun, Stage, Status, VideoTask
from video.monitoring import process_figures, trends
from video.pipeline import media_stages
from video.processes import retention
from video.routing import accounts
from video.scheduling import wait_deadline
from video.web import idempotency, request_limits, uploads
from video.web.logins import api_keys, sessions, throttle
from video.webhooks import deliveries

log = logging.getLogger(__name__)

ACCOUNT_AGE_S = 600.0  # between two account calls with one key
SCRATCH_S = 24 * 3600.0  # longer than any stage works
SWEEP_BATCH = 500  # tasks


def take_period(name: str, every_s: float) -> bool:
    """Whether this process is to run a periodic job now: it was the first to write the period's unique row."""
    taken = database.changed(
        """
        INSERT INTO video_periodicrun (name, period)
        VALUES (%(name)s, to_timestamp(floor(extract(epoch FROM statement_timestamp()) / %(every)s) * %(every)s))
        ON CONFLICT (name, period) DO NOTHING
        """,
        {"name": name, "every": every_s},
    )
    if taken:
        PeriodicRun.objects.filter(name=name, period__lt=Now() - timedelta(days=2)).delete()
    return taken


def sweep_work_files() -> int:
    """Delete work files that are past their time: a success needs none, other tasks keep them for KEEP_FAILED_DAYS.

    Returns for how many tasks it tried. Safe to repeat.
    """
    expired = Q(status=Status.SUCCESS) | Q(finished_at__lt=Now() - timedelta(days=settings.KEEP_FAILED_DAYS))
    tasks = VideoTask.objects.filter(expired, has_work_files=True, finished_at__isnull=False).order_by("finished_at")
    found = list(tasks.values_list("pk", flat=True)[:SWEEP_BATCH])
    for task_id in found:
        try:
            media_stages.drop_work_files(task_id)
        except MediaError as err:
            log.warning("sweeper: the work files of %s stay for now: %s", task_id, err)
            break  # what is wrong with the storage is wrong for the others too; the next sweep deletes them
        except OSError as err:
            log.error("sweeper: a work file of %s can't be deleted (%s); see who owns it", task_id, err)  # noqa: TRY400
            continue
        transitions.forget_work_files(task_id)
    return len(found)


def sweep_scratch() -> int:
    """Delete what killed workers of this host left in scratch. Returns how many folders."""
    return toolkit().storage.sweep_scratch(older_than_s=SCRATCH_S, now=time.time())


def sweep_parts() -> int:
    """Delete parts of videos on this host whose tasks fetch nothing any more. Returns how many."""
    root = toolkit().storage.scratch_root
    found = parts.owners(root)
    if not found:
        return 0
    fetching = VideoTask.objects.filter(pk__in=found, stage=Stage.DOWNLOAD, finished_at__isnull=True)
    return parts.sweep(root, found - set(fetching.values_list("pk", flat=True)))


#: Name, period in seconds, job.
PERIODIC: tuple[tuple[str, float, Callable[[], int]], ...] = (
    ("reconcile", 15, reconcile.reconcile),
    ("attach", 15, attach_requests.take_up_all),
    ("overdue", 15, due.wake_overdue),
    ("waiting", 60, wait_deadline.expire_waiting),
    ("work_files", 60, sweep_work_files),
    ("stored_files", 15, retention.sweep),
    ("erasures", 15, retention.sweep_erasures),
    ("uploads", 60, uploads.sweep),
    ("answered_calls", 60, idempotency.sweep),
    ("webhooks", 60, lambda: deliveries.give_up() + deliveries.prune()),
    (f"scratch@{socket.gethostname()[-30:]}", 3600, sweep_scratch),  # each host has a disk of its own
    (f"parts@{socket.gethostname()[-30:]}", 60, sweep_parts),
    ("accounts", 60, lambda: configured_keys.refresh(ACCOUNT_AGE_S)),
    ("refused", 15, lambda: accounts.refresh(None)),  # those whose pause is over
    ("hours", 60, trends.keep_hours),
    ("costs", 60, roll_up.keep),
    ("signs", 3600, workers.sweep_old),
    ("figures", 60, process_figures.sweep),
    ("jobs", 3600, jobs.sweep_old),
    ("logins", 3600, lambda: sessions.sweep() + api_keys.sweep() + throttle.sweep() + request_limits.sweep()),
)


def run_periodic() -> None:
    """Each periodic job whose period no process has taken yet. A job that fails keeps no other from its turn.

    Raises the database's errors while it is away.
    """
    for name, every_s, job in PERIODIC:
        try:
            if take_period(name, every_s):
                with metrics.timed(metrics.PERIODIC_JOBS, name.partition("@")[0]):
                    job()
        except outage.ERRORS:
            raise
        except Exception:  # the boundary of a job: its next period tries again
            log.exception("sweeper: the periodic job %s failed; it runs again in its next period", name)
