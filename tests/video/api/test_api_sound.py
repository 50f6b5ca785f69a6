"""`sound` of an order: a silent one never pays for sound, one with sound never gets a silent model."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from providers import catalogue
from providers.catalogue import BY_ID
from providers.models import Sound
from tests.factories import admitted, make_task
from tests.video.conftest import client_of
from video.attempts import provider_calls
from video.infra.toolkit import toolkit
from video.models import ModelSetting, VideoTask
from video.models.order import Order
from video.routing import model_choice
from video.scheduling import admission

WITH_SOUND = {model.id for model in catalogue.MODELS if model.sound is not Sound.NEVER}
ALWAYS = {model.id for model in catalogue.MODELS if model.sound is Sound.ALWAYS}


@pytest.fixture
def api(user: AbstractBaseUser) -> Client:
    """Of somebody who may see what providers charge."""
    get_user_model().objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    return client_of(user)


def post(api: Client, path: str, **more: Any) -> Any:
    order = {"prompt": "A cat", "duration": 4, **more}
    return api.post(f"/api/video/{path}", order, content_type="application/json")


def test_quote_and_create_take_it_and_the_quote_prices_it(api: Client) -> None:
    silent, loud = (post(api, "quote", model="veo3.1", sound=sound).json()["data"] for sound in (False, True))
    assert (silent["sound"], silent["priceUsd"]) == (False, "0.80")
    assert (loud["sound"], loud["priceUsd"]) == (True, "1.60")
    assert post(api, "quote", model="veo3.1").json()["data"]["priceUsd"] == "0.80"  # not said: silent, as before
    task_id = post(api, "create", model="veo3.1", sound=True).json()["data"]["taskId"]
    assert VideoTask.objects.get(pk=task_id).sound is True
    assert api.get(f"/api/queues/tasks/{task_id}").json()["data"]["request"]["sound"] is True
    assert admitted(VideoTask.objects.get()).expected_usd == Decimal("1.60")


@pytest.mark.parametrize("value", ["true", 1, "off", []])
def test_anything_but_true_or_false_is_refused(api: Client, value: Any) -> None:
    reply = post(api, "create", sound=value)
    assert reply.status_code == 400
    assert reply.json()["error"]["details"] == [
        {"field": "sound", "message": "must be true or false, without quotes"},
    ]


def test_a_model_that_can_t_is_refused_by_the_field(api: Client) -> None:
    for model, sound in (("gen4.5", True), ("kling-3.0-turbo", False)):
        error = post(api, "create", model=model, sound=sound).json()["error"]
        assert [one["field"] for one in error["details"]] == ["sound"]


def test_the_models_say_what_sound_costs(api: Client) -> None:
    listed = {one["id"]: one for one in api.get("/api/models").json()["data"]["models"]}
    assert listed["veo3.1"]["pricePerSecondWithSoundUsd"] == {"720p": "0.40", "1080p": "0.40"}
    assert listed["kling-2.6"]["pricePerSecondWithSoundUsd"] == {"1080p": "0.14"}
    assert listed["gen4.5"]["pricePerSecondWithSoundUsd"] == {}


@pytest.mark.parametrize("resolution", ["720p", "1080p"])
def test_no_choice_and_no_fallback_is_of_the_other_kind(resolution: str) -> None:
    order = Order(prompt="A cat", duration_s=5, aspect_ratio="16:9", resolution=resolution, sound=True)
    found = model_choice.eligible_models(order)
    assert found
    assert set(found + model_choice.fallbacks(order, found[:1])) <= WITH_SOUND
    silent = Order(prompt="A cat", duration_s=5, aspect_ratio="16:9", resolution=resolution, sound=False)
    found = model_choice.eligible_models(silent)
    assert found
    assert ALWAYS.isdisjoint(found + model_choice.fallbacks(silent, found[:1]))


@pytest.mark.django_db
def test_a_task_with_sound_waits_rather_than_go_to_a_silent_model() -> None:
    for model in WITH_SOUND - {"kling-3.0"}:
        ModelSetting.objects.create(model=model, enabled=False)
    task = make_task(model_requested="kling-3.0", fallback=True, sound=True)
    ModelSetting.objects.create(model="kling-3.0", enabled=False)
    assert admission.admit() == []
    assert set(VideoTask.objects.get(pk=task.pk).eligible_models) <= WITH_SOUND


@pytest.mark.django_db
@pytest.mark.parametrize(("sound", "asked"), [(True, True), (False, False), (None, False)])
def test_the_provider_is_told(sound: bool | None, asked: bool) -> None:
    task = make_task(model_requested="veo3.1", duration_s=4, sound=sound)
    request = provider_calls.request_of(task, admitted(task), None)
    sent = toolkit().provider("runway").build_submit(request, key="key", reference="r")
    assert sent.json["audio"] is asked


def test_seeds_are_taken_by_veo() -> None:
    assert all(BY_ID[model].seed for model in ("veo3.1", "veo3.1_fast"))
