"""How it went: videos, failures, waits for a slot and the providers' cost over the last hour, day and month.

An hour that is over is summed once (`keep_hours`, by the sweeper), so that a month costs 720 rows, not its tasks. The
hour that runs, and a minute's figures, are read from the events and attempts themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from django.utils import timezone

from video.infra import database
from video.models import HourFigures

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
#: An hour is summed so long after its end: events are dated by the begin of their transaction.
SETTLED = timedelta(minutes=5)
#: No read goes over the events of more than this; without a sweeper, the hours before are missing.
MOST_LIVE = timedelta(hours=24)
KEPT = timedelta(days=31)
BATCH = 24  # hours that one pass sums


class Range(StrEnum):
    """What a chart covers, and in which steps."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    @property
    def step(self) -> timedelta:
        return {Range.HOUR: MINUTE, Range.DAY: HOUR, Range.MONTH: DAY}[self]

    @property
    def number(self) -> int:
        return {Range.HOUR: 60, Range.DAY: 24, Range.MONTH: 30}[self]

    @property
    def words(self) -> str:
        return {Range.HOUR: "Last hour, by minute", Range.DAY: "24 hours, by hour", Range.MONTH: "30 days, by day"}[
            self
        ]


@dataclass
class Sums:
    """What a span of time came to; sums of spans are those of the longer one."""

    videos: int = 0
    failures: int = 0
    waits: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    cost_usd: dict[str, Decimal] = field(default_factory=dict)  # expected, by provider

    def add(self, other: Sums) -> None:
        self.videos += other.videos
        self.failures += other.failures
        self.waits += other.waits
        self.waited_s += other.waited_s
        self.longest_wait_s = max(self.longest_wait_s, other.longest_wait_s)
        for name, usd in other.cost_usd.items():
            self.cost_usd[name] = self.cost_usd.get(name, Decimal()) + usd

    @property
    def mean_wait_s(self) -> float | None:
        """None where nobody waited."""
        return self.waited_s / self.waits if self.waits else None


@dataclass(frozen=True)
class Trends:
    """One `Sums` a step, the oldest first; the last one is of the step that runs."""

    range: Range
    starts: list[datetime]
    sums: list[Sums]

    @property
    def labels(self) -> list[str]:
        form = "%m-%d" if self.range is Range.MONTH else "%H:%M"
        return [start.strftime(form) for start in self.starts]

    @property
    def cost_usd(self) -> dict[str, list[Decimal]]:
        """A figure a step, by provider."""
        names = sorted({name for one in self.sums for name in one.cost_usd})
        return {name: [one.cost_usd.get(name, Decimal()) for one in self.sums] for name in names}


def read(over: Range) -> Trends:
    """Three statements, whatever the range."""
    now = timezone.now()
    last = _floor(now, over.step)
    starts = [last - over.step * place for place in reversed(range(over.number))]
    sums = {start: Sums() for start in starts}
    kept = _kept(starts[0])
    # The hour's figures by minute are nowhere but in the events.
    live_from = starts[0] if over is Range.HOUR else max([*(hour + HOUR for hour in kept), starts[0], now - MOST_LIVE])
    parts = kept if over is not Range.HOUR else {}
    for start, part in [*parts.items(), *_measured(live_from, now, min(over.step, HOUR)).items()]:
        sums[_floor(start, over.step)].add(part)
    return Trends(over, starts, list(sums.values()))


def keep_hours() -> int:
    """Sum the next hours that are over and have no row yet; the number of new rows. Safe to repeat, and two at once.

    Rows beyond KEPT are deleted.
    """
    now = _database_now()
    oldest = _floor(now - KEPT, HOUR)
    HourFigures.objects.filter(hour__lt=oldest).delete()
    last = HourFigures.objects.order_by("hour").values_list("hour", flat=True).last()
    start = oldest if last is None else max(oldest, last + HOUR)
    end = min(start + HOUR * BATCH, _floor(now - SETTLED, HOUR))
    if start >= end:
        return 0
    found = _measured(start, end, HOUR)
    hours = [start + HOUR * place for place in range(round((end - start) / HOUR))]
    rows = [_row(hour, found.get(hour, Sums())) for hour in hours]
    HourFigures.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def _database_now() -> datetime:
    found: datetime = database.value("SELECT statement_timestamp()")
    return found


def _row(hour: datetime, sums: Sums) -> HourFigures:
    return HourFigures(
        hour=hour,
        videos=sums.videos,
        failures=sums.failures,
        waits=sums.waits,
        waited_s=sums.waited_s,
        longest_wait_s=sums.longest_wait_s,
        cost_usd={name: str(usd) for name, usd in sums.cost_usd.items()},
    )


def _kept(since: datetime) -> dict[datetime, Sums]:
    """By the primary key."""
    return {
        row.hour: Sums(row.videos, row.failures, row.waits, row.waited_s, row.longest_wait_s, _usd(row.cost_usd))
        for row in HourFigures.objects.filter(hour__gte=since)
    }


def _usd(found: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(usd) for name, usd in found.items()}


def _measured(start: datetime, end: datetime, step: timedelta) -> dict[datetime, Sums]:
    """The sums of each minute or hour from `start` until before `end`; two statements.

    Events have no index by the time of every outcome, and need none: their ids rise with time, so the last move before
    the span and the first one after it (index `event_recent_moves`, with a minute to spare for transactions that
    overtake each other) bound a range of the primary key. Attempts are found by `generation_recent_by_model`.
    """
    found: dict[datetime, Sums] = {}
    of = {"start": start, "end": end, "step": "minute" if step == MINUTE else "hour"}
    for at, videos, failures, waits, waited_s, longest_s in database.fetch(
        """
        SELECT date_trunc(%(step)s, finished_at, 'UTC') AS at, count(*) FILTER (WHERE outcome = 'succeeded'),
            count(*) FILTER (WHERE outcome = 'failed'), count(*) FILTER (WHERE outcome = 'admitted'),
            coalesce(sum(extract(epoch FROM finished_at - started_at)) FILTER (WHERE outcome = 'admitted'), 0)::float8,
            coalesce(max(extract(epoch FROM finished_at - started_at)) FILTER (WHERE outcome = 'admitted'), 0)::float8
        FROM video_taskevent
        WHERE id > coalesce((
                SELECT id FROM video_taskevent
                WHERE outcome IN ('advanced', 'succeeded', 'failed') AND finished_at < %(start)s - interval '1 minute'
                ORDER BY finished_at DESC LIMIT 1), 0)
            AND id < coalesce((
                SELECT id FROM video_taskevent
                WHERE outcome IN ('advanced', 'succeeded', 'failed') AND finished_at > %(end)s + interval '1 minute'
                ORDER BY finished_at LIMIT 1), 9223372036854775807)
            AND finished_at >= %(start)s AND finished_at < %(end)s
            AND outcome IN ('succeeded', 'failed', 'admitted')
        GROUP BY at
        """,
        of,
    ):
        found[at] = Sums(videos, failures, waits, waited_s, longest_s)
    for at, provider, usd in database.fetch(
        """
        SELECT date_trunc(%(step)s, ended_at, 'UTC') AS at,
            CASE WHEN simulated THEN provider || ' (simulated)' ELSE provider END AS name, sum(expected_usd)
        FROM (SELECT DISTINCT model FROM video_provideraccount) known
        JOIN LATERAL (
            SELECT ended_at, provider, simulated, expected_usd FROM video_generation
            WHERE model = known.model AND ended_at >= %(start)s AND ended_at < %(end)s
                AND state IN ('succeeded', 'lost') AND expected_usd IS NOT NULL
            OFFSET 0
        ) jobs ON true
        GROUP BY at, name
        """,
        of,
    ):
        found.setdefault(at, Sums()).cost_usd[provider] = usd
    return found


def _floor(moment: datetime, step: timedelta) -> datetime:
    """The start of its minute, hour or day, in UTC."""
    since = moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)
    return moment - since % step
