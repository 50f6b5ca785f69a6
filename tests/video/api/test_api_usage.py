"""GET /api/usage, and what of the providers' prices a user is shown: nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from tests.factories import accepted, make_task, make_user, reload
from tests.video.conftest import client_of
from video.attempts import records
from video.credits import price
from video.models import Generation, PriceRule, VideoTask

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    return client_of(get_user_model().objects.create_superuser("root", password=None))


def delivered(user: AbstractBaseUser, cost: str = "60") -> VideoTask:
    """A success, without the stages between."""
    task = make_task(user)
    generation = accepted(task, f"job-{task.pk}")
    records.record_ended(generation.pk, Generation.State.SUCCEEDED, cost=Decimal(cost))
    VideoTask.objects.filter(pk=task.pk).update(
        status="success", stage="done", progress=100, video_id=task.pk, next_run_at=None, finished_at=task.created_at
    )
    return reload(task)


def data(client: Client, query: str = "") -> dict[str, Any]:
    reply = client.get(f"/api/usage{query}")
    assert reply.status_code == 200, reply.content
    found: dict[str, Any] = reply.json()["data"]
    return found


class TestUsage:
    def test_users_see_their_own_credits_and_videos_and_no_charge(self, user: AbstractBaseUser, api: Client) -> None:
        delivered(user)
        make_task(user)
        delivered(make_user())
        found = data(api, "?by=model,outcome")
        own = {"videos": 1, "runs": 1, "debited": 10, "refunded": 0, "free": 0, "paid": 10, "granted": 0, "adjusted": 0}
        assert found["scope"] == "own"
        rows = {(row["model"], row["outcome"]): row for row in found["rows"]}
        assert rows["gen4.5", "delivered"] == {"model": "gen4.5", "outcome": "delivered", **own}
        assert rows["gen4.5", "under_way"]["debited"] == 10
        assert found["total"] == {**own, "runs": 2, "debited": 20, "paid": 20, "granted": 1000}
        assert "usd" not in json.dumps(found).lower()

    @pytest.mark.parametrize("query", ["provider=runway", "key=one", "user=root", "simulated=yes"])
    def test_users_may_not_ask_for_what_is_for_staff(self, api: Client, query: str) -> None:
        reply = api.get(f"/api/usage?{query}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")

    def test_staff_see_all_with_what_providers_charge(
        self, user: AbstractBaseUser, staff: Client, settings: Any
    ) -> None:
        settings.CREDIT_USD = Decimal("0.10")
        delivered(user)
        delivered(make_user(), "40")
        found = data(staff, "?by=user,provider")
        row = next(one for one in found["rows"] if one["user"] == user.get_username() and one["provider"])
        assert (row["provider"], row["chargeUsd"], row["reportedUsd"], row["debited"]) == ("runway", "0.60", "0.60", 10)
        assert row["reported"] == [{"provider": "runway", "unit": "credits", "amount": "60"}]
        assert (found["total"]["chargeUsd"], found["total"]["marginUsd"]) == ("1.00", "1.00")
        assert {rate["provider"]: rate["usd"] for rate in found["rates"]}["kling"] == "0.14"
        assert data(staff, f"?by=user&user={user.get_username()}")["total"]["debited"] == 10

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("since=yesterday", "since"),
            ("since=0d", "since"),
            ("until=2026-13-01", "until"),
            ("since=2026-11-02&until=2026-11-01", "since"),
            ("by=colour", "by"),
            ("by=day,day", "by"),
            ("outcome=good", "outcome"),
            ("nothing=1", "nothing"),
        ],
    )
    def test_what_is_wrong_is_named(self, api: Client, query: str, field: str) -> None:
        reply = api.get(f"/api/usage?{query}")
        assert reply.status_code == 400
        assert reply.json()["error"]["details"][0]["field"] == field


class TestPurchasePrices:
    def test_users_see_none_anywhere(self, user: AbstractBaseUser, api: Client, order: dict[str, Any]) -> None:
        task = delivered(user)
        Generation.objects.filter(task=task).update(
            candidates=[{"model": "gen4.5", "provider": "runway", "usable": True, "score": 1, "price_usd": "0.60",
                         "expected_s": 9, "reason": "1 of 8 by cost: $0.60, quality 4 of 5"}]
        )  # fmt: skip
        for reply in (
            api.get("/api/models"),
            api.post("/api/video/quote", order, content_type="application/json"),
            api.get(f"/api/queues/tasks/{task.pk}"),
        ):
            assert reply.status_code == 200
            assert "usd" not in reply.content.decode().lower()
            assert "$" not in reply.content.decode()
            assert '"cost"' not in reply.content.decode().replace('"policies"', "").replace('"cost", ', "").replace(
                '"cost",', ""
            )

    def test_staff_see_them(self, user: AbstractBaseUser, staff: Client, order: dict[str, Any]) -> None:
        task = delivered(user)
        assert staff.get("/api/models").json()["data"]["models"][0]["pricePerSecondUsd"]
        quote = staff.post("/api/video/quote", order, content_type="application/json").json()["data"]
        assert Decimal(quote["priceUsd"]) > 0
        assert all("priceUsd" in one for one in quote["candidates"])
        generation = staff.get(f"/api/queues/tasks/{task.pk}").json()["data"]["generations"][0]
        assert generation["cost"]["reported"] == "60"


class TestThePriceList:
    def test_a_quote_and_the_list_say_what_create_takes(self, api: Client, order: dict[str, Any]) -> None:
        PriceRule.objects.create(model=PriceRule.NO_MODEL, credits_per_second="2.5", resolution="")
        price.forget()
        listed = api.get("/api/models").json()["data"]["credits"]
        rule = {"model": "none", "seconds": None, "resolution": None, "sound": None}
        assert listed == {"default": 10, "rules": [{**rule, "credits": 0, "creditsPerSecond": "2.5"}]}
        quote = api.post("/api/video/quote", order, content_type="application/json").json()["data"]
        assert quote["credits"] == 13
        refused = api.post("/api/video/create", {**order, "maxCredits": 12}, content_type="application/json")
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_too_high")
        assert refused.json()["error"]["details"] == {"credits": 13, "maxCredits": 12}
        made = api.post("/api/video/create", {**order, "maxCredits": 13}, content_type="application/json")
        assert made.status_code == 201
        assert VideoTask.objects.get().price_credits == 13
        batch = {"mode": "each", "orders": [{**order, "maxCredits": 1}, order]}
        told = api.post("/api/video/batch", batch, content_type="application/json").json()["data"]
        assert (told["created"], told["tasks"][0]["refusal"]["code"]) == (1, "price_too_high")
        assert api.get("/api/credits").json()["data"]["balance"] == 1000 - 26
