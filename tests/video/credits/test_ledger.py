from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, transaction

from tests.factories import make_task, make_user
from video.credits import ledger
from video.models import Account, CreditEntry, VideoTask

pytestmark = pytest.mark.django_db


def test_a_task_costs_ten_credits() -> None:
    task = make_task(make_user(25))
    assert ledger.balance(task.user_id) == 15
    assert list(CreditEntry.objects.filter(task=task).values_list("kind", "amount", "run")) == [("debit", -10, 1)]


def test_short_of_credits_makes_nothing() -> None:
    user = make_user(9)
    with pytest.raises(ledger.InsufficientCredits) as caught:
        make_task(user)
    assert (caught.value.needed, caught.value.balance) == (10, 9)
    assert not VideoTask.objects.filter(user=user).exists()
    assert ledger.balance(user.pk) == 9


def test_a_user_without_an_account_is_short_of_credits() -> None:
    with pytest.raises(ledger.InsufficientCredits):
        make_task(make_user(0))


def test_refund_twice_returns_the_credits_once() -> None:
    task = make_task()
    assert ledger.refund(task.pk, 1)
    assert not ledger.refund(task.pk, 1)
    assert ledger.balance(task.user_id) == 1000


def test_a_run_that_was_not_paid_is_not_refunded() -> None:
    task = make_task()
    assert not ledger.refund(task.pk, 2)
    assert ledger.balance(task.user_id) == 990


def test_a_run_is_debited_once() -> None:
    task = make_task()
    with pytest.raises(IntegrityError, match="entry_once_a_run"), transaction.atomic():
        ledger.debit(task.user_id, 10, task_id=task.pk, run=1)
    assert ledger.balance(task.user_id) == 990


@pytest.mark.parametrize("amount", [0, -5])
def test_a_grant_is_positive(amount: int) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        ledger.grant(make_user().pk, amount)


def test_the_ledger_refuses_update_and_delete() -> None:
    entry = CreditEntry.objects.filter(task=make_task()).get()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        CreditEntry.objects.filter(pk=entry.pk).update(amount=-1)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        CreditEntry.objects.filter(pk=entry.pk).delete()


def test_a_balance_never_goes_below_zero() -> None:
    user = make_user(5)
    with pytest.raises(IntegrityError, match="account_balance_not_negative"), transaction.atomic():
        Account.objects.filter(pk=user.pk).update(balance=-1)


@pytest.mark.parametrize(("kind", "amount"), [("grant", -1), ("refund", -1), ("debit", 1), ("adjust", 0)])
def test_the_sign_follows_the_kind(kind: str, amount: int) -> None:
    task = make_task()
    with pytest.raises(IntegrityError), transaction.atomic():
        CreditEntry.objects.create(account_id=task.user_id, kind=kind, amount=amount, task=task, run=7)


def test_a_balance_that_is_not_the_sum_of_its_entries_is_found() -> None:
    user = make_user(100)
    assert ledger.differences() == []
    Account.objects.filter(pk=user.pk).update(balance=101)
    assert ledger.differences() == [(user.pk, 101, 100)]
