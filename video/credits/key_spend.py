"""What an API key spends on a day (UTC), and the limit of it: written by the transaction that debits.

The row lock on the key serialises its debits, as the lock on the account does. Who takes both takes the account first.
A refund gives nothing back: the limit bounds what a key that was stolen can set going on one day.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from video.infra import database
from video.infra.errors import Refusal

TODAY: Final = "(statement_timestamp() AT TIME ZONE 'UTC')::date"
_SPENT: Final = f"CASE WHEN k.spent_on = {TODAY} THEN k.spent_credits ELSE 0 END"
#: A CTE of a statement that makes a run and pays for it, after the ledger's `purse`: the key, if it may spend
#: %(price)s credits more today, locked from here on. %(api_key)s is NULL without a key. The purse is joined, so that
#: the account is locked before the key.
ALLOWANCE: Final = f"""allowance AS MATERIALIZED (
    SELECT k.id FROM (SELECT count(*) FROM purse) account CROSS JOIN video_apikey k
    WHERE k.id = %(api_key)s::varchar AND (k.daily_credits IS NULL OR {_SPENT} + %(price)s <= k.daily_credits)
    FOR UPDATE OF k
)"""  # noqa: S608 - constants
#: What `made` asks for beside the purse.
ALLOWS: Final = "(%(api_key)s::varchar IS NULL OR EXISTS (SELECT FROM allowance))"
#: Then, after `made`: what was debited counts. A price of 0 writes nothing.
SPEND: Final = f"""spent AS (
    UPDATE video_apikey k SET spent_credits = {_SPENT} + %(price)s, spent_on = {TODAY}
    FROM made WHERE k.id = %(api_key)s::varchar AND made.user_id = k.user_id AND %(price)s > 0
)"""  # noqa: S608 - constants

#: The same for many runs: the key, locked from here on, and the `credits` that it may spend today (NULL: no limit).
ALLOWANCE_OF_MANY: Final = f"""allowance AS MATERIALIZED (
    SELECT k.id, k.daily_credits - ({_SPENT}) AS credits
    FROM (SELECT count(*) FROM purse) account CROSS JOIN video_apikey k WHERE k.id = %(api_key)s::varchar
    FOR UPDATE OF k
)"""  # noqa: S608 - constants
#: What a run `w` of them asks for, `total` being its price and those before it.
ALLOWS_OF_MANY: Final = """(%(api_key)s::varchar IS NULL OR allowance.id IS NOT NULL
    AND (w.total = 0 OR allowance.credits IS NULL OR w.total <= allowance.credits))"""
SPEND_OF_MANY: Final = f"""spent AS (
    UPDATE video_apikey k SET spent_credits = {_SPENT} + used.credits, spent_on = {TODAY}
    FROM (SELECT user_id, sum(price)::int AS credits FROM made GROUP BY user_id HAVING sum(price) > 0) used
    WHERE k.id = %(api_key)s::varchar AND used.user_id = k.user_id
)"""  # noqa: S608 - constants


class KeyLimitReached(Refusal):
    """The key may not spend so much more today. Nothing was changed."""

    code = "key_limit_reached"

    def __init__(self, *, needed: int, spent: int, limit: int, ends_at: datetime) -> None:
        self.needed, self.spent, self.limit, self.ends_at = needed, spent, limit, ends_at
        super().__init__(
            f"This API key may spend {limit} credits a day and has spent {spent} today (UTC); {needed} more are needed."
        )


def spend(key_id: str, amount: int) -> None:
    """Count `amount` credits that are debited by a key, inside the transaction of the debit and after it, which must be
    rolled back on the error. One statement. Raises KeyLimitReached.
    """
    if amount == 0:
        return
    counted = database.changed(
        f"""
        UPDATE video_apikey k SET spent_credits = {_SPENT} + %(amount)s, spent_on = {TODAY}
        WHERE k.id = %(key)s AND (k.daily_credits IS NULL OR {_SPENT} + %(amount)s <= k.daily_credits)
        """,  # noqa: S608 - constants
        {"key": key_id, "amount": amount},
    )
    if not counted:
        raise reached(key_id, amount)


def reached(key_id: str, needed: int) -> KeyLimitReached:
    """The refusal, with the figures of now."""
    row = database.fetch_one(
        f"""
        SELECT {_SPENT}, coalesce(k.daily_credits, 0), ({TODAY} + 1)::timestamp AT TIME ZONE 'UTC'
        FROM video_apikey k WHERE k.id = %s
        """,  # noqa: S608 - constants
        [key_id],
    )
    assert row is not None, "a key that is in use is deleted with its user only"
    spent, limit, ends_at = row
    return KeyLimitReached(needed=needed, spent=spent, limit=limit, ends_at=ends_at)
