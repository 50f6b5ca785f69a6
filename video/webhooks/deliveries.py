"""Deliveries: which are due, the claim of one try, what became of it, sending again, and pruning.

A claim is the row's: one statement gives the try its number, writes its row, and holds the delivery for a lease. So no
two workers send one try; a worker that dies leaves a try without an end, and another follows when the lease is over.
An answer 2xx counts whoever brings it; a failure only while its try is the last one. Time is the database's.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django.conf import settings

from providers.untrusted import storable
from video.engine.claims import WORKER
from video.engine.sql import UNHELD
from video.infra import database
from video.models import WebhookDelivery, WebhookTry
from video.webhooks import schedule

Outcome, State = WebhookTry.Outcome, WebhookDelivery.State

#: Beyond a try's time-out: the system's resolver may take longer, and a result has to be written.
LEASE_MORE_S = 45
#: A message that no worker took by then was lost with the broker.
RING_AGAIN_S = 60.0
MOST_RUNG = 200  # messages at the broker and tries under way: enough to keep workers busy, and no more
BATCH = 500


@dataclass(frozen=True)
class Claimed:
    """One try, held until its lease ends."""

    id: str
    number: int
    step: int
    message_id: str
    event: str
    facts: dict[str, Any]
    created_at: datetime
    user_id: int
    target: str
    endpoint_id: str | None
    url: str
    is_live: bool  # False: its endpoint is off or has ended
    secrets: list[str]  # as stored; none: the user has none yet


_CLAIMED = [field.name for field in fields(Claimed) if field.name != "secrets"]


def enqueue_due() -> list[str]:
    """Ids of deliveries to send messages for, and marks them as enqueued; a second run finds only others.

    The longest due of each receiver, no more of one receiver and of one user than may be under way at once, and of a
    receiver whose circuit was open a single one. Costs one probe of an index while nothing is pending.
    """
    rows = database.fetch(
        f"""
        WITH RECURSIVE targets AS (
            (SELECT target, user_id FROM video_webhookdelivery WHERE due_at IS NOT NULL ORDER BY target LIMIT 1)
            UNION ALL
            SELECT next.target, next.user_id FROM targets CROSS JOIN LATERAL (
                SELECT target, user_id FROM video_webhookdelivery
                WHERE due_at IS NOT NULL AND target > targets.target ORDER BY target LIMIT 1) next
        ), flying AS MATERIALIZED (
            SELECT user_id, target, count(*) AS number FROM video_webhookdelivery
            WHERE rung_at > statement_timestamp() - %(again)s * interval '1 second' GROUP BY user_id, target
        ), open AS MATERIALIZED (
            SELECT t.target, t.user_id, CASE WHEN c.faults >= %(faults)s THEN 1 ELSE %(of_target)s END
                - coalesce((SELECT number FROM flying f WHERE f.user_id = t.user_id AND f.target = t.target), 0) AS room
            FROM targets t LEFT JOIN video_webhookcircuit c ON c.target = t.target
            WHERE c.open_until IS NULL OR c.open_until <= statement_timestamp()
        ), found AS MATERIALIZED (
            SELECT d.id, d.due_at, %(of_user)s
                - coalesce((SELECT sum(number) FROM flying f WHERE f.user_id = open.user_id), 0)
                - row_number() OVER (PARTITION BY open.user_id ORDER BY d.due_at) AS left_of_user
            FROM open CROSS JOIN LATERAL (
                SELECT id, due_at FROM video_webhookdelivery
                WHERE target = open.target AND due_at <= statement_timestamp() AND {UNHELD}
                    AND (rung_at IS NULL OR rung_at <= statement_timestamp() - %(again)s * interval '1 second')
                ORDER BY due_at LIMIT greatest(0, open.room)) d
        ), due AS MATERIALIZED (
            SELECT d.id FROM video_webhookdelivery d JOIN found ON found.id = d.id AND found.left_of_user >= 0
            WHERE d.due_at IS NOT NULL
                AND (d.rung_at IS NULL OR d.rung_at <= statement_timestamp() - %(again)s * interval '1 second')
            ORDER BY found.due_at
            LIMIT greatest(0, %(most)s - (SELECT coalesce(sum(number), 0) FROM flying)::int)
            FOR UPDATE OF d SKIP LOCKED
        )
        UPDATE video_webhookdelivery d SET rung_at = statement_timestamp() FROM due WHERE d.id = due.id RETURNING d.id
        """,  # noqa: S608 - a constant
        {
            "again": RING_AGAIN_S + settings.WEBHOOK_TIMEOUT_SECONDS,
            "faults": schedule.CIRCUIT_FAULTS,
            "of_target": schedule.MOST_OF_TARGET,
            "of_user": schedule.MOST_OF_USER,
            "most": MOST_RUNG,
        },
    )
    return [row[0] for row in rows]


def has_unacknowledged(*, for_s: float, enqueued_within_s: float) -> bool:
    """Whether a delivery has been due for `for_s` seconds, was enqueued in the last `enqueued_within_s` seconds, and no
    worker has claimed it since."""
    return bool(
        database.value(
            """
            SELECT EXISTS (
                SELECT FROM video_webhookdelivery
                WHERE rung_at > statement_timestamp() - %(lately)s * interval '1 second'
                    AND due_at <= statement_timestamp() - %(for)s * interval '1 second'
                    AND (lease_until IS NULL OR lease_until < statement_timestamp() - %(for)s * interval '1 second'))
            """,
            {"for": for_s, "lately": enqueued_within_s},
        )
    )


def claim(delivery_id: str) -> Claimed | None:
    """Take the next try of a delivery that is due, unheld, and whose receiver's circuit is not open; None otherwise."""
    row = database.fetch_one(
        f"""
        WITH taken AS (
            UPDATE video_webhookdelivery SET tries = tries + 1, step = step + 1, rung_at = statement_timestamp(),
                lease_until = statement_timestamp() + %(lease)s * interval '1 second'
            WHERE id = %(id)s AND due_at <= statement_timestamp() AND {UNHELD} AND NOT EXISTS (
                SELECT FROM video_webhookcircuit c
                WHERE c.target = video_webhookdelivery.target AND c.open_until > statement_timestamp())
            RETURNING *
        ), logged AS (
            INSERT INTO video_webhooktry (delivery_id, number, worker, outcome, detail)
            SELECT id, tries, %(worker)s, '', '' FROM taken
        )
        SELECT t.id, t.tries, t.step, t.message_id, t.event, t.facts::text, t.created_at, t.user_id, t.target,
            t.endpoint_id, coalesce(e.url, t.url), e.id IS NULL OR (e.enabled AND e.ended_at IS NULL),
            coalesce(e.secret, s.secret), CASE WHEN coalesce(e.former_until, s.former_until) > statement_timestamp()
                THEN coalesce(e.former_secret, s.former_secret) END
        FROM taken t LEFT JOIN video_webhookendpoint e ON e.id = t.endpoint_id
        LEFT JOIN video_webhooksecret s ON s.user_id = t.user_id AND t.endpoint_id IS NULL
        """,  # noqa: S608 - a constant
        {"id": delivery_id, "worker": str(WORKER), "lease": settings.WEBHOOK_TIMEOUT_SECONDS + LEASE_MORE_S},
    )
    if row is None:
        return None
    *values, secret, former = row
    found = dict(zip(_CLAIMED, values, strict=True))
    found["facts"] = json.loads(found["facts"])
    return Claimed(**found, secrets=[one for one in (secret, former) if one])


#: Ways in which a receiver failed; the others say nothing about it.
_FAULTS = (Outcome.REFUSED, Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.FORBIDDEN)


def record(
    claimed: Claimed,
    outcome: WebhookTry.Outcome,
    *,
    http_status: int | None = None,
    detail: str = "",
    asked_s: float | None = None,
) -> bool:
    """Write what became of a try, and what follows: an end, or when the next one is due. Safe to repeat.

    `asked_s`: seconds that the receiver asked for. False: the delivery was settled before, or another worker tries it
    by now; the try's own row is written all the same.
    """
    state, pause_s = _after(claimed, outcome, asked_s)
    found = database.fetch(
        f"""
        WITH tried AS (
            UPDATE video_webhooktry SET ended_at = statement_timestamp(), outcome = %(outcome)s,
                http_status = %(status)s, detail = %(detail)s
            WHERE delivery_id = %(id)s AND number = %(number)s AND ended_at IS NULL
        ), {_CLOSE if outcome is Outcome.DELIVERED else _COUNT if outcome in _FAULTS else _NOTHING}, moved AS (
            -- Another step: it was sent again meanwhile, so it is due as that said.
            UPDATE video_webhookdelivery SET lease_until = NULL, rung_at = NULL,
                state = CASE WHEN step = %(step)s OR %(good)s THEN %(state)s ELSE state END,
                due_at = CASE WHEN step <> %(step)s AND NOT %(good)s THEN due_at
                    WHEN %(state)s = 'pending' THEN statement_timestamp() + %(pause)s * interval '1 second' END,
                settled_at = CASE WHEN (step = %(step)s OR %(good)s) AND %(state)s <> 'pending'
                    THEN statement_timestamp() END
            WHERE id = %(id)s AND state = 'pending' AND (tries = %(number)s OR %(good)s) RETURNING id
        ), ended AS (
            UPDATE video_webhookendpoint SET ended_at = statement_timestamp(), end_reason = 'gone'
            WHERE id = %(endpoint)s AND ended_at IS NULL AND %(outcome)s = 'gone'
        )
        SELECT id FROM moved
        """,  # noqa: S608 - constants
        {
            "id": claimed.id,
            "number": claimed.number,
            "step": claimed.step,
            "outcome": outcome.value,
            "good": outcome is Outcome.DELIVERED,
            "status": http_status,
            "detail": storable(detail, 200),
            "state": state.value,
            "pause": pause_s or 0.0,
            "target": claimed.target,
            "endpoint": claimed.endpoint_id,
            "faults": schedule.CIRCUIT_FAULTS,
            "first": schedule.FIRST_CIRCUIT_S,
            "longest": schedule.LONGEST_CIRCUIT_S,
            "jitter": random.uniform(1 - schedule.JITTER, 1 + schedule.JITTER),
        },
    )
    if outcome is Outcome.GONE and claimed.endpoint_id:
        drop_pending(claimed.endpoint_id)
    return bool(found)


def _after(
    claimed: Claimed, outcome: WebhookTry.Outcome, asked_s: float | None
) -> tuple[WebhookDelivery.State, float | None]:
    """The state that follows, and the pause before the next try if there is one."""
    ends = {Outcome.DELIVERED: State.DELIVERED, Outcome.GONE: State.FAILED, Outcome.DROPPED: State.DROPPED}
    if outcome in ends:
        return ends[outcome], None
    pause_s = schedule.next_pause_s(claimed.step, asked_s=asked_s)
    return (State.FAILED, None) if pause_s is None else (State.PENDING, pause_s)


_NOTHING = "unchanged AS (SELECT)"
_CLOSE = "closed AS (DELETE FROM video_webhookcircuit WHERE target = %(target)s)"
_COUNT = """counted AS (
    -- Not if its user was erased meanwhile.
    INSERT INTO video_webhookcircuit AS c (target, faults)
    SELECT %(target)s, 1 WHERE EXISTS (SELECT FROM video_webhookdelivery WHERE id = %(id)s)
    ON CONFLICT (target) DO UPDATE SET faults = c.faults + 1, changed_at = statement_timestamp(),
        open_until = CASE WHEN c.faults + 1 >= %(faults)s THEN statement_timestamp() + interval '1 second'
            * least(%(longest)s, %(first)s * power(2, least(c.faults + 1 - %(faults)s, 20))) * %(jitter)s END
)"""


def counts() -> dict[str, int]:
    """How many deliveries there are, by state; and `overdue` ones, which no worker took for five minutes."""
    found = dict.fromkeys(State.values, 0)
    found |= dict(database.fetch("SELECT state, count(*) FROM video_webhookdelivery GROUP BY state"))
    found["overdue"] = database.value(
        f"""
        SELECT count(*) FROM video_webhookdelivery d LEFT JOIN video_webhookcircuit c ON c.target = d.target
        WHERE due_at < statement_timestamp() - interval '5 minutes' AND {UNHELD}
            AND (c.open_until IS NULL OR c.open_until < statement_timestamp() - interval '5 minutes')
        """  # noqa: S608 - a constant
    )
    return found


def due() -> int:
    """How many deliveries are due and no worker has taken; up to 1,000 are counted.

    Without those whose receiver's circuit is open. One statement over `webhook_due`, which holds what is pending.
    """
    number: int = database.value(
        f"""
        SELECT count(*) FROM (
            SELECT FROM video_webhookdelivery d WHERE due_at <= statement_timestamp() AND {UNHELD}
                AND NOT EXISTS (SELECT FROM video_webhookcircuit c
                    WHERE c.target = d.target AND c.open_until > statement_timestamp())
            LIMIT 1000) found
        """  # noqa: S608 - a constant
    )
    return number


def drop_pending(endpoint_id: str) -> int:
    """Give up what waits for an endpoint that is off or has ended. What comes after is dropped when its turn comes."""
    return database.execute(
        """
        WITH waiting AS MATERIALIZED (
            SELECT id FROM video_webhookdelivery WHERE target = %s AND due_at IS NOT NULL ORDER BY id FOR UPDATE
        )
        UPDATE video_webhookdelivery d SET state = 'dropped', due_at = NULL, lease_until = NULL, rung_at = NULL,
            settled_at = statement_timestamp()
        FROM waiting WHERE d.id = waiting.id
        """,
        [endpoint_id],
    )


def give_up() -> int:
    """End what was not delivered within its time, as failed. Returns how many; safe to repeat."""
    return database.execute(
        f"""
        WITH late AS MATERIALIZED (
            SELECT id FROM video_webhookdelivery
            WHERE due_at IS NOT NULL AND give_up_at <= statement_timestamp() AND {UNHELD}
            ORDER BY give_up_at LIMIT %s FOR UPDATE SKIP LOCKED
        )
        UPDATE video_webhookdelivery d SET state = 'failed', due_at = NULL, lease_until = NULL, rung_at = NULL,
            settled_at = statement_timestamp()
        FROM late WHERE d.id = late.id
        """,  # noqa: S608 - a constant
        [BATCH],
    )


def send_again(delivery_id: str, user_id: int | None) -> bool:
    """Make a delivery due now, with all its tries before it and its receiver's circuit closed; of this user only, if
    one is given. The message and its id stay the same. False: there is none, or its endpoint is off or has ended.
    """
    return database.changed(
        """
        WITH again AS (
            UPDATE video_webhookdelivery d SET state = 'pending', step = 0, due_at = statement_timestamp(),
                rung_at = NULL, settled_at = NULL, give_up_at = statement_timestamp() + %(most)s * interval '1 second'
            WHERE d.id = %(id)s AND d.user_id = coalesce(%(user)s, d.user_id) AND (
                d.endpoint_id IS NULL OR EXISTS (SELECT FROM video_webhookendpoint e
                    WHERE e.id = d.endpoint_id AND e.enabled AND e.ended_at IS NULL))
            RETURNING d.target
        ), closed AS (
            DELETE FROM video_webhookcircuit c USING again WHERE c.target = again.target
        )
        SELECT FROM again
        """,
        {"id": delivery_id, "user": user_id, "most": schedule.GIVE_UP_S},
    )


def prune() -> int:
    """Delete settled deliveries that are WEBHOOK_KEEP_DAYS old, with their tries; endpoints that were deleted once none
    is left; and circuits that nothing was sent to since. Returns how many deliveries; safe to repeat.
    """
    database.execute(
        """
        DELETE FROM video_webhookendpoint e
        WHERE e.end_reason = 'deleted' AND e.ended_at < statement_timestamp() - interval '1 day'
            AND NOT EXISTS (SELECT FROM video_webhookdelivery d WHERE d.endpoint_id = e.id)
        """
    )
    database.execute("DELETE FROM video_webhookcircuit WHERE changed_at < statement_timestamp() - interval '7 days'")
    return database.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT id FROM video_webhookdelivery
            WHERE settled_at < statement_timestamp() - %(days)s * interval '1 day'
            ORDER BY settled_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
        ), tries AS (
            DELETE FROM video_webhooktry t USING old WHERE t.delivery_id = old.id
        )
        DELETE FROM video_webhookdelivery d USING old WHERE d.id = old.id
        """,
        {"days": settings.WEBHOOK_KEEP_DAYS, "most": BATCH},
    )


def erase_of(user_id: int) -> None:
    """Delete all that a user's webhooks left: deliveries with their tries, circuits, endpoints, secrets. For a user of
    whom no task is under way. Safe to repeat."""
    database.execute(
        """
        WITH circuits AS (
            DELETE FROM video_webhookcircuit c USING (
                SELECT DISTINCT target FROM video_webhookdelivery WHERE user_id = %(user)s) own
            WHERE c.target = own.target
        ), tries AS (
            DELETE FROM video_webhooktry t USING video_webhookdelivery d
            WHERE d.id = t.delivery_id AND d.user_id = %(user)s
        ), deliveries AS (
            DELETE FROM video_webhookdelivery WHERE user_id = %(user)s
        ), endpoints AS (
            DELETE FROM video_webhookendpoint WHERE user_id = %(user)s
        )
        DELETE FROM video_webhooksecret WHERE user_id = %(user)s
        """,
        {"user": user_id},
    )
