"""All that `manage.py seed_demo` makes, in order."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from video.infra.errors import Refusal
from video.management.demo_data import history, live, present
from video.management.demo_data.history import Written
from video.web import demo_login

OPERATOR = "demo-operator"
MOST_TASKS = 100_000


class NotSimulating(Refusal):
    """Made-up rows never come into a database whose providers are real."""

    code = "not_simulating"

    def __init__(self) -> None:
        super().__init__(
            "seed_demo writes made-up users, tasks and money. It works only while everything is simulated: "
            "set REELWORKS_SIMULATE=1. Nothing was made."
        )


@dataclass
class Seeded:
    """What there is now."""

    history: Written
    videos: int = 0
    jobs: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    is_running: bool = False
    operator_password: str = ""  # of an operator who was made now; shown once


def seed(
    *, tasks: int, seed: int, with_jobs: bool, with_operator: bool, told: Callable[[str], None] = lambda line: None
) -> Seeded:
    """Make the demo's users, history and present; what is there already stays. `told` hears how it goes.

    `with_jobs`: also jobs that the running system makes with the simulator. Raises NotSimulating.
    """
    if not settings.SIMULATE:
        raise NotSimulating
    demo_login.ensure_demo_user()
    is_running = live.is_running()
    videos = live.videos(told) if with_jobs and is_running else []
    found = Seeded(history.write(tasks, seed, videos, told), videos=len(videos), is_running=is_running)
    found.present = present.write()
    if with_jobs:
        found.jobs = live.jobs()
    if with_operator:
        found.operator_password = _operator()
    return found


def _operator() -> str:
    """Make a user who may see and do everything of Reelworks in the admin. The password; empty if there is one."""
    user, is_new = get_user_model().objects.get_or_create(username=OPERATOR, defaults={"is_staff": True})
    if not is_new:
        return ""
    password = secrets.token_urlsafe(15)
    user.set_password(password)
    user.save(update_fields=["password"])
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="video"))
    return password
