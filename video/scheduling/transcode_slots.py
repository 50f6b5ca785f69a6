"""Admission for cores: the transcodes whose turn it is get the free cores of all media workers together.

A transcode that is due waits in the database, not in the broker's queue, so its order is decided when a core is free.
`core_at` is set while a task has a core; without it a transcode can't be claimed, so a message that is delivered twice
starts nothing before its turn. A task keeps its core while it is held or was dispatched a moment ago, from its
transcode to the end of its thumbnail; when its worker dies the lease ends, the core is free, and the task waits again.
"""

from __future__ import annotations

from django.db import transaction

from video.engine import dispatch, position
from video.engine.queues import MEDIA_QUEUE
from video.engine.sql import LISTENING, UNHELD
from video.engine.transitions import GRANT_CORE
from video.engine.workers import ALIVE_S
from video.infra import database
from video.models import Stage
from video.scheduling import fair_share

STAGES = frozenset({Stage.TRANSCODE, Stage.THUMBNAIL})
RESEND_S = position.RESEND_S
_LOCK = 0x636F726573  # of pg_advisory_xact_lock: one admission at a time

_IS_WAITING = f"""t.stage = 'transcode' AND t.next_run_at <= statement_timestamp()
    AND {UNHELD}
    AND (t.rung_at IS NULL OR t.rung_at < statement_timestamp() - %(rung)s * interval '1 second')"""

WAITING = f"""
WITH RECURSIVE
-- Users with waiting transcodes, by a loose scan of task_waiting_for_core: one index probe for each user.
line AS (
    (SELECT user_id FROM video_videotask WHERE stage = 'transcode' AND next_run_at IS NOT NULL
        ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT next.user_id FROM line CROSS JOIN LATERAL (
        SELECT user_id FROM video_videotask
        WHERE stage = 'transcode' AND next_run_at IS NOT NULL AND user_id > line.user_id ORDER BY user_id LIMIT 1
    ) next
),
at_work AS MATERIALIZED (
    SELECT user_id, count(*) AS jobs FROM video_videotask
    WHERE core_at IS NOT NULL AND next_run_at <= statement_timestamp() AND (lease_until > statement_timestamp()
        OR rung_at >= statement_timestamp() - %(rung)s * interval '1 second')
    GROUP BY user_id
),
free AS MATERIALIZED (
    SELECT greatest(0, (
        SELECT coalesce(sum(threads), 0) FROM video_workersign
        WHERE {LISTENING}
    ) - (SELECT coalesce(sum(jobs), 0) FROM at_work)) AS cores
),
share AS MATERIALIZED (
    SELECT u.user_id, coalesce(s.weight, 1) AS weight, greatest({fair_share.LATELY}, coalesce(at_work.jobs, 0)) AS used
    FROM line u
    LEFT JOIN video_usershare s ON s.user_id = u.user_id
    LEFT JOIN at_work ON at_work.user_id = u.user_id
),
ranked AS (
    SELECT t.id, t.rerun, t.created_at, (used - 1 + row_number() OVER (
        PARTITION BY user_id ORDER BY t.rerun, t.priority DESC, t.created_at, t.id)) / weight AS level
    FROM share CROSS JOIN LATERAL (
        SELECT id, rerun, priority, created_at FROM video_videotask t
        WHERE t.user_id = share.user_id AND t.next_run_at IS NOT NULL AND {_IS_WAITING}
        ORDER BY t.rerun, t.priority DESC, t.created_at LIMIT (SELECT cores FROM free)) t
),
fairest AS MATERIALIZED (
    SELECT * FROM ranked ORDER BY rerun, level, created_at, id LIMIT (SELECT cores FROM free)
),
given AS (
    {GRANT_CORE}
    -- No join: the planner can't know that they are few, and would read the whole table.
    WHERE t.id = ANY(ARRAY(SELECT id FROM fairest)) AND {_IS_WAITING}
    RETURNING t.id, t.user_id
),
counted AS ({fair_share.COUNT_GRANTED.format(rows="given")})
SELECT id FROM given JOIN fairest USING (id) ORDER BY rerun, level, created_at, id
"""  # noqa: S608 - constants of this module


_ANY_WAITS = f"SELECT EXISTS (SELECT FROM video_videotask t WHERE {_IS_WAITING})"  # noqa: S608 - a constant


def grant(*, one_waits: bool = False) -> list[tuple[str, Stage]]:
    """Grant free cores to waiting transcodes, the fairest first. Returns those to dispatch; call it outside a
    transaction. Calls at the same time grant no more cores than there are.

    `one_waits`: the caller knows that a transcode waits; else it is looked for first, without a lock.
    """
    params: dict[str, float | str] = {
        "rung": RESEND_S,
        "queue": MEDIA_QUEUE,
        "alive": ALIVE_S,
        "resource": fair_share.Resource.CORE.value,
        "half_life": fair_share.HALF_LIFE_S,
    }
    if not one_waits and not database.value(_ANY_WAITS, params):
        return []
    with transaction.atomic():
        database.fetch("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        granted = database.fetch(WAITING, params)  # sees what the pass before this one has granted
    return [(task_id, Stage.TRANSCODE) for (task_id,) in granted]


def dispatch_granted() -> int:
    """Grant free cores and dispatch those transcodes. Returns how many were dispatched."""
    return dispatch.resume_all(grant())
