"""The charts' figures: what an hour came to is summed once, and the running one is read from events and attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.factories import accepted, admitted, make_task
from video.models import Generation, HourFigures, TaskEvent, VideoTask
from video.monitoring import trends
from video.monitoring.trends import Range

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
MOMENT = timedelta(seconds=5)


def event(task: VideoTask, outcome: str, at: datetime, *, took_s: float = 0) -> None:
    TaskEvent.objects.create(
        task=task, run=1, stage="generate", outcome=outcome, started_at=at - timedelta(seconds=took_s), finished_at=at
    )


def job(at: datetime, usd: str | None, state: str = "succeeded", *, simulated: bool = False) -> None:
    """An attempt that ended then."""
    found = accepted(make_task(), f"job-{Generation.objects.count()}")
    Generation.objects.filter(pk=found.pk).update(
        state=state, ended_at=at, expected_usd=None if usd is None else Decimal(usd), simulated=simulated
    )


@pytest.fixture
def task() -> VideoTask:
    task = make_task()
    TaskEvent.objects.all().delete()
    return task


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Half past an hour, so that no test depends on the minute in which it runs."""
    found = timezone.now().replace(minute=30, second=30, microsecond=0)
    monkeypatch.setattr(trends, "timezone", SimpleNamespace(now=lambda: found))
    monkeypatch.setattr(trends, "_database_now", lambda: found)
    return found


def test_the_last_hour_is_read_by_minute(task: VideoTask, now: datetime) -> None:
    for outcome, minutes in (("succeeded", 61), ("succeeded", 59), ("failed", 5), ("succeeded", 0), ("succeeded", 0)):
        event(task, outcome, now - MOMENT - timedelta(minutes=minutes))
    event(task, "admitted", now - MOMENT, took_s=10)
    event(task, "admitted", now - MOMENT, took_s=30)
    event(task, "advanced", now - MOMENT)
    found = trends.read(Range.HOUR)
    assert [one.videos for one in found.sums] == [1, *[0] * 58, 2]
    assert found.sums[-6].failures == 1
    assert (found.sums[-1].mean_wait_s, found.sums[-1].longest_wait_s) == (20, 30)
    assert found.sums[0].mean_wait_s is None
    assert found.labels[-1] == now.strftime("%H:%M")


def test_jobs_cost_what_was_expected_by_provider_and_one_that_failed_costs_nothing(now: datetime) -> None:
    job(now - MOMENT, "0.25")
    job(now - MOMENT, "0.5")
    job(now - MOMENT, "0.75", "lost")
    job(now - MOMENT, "1", simulated=True)
    job(now - MOMENT, "8", "failed")
    job(now - MOMENT, None)
    found = {name: row[-1] for name, row in trends.read(Range.HOUR).cost_usd.items()}
    assert found == {"runway": Decimal("1.5"), "runway (simulated)": Decimal(1)}


def test_hours_that_are_over_are_summed_once_and_a_month_is_their_sum(task: VideoTask, now: datetime) -> None:
    top = now.replace(minute=0, second=0)
    for hours in (26, 2, 1):
        job(top - hours * HOUR + timedelta(minutes=1), "0.5")
    TaskEvent.objects.all().delete()
    for hours in (26, 2, 1):  # ids rise with time
        event(task, "succeeded", top - hours * HOUR + timedelta(minutes=1))
        event(task, "admitted", top - hours * HOUR + timedelta(minutes=1), took_s=hours)
    while trends.keep_hours():
        pass
    assert HourFigures.objects.count() == 31 * 24
    row = HourFigures.objects.get(hour=top - HOUR)
    assert (row.videos, row.waits, row.waited_s, row.cost_usd) == (1, 1, 1.0, {"runway": "0.5000"})
    event(task, "succeeded", now - MOMENT)
    TaskEvent.objects.filter(finished_at__lt=top).delete()  # a month is read from the rows
    day, month = trends.read(Range.DAY), trends.read(Range.MONTH)
    assert [one.videos for one in day.sums[-3:]] == [1, 1, 1]
    assert sum(one.videos for one in month.sums) == 4
    assert sum(month.cost_usd["runway"]) == Decimal("1.5")
    assert max(one.longest_wait_s for one in month.sums) == 26
    assert (len(day.sums), len(month.sums), month.labels[-1]) == (24, 30, now.strftime("%m-%d"))


def test_an_hour_is_summed_only_when_its_last_events_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    just_over = datetime(2026, 6, 1, 12, 4, tzinfo=UTC)
    monkeypatch.setattr(trends, "_database_now", lambda: just_over)
    HourFigures.objects.create(
        hour=datetime(2026, 6, 1, 9, tzinfo=UTC), videos=0, failures=0, waits=0, waited_s=0, longest_wait_s=0
    )
    assert trends.keep_hours() == 1
    assert trends.keep_hours() == 0
    assert HourFigures.objects.latest("hour").hour == datetime(2026, 6, 1, 10, tzinfo=UTC)


def test_two_sweepers_at_once_write_an_hour_once(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = trends._measured
    other: list[int] = []

    def meanwhile(*args: object) -> object:
        if not other:
            other.append(0)
            other[0] = trends.keep_hours()
        return measured(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(trends, "_measured", meanwhile)
    trends.keep_hours()
    assert other == [24]
    assert HourFigures.objects.count() == 24


def test_rows_that_no_chart_shows_are_deleted(now: datetime) -> None:
    old = now.replace(minute=0, second=0) - timedelta(days=32)
    HourFigures.objects.create(hour=old, videos=1, failures=0, waits=0, waited_s=0, longest_wait_s=0)
    trends.keep_hours()
    assert not HourFigures.objects.filter(hour=old).exists()


@pytest.mark.parametrize("over", list(Range))
def test_it_takes_three_statements_that_read_no_more_than_the_span(over: Range, task: VideoTask) -> None:
    admitted(task)
    with CaptureQueriesContext(connection) as captured:
        trends.read(over)
    assert len(captured) == 3
    plans = []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for one in captured.captured_queries:
            cursor.execute(f"EXPLAIN {one['sql']}")
            plans.append("\n".join(row[0] for row in cursor.fetchall()))
    for plan in plans:  # which index it is depends on what the tables' figures say here
        assert "Seq Scan on video_taskevent" not in plan
        assert "Seq Scan on video_generation" not in plan
