"""How long a new task will probably take: by what the last ones took, and by how many wait before it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.conf import settings

from providers import catalogue
from providers.contract import Reason
from providers.models import Model
from video.engine.sql import USER_IS_PAUSED, USERS
from video.infra import database
from video.models import Generation
from video.routing import availability
from video.routing.availability import Availability
from video.routing.health import ANOTHER_USER
from video.scheduling import fair_share

SAMPLE = 50  # successes; a median of more would follow a change at the provider too slowly
LOOKED_AT = 200  # ended attempts of any kind: a month of failures must not make the query long
SINCE_DAYS = 30
FEWEST = 3  # one odd video is no measurement
MOST_COUNTED = 100_000  # waiting tasks
CACHE_S = 30.0
PLACE_CACHE_S = 2.0  # for a task's place; longer where the answer took long
MOST_CACHED = 500

OWN_COUNTED = 10_000  # of a user's own tasks before a waiting one
#: One column of a SELECT from video_videotask `t`: of a waiting task, how many of its user's go before it, counted up
#: to %(most)s; else null.
OWN_BEFORE = """CASE WHEN t.admit_at IS NOT NULL THEN (SELECT count(*) FROM (
            SELECT FROM video_videotask o
            WHERE o.user_id = t.user_id AND o.admit_at IS NOT NULL AND o.eligible_models && t.eligible_models
                AND (o.rerun, -o.priority, o.created_at) < (t.rerun, -t.priority, t.created_at) LIMIT %(most)s
        ) own) END"""

# Before there is anything measured: polling, download, transcode, thumbnail and save of a video of 5 s on one core.
OWN_SHARE_S = 8
SIMULATED_S = 10


@dataclass(frozen=True)
class UserBacklog:
    """What one user has waiting for any of some models."""

    user_id: int
    fresh: int
    reruns: int
    oldest_at: datetime  # when the oldest of them was made
    used: float  # as `fair_share.py` counts it
    weight: int


@dataclass(frozen=True)
class _Figures:
    taken_s: float | None  # from the slot to the finished video, in the median
    lines: list[UserBacklog]
    slots: Mapping[int, int]  # that jobs may use as things stand, by user, as `Availability.usable_slots`
    now: Availability

    def slots_of(self, user_id: int | None) -> int:
        """Slots of these models that jobs of this user may use now; 0 where none may start."""
        return self.slots.get(user_id or ANOTHER_USER, self.slots[ANOTHER_USER])

    running_s: float  # since the jobs of now have their slots, in the median; 0 without any, or while nobody waits
    measured_in_s: float = 0.0


@dataclass(frozen=True)
class Place:
    """The place of a waiting task."""

    position: int  # 1: it is the next
    expected_wait_s: int | None  # until it has a slot; None when its models have none at all now
    waits_for: Reason | None = None  # why none of its models takes a job of its user now, FULL where slots are taken


_cache: dict[tuple[str, ...], tuple[float, _Figures]] = {}


def expected_seconds(model: Model, user_id: int | None = None) -> int:
    """Seconds from now until a new task of this model is done, for this user or for one who has nothing yet.

    At most one query each 30 s and model, in a process.
    """
    figures = _figures((model.id,), CACHE_S)
    taken_s = _taken_s(figures, model)
    own = next((one.fresh for one in figures.lines if one.user_id == user_id), 0)
    ahead = tasks_before(figures.lines, user_id=user_id or 0, own=own)
    return max(1, math.ceil(taken_s + ahead / (figures.slots_of(user_id) or _slots_configured(model)) * taken_s))


def place(models: Sequence[str], *, user_id: int, own: int, rerun: bool, created_at: datetime) -> Place:
    """The place of a waiting task that these models may run; `own` of its user's tasks go before it.

    At most one query each 2 s and set of models, in a process.
    """
    figures = _figures(tuple(models), PLACE_CACHE_S)
    ahead = tasks_before(figures.lines, user_id=user_id, own=own, rerun=rerun, created_at=created_at)
    known = [catalogue.BY_ID[model] for model in models if model in catalogue.BY_ID]
    slots = figures.slots_of(user_id)
    waits_for = figures.now.waits_for(models, user_id)
    if not known or not slots:
        return Place(ahead + 1, None, waits_for)
    return Place(ahead + 1, math.ceil((ahead + 1) / slots * _taken_s(figures, known[0])), waits_for)


def tasks_before(
    lines: Iterable[UserBacklog], *, user_id: int, own: int, rerun: bool = False, created_at: datetime | None = None
) -> int:
    """How many of the waiting tasks have their turn before a task with `own` of its user's in front of it.

    `created_at`: None for a task that is only about to be made. An estimate: running jobs count as they are.
    """
    lines = list(lines)
    mine = next((line for line in lines if line.user_id == user_id), None)
    level = ((mine.used if mine else 0.0) + own) / (mine.weight if mine else 1)
    return own + sum(_of_other(line, level, rerun, created_at) for line in lines if line.user_id != user_id)


def _of_other(line: UserBacklog, level: float, rerun: bool, created_at: datetime | None) -> int:
    """How many of another user's tasks are below this level, or at it and older."""
    first = level * line.weight - line.used  # this user's next task is at used / weight
    number = max(0, math.ceil(first))
    if first >= 0 and number == first and (created_at is None or line.oldest_at < created_at):
        number += 1
    if not rerun:
        return min(number, line.fresh)
    return line.fresh + min(max(0, number - line.fresh), line.reruns)


def _taken_s(figures: _Figures, model: Model) -> float:
    """From the slot to the finished video, by what the last ones took; longer while the jobs of now take longer."""
    taken_s = figures.taken_s
    if taken_s is None:
        taken_s = SIMULATED_S if settings.SIMULATE else model.typical_render_s + OWN_SHARE_S
    return max(taken_s, figures.running_s)


def _slots_configured(model: Model) -> int:
    """Slots of a model by its keys alone, while no job may start on it and nobody knows how many may once it does."""
    return max(1, settings.SLOTS_PER_KEY * len(settings.PROVIDER_KEYS.get(model.provider, ())))


def _figures(models: tuple[str, ...], most_age_s: float) -> _Figures:
    known = _cache.get(models)
    now = time.monotonic()
    if known is None or now - known[0] > max(most_age_s, min(CACHE_S, 20 * known[1].measured_in_s)):
        # Two threads may both measure; that costs a query, a lock would cost one at every create.
        if len(_cache) >= MOST_CACHED:
            _cache.clear()
        known = (now, replace(_measure(models), measured_in_s=time.monotonic() - now))
        _cache[models] = known
    return known[1]


_IS_PAUSED = USER_IS_PAUSED.format(user="a.id")


def _measure(models: tuple[str, ...]) -> _Figures:
    """The time taken leaves out the wait for a slot: the tasks that go before are counted as they are now."""
    rows = database.fetch(
        f"""
        WITH waiting AS (
            SELECT user_id, count(*) FILTER (WHERE NOT rerun) AS fresh, count(*) FILTER (WHERE rerun) AS reruns,
                min(created_at) AS oldest_at
            FROM (
                SELECT user_id, rerun, created_at FROM video_videotask
                WHERE admit_at IS NOT NULL AND eligible_models && %(models)s::varchar[] LIMIT %(most)s
            ) line GROUP BY user_id
        ),
        live AS MATERIALIZED (
            SELECT user_id, model, planned_at FROM video_generation
            WHERE state {Generation.LIVE_SQL} AND EXISTS (SELECT FROM waiting)
        ),
        at_work AS (SELECT user_id, count(*) AS jobs FROM live GROUP BY user_id)
        SELECT
            (SELECT CASE WHEN count(*) >= %(fewest)s THEN percentile_cont(0.5) WITHIN GROUP (ORDER BY taken) END
             FROM (
                SELECT extract(epoch FROM t.finished_at - g.planned_at)::float8 AS taken
                FROM (
                    SELECT task_id, planned_at, ended_at, state FROM video_generation
                    WHERE model = %(model)s AND simulated = %(simulated)s AND ended_at IS NOT NULL
                        AND ended_at > statement_timestamp() - %(days)s * interval '1 day'
                    ORDER BY ended_at DESC LIMIT %(looked_at)s
                ) g JOIN video_videotask t ON t.id = g.task_id
                WHERE g.state = 'succeeded' AND t.status = 'success'
                ORDER BY g.ended_at DESC LIMIT %(sample)s
             ) recent),
            (SELECT coalesce(percentile_cont(0.5) WITHIN GROUP (
                ORDER BY extract(epoch FROM statement_timestamp() - planned_at)::float8), 0)
             FROM live WHERE model = ANY(%(models)s)),
            {availability.SNAPSHOT},
            u.user_id, u.fresh, u.reruns, u.oldest_at, greatest({fair_share.LATELY}, coalesce(at_work.jobs, 0)),
            coalesce(s.weight, 1)
        FROM (SELECT) one LEFT JOIN (
            waiting u CROSS JOIN LATERAL (  -- users who are switched off or paused get no slot
                SELECT FROM {USERS} a WHERE a.id = u.user_id AND a.is_active AND NOT {_IS_PAUSED} LIMIT 1) active
        ) ON true
        LEFT JOIN at_work ON at_work.user_id = u.user_id
        LEFT JOIN video_usershare s ON s.user_id = u.user_id
        """,  # noqa: S608 - a constant of ours
        {
            "fewest": FEWEST,
            "models": list(models),
            "model": models[0] if models else "",
            "simulated": settings.SIMULATE,
            "days": SINCE_DAYS,
            "looked_at": LOOKED_AT,
            "sample": SAMPLE,
            "most": MOST_COUNTED,
            "resource": fair_share.Resource.SLOT.value,
            "half_life": fair_share.HALF_LIFE_S,
        },
    )
    taken_s, running_s, snapshot = rows[0][:3]
    lines = [UserBacklog(*row[3:]) for row in rows if row[3] is not None]
    now = availability.snapshot_of(snapshot)
    return _Figures(taken_s, lines, now.usable_slots(models), now, running_s)
