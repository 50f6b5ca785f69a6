"""Whether the ledger is whole: sums against balances, and each entry against what happened to its task.

The database's constraints hold most of it already (one debit and one refund a run, signs, no balance below zero, no
change of the past); this module finds what they can't see. Each check is one statement, so concurrent transitions raise
no false alarm. The checks read the whole ledger: some seconds for a million tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from video.credits import ledger
from video.infra import database

MOST_LISTED = 1000  # differences of each kind


@dataclass(frozen=True)
class Difference:
    """One thing that does not add up."""

    kind: str
    user_id: int
    sentence: str
    task_id: str = ""
    run: int | None = None


@dataclass(frozen=True)
class Extent:
    """How much was checked."""

    accounts: int
    entries: int
    balance: int  # of all accounts


def extent() -> Extent:
    """How much there is to check. One statement."""
    ((accounts, entries, balance),) = database.fetch(
        """
        SELECT (SELECT count(*) FROM video_account), (SELECT count(*) FROM video_creditentry),
            (SELECT coalesce(sum(balance), 0) FROM video_account)
        """
    )
    return Extent(accounts, entries, int(balance))


def find() -> list[Difference]:
    """Every difference, at most 1,000 of a kind; empty when the ledger is whole. Five statements."""
    return [difference for check in CHECKS for difference in check()]


def _sums() -> Iterator[Difference]:
    for user_id, balance, total in ledger.differences():
        yield Difference(
            "balance",
            user_id,
            f"The balance is {balance}, the entries add up to {total}: something wrote past the ledger.",
        )


def _owners() -> Iterator[Difference]:
    """Every debit and refund belongs to the task's owner, and to a run that the task had."""
    for row in _rows(
        """
        SELECT e.account_id, e.task_id, e.run, e.kind, t.user_id, t.run
        FROM video_creditentry e JOIN video_videotask t ON t.id = e.task_id
        WHERE e.kind IN ('debit', 'refund') AND (e.account_id <> t.user_id OR e.run > t.run OR e.run < 1)
        """
    ):
        account, task_id, run, kind, owner, last_run = row
        if account != owner:
            sentence = f"The {kind} stands in the account of user {account}, the task belongs to user {owner}."
        else:
            sentence = f"There is a {kind} for run {run}, the task's last run is {last_run}."
        yield Difference("entry", account, sentence, task_id, run)


def _missing_refunds() -> Iterator[Difference]:
    """Every failed run was refunded; a cancelled one may have been charged for."""
    for account, task_id, run, amount in _rows(
        """
        SELECT d.account_id, d.task_id, d.run, -d.amount
        FROM video_creditentry d JOIN video_videotask t ON t.id = d.task_id
        WHERE d.kind = 'debit' AND ((d.run = t.run AND t.status = 'failed') OR (d.run < t.run AND NOT EXISTS (
                SELECT FROM video_taskevent e
                WHERE e.task_id = d.task_id AND e.run = d.run AND e.outcome = 'cancelled')))
            AND NOT EXISTS (
                SELECT FROM video_creditentry r WHERE r.task_id = d.task_id AND r.run = d.run AND r.kind = 'refund')
        """
    ):
        yield Difference(
            "refund", account, f"Run {run} failed, and its {amount} credits were not given back.", task_id, run
        )


def _wrong_refunds() -> Iterator[Difference]:
    """Every refund gives back a whole debit."""
    for account, task_id, run, amount, debit in _rows(
        """
        SELECT r.account_id, r.task_id, r.run, r.amount, d.amount
        FROM video_creditentry r LEFT JOIN video_creditentry d
            ON d.task_id = r.task_id AND d.run = r.run AND d.kind = 'debit'
        WHERE r.kind = 'refund' AND d.amount IS DISTINCT FROM -r.amount
        """
    ):
        paid = "nothing was debited" if debit is None else f"{-debit} credits were debited"
        yield Difference("refund", account, f"{amount} credits were given back for run {run}, {paid}.", task_id, run)


def _groundless_refunds() -> Iterator[Difference]:
    """Every refunded run has failed or was cancelled, though its video may have come later."""
    for account, task_id, run, status in _rows(
        """
        SELECT r.account_id, r.task_id, r.run, t.status
        FROM video_creditentry r JOIN video_videotask t ON t.id = r.task_id AND t.run = r.run
        WHERE r.kind = 'refund' AND t.status NOT IN ('failed', 'cancelled') AND NOT EXISTS (
            SELECT FROM video_taskevent e
            WHERE e.task_id = r.task_id AND e.run = r.run AND e.outcome IN ('failed', 'cancelled'))
        """
    ):
        yield Difference(
            "refund", account, f"Run {run} was refunded, and never failed; the task is {status}.", task_id, run
        )


#: One statement each.
CHECKS: tuple[Callable[[], Iterator[Difference]], ...] = (
    _sums,
    _owners,
    _missing_refunds,
    _wrong_refunds,
    _groundless_refunds,
)


def _rows(query: str) -> list[tuple[Any, ...]]:
    return database.fetch(f"{query} LIMIT {MOST_LISTED}")
