"""What failed, by cause: error code, provider and model, in the last hour, day and week. Page and command ask here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from providers import catalogue
from video.attempts import retry_outlook
from video.infra import database
from video.infra.camel import utc

#: By their name in addresses: seconds, and words. The last one is the longest.
WINDOWS: dict[str, tuple[int, str]] = {
    "1h": (3600, "last hour"),
    "24h": (86_400, "last 24 hours"),
    "7d": (604_800, "last 7 days"),
}
MOST_CAUSES = 200  # of each table; the most frequent ones of the week

_COUNTS = ", ".join(
    f"(count(*) FILTER (WHERE {{at}} >= statement_timestamp() - interval '{seconds} seconds'))::int"
    for seconds, _ in WINDOWS.values()
)
_WEEK = f"interval '{max(seconds for seconds, _ in WINDOWS.values())} seconds'"
Counts = tuple[int, int, int]


@dataclass(frozen=True)
class Cause:
    """What failed with one code at one model. The counts and shares are of the windows, in their order."""

    code: str
    provider: str  # of the last attempt; empty where no provider was asked
    model: str
    counts: Counts
    of: Counts  # what ended in each window: all tasks; of an attempt, all attempts at its model
    sample_task: str
    sample: str  # the newest one's message

    @property
    def shares(self) -> list[float | None]:
        """Of what ended, 0 to 1; None where nothing did."""
        return [number / of if of else None for number, of in zip(self.counts, self.of, strict=True)]

    @property
    def warning(self) -> str:
        """Why a retry is known to fail again; empty if nothing of the kind is known."""
        return retry_outlook.warning_of(self.code)


@dataclass(frozen=True)
class Failures:
    """Everything, at one moment."""

    ended: Counts  # tasks
    failed: Counts
    tasks: list[Cause]
    attempts: list[Cause]  # those too after which another model made the video
    at: datetime


def read() -> Failures:
    """Three statements, served by `task_by_end` and `generation_recent_by_model` however many tasks there are."""
    ended, failed = _ended()
    return Failures(ended, failed, _of_tasks(ended), _of_attempts(), timezone.now())


def _ended() -> tuple[Counts, Counts]:
    counts = _COUNTS.format(at="finished_at")
    row = database.fetch(
        f"""
        SELECT {counts}, {counts.replace("FILTER (WHERE", "FILTER (WHERE error_code <> '' AND")}
        FROM video_videotask WHERE finished_at >= statement_timestamp() - {_WEEK}
        """  # noqa: S608 - constants
    )[0]
    return row[:3], row[3:]


def _of_tasks(ended: Counts) -> list[Cause]:
    rows = database.fetch(
        f"""
        WITH causes AS (
            SELECT t.error_code, coalesce(g.provider, '') AS provider, coalesce(g.model, '') AS model,
                {_COUNTS.format(at="t.finished_at")}, max(t.id) AS newest
            FROM video_videotask t LEFT JOIN LATERAL (
                SELECT provider, model FROM video_generation WHERE task_id = t.id ORDER BY attempt DESC LIMIT 1
            ) g ON true
            WHERE t.finished_at >= statement_timestamp() - {_WEEK} AND t.error_code <> ''
            GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2, 3 LIMIT %(most)s
        )
        SELECT causes.*, t.error_message FROM causes JOIN video_videotask t ON t.id = causes.newest
        """,  # noqa: S608 - constants
        {"most": MOST_CAUSES},
    )
    found = [Cause(row[0], row[1], row[2], row[3:6], ended, row[6], row[7]) for row in rows]
    return _sorted(found)


def _of_attempts() -> list[Cause]:
    """Asked for model by model: an index has them in the order of their ends."""
    rows = database.fetch(
        f"""
        WITH ends AS MATERIALIZED (
            SELECT g.* FROM (
                SELECT model FROM video_provideraccount UNION SELECT unnest(%(models)s::varchar[])
            ) known JOIN LATERAL (
                SELECT provider, model, error_code, state NOT IN ('succeeded', 'cancelled') AS failed,
                    {_COUNTS.format(at="ended_at")}, max(id) AS newest
                FROM video_generation
                WHERE model = known.model AND ended_at >= statement_timestamp() - {_WEEK} GROUP BY 1, 2, 3, 4
            ) g (provider, model, code, failed, hour, day, week, newest) ON true
        ), totals AS (
            SELECT provider, model, sum(hour)::int, sum(day)::int, sum(week)::int FROM ends GROUP BY 1, 2
        )
        SELECT ends.code, ends.provider, ends.model, hour, day, week, t.hours, t.days, t.weeks, g.task_id,
            g.error_message
        FROM ends JOIN totals t (provider, model, hours, days, weeks) USING (provider, model)
            JOIN video_generation g ON g.id = ends.newest
        WHERE ends.failed ORDER BY week DESC, 1, 2, 3 LIMIT %(most)s
        """,  # noqa: S608 - constants
        {"models": list(catalogue.BY_ID), "most": MOST_CAUSES},
    )
    return _sorted([Cause(row[0], row[1], row[2], row[3:6], row[6:9], row[9], row[10]) for row in rows])


def _sorted(found: list[Cause], window: int = 1) -> list[Cause]:
    """The most frequent ones of a window first, by default of the day; then those of the week."""
    return sorted(found, key=lambda one: (-one.counts[window], -one.counts[2], one.code, one.provider, one.model))


def by_window(found: list[Cause], window: str) -> list[Cause]:
    """The same, the most frequent ones of this window first."""
    return _sorted(found, list(WINDOWS).index(window))


def as_json(found: Failures) -> dict[str, Any]:
    """For the command."""
    return {
        "at": utc(found.at),
        "simulated": settings.SIMULATE,
        "tasks": {"ended": _windows(found.ended), "failed": _windows(found.failed)},
        "byCause": [_cause(one) for one in found.tasks],
        "attemptsByCause": [_cause(one) for one in found.attempts],
    }


def _windows(values: Any) -> dict[str, Any]:
    return dict(zip(("lastHour", "last24Hours", "last7Days"), values, strict=True))


def _cause(one: Cause) -> dict[str, Any]:
    return {
        "errorCode": one.code,
        "provider": one.provider or None,
        "model": one.model or None,
        "number": _windows(one.counts),
        "share": _windows(None if share is None else round(share, 4) for share in one.shares),
        "sampleTaskId": one.sample_task,
        "sample": one.sample,
        "retryWarning": one.warning or None,
    }
