"""`Order` is the one list of a request's fields: a field that is added there and forgotten elsewhere fails here."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, replace
from typing import Any

import pytest
from django.core.management.base import CommandParser

from providers.catalogue import BY_ID
from providers.contract import GenerationRequest
from tests.factories import make_user
from video.actions import create
from video.actions.order_input import CreateSerializer
from video.admin import timeline
from video.api import task_details
from video.management.commands import generate
from video.models import VideoTask
from video.models.order import ABOUT, Order, as_json
from video.routing import model_choice

FIELDS = fields(Order)
#: Every field has another value than its default, so that one which is not passed on shows.
FULL = Order(
    prompt="A cat",
    duration_s=10,
    aspect_ratio="9:16",
    image_url="https://images.example/cat.png",
    model_requested="pika-2.2",
    policy="quality",
    fallback=False,
    quality="high",
    resolution="1080p",
    fps=60,
    negative_prompt="rain",
    seed=7,
    expires_in_s=3600,
    sound=False,
    webhook_url="https://hooks.example/x",
    cover="auto",
    extras=["sprites"],
)
#: What a provider is asked for, but no client can choose.
NOT_ORDERED = {"image", "model", "callback_url"}

each_field = pytest.mark.parametrize("asked", FIELDS, ids=lambda one: one.name)


@pytest.fixture
def task() -> VideoTask:
    made, _ = create.create(make_user().pk, FULL)
    return VideoTask.objects.get(pk=made.pk)


@each_field
def test_the_full_order_has_a_value_of_its_own(asked: Field[Any]) -> None:
    assert asked.default is MISSING or getattr(FULL, asked.name) != asked.default


@each_field
def test_a_field_is_a_column(asked: Field[Any]) -> None:
    assert VideoTask._meta.get_field(asked.name).concrete


@each_field
def test_a_field_is_taken_from_clients(asked: Field[Any]) -> None:
    assert CreateSerializer().fields[ABOUT[asked.name].api].source == asked.name


@each_field
def test_a_field_is_an_argument_of_generate(asked: Field[Any]) -> None:
    parser = CommandParser()
    generate.Command().add_arguments(parser)
    (option,) = [name for name, api in generate.FIELDS.items() if api == ABOUT[asked.name].api]
    (action,) = [one for one in parser._actions if one.dest == option]
    assert action.help == ABOUT[asked.name].help


@pytest.mark.parametrize("name", [one.name for one in fields(GenerationRequest) if one.name not in NOT_ORDERED])
def test_what_a_provider_is_asked_for_comes_from_the_order(name: str) -> None:
    request = model_choice.request_for(FULL, BY_ID["pika-2.2"])
    assert getattr(request, name) == getattr(FULL, name)


def test_two_api_names_are_never_the_same() -> None:
    assert len({about.api for about in ABOUT.values()}) == len(FIELDS)


@pytest.mark.django_db
class TestATask:
    def test_its_row_holds_every_field(self, task: VideoTask) -> None:
        assert Order.of(task) == FULL

    def test_its_details_show_every_field(self, task: VideoTask) -> None:
        request = task_details.details(task, staff=False)["request"]
        assert list(request) == [about.api for about in ABOUT.values()]
        assert request == as_json(FULL)
        assert list(request.values()) == [getattr(FULL, asked.name) for asked in FIELDS]

    def test_its_admin_page_shows_every_field(self, task: VideoTask) -> None:
        shown = timeline._asked(task)
        labels = [label for label, _ in shown]
        assert labels == [
            "Length",
            "Ratio",
            "Start image",
            "Model",
            "Not wanted",
            "Seed",
            "Deleted after",
            "Sound",
            "Webhook",
            "Cover",
            "Made beside it",
            "Quality",
        ]
        text = " ".join(value for _, value in shown)
        elsewhere = {"prompt", "policy", "fallback", "expires_in_s", "sound", "webhook_url", "extras"}
        assert dict(shown)["Sound"] == "without"
        assert dict(shown)["Made beside it"] == "sprites"
        assert dict(shown)["Deleted after"].endswith(" from the success on")
        assert all(str(getattr(FULL, asked.name)) in text for asked in FIELDS if asked.name not in elsewhere)


def test_a_field_that_came_later_leaves_the_fingerprints_of_earlier_orders_as_they_were() -> None:
    """An Idempotency-Key of before the upgrade still stands for its order."""
    order = Order(prompt="A cat", duration_s=5, aspect_ratio="16:9")
    assert order.fingerprint() == "69e1bd6962488f15d42d04269d4c2af09beb731934077c908df9c0eddeba27b5"
    assert replace(order, expires_in_s=60).fingerprint() != order.fingerprint()
    assert len({replace(order, sound=sound).fingerprint() for sound in (None, True, False)}) == 3
