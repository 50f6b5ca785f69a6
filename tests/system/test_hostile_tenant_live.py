"""One tenant's failing jobs keep nobody else's from starting; through real workers, a sweeper and the simulator."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import AbstractBaseUser

from providers import catalogue
from tests.factories import make_task, make_user, reload
from tests.system.system import System, until
from video.models import Circuit, Generation, VideoTask
from video.routing import health

STARTS_WITHIN_S = 5.0
FAILING = 45


@pytest.fixture(scope="module")
def hostile(database: str) -> AbstractBaseUser:
    """One tenant for all tests here: what the test before left behind is never a second witness."""
    return make_user(credit=10_000)


@pytest.fixture
def working(system: System) -> System:
    """Enough threads that the tenants share nothing but what is decided about models."""
    Circuit.objects.all().delete()
    VideoTask.objects.filter(admit_at__isnull=False).update(admit_at="2100-01-01T00:00:00Z")
    system.worker(threads=8)
    system.sweeper()
    return system


def ended(task: VideoTask) -> VideoTask:
    found: VideoTask = until(f"{task.pk} ends", lambda: (now := reload(task)).finished_at and now)
    return found


MODELS = [model.id for model in catalogue.MODELS if model.text and 5 in model.durations_s]


def fail_much(user: AbstractBaseUser, directive: str) -> list[VideoTask]:
    """As many failing tasks of this user as are to stop the shop: of each model in turn, and each may go to others."""
    return [
        make_task(
            user, f"hostile {number} [[sim {directive}]]", model_requested=MODELS[number % len(MODELS)], fallback=True
        )
        for number in range(FAILING)
    ]


def opened() -> set[str]:
    """Models whose circuits are open or half open, for one user or for all."""
    return set(Circuit.objects.filter(open_until__isnull=False).values_list("model", flat=True))


def starts_in_s(task: VideoTask) -> float:
    """Seconds until the provider has the task's job."""
    begun = time.monotonic()
    until(
        f"{task.pk} has a job",
        lambda: Generation.objects.filter(task=task).exclude(job_id="").exists(),
        seconds=STARTS_WITHIN_S,
    )
    return time.monotonic() - begun


def start_at_once(other: AbstractBaseUser) -> None:
    """Videos of this tenant, of models by name and of any, start in time and are made."""
    assert not any(one.circuit_open for one in health.snapshot(other.pk).values())
    for model in ("gen4.5", "pika", "kling", ""):
        task = make_task(other, f"friendly {model}.", model_requested=model)
        assert starts_in_s(task) < STARTS_WITHIN_S
        assert ended(task).status == "success"


def test_failed_checks_of_what_was_made_open_nothing_even_for_who_asked(
    working: System, hostile: AbstractBaseUser
) -> None:
    tasks = fail_much(hostile, "only=runway fail=INTERNAL.BAD_OUTPUT.CODE01")
    assert [ended(task).finished_at is None for task in tasks] == [False] * FAILING
    assert Generation.objects.filter(task__user=hostile, state="failed").count() >= 5
    assert not Circuit.objects.filter(faults__gt=0).exists()
    start_at_once(make_user())


@pytest.mark.parametrize("directive", ["fail=INTERNAL", "status=500"])
def test_another_tenants_video_starts_within_five_seconds(
    working: System, hostile: AbstractBaseUser, directive: str
) -> None:
    fail_much(hostile, directive)
    until("every circuit is open for the hostile tenant", lambda: opened() == set(MODELS))
    assert {model for model in MODELS if health.snapshot(hostile.pk)[model].recent_faults >= 5} == set(MODELS)
    start_at_once(make_user())
