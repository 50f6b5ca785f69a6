"""One Idempotency-Key, one task and one debit, also when all ask at once; and the database's log says nothing of it."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from django.db import connection, transaction

from tests.environment import HOME
from tests.factories import make_user
from video.actions.create import create
from video.credits import ledger, price
from video.models import CreditEntry, TaskEvent, VideoTask
from video.models.order import Order
from video.web.idempotency import KeyReused

AT_ONCE = 50
CANARY = "canary-prompt-of-one-key"
ORDER = Order(prompt=CANARY, duration_s=5, aspect_ratio="16:9")


def database_log() -> str:
    return (HOME / "log" / "postgres.log").read_text(errors="replace")


def make_together(user_id: int, times: int, *, key: str | None = "k") -> list[tuple[VideoTask, bool]]:
    """That many creates with one key or none, off at once, on as many connections as the process has; those that were
    not short of credits."""
    together = threading.Barrier(times)
    made: list[tuple[VideoTask, bool]] = []

    def one() -> None:
        try:
            together.wait(60)
            with contextlib.suppress(ledger.InsufficientCredits):
                made.append(create(user_id, ORDER, idempotency_key=key))
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return made


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("credit", [1000, 10], ids=["rich", "enough for one"])
def test_fifty_creates_at_once_with_one_key_make_one_task_and_one_debit(credit: int) -> None:
    user = make_user(credit=credit)
    made = make_together(user.pk, AT_ONCE)
    assert len(made) == AT_ONCE
    assert sum(is_new for _, is_new in made) == 1
    assert {task.pk for task, _ in made} == {VideoTask.objects.get().pk}
    assert CreditEntry.objects.filter(kind=CreditEntry.Kind.DEBIT).count() == 1
    assert TaskEvent.objects.count() == 1
    assert ledger.balance(user.pk) == credit - price.credits_of(ORDER)
    assert CANARY not in database_log()


@pytest.mark.django_db(transaction=True)
def test_creates_at_once_spend_what_is_there_and_no_more() -> None:
    enough_for = 20
    user = make_user(credit=enough_for * price.credits_of(ORDER))
    made = make_together(user.pk, AT_ONCE, key=None)
    assert len({task.pk for task, _ in made}) == len(made) == enough_for == VideoTask.objects.count()
    assert ledger.balance(user.pk) == 0
    assert CreditEntry.objects.filter(kind=CreditEntry.Kind.DEBIT).count() == enough_for == TaskEvent.objects.count()
    assert ledger.differences() == []


@pytest.mark.django_db
def test_a_video_that_costs_nothing_needs_no_account(settings: Any) -> None:
    settings.CREDITS_PER_VIDEO = 0
    user = make_user(credit=0)
    assert create(user.pk, ORDER)[1]
    assert not CreditEntry.objects.filter(kind=CreditEntry.Kind.DEBIT).exists()


@pytest.mark.django_db
def test_a_repeated_key_breaks_no_transaction_that_it_is_part_of() -> None:
    user = make_user()
    with transaction.atomic():
        first, _ = create(user.pk, ORDER, idempotency_key="k")
        with connection.execute_wrapper(_no_error):
            again, is_new = create(user.pk, ORDER, idempotency_key="k")
    assert (again.pk, is_new) == (first.pk, False)


@pytest.mark.django_db
def test_a_key_of_another_order_is_refused_and_costs_nothing() -> None:
    user = make_user()
    create(user.pk, ORDER, idempotency_key="k")
    with pytest.raises(KeyReused):
        create(user.pk, Order(prompt="Another", duration_s=5, aspect_ratio="16:9"), idempotency_key="k")
    assert ledger.balance(user.pk) == 1000 - price.credits_of(ORDER)


@pytest.mark.django_db
def test_creates_without_a_key_have_nothing_to_do_with_each_other() -> None:
    user = make_user()
    assert create(user.pk, ORDER)[1]
    assert create(user.pk, ORDER)[1]
    assert VideoTask.objects.count() == 2


def _no_error(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    try:
        return execute(sql, params, many, context)
    except Exception as err:
        raise AssertionError(f"a statement failed: {type(err).__name__}") from err
