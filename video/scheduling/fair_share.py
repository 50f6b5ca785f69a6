"""Whose turn it is: fair share between users, for provider slots here and for cores in `transcode_slots.py`.

The user with the least usage for their weight goes first; one who is switched off or paused gets no slot. A user's
usage is the larger of the jobs in flight for them and the grants of late, which decay by half every HALF_LIFE_S. It is
counted before the next grant, so a user without usage goes first whatever the weights, and none starves. Among one
user's tasks the highest priority goes first, then the oldest; between users of equal usage, the oldest task. Reruns
come after all fresh work.

A line is what one user has waiting for the same models with the same `fallback`. Its tasks differ in nothing else that
counts here, so each line costs one index probe however long it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from video.attempts import records
from video.engine.sql import ALL_IS_PAUSED, USER_IS_PAUSED, USERS
from video.models import Generation, UserUsage, VideoTask
from video.routing import accounts

HALF_LIFE_S = 300.0
Resource = UserUsage.Resource

# The part of an amount that has not decayed yet; a power that is too small for a float would be an error.
_LEFT = """0.5::float8 ^ least(1000, greatest(0, extract(epoch FROM statement_timestamp() - {row}.as_of)::float8
    / %(half_life)s))"""
# A user's grants of a resource, decayed, as a subselect: needs u.user_id, %(resource)s and %(half_life)s.
LATELY = f"""coalesce((
    SELECT l.amount * {_LEFT.format(row="l")}
    FROM video_userusage l WHERE l.user_id = u.user_id AND l.resource = %(resource)s), 0)"""  # noqa: S608 - constants of this module

#: Counts one more grant for the user of each of these rows; needs %(resource)s and %(half_life)s.
COUNT_GRANTED = f"""INSERT INTO video_userusage AS u (user_id, resource, amount)
SELECT user_id, %(resource)s, count(*) FROM {{rows}} GROUP BY user_id ORDER BY user_id
ON CONFLICT (user_id, resource) DO UPDATE SET as_of = statement_timestamp(), amount = excluded.amount
    + u.amount * {_LEFT.format(row="u")}"""  # noqa: S608 - constants of this module

# Every line, by a loose scan of task_waiting_for_slot: one probe of it for each. Then those of users who are neither
# switched off nor paused, and none while everything is, with one more probe of the users' primary key for each.
EVERY_LINE = """every_line AS (
    (SELECT user_id, eligible_models, fallback FROM video_videotask WHERE admit_at IS NOT NULL
        ORDER BY user_id, eligible_models, fallback LIMIT 1)
    UNION ALL
    SELECT next.* FROM every_line l CROSS JOIN LATERAL (
        SELECT user_id, eligible_models, fallback FROM video_videotask
        WHERE admit_at IS NOT NULL
            AND (user_id, eligible_models, fallback) > (l.user_id, l.eligible_models, l.fallback)
        ORDER BY user_id, eligible_models, fallback LIMIT 1
    ) next
)"""
LINES = f"""{EVERY_LINE},
line AS MATERIALIZED (
    -- The LIMIT keeps the planner from reading all users.
    SELECT l.* FROM every_line l CROSS JOIN LATERAL (
        SELECT FROM {USERS} u WHERE u.id = l.user_id AND u.is_active
            AND NOT {USER_IS_PAUSED.format(user="u.id")} LIMIT 1) active
    WHERE NOT {ALL_IS_PAUSED}
)"""  # noqa: S608 - constants


def _may_use(models: str) -> str:
    """In SQL, of a `line`: whether one of these models may run its tasks, and does not keep its user out."""
    return f"""(eligible_models && %({models})s::varchar[] AND (
        NOT user_id = ANY(%(kept_users)s::bigint[]) OR EXISTS (
            SELECT FROM unnest(eligible_models) one (model)
            WHERE one.model = ANY(%({models})s::varchar[]) AND NOT EXISTS (
                SELECT FROM unnest(%(kept_users)s::bigint[], %(kept_models)s::varchar[]) kept (of_user, model)
                WHERE kept.of_user = line.user_id AND kept.model = one.model))))"""  # noqa: S608 - a parameter's name


# Models, limit → the tasks whose turn it is.
WAITING = f"""
WITH RECURSIVE {LINES},
-- In a CASE the planner takes it to keep half of the lines, not a hundredth, and joins what follows by hashes.
open_line AS MATERIALIZED (
    SELECT * FROM line WHERE CASE WHEN {_may_use("models")} THEN true ELSE false END
),
at_work AS MATERIALIZED (
    SELECT user_id, count(*) AS jobs FROM video_generation
    WHERE state {Generation.LIVE_SQL} GROUP BY user_id
),
share AS MATERIALIZED (
    SELECT u.user_id, coalesce(s.weight, 1) AS weight, greatest({LATELY}, coalesce(at_work.jobs, 0)) AS used
    FROM (SELECT DISTINCT user_id FROM open_line) u
    LEFT JOIN video_usershare s ON s.user_id = u.user_id
    LEFT JOIN at_work ON at_work.user_id = u.user_id
),
-- More users than slots: only those whose first task is among the fairest can get one.
head AS (
    SELECT user_id FROM (
        SELECT DISTINCT ON (user_id) user_id, first.*
        FROM open_line CROSS JOIN LATERAL (
            SELECT rerun, priority, created_at FROM video_videotask t
            WHERE t.user_id = open_line.user_id AND t.eligible_models = open_line.eligible_models
                AND t.fallback = open_line.fallback AND t.admit_at <= statement_timestamp()
                AND t.id <> ALL(%(without)s::text[])
            ORDER BY t.rerun, t.priority DESC, t.created_at LIMIT 1) first
        ORDER BY user_id, first.rerun, first.priority DESC, first.created_at
    ) firsts JOIN share USING (user_id)
    ORDER BY rerun, used / weight, created_at, user_id LIMIT %(limit)s
),
ranked AS (
    SELECT t.id, t.rerun, t.created_at, (used - 1 + row_number() OVER (
        PARTITION BY user_id ORDER BY t.rerun, t.priority DESC, t.created_at, t.id)) / weight AS level
    FROM head JOIN share USING (user_id) JOIN open_line USING (user_id) CROSS JOIN LATERAL (
        SELECT id, rerun, priority, created_at FROM video_videotask t
        WHERE t.user_id = open_line.user_id AND t.eligible_models = open_line.eligible_models
            AND t.fallback = open_line.fallback AND t.admit_at <= statement_timestamp()
            AND t.id <> ALL(%(without)s::text[])
            -- There should be none; but one such row must not stop the admission of others.
            AND NOT EXISTS (
                SELECT FROM video_generation g
                WHERE g.task_id = t.id AND g.state {Generation.LIVE_SQL})
        ORDER BY t.rerun, t.priority DESC, t.created_at LIMIT %(limit)s) t
),
fairest AS MATERIALIZED (SELECT * FROM ranked ORDER BY rerun, level, created_at, id LIMIT %(limit)s)
SELECT t.*, made.* FROM fairest JOIN video_videotask t ON t.id = fairest.id CROSS JOIN LATERAL (
    SELECT coalesce(max(g.attempt), 0) AS last_attempt,
        -- Trouble of the key, its account or the user is not the task's: it only waits for a better one.
        count(*) FILTER (WHERE g.run = t.run AND NOT g.error_code = ANY(%(not_its_fault)s)) AS tries_of_run,
        coalesce((array_agg(g.error_code ORDER BY g.attempt DESC))[1], '') AS last_error_code,
        coalesce((array_agg(g.error_message ORDER BY g.attempt DESC))[1], '') AS last_error_message
    FROM video_generation g WHERE g.task_id = t.id) made
WHERE t.admit_at IS NOT NULL
ORDER BY fairest.rerun, fairest.level, fairest.created_at, fairest.id
FOR UPDATE OF t SKIP LOCKED
"""  # noqa: S608 - constants of this module

# Waiting tasks that none of the serving models may run, oldest first.
BLOCKED = f"""
WITH RECURSIVE {LINES},
found AS MATERIALIZED (
    SELECT t.id FROM line CROSS JOIN LATERAL (
        SELECT id, created_at FROM video_videotask t
        WHERE t.user_id = line.user_id AND t.eligible_models = line.eligible_models AND t.fallback
            AND t.admit_at <= statement_timestamp() AND t.id <> ALL(%(without)s::text[])
        ORDER BY t.rerun, t.priority DESC, t.created_at LIMIT %(limit)s) t
    WHERE line.fallback AND NOT {_may_use("serving")}
    ORDER BY t.created_at LIMIT %(limit)s
)
SELECT t.* FROM found JOIN video_videotask t ON t.id = found.id WHERE t.admit_at IS NOT NULL
ORDER BY t.created_at FOR UPDATE OF t SKIP LOCKED
"""  # noqa: S608 - constants of this module


class Waiting(NamedTuple):
    """A waiting task, and what is known of its attempts so far."""

    task: VideoTask
    last_attempt: int  # 0: none
    tries_of_run: int
    last_error_code: str
    last_error_message: str


def waiting(
    models: list[str], limit: int, *, without: Iterable[str] = (), kept_out: Sequence[tuple[int, str]] = ()
) -> list[Waiting]:
    """Up to `limit` tasks that one of these models may run, in the order in which slots are due to them; locked.

    One statement, for a transaction. Tasks that another transaction has locked, and the ids `without`, are left out.
    `kept_out`: (user, model) that may not come together now, a few.
    """
    if not models or limit < 1:
        return []
    params = {
        "models": models,
        "limit": limit,
        "without": list(without),
        "resource": Resource.SLOT.value,
        "half_life": HALF_LIFE_S,
        "not_its_fault": [*accounts.NOT_THE_TASKS_FAULT, *records.NOT_BEGUN],
        **_kept(kept_out),
    }
    return [Waiting(task, *(getattr(task, name) for name in Waiting._fields[1:])) for task in _tasks(WAITING, params)]


def blocked(
    serving: list[str], limit: int, *, without: Iterable[str] = (), kept_out: Sequence[tuple[int, str]] = ()
) -> list[VideoTask]:
    """Waiting tasks that none of the `serving` models may run and whose clients allow others; locked, oldest first.

    One statement, for a transaction. `without`: ids that are left out. `kept_out` as for `waiting`.
    """
    params = {"serving": serving, "limit": limit, "without": list(without), **_kept(kept_out)}
    return _tasks(BLOCKED, params)


def _tasks(statement: str, params: dict[str, Any]) -> list[VideoTask]:
    return list(VideoTask.objects.raw(statement, params))


def _kept(kept_out: Sequence[tuple[int, str]]) -> dict[str, list[int] | list[str]]:
    return {"kept_users": [user_id for user_id, _ in kept_out], "kept_models": [model for _, model in kept_out]}
