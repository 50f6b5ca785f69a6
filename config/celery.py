"""The Celery app. The broker is a doorbell: the row in PostgreSQL decides.

Any message may be lost, late or doubled. So there is no result backend, no ETA, no countdown and no
`retry()` anywhere, and arguments are ids only.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from kombu import Queue

from config.wakeup import WakeStep, wake

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

#: Who is served first where messages stand in line: 0, which all others have, then 3, then 6. What is nearer its end
#: comes first: an overload shows as submits that wait, not as videos that nobody fetches. Each priority is a line of
#: its own at the broker, named after queue and priority.
PRIORITY_OF = {"video.poll": 3, "video.generate": 6}
PRIORITIES = (0, 3, 6)
LINE_SEPARATOR = ":"

app = Celery("reelworks", task_cls="config.wakeup:WakingTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    # Each with its own routing key: by default both would share the first one's, and get each other's messages.
    task_queues=tuple(Queue(name, routing_key=name) for name in ("videoQueue", "mediaQueue")),
    task_default_routing_key="videoQueue",
    task_default_queue="videoQueue",
    task_create_missing_queues=False,
    task_routes={
        name: {"queue": "mediaQueue", "routing_key": "mediaQueue"} for name in ("video.transcode", "video.thumbnail")
    }
    | {
        name: {"queue": "videoQueue", "routing_key": "videoQueue", "priority": priority}
        for name, priority in PRIORITY_OF.items()
    },
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    # Acked late, and never put back when a worker dies: a task that kills workers comes back only through the
    # sweeper, where the row counts its deaths.
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
    # A publish that can't be made now is made by the sweeper, so a create must not wait for the broker.
    task_publish_retry=False,
    broker_transport_options={
        "priority_steps": list(PRIORITIES),
        "sep": LINE_SEPARATOR,
        "visibility_timeout": 1800,
        "socket_timeout": 10,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 15,
    },
)
app.steps["consumer"].add(WakeStep)
app.autodiscover_tasks(["video.processes"])


@worker_ready.connect(weak=False)
def _begin(sender: Any, **_: Any) -> None:
    """A worker takes messages from here on. (Not imported above: Django is not set up there yet.)"""
    from video.processes import worker

    worker.begin(queues=list(sender.app.amqp.queues.consume_from), threads=sender.controller.concurrency)


@worker_shutting_down.connect(weak=False)
def _stop(**_: Any) -> None:
    """It was told to stop; Celery calls this in the signal's handler."""
    from video.processes import worker

    worker.stop()
    wake()


@worker_shutdown.connect(weak=False)
def _end(**_: Any) -> None:
    from video.processes import worker

    worker.end()
