"""What each row counts as: on which day, in which group, with which amounts. The one place that says it.

An attempt counts once it has ended, on the day (UTC) of its end: with its provider, model, key and user. A credit entry
counts on the day it was made, with its account's user, and with the provider, model and key of the last attempt of its
run: the one that delivered, or the last that could not. Before the run has an attempt, and for renders, these are
empty. Nothing is divided: a run that fell back has its credits at the model that ran last, and each attempt its own
charge at its own model.

Outcome of an entry: its run's. Of an attempt that made its video: its task's, or `failed` if another attempt followed,
since its video was not used. Of any other attempt: `lost`, `cancelled` or `failed`. `under_way`: the task goes on.
`none`: an entry of no run, such as a grant.
"""

from __future__ import annotations

from typing import Final

OUTCOMES: Final = ("delivered", "failed", "lost", "cancelled", "under_way", "none")
#: What was paid for and came to nothing.
FAILURES: Final = ("failed", "lost", "cancelled")

#: The group, and the amounts, as columns of the roll-up.
GROUP: Final = ("user_id", "provider", "model", "key_fingerprint", "outcome", "simulated", "cost_unit")
AMOUNTS: Final = (
    "attempts",
    "reports",
    "reported",
    "reports_expected_usd",
    "estimated_usd",
    "unpriced",
    "debits",
    "debited",
    "refunded",
    "free",
    "granted",
    "adjusted",
)

#: The day of a time, as the indexes `generation_by_day` and `entry_by_day` have it. Few days are wanted, and the
#: database can't know that: OFFSET 0 makes it look for the rows of each day, and for each row's task, by an index.
_DAY: Final = "({column} AT TIME ZONE 'UTC')::date = w.day OFFSET 0"
#: Whether an attempt without a report may be charged. A rejected one made no job. What older versions wrote does not
#: say; a failure is free at most providers.
_MAY_CHARGE: Final = """(g.reported_cost IS NULL AND g.state <> 'rejected'
        AND NOT coalesce(g.took_nothing, g.state = 'failed'))"""

_ATTEMPTS: Final = f"""
    SELECT w.day, g.user_id::bigint, g.provider, g.model, g.key_fingerprint,
        CASE WHEN g.state IN ('lost', 'cancelled') THEN g.state WHEN g.state <> 'succeeded' THEN 'failed'
            WHEN EXISTS (SELECT FROM video_generation n WHERE n.task_id = g.task_id AND n.attempt > g.attempt)
                THEN 'failed'
            ELSE CASE t.status WHEN 'success' THEN 'delivered' WHEN 'failed' THEN 'failed'
                WHEN 'cancelled' THEN 'cancelled' ELSE 'under_way' END END AS outcome,
        g.simulated, g.cost_unit, 1 AS attempts,
        CASE WHEN g.reported_cost IS NULL THEN 0 ELSE 1 END AS reports, coalesce(g.reported_cost, 0) AS reported,
        CASE WHEN g.reported_cost IS NULL THEN 0 ELSE coalesce(g.expected_usd, 0) END AS reports_expected_usd,
        CASE WHEN {_MAY_CHARGE} THEN coalesce(g.expected_usd, 0) ELSE 0 END AS estimated_usd,
        CASE WHEN {_MAY_CHARGE} AND g.expected_usd IS NULL THEN 1 ELSE 0 END AS unpriced,
        0 AS debits, 0 AS debited, 0 AS refunded, 0 AS free, 0 AS granted, 0 AS adjusted
    FROM wanted w
        CROSS JOIN LATERAL (SELECT * FROM video_generation g WHERE {_DAY.format(column="g.ended_at")}) g
        CROSS JOIN LATERAL (SELECT status FROM video_videotask t WHERE t.id = g.task_id OFFSET 0) t
"""  # noqa: S608 - constants

#: A run that another one followed had failed, or was cancelled: the last event that ended it says which.
_ENTRIES: Final = f"""
    SELECT w.day, e.account_id::bigint, coalesce(a.provider, ''), coalesce(a.model, ''),
        coalesce(a.key_fingerprint, ''),
        CASE WHEN t.id IS NULL OR e.run IS NULL THEN 'none'
            WHEN e.run <> t.run THEN CASE
                WHEN (SELECT v.outcome FROM video_taskevent v WHERE v.task_id = e.task_id AND v.run = e.run
                    AND v.outcome IN ('failed', 'cancelled') ORDER BY v.id DESC LIMIT 1) = 'cancelled' THEN 'cancelled'
                WHEN a.state = 'lost' THEN 'lost' ELSE 'failed' END
            WHEN t.status = 'success' THEN 'delivered' WHEN t.status = 'cancelled' THEN 'cancelled'
            WHEN t.status = 'failed' THEN CASE WHEN a.state = 'lost' THEN 'lost' ELSE 'failed' END
            ELSE 'under_way' END,
        coalesce(a.simulated, false), coalesce(a.cost_unit, ''), 0, 0, 0, 0, 0, 0,
        CASE WHEN e.kind = 'debit' THEN 1 ELSE 0 END, CASE WHEN e.kind = 'debit' THEN -e.amount ELSE 0 END,
        CASE WHEN e.kind = 'refund' THEN e.amount ELSE 0 END,
        CASE WHEN e.kind = 'grant' AND e.task_id IS NOT NULL THEN e.amount ELSE 0 END,
        CASE WHEN e.kind = 'grant' AND e.task_id IS NULL THEN e.amount ELSE 0 END,
        CASE WHEN e.kind = 'adjust' THEN e.amount ELSE 0 END
    FROM wanted w
        CROSS JOIN LATERAL (SELECT * FROM video_creditentry e WHERE {_DAY.format(column="e.created_at")}) e
        LEFT JOIN LATERAL (SELECT id, status, run FROM video_videotask t WHERE t.id = e.task_id OFFSET 0) t ON true
        LEFT JOIN LATERAL (
            SELECT g.provider, g.model, g.key_fingerprint, g.simulated, g.cost_unit, g.state FROM video_generation g
            WHERE g.task_id = e.task_id AND g.run = e.run ORDER BY g.attempt DESC LIMIT 1
        ) a ON true
"""  # noqa: S608 - constants

#: The facts of the days of a CTE `wanted (day)`: `day`, `GROUP`, `AMOUNTS`, a row for each attempt and entry.
OF_WANTED: Final = f"{_ATTEMPTS} UNION ALL {_ENTRIES}"
#: The first day that anything counts on, as a date; NULL while nothing does. Two looks into indexes.
FIRST_DAY: Final = """least((SELECT min((created_at AT TIME ZONE 'UTC')::date) FROM video_creditentry),
    (SELECT min((ended_at AT TIME ZONE 'UTC')::date) FROM video_generation WHERE ended_at IS NOT NULL))"""
TODAY: Final = "(statement_timestamp() AT TIME ZONE 'UTC')::date"
SUMS: Final = ", ".join(f"sum({name}) AS {name}" for name in AMOUNTS)
