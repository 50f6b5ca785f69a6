"""The Celery app. A message only names a row: the row in PostgreSQL decides what is done.

Any message may be lost, late or doubled. So there is no result backend, no ETA, no countdown and no
`retry()` anywhere, and arguments are ids only.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, worker_init, worker_ready, worker_shutdown, worker_shutting_down
from kombu import Queue

from config.servers import require_fit_database
from config.start import read_settings
from config.wakeup import WakeStep, wake
from video.engine import queues

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("reelworks", task_cls="config.wakeup:WakingTask")
# Celery's command line reads the settings here, before all else; in other processes they have been read.
app.on_configure.connect(lambda **_: read_settings(), weak=False)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    # Each with its own routing key: by default both would share the first one's, and get each other's messages.
    task_queues=tuple(Queue(name, routing_key=name) for name in queues.ALL_QUEUES),
    task_default_routing_key=queues.VIDEO_QUEUE,
    task_default_queue=queues.VIDEO_QUEUE,
    task_create_missing_queues=False,
    task_routes=queues.ROUTES,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    # Acknowledged late, and never put back when a worker dies: a poison task comes back only through the sweeper, where
    # its row counts the crashes.
    task_acks_late=True,
    task_reject_on_worker_lost=False,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    task_send_sent_event=False,
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # What can't be published now is published by the sweeper, so a create must not wait for the broker.
    task_publish_retry=False,
    broker_transport_options={
        "priority_steps": list(queues.PRIORITIES),
        "sep": queues.SEPARATOR,
        "visibility_timeout": 1800,
        "socket_timeout": 10,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 15,
        # Of a connection that is made to send one message: without it each create tried again for six seconds.
        "max_retries": 0,
    },
)
app.steps["consumer"].add(WakeStep)
app.autodiscover_tasks(["video.processes"])


@celeryd_after_setup.connect(weak=False)
def _say_no_banner(instance: Any, **_: Any) -> None:
    """What a worker prints at its start is no line of a log that a program reads."""
    from django.conf import settings

    instance.quiet = instance.quiet or settings.LOG_FORMAT == "json"


@worker_init.connect(weak=False)
def _require_fit_database(**_: Any) -> None:
    """Before anything is consumed."""
    require_fit_database()


@worker_ready.connect(weak=False)
def _begin(sender: Any, **_: Any) -> None:
    """The worker is connected and ready. (The import is here since Django is not set up when this module is read.)"""
    from video.processes import worker

    worker.begin(queues=list(sender.app.amqp.queues.consume_from), threads=sender.controller.concurrency)


@worker_shutting_down.connect(weak=False)
def _stop(**_: Any) -> None:
    """The worker got a signal to stop; Celery calls this in the signal's handler."""
    from video.processes import worker

    worker.stop()
    wake()


@worker_shutdown.connect(weak=False)
def _end(**_: Any) -> None:
    from video.processes import worker

    worker.end()
