"""The price list: which rule counts, and that what was debited is what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.test import Client

from tests.factories import accepted, claimed, make_task, reload
from video.actions import create, create_many, retry
from video.attempts import records, task_moves
from video.credits import audit, ledger, price
from video.models import AuditRecord, CreditEntry, Generation, PriceRule, Stage
from video.models.order import Order

pytestmark = pytest.mark.django_db


def order(**more: Any) -> Order:
    return Order(**{"prompt": "A cat", "duration_s": 5, "aspect_ratio": "16:9", **more})


def rule(**columns: Any) -> PriceRule:
    made = PriceRule.objects.create(**columns)
    price.forget()
    return made


def failed(task: Any) -> None:
    generation = accepted(task)
    claim = claimed(task, Stage.POLL)
    assert records.record_ended(generation.pk, Generation.State.FAILED, took_nothing=True)
    assert task_moves.fail(claim, code="generation_failed", message="It failed.", generation_id=generation.pk)


class TestWhichRuleCounts:
    def test_without_a_rule_every_order_costs_ten(self) -> None:
        assert price.credits_of(order()) == 10
        assert price.credits_of(order(model_requested="veo3.1", duration_s=8, sound=True, resolution="1080p")) == 10

    def test_the_most_specific_one(self) -> None:
        rule(credits=1)
        rule(sound="with", credits=2)
        rule(resolution="1080p", credits=3)
        rule(seconds=10, credits=4)
        rule(model="gen4.5", credits=5)
        rule(model="gen4.5", seconds=10, sound="silent", credits=6)
        rule(model=PriceRule.NO_MODEL, resolution="1080p", credits=7)
        costs = [
            (order(model_requested="kling"), 1),
            (order(model_requested="kling", sound=True), 2),
            (order(model_requested="kling", sound=True, resolution="1080p"), 3),
            (order(model_requested="kling", duration_s=10, resolution="1080p"), 4),
            (order(model_requested="gen4.5", resolution="1080p"), 5),
            (order(model_requested="runway-gen3", duration_s=10), 6),  # an old name of gen4.5
            (order(resolution="1080p"), 7),
            (order(), 1),
        ]
        assert [price.credits_of(one) for one, _ in costs] == [cost for _, cost in costs]

    def test_seconds_are_paid_for_and_rounded_up(self) -> None:
        rule(credits=3, credits_per_second="1.1")
        assert price.credits_of(order(duration_s=5)) == 9
        assert price.credits_of(order(duration_s=10)) == 14

    def test_the_database_takes_no_rule_twice(self) -> None:
        rule(model="gen4.5", seconds=5, credits=5)
        with pytest.raises(IntegrityError, match="price_rule_once"), transaction.atomic():
            rule(model="gen4.5", seconds=5, credits=6)


class TestWhatIsPaid:
    def test_a_refund_is_the_debit_and_a_retry_pays_the_price_of_its_day(self, user: AbstractBaseUser) -> None:
        dear = rule(model="gen4.5", credits=30)
        task = make_task(user)
        assert (reload(task).price_credits, ledger.balance(user.pk)) == (30, 970)
        PriceRule.objects.filter(pk=dear.pk).update(credits=12)
        price.forget()
        failed(task)
        assert ledger.balance(user.pk) == 1000
        quoted = retry.would_retry(task.pk)
        with pytest.raises(price.DearerThanAllowed):
            retry.retry(task.pk, by="x", user_id=user.pk, most_credits=11)
        done = retry.retry(task.pk, by="x", user_id=user.pk, most_credits=12)
        assert quoted.debited == done.debited == reload(task).price_credits == 12
        amounts = list(CreditEntry.objects.filter(task=task).order_by("pk").values_list("run", "amount"))
        assert amounts == [(1, -30), (1, 30), (2, -12)]
        assert audit.find() == []

    def test_a_client_pays_no_more_than_it_allows(self, user: AbstractBaseUser) -> None:
        rule(credits=11)
        with pytest.raises(price.DearerThanAllowed, match="11 credits"):
            create.create(user.pk, order(), most_credits=10)
        made = create_many.create_many(
            user.pk,
            [create_many.Wanted(order(), ["gen4.5"], most_credits=most) for most in (10, 11, None)],
            whole=False,
        )
        assert [type(one).__name__ for one in made] == ["DearerThanAllowed", "VideoTask", "VideoTask"]
        assert ledger.balance(user.pk) == 1000 - 22


class TestThePage:
    @pytest.fixture
    def operator(self) -> Client:
        client = Client()
        client.force_login(get_user_model().objects.create_superuser("root", password="x"))
        return client

    def test_a_rule_is_made_changed_and_deleted_with_a_record_of_each(self, operator: Client) -> None:
        fields = {"model": "gen4.5", "seconds": 0, "resolution": "", "sound": "", "credits": 20}
        page = "/admin/video/pricerule/"
        assert (
            operator.post(f"{page}add/", {**fields, "credits_per_second": "0.5", "note": "Autumn"}).status_code == 302
        )
        assert price.credits_of(order(model_requested="gen4.5")) == 23
        made = PriceRule.objects.get()
        assert operator.post(f"{page}{made.pk}/change/", {**fields, "credits_per_second": 0}).status_code == 302
        assert price.credits_of(order(model_requested="gen4.5")) == 20
        shown = operator.get(page).content.decode()
        assert "20 for 5 s, 20 for 10 s" in shown
        assert operator.post(f"{page}{made.pk}/delete/", {"post": "yes"}).status_code == 302
        assert price.credits_of(order(model_requested="gen4.5")) == 10
        found = list(AuditRecord.objects.order_by("pk").values_list("action", "kind", "actor", "object_id"))
        assert found == [(action, "pricerule", "root", str(made.pk)) for action in ("add", "change", "delete")]

    def test_the_same_orders_twice_and_a_wrong_word_are_refused(self, operator: Client) -> None:
        rule(model="gen4.5", credits=5)
        fields = {"model": "gen4.5", "seconds": 0, "credits": 20, "credits_per_second": 0}
        again = operator.post("/admin/video/pricerule/add/", fields)
        assert again.status_code == 200
        assert "There is a rule for exactly these orders already." in again.content.decode()
        wrong = operator.post("/admin/video/pricerule/add/", {**fields, "model": "nope", "credits_per_second": -1})
        assert wrong.status_code == 200
        assert PriceRule.objects.count() == 1
