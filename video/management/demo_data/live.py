"""Jobs that the running system makes now, with the simulator: videos to play, and tasks that run, wait and fail.

Each create has an idempotency key, so a second call finds the first one's tasks. Without workers they stay in line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q
from django.db.models.functions import Now

from video.actions import cancel, create
from video.audit.actors import Unaudited
from video.infra.errors import Refusal
from video.management.demo_data.history import people
from video.management.demo_data.present import CLOSED_ACCOUNT, OPEN_CIRCUIT
from video.management.demo_data.rows import Media
from video.models import Status, VideoTask, WorkerSign
from video.models.order import Order
from video.web import demo_login

#: Begins the idempotency keys of these tasks.
LIVE = "seed_demo live "
ALIVE = timedelta(seconds=20)
LONGEST_WAIT_S = 90.0
FACTS = (
    *("video_bytes", "thumbnail_bytes", "video_width_px", "video_height_px"),
    *("video_duration_s", "video_fps", "video_has_sound"),
)


@dataclass(frozen=True)
class Job:
    """One task to create. `person`: place in PEOPLE."""

    person: int
    prompt: str
    asked: dict[str, Any]
    is_cancelled: bool = False


def _only(model: str) -> dict[str, Any]:
    return {"model_requested": model, "fallback": False}


VIDEOS = ("A lighthouse in fog", "Neon market street in the rain", "A kite above dunes")
#: How a prompt picks what the simulator does: docs/simulator.md.
JOBS = (
    Job(0, "Orbit around a glass office tower [[sim render=900]]", {}),
    Job(0, "An old tram climbs a steep street [[sim render=600]]", _only("kling-2.6")),
    Job(1, "Sneaker turning on a plinth [[sim throttled=400 render=500]]", _only("gen4.5")),
    Job(2, "Two chess players in a park [[sim moderation]]", {}),
    Job(2, "A dancer in a white hall [[sim fail=INTERNAL only=kling]]", _only("kling-2.5-turbo")),
    Job(1, "A baker dusts flour over dough [[sim file=html]]", {}),
    Job(3, "A night train passes a station [[sim file=truncated]]", {}),
    Job(3, "A red fox crosses a snowy road [[sim render=700]]", {}, is_cancelled=True),
    Job(1, "A paper boat drifts down a gutter", _only(CLOSED_ACCOUNT) | {"duration_s": 4}),
    Job(4, "Macro of a watch movement", _only(OPEN_CIRCUIT)),
    Job(0, "Time lapse of clouds", _only(OPEN_CIRCUIT)),
)


def is_running() -> bool:
    """Whether any worker showed a sign of life lately."""
    return WorkerSign.objects.filter(
        kind=WorkerSign.Kind.WORKER, gone_at__isnull=True, seen_at__gt=Now() - ALIVE
    ).exists()


def videos(told: Callable[[str], None]) -> list[Media]:
    """Real videos of the simulator, made for the demo user; as many as there are after a minute and a half."""
    demo_login.ensure_demo_user()
    owner = get_user_model().objects.get(username=demo_login.NAME)
    for number, prompt in enumerate(VIDEOS):
        _create(owner.pk, Job(0, prompt, {"duration_s": 5}), f"{LIVE}video {number}")
    ends_at, done = time.monotonic() + LONGEST_WAIT_S, -1
    mine = VideoTask.objects.filter(user=owner, idempotency_key__startswith=f"{LIVE}video ")
    while True:
        if done != (done := mine.filter(finished_at__isnull=False).count()):
            told(f"videos to play: {done} of {len(VIDEOS)} made")
        if done >= len(VIDEOS) or time.monotonic() > ends_at:
            break
        time.sleep(0.5)
    made = mine.filter(Q(status=Status.SUCCESS, gone_why="") & ~Q(output_key="") & ~Q(thumbnail_key=""))
    return [
        Media(task.prompt, task.output_key, task.thumbnail_key, {name: getattr(task, name) for name in FACTS})
        for task in made.order_by("id")
    ]


def jobs() -> list[str]:
    """Create what runs, waits and fails now. Returns the ids of the tasks; none is made twice."""
    users = people()
    made = []
    for number, job in enumerate(JOBS):
        task_id = _create(users[job.person].pk, job, f"{LIVE}{number}")
        made += [task_id] if task_id else []
    return made


def _create(user_id: int, job: Job, key: str) -> str:
    """The id of the task; empty if it can't be made, for want of credits or of a model that is on."""
    order = Order(**{"prompt": job.prompt, "duration_s": 5, "aspect_ratio": "16:9", **job.asked})
    try:
        task, is_new = create.create(user_id, order, idempotency_key=key)
    except Refusal:
        return ""
    if is_new and job.is_cancelled:
        cancel.cancel(task.pk, by=Unaudited("seed_demo"), user_id=user_id)
    return task.pk
