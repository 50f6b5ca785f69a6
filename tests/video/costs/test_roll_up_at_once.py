"""The roll-up while others work: one process at a time, and no change is lost that commits while a day is summed up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from tests.factories import make_task
from video.costs import report, roll_up
from video.models import CostDay, CostTouch

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other() -> Iterator[BaseDatabaseWrapper]:
    """Another process's connection."""
    found = connection.copy()
    yield found
    found.close()


def granted() -> int:
    today = timezone.now().date()
    return report.read(report.Query(today, today, ())).total.granted


def test_one_process_at_a_time(user: AbstractBaseUser, other: BaseDatabaseWrapper) -> None:
    make_task(user)
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [roll_up._LOCK])
    assert roll_up.keep() == 0
    assert CostTouch.objects.exists(), "touches were forgotten under another process"
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [roll_up._LOCK])
    assert roll_up.keep() == 0  # nothing is over yet
    assert not CostTouch.objects.exists()


def test_a_change_that_commits_after_the_sum_is_in_the_report(
    user: AbstractBaseUser, other: BaseDatabaseWrapper
) -> None:
    other.set_autocommit(False)
    with other.cursor() as cursor:
        cursor.execute(
            "INSERT INTO video_creditentry (account_id, kind, amount, note) VALUES (%s, 'grant', 7, '')", [user.pk]
        )
    day = timezone.now().date()
    assert roll_up._roll_up(day, wait=True)
    assert (granted(), CostDay.objects.count()) == (1000, 1)
    other.commit()
    assert granted() == 1007
    assert roll_up._roll_up(day, wait=True)
    assert (granted(), CostTouch.objects.count()) == (1007, 0)
    assert roll_up.differences() == []
