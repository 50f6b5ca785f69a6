"""Many creates in one statement: what fits is made and paid for, in order; or all, or none."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import make_user
from tests.video.actions.test_create import make_together
from video.actions import create_many
from video.actions.create_many import Wanted
from video.actions.order_input import OrderRefused
from video.credits import ledger, price
from video.infra.errors import Refusal
from video.models import Account, CreditEntry, ModelSetting, TaskEvent, UserShare, VideoTask
from video.models.order import Order
from video.scheduling import backlog, storage_quota
from video.web.uploads import NoSuchUpload

PRICE = 10


def wanted(number: int) -> list[Wanted]:
    return [
        Wanted(Order(prompt=f"Cat {at}", duration_s=5, aspect_ratio="16:9", seed=at), ["gen4.5"], {"n": str(at)})
        for at in range(number)
    ]


def debits() -> int:
    return CreditEntry.objects.filter(kind=CreditEntry.Kind.DEBIT).count()


@pytest.mark.django_db
class TestABatch:
    def test_of_a_hundred_on_a_balance_for_99_is_nothing_or_99(self) -> None:
        user = make_user(credit=99 * PRICE)
        with pytest.raises(ledger.InsufficientCredits) as refused:
            create_many.create_many(user.pk, wanted(100), whole=True)
        assert (refused.value.needed, refused.value.balance) == (100 * PRICE, 99 * PRICE)
        assert (VideoTask.objects.count(), TaskEvent.objects.count(), debits()) == (0, 0, 0)
        assert ledger.balance(user.pk) == 99 * PRICE
        found = create_many.create_many(user.pk, wanted(100), whole=False)
        assert isinstance(found.pop(), ledger.InsufficientCredits)
        assert all(isinstance(one, VideoTask) for one in found)
        assert (VideoTask.objects.count(), TaskEvent.objects.count(), debits()) == (99, 99, 99)
        assert ledger.balance(user.pk) == 0
        assert ledger.differences() == []

    def test_on_a_model_that_is_switched_off_is_refused_as_create_does(self) -> None:
        user = make_user()
        ModelSetting.objects.create(model="gen4.5", enabled=False)
        orders = wanted(3)
        orders[1] = replace(orders[1], order=replace(orders[1].order, fallback=False, model_requested="gen4.5"))
        with pytest.raises(create_many.OneRefused, match=r"gen4\.5 can't be used here") as refused:
            create_many.create_many(user.pk, orders, whole=True)
        assert (refused.value.at, type(refused.value.why)) == (1, OrderRefused)
        assert (VideoTask.objects.count(), debits()) == (0, 0)
        found = create_many.create_many(user.pk, orders, whole=False)
        assert [type(one).__name__ for one in found] == ["VideoTask", "OrderRefused", "VideoTask"]

    def test_makes_no_more_than_may_be_under_way(self) -> None:
        user = make_user()
        UserShare.objects.create(user=user, most_live=3)
        create_many.create_many(user.pk, wanted(1), whole=True)
        with pytest.raises(backlog.TooManyLive):
            create_many.create_many(user.pk, wanted(3), whole=True)
        found = create_many.create_many(user.pk, wanted(3), whole=False)
        assert [type(one).__name__ for one in found] == ["VideoTask", "VideoTask", "TooManyLive"]

    def test_keeps_every_field_and_their_order(self) -> None:
        user = make_user()
        found = create_many.create_many(user.pk, wanted(20), whole=True)
        rows = list(VideoTask.objects.order_by("created_at"))
        assert [row.pk for row in rows] == [one.pk for one in found if isinstance(one, VideoTask)]
        for at, row in enumerate(rows):
            assert Order.of(row) == wanted(20)[at].order
            assert (row.metadata, row.eligible_models) == ({"n": str(at)}, ["gen4.5"])
            assert (row.status, row.stage, row.run, row.request_hash) == ("pending", "generate", 1, "")
            assert row.admit_at is not None

    def test_costs_as_many_statements_as_one(self) -> None:
        user = make_user(credit=10_000)
        counts = []
        price.rules()  # each process reads the price list once in two seconds
        for number in (1, 100):
            with CaptureQueriesContext(connection) as captured:
                create_many.create_many(user.pk, wanted(number), whole=False)
            counts.append(len(captured))
        assert counts == [2, 2]  # what is switched off; all of them

    def test_that_costs_nothing_needs_no_account(self, settings: Any) -> None:
        settings.CREDITS_PER_VIDEO = 0
        assert len(create_many.create_many(make_user(0).pk, wanted(3), whole=True)) == 3
        assert VideoTask.objects.count() == 3
        assert debits() == 0

    def test_without_an_account_is_refused(self) -> None:
        user = make_user(0)
        Account.objects.filter(pk=user.pk).delete()
        with pytest.raises(ledger.InsufficientCredits):
            create_many.create_many(user.pk, wanted(2), whole=True)

    def test_goes_as_far_as_the_backlog(self) -> None:
        user = make_user()
        UserShare.objects.create(user=user, most_waiting=3)
        create_many.create_many(user.pk, wanted(1), whole=True)
        with pytest.raises(backlog.TooManyWaiting):
            create_many.create_many(user.pk, wanted(3), whole=True)
        found = create_many.create_many(user.pk, wanted(3), whole=False)
        assert [isinstance(one, backlog.TooManyWaiting) for one in found] == [False, False, True]
        assert VideoTask.objects.count() == 3

    def test_goes_as_far_as_the_storage(self) -> None:
        user = make_user()
        UserShare.objects.create(user=user, most_stored_bytes=5 * storage_quota.EXPECTED_BYTES // 2)
        found = create_many.create_many(user.pk, wanted(5), whole=False)
        assert [isinstance(one, storage_quota.StorageFull) for one in found] == [False] * 3 + [True] * 2
        assert storage_quota.of_user(user.pk).limit == 5 * storage_quota.EXPECTED_BYTES // 2

    def test_an_upload_that_is_not_there_refuses_its_own_order(self) -> None:
        user = make_user()
        lost = Wanted(Order("A", 5, "16:9", image_url="upload://" + "0" * 40), ["gen4_turbo"])
        with pytest.raises(create_many.OneRefused) as refused:
            create_many.create_many(user.pk, [*wanted(1), lost], whole=True)
        assert (refused.value.at, type(refused.value.why)) == (1, NoSuchUpload)
        found = create_many.create_many(user.pk, [lost, *wanted(1)], whole=False)
        assert isinstance(found[0], NoSuchUpload)
        assert VideoTask.objects.get() == found[1]


@pytest.mark.django_db(transaction=True)
def test_batches_and_creates_at_once_spend_what_is_there_and_no_more() -> None:
    enough_for = 23
    user = make_user(credit=enough_for * PRICE)
    together = threading.Barrier(12)
    made: list[VideoTask | Refusal] = []

    def batch(number: int) -> None:
        try:
            together.wait(60)
            with contextlib.suppress(ledger.InsufficientCredits):
                made.extend(create_many.create_many(user.pk, wanted(5), whole=number % 2 == 0))
        finally:
            connection.close()

    threads = [threading.Thread(target=batch, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    number = sum(isinstance(one, VideoTask) for one in made)
    assert number == VideoTask.objects.count() == debits() == TaskEvent.objects.count()
    assert ledger.balance(user.pk) == (enough_for - number) * PRICE
    assert number >= enough_for - 4
    assert ledger.differences() == []


@pytest.mark.django_db(transaction=True)
def test_two_hundred_creates_at_once_on_a_balance_for_three_make_three() -> None:
    user = make_user(credit=3 * PRICE)
    assert len(make_together(user.pk, 200, key=None)) == 3 == VideoTask.objects.count() == debits()
    assert ledger.balance(user.pk) == 0
    assert ledger.differences() == []
