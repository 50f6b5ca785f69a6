"""Credits that an operator gives: on record, and in the ledger."""

from __future__ import annotations

from django.db import transaction

from video.audit import records
from video.audit.actors import Actor
from video.credits import ledger


def grant(user_id: int, amount: int, *, by: Actor, note: str = "") -> int:
    """Give `amount` credits, more than 0, and return the new balance. Opens the account where there is none. The note
    stays in the ledger; it is the reason as well, unless the operator has given another.
    """
    with transaction.atomic():
        balance = ledger.grant(user_id, amount, note=note)
        records.record(by, "grant", "account", user_id, reason=by.reason or note, detail=f"{amount} credits")
    return balance
