"""How many go before a task: the estimate by itself, and against what admission really does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.factories import make_task, make_user
from video.attempts import configured_keys
from video.models import Generation, ProviderAccount, UserShare, VideoTask
from video.scheduling import admission, estimates
from video.scheduling.estimates import UserBacklog, tasks_before

T0 = datetime(2026, 1, 1, tzinfo=UTC)
NOW = T0 + timedelta(hours=1)
ME, OTHER = 1, 2


def line(
    user_id: int, fresh: int, *, used: float = 0, weight: int = 1, reruns: int = 0, oldest: datetime = T0
) -> UserBacklog:
    return UserBacklog(user_id, fresh, reruns, oldest, used, weight)


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (0, [], 0),
        (3, [], 3),
        (0, [line(OTHER, 5000)], 1),  # one of the long line, which is older, and then me
        (0, [line(OTHER, 5000, used=1)], 0),
        (0, [line(OTHER, 5000, oldest=NOW)], 0),
        (2, [line(OTHER, 5000)], 2 + 3),
        (2, [line(OTHER, 1)], 2 + 1),
        (2, [line(OTHER, 5000, weight=2)], 2 + 5),
        (2, [line(OTHER, 0, reruns=9)], 2),
    ],
)
def test_before_a_fresh_task(own: int, others: list[UserBacklog], expected: int) -> None:
    mine = [line(ME, own + 1)]
    assert tasks_before([*mine, *others], user_id=ME, own=own, created_at=NOW - timedelta(minutes=1)) == expected


def test_before_a_rerun_go_all_fresh_tasks() -> None:
    lines = [line(ME, 1, reruns=1), line(OTHER, 40, reruns=5)]
    assert tasks_before(lines, user_id=ME, own=1, rerun=True, created_at=NOW) == 1 + 40


def test_one_who_has_nothing_waiting_yet_stands_behind_each_line_once() -> None:
    assert tasks_before([line(OTHER, 10), line(3, 10)], user_id=ME, own=0) == 2


@pytest.mark.django_db
def test_the_positions_are_the_order_in_which_slots_are_given() -> None:
    configured_keys.sync()
    ProviderAccount.objects.filter(model="gen4.5").update(slots=0)
    long, heavy, short = make_user(), make_user(), make_user()
    UserShare.objects.create(user=heavy, weight=3)
    tasks = [make_task(long) for _ in range(6)] + [make_task(heavy) for _ in range(6)] + [make_task(short)]
    estimates._cache.clear()
    own: dict[int, int] = {}
    told: list[tuple[int, str]] = []
    for task in tasks:
        ahead = own.setdefault(task.user_id, 0)
        place = estimates.place(
            task.eligible_models, user_id=task.user_id, own=ahead, rerun=False, created_at=task.created_at
        )
        assert place.expected_wait_s is None
        told.append((place.position, task.pk))
        own[task.user_id] += 1
    ProviderAccount.objects.filter(model="gen4.5").update(slots=len(tasks))
    given = [task_id for task_id, _ in admission.admit()]
    assert len(given) == len(tasks) == Generation.objects.count()
    for position, task_id in told:
        assert abs(position - (given.index(task_id) + 1)) <= 1, VideoTask.objects.get(pk=task_id)
