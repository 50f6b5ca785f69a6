"""The ledger: the only writer of credit entries and balances.

Debit and refund write balance and entry in one statement, inside the caller's transaction: if the entry exists already,
nothing changes, and concurrent callers never bring a balance below zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db import transaction
from django.db.models import F

from providers.untrusted import storable
from video.infra import database
from video.infra.errors import Refusal
from video.models import Account, CreditEntry

#: CTEs of a statement that makes a run and pays for it: first the account, if it holds %(price)s credits for
#: %(user_id)s, locked from here on; only where a CTE `allowed` has a row. `made` has to ask whether it is there.
#: Both are joined, never asked by a subquery: that can't be evaluated again for an account that has changed meanwhile.
PURSE: Final = """purse AS MATERIALIZED (
    SELECT a.user_id FROM allowed CROSS JOIN video_account a
    WHERE a.user_id = %(user_id)s AND a.balance >= %(price)s FOR UPDATE OF a
)"""
#: Then, after a CTE `made` with the run's id, user_id and run: balance and entry. A price of 0 writes neither.
DEBIT: Final = """paid AS (
    UPDATE video_account a SET balance = a.balance - %(price)s
    FROM made WHERE a.user_id = made.user_id AND %(price)s > 0 RETURNING made.id, made.user_id, made.run
), debited AS (
    INSERT INTO video_creditentry (account_id, kind, amount, task_id, run, note)
    SELECT user_id, 'debit', -%(price)s, id, run, '' FROM paid
)"""


#: The same for a statement that makes several runs of one user: the balance, locked from here on.
PURSE_OF_MANY: Final = """purse AS MATERIALIZED (
    SELECT a.balance FROM video_account a WHERE a.user_id = %(user_id)s FOR UPDATE OF a
)"""
#: Then, after a CTE `made` with the id, user_id, run and price of each: one change of the balance, and their entries.
DEBIT_OF_MANY: Final = """cost AS MATERIALIZED (
    SELECT user_id, sum(price) AS credits FROM made GROUP BY user_id HAVING sum(price) > 0
), paid AS (
    UPDATE video_account a SET balance = a.balance - cost.credits
    FROM cost WHERE a.user_id = cost.user_id RETURNING a.user_id
), debited AS (
    INSERT INTO video_creditentry (account_id, kind, amount, task_id, run, note)
    SELECT made.user_id, 'debit', -made.price, made.id, made.run, '' FROM made JOIN paid USING (user_id)
    WHERE made.price > 0
)"""


class InsufficientCredits(Refusal):
    """The account holds fewer credits than are needed; nothing was changed."""

    code = "insufficient_credits"

    def __init__(self, *, needed: int, balance: int) -> None:
        super().__init__(f"{needed} credits are needed, the account holds {balance}.")
        self.needed = needed
        self.balance = balance


def balance(user_id: int) -> int:
    """Credits of a user; 0 for a user without an account."""
    return Account.objects.filter(pk=user_id).values_list("balance", flat=True).first() or 0


def grant(user_id: int, amount: int, *, note: str = "", task_id: str | None = None, run: int | None = None) -> int:
    """Give `amount` credits and return the new balance. Opens the account where there is none.

    With a task and a run, the grant is for that run: a second one raises IntegrityError. Raises ValueError unless
    `amount` is more than 0.
    """
    if amount <= 0:
        raise ValueError("a grant is more than 0 credits")
    with transaction.atomic():
        Account.objects.bulk_create([Account(user_id=user_id)], ignore_conflicts=True)
        CreditEntry.objects.create(
            account_id=user_id,
            kind=CreditEntry.Kind.GRANT,
            amount=amount,
            note=storable(note, 200),
            task_id=task_id,
            run=run,
        )
        Account.objects.filter(pk=user_id).update(balance=F("balance") + amount)
        return Account.objects.values_list("balance", flat=True).get(pk=user_id)


def debit(user_id: int, amount: int, *, task_id: str, run: int) -> None:
    """Take `amount` credits for a run, inside the caller's transaction, which must be rolled back on the error.

    One statement writes balance and entry. The row lock on the account serialises debits, and PostgreSQL checks the
    condition again after the wait. A second debit of a run raises IntegrityError. Raises InsufficientCredits.
    """
    if amount == 0:
        return
    paid = database.changed(
        """
        WITH paid AS (
            UPDATE video_account SET balance = balance - %(amount)s
            WHERE user_id = %(user)s AND balance >= %(amount)s RETURNING user_id
        )
        INSERT INTO video_creditentry (account_id, kind, amount, task_id, run, note)
        SELECT user_id, 'debit', -%(amount)s, %(task)s, %(run)s, '' FROM paid
        """,
        {"amount": amount, "user": user_id, "task": task_id, "run": run},
    )
    if not paid:
        raise InsufficientCredits(needed=amount, balance=balance(user_id))


def refund(task_id: str, run: int) -> bool:
    """Give a run's debit back, inside the caller's transaction. False when it was never paid, or refunded before."""
    return bool(refund_many([(task_id, run)]))


def refund_many(runs: Sequence[tuple[str, int]]) -> set[str]:
    """The same for several runs, (task id, run) each, one run a task: the ids of those that were given back now.

    One statement.
    """
    rows = database.fetch(
        """
        WITH entry AS (
            INSERT INTO video_creditentry (account_id, kind, amount, task_id, run, note)
            SELECT d.account_id, 'refund', -d.amount, d.task_id, d.run, ''
            FROM unnest(%(tasks)s::varchar[], %(runs)s::int[]) AS run (task_id, run)
            JOIN video_creditentry d ON d.task_id = run.task_id AND d.run = run.run AND d.kind = 'debit'
            ON CONFLICT (task_id, run, kind) WHERE task_id IS NOT NULL DO NOTHING
            RETURNING account_id, amount, task_id
        ), total AS MATERIALIZED (
            SELECT account_id, sum(amount) AS amount FROM entry GROUP BY account_id ORDER BY account_id
        ), paid AS (
            UPDATE video_account SET balance = balance + total.amount
            FROM total WHERE video_account.user_id = total.account_id
        )
        SELECT task_id FROM entry
        """,
        {"tasks": [task_id for task_id, _ in runs], "runs": [run for _, run in runs]},
    )
    return {task_id for (task_id,) in rows}


def forget_notes(user_id: int) -> int:
    """Empty the notes of a user's entries, which may name them; the one change of the past that the trigger allows."""
    return database.execute("UPDATE video_creditentry SET note = '' WHERE account_id = %s AND note <> ''", [user_id])


def differences() -> list[tuple[int, int, int]]:
    """(user id, balance, sum of entries) of accounts where the two differ. Empty when the ledger is whole."""
    return database.fetch(
        """
        SELECT a.user_id, a.balance, coalesce(sum(e.amount), 0)
        FROM video_account a LEFT JOIN video_creditentry e ON e.account_id = a.user_id
        GROUP BY a.user_id, a.balance HAVING a.balance <> coalesce(sum(e.amount), 0)
        """
    )
