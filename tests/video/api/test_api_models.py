"""GET /api/models, POST /api/video/quote, and what create says of models, policies and fallbacks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from pytest_django import Settings

from providers import catalogue, ranking
from providers.catalogue import BY_ID
from tests.video.conftest import client_of
from video.credits import ledger
from video.models import CreditEntry, Generation, ModelSetting, TaskEvent, VideoTask
from video.routing import health, slots

MODELS, QUOTE, CREATE = "/api/models", "/api/video/quote", "/api/video/create"
MOST_FOR_MODELS = 8
MOST_FOR_QUOTE = 9


@pytest.fixture
def api(user: AbstractBaseUser) -> Client:
    """Of somebody who may see what providers charge."""
    get_user_model().objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    return client_of(user)


def post(client: Client, body: dict[str, Any], path: str = QUOTE) -> Any:
    return client.post(path, body, content_type="application/json")


def with_keys(settings: Settings, *providers: str) -> None:
    settings.PROVIDER_KEYS = {name: keys if name in providers else () for name, keys in settings.PROVIDER_KEYS.items()}


# --- models --------------------------------------------------------------------------------------------------------


def models(api: Client) -> dict[str, Any]:
    reply = api.get(MODELS)
    assert reply.status_code == 200
    return {model["id"]: model for model in reply.json()["data"]["models"]}


def test_the_catalogue_is_listed_with_what_each_model_can(api: Client) -> None:
    found = models(api)
    assert list(found) == [model.id for model in catalogue.MODELS]
    pika = found["pika-2.2"]
    assert "pika-1.0" in pika["aliases"]
    assert (pika["durations"], pika["resolutions"]) == ([5, 10], ["720p", "1080p"])
    assert pika["aspectRatios"] == {"text": list(BY_ID["pika-2.2"].text_ratios), "image": []}
    assert found["kling-3.0"]["imageLimits"] == {
        "types": ["image/jpeg", "image/png"],
        "leastPixels": 300,
        "widestRatio": 2.5,
    }
    assert pika["pricePerSecondUsd"] == {"720p": "0.04", "1080p": "0.09"}
    assert (pika["seed"], pika["negativePrompt"], pika["sound"]) == (True, True, "never")
    assert pika["availability"] == {
        "available": True,
        "reason": None,
        "reasonCode": None,
        "freeSlots": configured.SLOTS_PER_KEY,
        "circuit": "closed",
        "successRate": None,
        "samples": 0,
        "expectedSeconds": 90.0,
    }


def test_operators_figures_and_switches_show(api: Client) -> None:
    ModelSetting.objects.create(model="pika-2.2", price_usd_per_s=Decimal("0.055"), quality=5, speed=1)
    ModelSetting.objects.create(model="gen4.5", enabled=False)
    found = models(api)
    assert found["pika-2.2"]["pricePerSecondUsd"] == {"720p": "0.055", "1080p": "0.055"}
    assert (found["pika-2.2"]["quality"], found["pika-2.2"]["speed"]) == (5, 1)
    off = found["gen4.5"]["availability"]
    assert (off["available"], off["reason"]) == (False, "switched off by the operator")


def test_circuits_and_missing_keys_show(api: Client, settings: Settings) -> None:
    with_keys(settings, "runway")
    for _ in range(5):
        health.note_fault("gen4.5", "runway", "secret detail")
    reply = api.get(MODELS)
    assert b"secret detail" not in reply.content
    found = models(api)
    assert found["gen4.5"]["availability"]["circuit"] == "open"
    assert not found["gen4.5"]["availability"]["available"]
    assert found["kling-2.6"]["availability"]["reason"] == "no key configured for Kling"
    assert found["kling-2.6"]["availability"]["freeSlots"] == 0
    with_keys(settings)
    assert not any(model["availability"]["available"] for model in models(api).values())


def test_a_circuit_shows_as_it_stands_for_who_asks(api: Client, user: AbstractBaseUser, order: dict[str, Any]) -> None:
    for _ in range(5):
        health.note_fault("gen4.5", "runway", "no answer", user.pk)
        health.note_fault("gen4_turbo", "runway", "no answer", user.pk + 1)
    found = models(api)
    assert found["gen4.5"]["availability"]["circuit"] == "open"
    assert found["gen4_turbo"]["availability"]["circuit"] == "closed"
    assert post(api, {**order, "model": "gen4.5"}).json()["data"]["model"] != "gen4.5"


def test_no_key_or_fingerprint_shows(api: Client) -> None:
    content = api.get(MODELS).content.decode()
    for keys in configured.PROVIDER_KEYS.values():
        for key in keys:
            assert key.value not in content
            assert key.fingerprint not in content


def test_models_and_quote_need_a_login_and_their_method(client: Client, api: Client, order: dict[str, Any]) -> None:
    assert client.get(MODELS).status_code == 401
    assert post(client, order).status_code == 401
    assert post(api, {}, MODELS).status_code == 405
    assert api.get(QUOTE).status_code == 405


def test_both_cost_few_statements(api: Client, order: dict[str, Any], django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(MOST_FOR_MODELS):
        api.get(MODELS)
    with django_assert_max_num_queries(MOST_FOR_QUOTE):
        post(api, order)


# --- quote ---------------------------------------------------------------------------------------------------------


def test_a_quote_says_model_price_and_time_and_makes_nothing(
    api: Client, user: AbstractBaseUser, order: dict[str, Any]
) -> None:
    reply = post(api, order)
    assert reply.status_code == 200
    data = reply.json()["data"]
    candidates = data.pop("candidates")
    assert data == {
        "model": "kling-2.5-turbo",
        "provider": "kling",
        "policy": "balanced",
        "resolution": "720p",
        "sound": False,
        "priceUsd": "0.21",
        "credits": 10,
        "expectedSeconds": data["expectedSeconds"],
        "startsNow": True,
        "waitsFor": None,
        "waitsForCode": None,
        "simulated": True,
    }
    assert type(data["expectedSeconds"]) is int
    assert len(candidates) == len(BY_ID)
    assert candidates[0]["model"] == "kling-2.5-turbo"
    assert all(one["reason"] for one in candidates)
    assert ledger.balance(user.pk) == 1000
    for table in (VideoTask, TaskEvent, Generation):
        assert not table.objects.exists()
    assert not CreditEntry.objects.exclude(kind=CreditEntry.Kind.GRANT).exists()


@pytest.mark.parametrize(
    ("changes", "model", "price"),
    [
        ({"policy": "cost"}, "pika-2.2", "0.20"),
        ({"policy": "quality"}, "kling-3.0", "0.42"),
        ({"policy": "speed"}, "pika-turbo", "0.20"),
        ({"model": "runway-gen3", "policy": "cost"}, "gen4.5", "0.60"),
        ({"model": "runway-gen3", "duration": 10}, "gen4.5", "1.20"),
        ({"resolution": "1080p", "policy": "cost"}, "pika-turbo", "0.20"),
    ],
)
def test_a_quote_follows_the_order(
    api: Client, order: dict[str, Any], changes: dict[str, Any], model: str, price: str
) -> None:
    data = post(api, {**order, **changes}).json()["data"]
    assert (data["model"], data["priceUsd"]) == (model, price)


@pytest.mark.parametrize("trouble", ["none", "switched off", "circuit"])
@pytest.mark.parametrize("changes", [{}, {"model": "kling"}, {"resolution": "1080p"}, {"policy": "speed"}])
def test_a_quote_and_create_agree(api: Client, order: dict[str, Any], changes: dict[str, Any], trouble: str) -> None:
    from tests.factories import admitted

    if trouble == "switched off":
        ModelSetting.objects.create(model="kling-2.5-turbo", enabled=False)
    for _ in range(5 if trouble == "circuit" else 0):
        health.note_fault("kling-2.5-turbo", "kling", "no answer")
    quoted = post(api, {**order, **changes}).json()["data"]
    assert (quoted["model"] == "kling-2.5-turbo") <= (trouble == "none")
    post(api, {**order, **changes}, CREATE)
    generation = admitted(VideoTask.objects.get())
    assert generation.model == quoted["model"]
    assert generation.expected_usd == Decimal(quoted["priceUsd"])


def test_a_quote_for_a_full_model_says_that_it_waits(
    api: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "free", lambda found: dict.fromkeys(BY_ID, 0))
    data = post(api, order).json()["data"]
    assert (data["startsNow"], data["waitsFor"], data["model"]) == (False, ranking.FULL.text, "kling-2.5-turbo")


def test_a_quote_for_what_is_switched_off_is_refused(api: Client, order: dict[str, Any]) -> None:
    ModelSetting.objects.create(model="gen4.5", enabled=False)
    error = post(api, {**order, "model": "gen4.5", "fallback": False}).json()["error"]
    assert error["code"] == "model_unavailable"
    assert "switched off by the operator" in error["message"]
    assert post(api, {**order, "model": "gen4.5"}).json()["data"]["model"] == "kling-2.5-turbo"


# --- the same rules for create and quote ---------------------------------------------------------------------------


@pytest.fixture(params=[CREATE, QUOTE])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"model": "runway-gen33"}, "model", "runway-gen3"),
        ({"model": "pika", "duration": 7}, "duration", "5 or 10"),
        ({"model": "pika", "duration": 7, "fallback": True}, "duration", "5 or 10"),
        ({"model": "kling", "seed": 1}, "seed", "takes none"),
        ({"duration": 16}, "duration", "3 to 15"),
        ({"duration": 0}, "duration", "at least 1"),
        ({"policy": "best"}, "policy", "balanced, cost, quality, speed"),
        ({"policy": 1}, "policy", "balanced"),
        ({"fallback": "yes"}, "fallback", "true or false"),
        ({"fallback": 0}, "fallback", "true or false"),
        ({"webhookUrl": "https://10.0.0.1"}, "webhookUrl", "not a public address"),
    ],
)
def test_what_is_wrong_is_named(
    api: Client, order: dict[str, Any], path: str, changes: dict[str, Any], field: str, said: str
) -> None:
    reply = post(api, {**order, **changes}, path)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "invalid_request"
    assert [one["field"] for one in error["details"]] == [field]
    assert said in error["details"][0]["message"]
    assert not VideoTask.objects.exists()


def test_what_does_not_go_together_is_told_for_each_model(api: Client, order: dict[str, Any], path: str) -> None:
    reply = post(api, {**order, "duration": 12, "negativePrompt": "blur"}, path)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "no_capable_model"
    assert "duration and negativePrompt" in error["message"]
    details = {one["model"]: one for one in error["details"]}
    assert set(details) == set(BY_ID)
    assert details["pika-2.2"]["field"] == "duration"
    assert details["kling-3.0"] == {
        "model": "kling-3.0",
        "field": "negativePrompt",
        "message": "Kling 3.0 takes none",
    }


def test_a_named_model_without_a_key_needs_a_fallback_in_so_many_words(
    api: Client, order: dict[str, Any], path: str, settings: Settings
) -> None:
    with_keys(settings, "runway")
    for changes in ({}, {"fallback": False}, {"fallback": None}):
        reply = post(api, {**order, "model": "kling", **changes}, path)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error["code"] == "model_unavailable"
        assert "no key configured for Kling" in error["message"]
        assert "gen4.5" in error["message"]
    reply = post(api, {**order, "model": "kling", "fallback": True}, path)
    assert reply.status_code in (200, 201)
    if path == CREATE:
        assert VideoTask.objects.get().eligible_models == ["gen4.5"]
    else:
        assert reply.json()["data"]["model"] == "gen4.5"


def test_without_any_key_nothing_is_available(
    api: Client, order: dict[str, Any], path: str, settings: Settings
) -> None:
    with_keys(settings)
    error = post(api, order, path).json()["error"]
    assert error["code"] == "model_unavailable"
    assert "no provider has a key" in error["message"]


def test_policy_and_fallback_are_kept(api: Client, order: dict[str, Any]) -> None:
    post(api, {**order, "policy": "cost", "fallback": False}, CREATE)
    post(api, order, CREATE)
    kept = list(VideoTask.objects.order_by("created_at").values_list("policy", "fallback", "eligible_models"))
    assert kept[0][:2] == ("cost", False)
    assert kept[0][2][0] == "pika-2.2"
    assert kept[1][:2] == ("balanced", True)
