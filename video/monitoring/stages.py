"""The queues by stage: tasks due, in work and parked, tasks that wait for a slot or a core, and the throughput."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from video.engine.position import SQL, State
from video.engine.queues import QUEUE_OF
from video.infra.durations import span
from video.models import Generation, Stage

WINDOWS_MIN = (1, 5, 15)
SAMPLE = 200  # moves of a stage behind its percentiles, the latest of the last quarter of an hour
COUNTED = 100_000  # tasks that wait; more are "at least so many"


@dataclass(frozen=True)
class Waiting:
    """Tasks that wait for a slot at a provider, or for a core."""

    number: int = 0  # counted up to COUNTED
    later: int = 0  # not before a time that is still to come
    off: int = 0  # of users who are switched off; not among `number`
    oldest_s: float | None = None
    oldest_task: str = ""

    @property
    def counted(self) -> str:
        """The number, with a plus where there may be more."""
        return f"{self.number}{'+' if self.number >= COUNTED else ''}"


@dataclass(frozen=True)
class Rate:
    """Moves a minute, over the last 1, 5 and 15 minutes."""

    per_min: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile in seconds; None where nothing was measured."""

    p50_s: float | None = None
    p95_s: float | None = None

    @property
    def words(self) -> str:
        return "" if self.p50_s is None else f"{span(self.p50_s)} to {span(self.p95_s)}"


@dataclass(frozen=True)
class StageFigures:
    """One stage, now and in the last quarter of an hour."""

    stage: Stage
    due: int = 0  # due, and held by no worker
    held: int = 0
    parked: dict[str, int] = field(default_factory=dict)  # by kind
    overdue: int = 0  # of these: parked before their deadline, which has passed
    oldest_s: float | None = None  # of the due ones
    oldest_task: str = ""
    done: Rate = Rate()
    failed: Rate = Rate()
    through: Spread = Spread()  # from entering the stage until leaving it, with all waiting
    work: Spread = Spread()  # the last claim alone
    sample: int = 0

    @property
    def queue(self) -> str:
        return QUEUE_OF[self.stage]

    @property
    def parked_number(self) -> int:
        return sum(self.parked.values())


def waiting() -> Waiting:
    """Tasks that wait for admission; one statement over the index `task_waiting_for_slot`."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH waiting AS MATERIALIZED (
                SELECT id, admit_at, {SQL[State.WAITS_FOR_SLOT]} AS waits, {SQL[State.NOT_BEFORE]} AS later,
                    {SQL[State.USER_OFF]} AS off
                FROM video_videotask WHERE admit_at IS NOT NULL LIMIT %s
            )
            SELECT count(*) FILTER (WHERE waits), count(*) FILTER (WHERE later), count(*) FILTER (WHERE off),
                extract(epoch FROM statement_timestamp() - min(admit_at) FILTER (WHERE waits))::float8,
                (SELECT id FROM waiting WHERE waits ORDER BY admit_at LIMIT 1)
            FROM waiting
            """,  # noqa: S608 - constants of engine/position.py
            [COUNTED],
        )
        number, later, off, oldest_s, oldest_task = cursor.fetchone()
    return Waiting(number, later, off, oldest_s, oldest_task or "")


def waiting_for_core() -> Waiting:
    """Transcodes that are due and have no core yet; one statement over the index `task_waiting_for_core`."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH waiting AS MATERIALIZED (
                SELECT id, next_run_at FROM video_videotask WHERE {SQL[State.WAITS_FOR_CORE]} LIMIT %s
            )
            SELECT count(*), extract(epoch FROM statement_timestamp() - min(next_run_at))::float8,
                (SELECT id FROM waiting ORDER BY next_run_at LIMIT 1)
            FROM waiting
            """,  # noqa: S608 - constants of engine/position.py
            [COUNTED],
        )
        number, oldest_s, oldest_task = cursor.fetchone()
    return Waiting(number, 0, 0, oldest_s, oldest_task or "")


def stages() -> list[StageFigures]:
    """All six, in their order; three statements."""
    now, (parked, overdue), moves = _now(), _parked(), _moves()
    return [
        StageFigures(
            stage, parked=parked.get(stage, {}), overdue=overdue[stage], **now.get(stage, {}), **moves.get(stage, {})
        )
        for stage in map(Stage, QUEUE_OF)
    ]


def _now() -> dict[Stage, dict[str, Any]]:
    """How many are due or held in each stage, and the oldest due one; by the index `task_due`."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH active AS MATERIALIZED (
                SELECT id, stage, next_run_at, {SQL[State.IN_WORK]} AS held
                FROM video_videotask WHERE next_run_at <= statement_timestamp()
            )
            SELECT counted.stage, due, held, extract(epoch FROM statement_timestamp() - oldest.next_run_at)::float8,
                coalesce(oldest.id, '')
            FROM (
                SELECT stage, count(*) FILTER (WHERE NOT held) AS due, count(*) FILTER (WHERE held) AS held
                FROM active GROUP BY stage
            ) counted LEFT JOIN (
                SELECT DISTINCT ON (stage) stage, id, next_run_at FROM active WHERE NOT held ORDER BY stage, next_run_at
            ) oldest USING (stage)
            """  # noqa: S608 - constants of engine/position.py
        )
        return {
            Stage(stage): {"due": due, "held": held, "oldest_s": oldest_s, "oldest_task": oldest_task}
            for stage, due, held, oldest_s, oldest_task in cursor.fetchall()
        }


def _parked() -> tuple[dict[Stage, dict[str, int]], Counter[Stage]]:
    """How many are parked in each stage, by a few kinds; and how many of a stage sleep beyond their deadline.

    A reason's words hold ids and times, so the kind comes from what is known of the attempt, else it is the code that
    the stage's last event gave.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT video_videotask.stage, CASE
                    WHEN g.state = 'unknown' THEN 'outcome_unknown'
                    WHEN k.id IS NOT NULL THEN 'key_gone'
                    WHEN video_videotask.stage = 'poll' AND g.poll_errors > 0 THEN 'provider_trouble'
                    WHEN video_videotask.stage = 'poll' AND g.not_found > 0 THEN 'job_not_found'
                    WHEN video_videotask.stage = 'poll' THEN 'rendering'
                    ELSE coalesce(nullif(last.error_code, ''), 'waiting') END AS kind,
                count(*), count(*) FILTER (WHERE video_videotask.deadline_at < statement_timestamp()
                    AND video_videotask.claimed_at < video_videotask.deadline_at)
            FROM video_videotask
            LEFT JOIN video_generation g
                ON g.task_id = video_videotask.id AND g.state {Generation.LIVE_SQL}
            LEFT JOIN video_providerkey k
                ON k.provider = g.provider AND k.fingerprint = g.key_fingerprint AND k.gone_since IS NOT NULL
            LEFT JOIN LATERAL (
                SELECT error_code FROM video_taskevent e
                WHERE e.task_id = video_videotask.id AND video_videotask.stage <> 'poll'
                    AND g.state IS DISTINCT FROM 'unknown'
                ORDER BY e.id DESC LIMIT 1
            ) last ON true
            WHERE {SQL[State.PARKED]}
            GROUP BY video_videotask.stage, kind ORDER BY count(*) DESC
            """  # noqa: S608 - constants of engine/position.py
        )
        found: dict[Stage, dict[str, int]] = {}
        overdue = Counter[Stage]()
        for stage, kind, number, late in cursor.fetchall():
            found.setdefault(Stage(stage), {})[kind] = number
            overdue[Stage(stage)] += late
        return found, overdue


def _moves() -> dict[Stage, dict[str, Any]]:
    """What left each stage lately, by the index `event_recent_moves`.

    A move is one event; when its task entered the stage is the end of the task's move before, or when it was admitted
    or brought back.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH recent AS MATERIALIZED (
                SELECT id, task_id, stage, outcome, started_at, finished_at,
                    row_number() OVER (PARTITION BY stage ORDER BY finished_at DESC) AS place
                FROM video_taskevent
                WHERE outcome IN ('advanced', 'succeeded', 'failed')
                    AND finished_at > statement_timestamp() - interval '15 minutes'
            ), counted AS (
                SELECT stage,
                    count(*) FILTER (WHERE outcome <> 'failed'
                        AND finished_at > statement_timestamp() - interval '1 minute') AS done_1,
                    count(*) FILTER (WHERE outcome <> 'failed'
                        AND finished_at > statement_timestamp() - interval '5 minutes') / 5.0 AS done_5,
                    count(*) FILTER (WHERE outcome <> 'failed') / 15.0 AS done_15,
                    count(*) FILTER (WHERE outcome = 'failed'
                        AND finished_at > statement_timestamp() - interval '1 minute') AS failed_1,
                    count(*) FILTER (WHERE outcome = 'failed'
                        AND finished_at > statement_timestamp() - interval '5 minutes') / 5.0 AS failed_5,
                    count(*) FILTER (WHERE outcome = 'failed') / 15.0 AS failed_15
                FROM recent GROUP BY stage
            ), spans AS (
                SELECT stage, extract(epoch FROM r.finished_at - r.started_at)::float8 AS work_s,
                    extract(epoch FROM r.finished_at - before.finished_at)::float8 AS through_s
                FROM recent r LEFT JOIN LATERAL (
                    SELECT e.finished_at FROM video_taskevent e
                    WHERE e.task_id = r.task_id AND e.id < r.id AND e.outcome IN ('admitted', 'advanced', 'resumed')
                    ORDER BY e.id DESC LIMIT 1
                ) before ON true
                WHERE r.place <= %s AND r.outcome <> 'failed'
            ), spread AS (
                SELECT stage, count(*) AS sample,
                    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY through_s) AS through,
                    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY work_s) AS work
                FROM spans GROUP BY stage
            )
            SELECT stage, done_1, done_5, done_15, failed_1, failed_5, failed_15, through, work, coalesce(sample, 0)
            FROM counted LEFT JOIN spread USING (stage)
            """,
            [SAMPLE],
        )
        return {
            Stage(stage): {
                "done": Rate((float(rates[0]), float(rates[1]), float(rates[2]))),
                "failed": Rate((float(rates[3]), float(rates[4]), float(rates[5]))),
                "through": Spread(*(through or ())),
                "work": Spread(*(work or ())),
                "sample": sample,
            }
            for stage, *rates, through, work, sample in cursor.fetchall()
            if stage in QUEUE_OF
        }
