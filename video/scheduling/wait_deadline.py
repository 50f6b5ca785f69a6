"""The end of tasks that waited too long for a slot: WAIT_DEADLINE_SECONDS, in which no pause counts.

What counts is the time in which a task could have been given a slot. So:

- While a pause keeps a task from starting, it is not ended, however long it has waited.
- After the end of such a pause it has what was left of its time before: a task that had waited for an hour of its day
  has 23 hours more.

A pause keeps a task from starting when it covers everything, its user, or every account that could run one of its
models. Accounts that take no jobs for another reason (no credits, switched off) are left aside, unless there are no
others: they would not have helped it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.conf import settings

from providers import catalogue
from providers.contract import Reason, ReasonCode
from video.attempts import records
from video.engine import transitions
from video.engine.sql import USERS
from video.infra import database
from video.models import VideoTask
from video.routing import availability
from video.routing.availability import Availability
from video.routing.pauses import Paused
from video.scheduling import fair_share

BATCH, BATCHES = 500, 20  # tasks; each minute
MOST_PAUSES = 2000  # the last ones; older ones were over long ago
NEVER_S = 1e9  # thirty years
#: Code and message for a task that waited too long.
NO_ROOM = ("no_capacity", "No video provider had room for this video in time.")
SWITCHED_OFF = (records.USER_OFF, "This video was not begun in time, since its account is switched off.")
#: From so many seconds ago to so many; 0: still.
Span = tuple[float, float]


@dataclass(frozen=True)
class Past:
    """A pause that is in force or over, and when."""

    pause: Paused
    span: Span


@dataclass(frozen=True)
class Allowed:
    """How long the tasks of one line may have waited by now, pauses included; seconds."""

    user_id: int
    models: Sequence[str]
    wait_s: float
    in_parts_s: float  # since the first slot of their run


def expire_waiting() -> int:
    """End tasks that have waited for WAIT_DEADLINE_SECONDS, also in parts: those are admitted and refused again and
    again, and had the first slot of their run so long and a task's deadline ago. Those of users who are switched off
    end like the others. Returns how many ended."""
    allowed = _allowed()
    ended = 0
    for _ in range(BATCHES):
        overdue = _overdue(allowed)
        for task in overdue:
            code, message = NO_ROOM if task.user_is_active else SWITCHED_OFF  # type: ignore[attr-defined]  # in the query
            ended += transitions.fail_waiting(task, code=code, message=message)
        if len(overdue) < BATCH:
            break
    return ended


def counted_back(held: Iterable[Span], for_s: float) -> float | None:
    """How many seconds ago a wait began that lasts `for_s` without what is `held`; None while one of them goes on.

    `held`: spans that don't overlap.
    """
    found = for_s
    for begin, end in sorted(held, key=lambda span: span[1]):
        if end <= 0:
            return None
        if end >= found:
            break
        found += begin - end
    return found


def held(pauses: Sequence[Past], user_id: int, places: Sequence[tuple[str, str, str]]) -> list[Span]:
    """When nothing of this user could start on any of these (provider, model, account): spans that don't overlap."""
    own = [one.span for one in pauses if one.pause.kind == "everything" or one.pause.user_id == user_id]
    of_places = [[*own, *(one.span for one in pauses if one.pause.covers(*place))] for place in places] or [own]
    if not all(of_places):
        return []
    times = sorted({moment for spans in of_places for span in spans for moment in span})
    found: list[Span] = []
    for end, begin in pairwise(times):
        if all(any(span[0] >= begin and span[1] <= end for span in spans) for spans in of_places):
            if found and found[-1][0] == end:
                found[-1] = (begin, found[-1][1])
            else:
                found.append((begin, end))
    return found


def _allowed() -> list[Allowed]:
    """The lines of tasks to which another time applies, since something of theirs is or was paused."""
    pauses = _pauses()
    if not pauses:
        return []
    now = availability.read()
    wait_s, parts_s = _limits()
    own = {one.pause.user_id for one in pauses}
    known: dict[tuple[int | None, tuple[str, ...]], tuple[float, float]] = {}
    found = []
    for user_id, models in database.fetch(_LINES):
        name = (user_id if user_id in own else None, tuple(models))
        if name not in known:
            spans = held(pauses, user_id, _places(models, now))
            known[name] = (counted_back(spans, wait_s) or NEVER_S, counted_back(spans, parts_s) or NEVER_S)
        if known[name] != (wait_s, parts_s):
            found.append(Allowed(user_id, models, *known[name]))
    return found


def _limits() -> tuple[float, float]:
    wait_s = float(settings.WAIT_DEADLINE_SECONDS)
    return wait_s, wait_s + settings.TASK_DEADLINE_SECONDS


def _places(models: Sequence[str], now: Availability) -> list[tuple[str, str, str]]:
    """(provider, model, account) where a task of these models could run: see the top of this module."""
    states = now.of_all()
    could = {model for model, state in states.items() if state.takes_jobs or _is_paused(state.reason)}
    mine = [one for one in now.slots.accounts if one.row.model in models]
    good = [one for one in mine if one.row.model in could and (one.is_open or _is_paused(one.reason))]
    found = [(one.row.provider, one.row.model, one.row.account) for one in good or mine]
    return found or [(catalogue.BY_ID[model].provider, model, "") for model in models if model in catalogue.BY_ID]


def _is_paused(reason: Reason | None) -> bool:
    return reason is not None and reason.code is ReasonCode.PAUSED


_LINES = f"WITH RECURSIVE {fair_share.EVERY_LINE} SELECT DISTINCT user_id, eligible_models FROM every_line"  # noqa: S608

# Seconds from the database's clock. One that ended before the oldest wait began matters to no task, but for those that
# waited in parts; so all are read, as there are few.
_PAST = """
SELECT id, kind, subject, user_id, '', reason, paused_by, since, until,
    extract(epoch FROM statement_timestamp() - since)::float8,
    greatest(0, coalesce(extract(epoch FROM statement_timestamp() - least(ended_at, until)), 0))::float8
FROM video_pause ORDER BY id DESC LIMIT %(most)s
"""


def _pauses() -> list[Past]:
    rows = database.fetch(_PAST, {"most": MOST_PAUSES})
    return [Past(Paused(*row[:9]), (row[9], row[10])) for row in rows if row[9] > row[10]]


# Tasks that have waited for too long, the longest first.
_OVERDUE = f"""
SELECT t.*, u.is_active AS user_is_active FROM video_videotask t
JOIN {USERS} u ON u.id = t.user_id
LEFT JOIN unnest(%(users)s::bigint[], %(models)s::text[], %(waits)s::float8[], %(parts)s::float8[])
    AS l (user_id, models, wait_s, parts_s)
    ON l.user_id = t.user_id AND l.models = array_to_string(t.eligible_models, ' ')
LEFT JOIN LATERAL (
    SELECT g.planned_at FROM video_generation g
    -- So that the attempts of no other task are read: this one had a slot.
    WHERE t.deadline_at IS NOT NULL AND g.task_id = t.id AND g.run = t.run
    ORDER BY g.attempt LIMIT 1) first ON true
WHERE t.admit_at IS NOT NULL AND (
    t.admit_at < statement_timestamp() - interval '1 second' * coalesce(l.wait_s, %(wait)s)
    OR first.planned_at < statement_timestamp() - interval '1 second' * coalesce(l.parts_s, %(in_parts)s))
ORDER BY t.admit_at LIMIT %(limit)s
"""  # noqa: S608 - constants


def _overdue(allowed: Sequence[Allowed]) -> list[VideoTask]:
    wait_s, parts_s = _limits()
    params: dict[str, Any] = {
        "users": [one.user_id for one in allowed],
        "models": [" ".join(one.models) for one in allowed],
        "waits": [one.wait_s for one in allowed],
        "parts": [one.in_parts_s for one in allowed],
        "wait": wait_s,
        "in_parts": parts_s,
        "limit": BATCH,
    }
    return list(VideoTask.objects.raw(_OVERDUE, params))
