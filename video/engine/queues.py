"""The names at the broker: the two queues, which stage goes to which, priorities, and Celery's names of the tasks.

Imports nothing of Django: the Celery app reads it before Django is set up, so stages are words here (`Stage` is one).
"""

from __future__ import annotations

from typing import Final

VIDEO_QUEUE: Final = "videoQueue"
MEDIA_QUEUE: Final = "mediaQueue"
QUEUES = (VIDEO_QUEUE, MEDIA_QUEUE)
#: Of webhooks, with a worker of its own: a receiver that is slow holds no work on videos up.
WEBHOOK_QUEUE: Final = "webhookQueue"
ALL_QUEUES = (*QUEUES, WEBHOOK_QUEUE)

#: In the order in which a task goes through them.
QUEUE_OF: dict[str, str] = {
    "generate": VIDEO_QUEUE,
    "poll": VIDEO_QUEUE,
    "download": VIDEO_QUEUE,
    "transcode": MEDIA_QUEUE,
    "thumbnail": MEDIA_QUEUE,
    "save": VIDEO_QUEUE,
}

ADMIT: Final = "video.admit"
CHECK: Final = "video.look"
DELIVER: Final = "video.deliver"

#: Which messages of a queue are delivered first: 0, then 3, then 6. What is nearer its end comes first: an overload
#: shows as submits that wait, not as videos that no worker fetches. Each priority is a list of its own at the broker,
#: named after queue and priority.
PRIORITIES = (0, 3, 6)
URGENT: Final = 0
SEPARATOR: Final = ":"


def task_of(stage: str) -> str:
    """Celery's name of the task that works on this stage."""
    return f"video.{stage}"


#: Of messages that are not urgent; those that are not named here have 0.
PRIORITY_OF = {task_of("poll"): 3, task_of("generate"): 6}
#: As Celery's `task_routes`; what is not named here goes to VIDEO_QUEUE.
ROUTES = {
    task_of(stage): {"queue": queue, "routing_key": queue, "priority": PRIORITY_OF.get(task_of(stage), URGENT)}
    for stage, queue in QUEUE_OF.items()
} | {DELIVER: {"queue": WEBHOOK_QUEUE, "routing_key": WEBHOOK_QUEUE, "priority": URGENT}}


def stages_of(queue: str) -> list[str]:
    """The stages whose messages go through this queue."""
    return [stage for stage, its_queue in QUEUE_OF.items() if its_queue == queue]
