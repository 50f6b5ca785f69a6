from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from providers import catalogue, ranking
from providers.catalogue import BY_ID, UnknownModel
from providers.contract import Reason, ReasonCode
from tests.factories import make_task
from video.infra import toolkit
from video.models import ModelSetting, ProviderAccount
from video.models.order import Order
from video.routing import availability, health, model_choice, slots
from video.routing.availability import ModelState

IMAGE = "https://images.example.com/cat.jpg"


def order(**changes: Any) -> Order:
    return Order(**{"prompt": "A cat", "duration_s": 5, "aspect_ratio": "16:9", **changes})


def free(*without: str) -> dict[str, str | None]:
    return {model: None for model in BY_ID if model not in without}


def with_keys(settings: Settings, *providers: str) -> None:
    """Only these providers have a key."""
    settings.PROVIDER_KEYS = {name: keys if name in providers else () for name, keys in settings.PROVIDER_KEYS.items()}


# --- what is asked of a model --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "model", "rendered"),
    [
        ("source", "kling-2.6", "720p"),
        ("480p", "kling-2.6", "720p"),
        ("720p", "kling-2.6", "720p"),
        ("1080p", "kling-2.6", "1080p"),
        ("1080p", "gen4.5", "720p"),
        ("source", "gen4.5", "720p"),
    ],
)
def test_render_resolution_is_as_small_as_will_do(wanted: str, model: str, rendered: str) -> None:
    assert model_choice.render_resolution(wanted, BY_ID[model]) == rendered
    assert model_choice.request_for(order(resolution=wanted), BY_ID[model]).resolution == rendered


def test_every_model_renders_what_may_be_asked_of_it() -> None:
    for wanted in ("480p", "720p", "1080p", "source"):
        for model in catalogue.MODELS:
            assert model_choice.render_resolution(wanted, model) in model.resolutions


def test_the_request_has_all_that_was_wanted() -> None:
    asked = model_choice.request_for(
        order(image_url=IMAGE, negative_prompt="blur", seed=0, duration_s=10), BY_ID["pika-2.2"]
    )
    assert (asked.model, asked.prompt, asked.duration_s, asked.aspect_ratio) == ("pika-2.2", "A cat", 10, "16:9")
    assert (asked.image_url, asked.negative_prompt, asked.seed) == (IMAGE, "blur", 0)
    plain = model_choice.request_for(order(), BY_ID["pika-2.2"])
    assert (plain.image_url, plain.negative_prompt, plain.seed) == (None, None, None)


# --- who may run it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "image", "model"),
    [
        ("runway-gen3", "", "gen4.5"),
        ("runway-gen3", IMAGE, "gen4_turbo"),
        ("pika-1.0", "", "pika-2.2"),
        ("KLING", "", "kling-2.5-turbo"),
        ("gen4.5", IMAGE, "gen4.5"),
    ],
)
def test_a_named_model_is_the_only_one(named: str, image: str, model: str) -> None:
    assert model_choice.eligible_models(order(model_requested=named, image_url=image)) == [model]


def test_an_unnamed_order_goes_to_all_that_can_the_best_first() -> None:
    assert model_choice.eligible_models(order(duration_s=10, policy="cost")) == [
        "pika-2.2",
        "kling-2.5-turbo",
        "kling-2.6",
        "kling-3.0",
        "kling-3.0-turbo",
        "gen4.5",
    ]
    assert model_choice.eligible_models(order(duration_s=10, policy="quality"))[0] == "kling-3.0"


def test_only_models_whose_provider_has_key_and_adapter(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keys(settings, "runway", "pika")
    assert {BY_ID[model].provider for model in model_choice.eligible_models(order())} == {"runway", "pika"}
    monkeypatch.setattr(toolkit, "ADAPTERS", tuple(one for one in toolkit.ADAPTERS if one.name != "pika"))
    assert model_choice.eligible_models(order()) == ["gen4.5"]


def test_who_wants_1080p_gets_a_model_that_renders_it_as_long_as_one_can(settings: Settings) -> None:
    large = model_choice.eligible_models(order(resolution="1080p"))
    assert large
    assert all("1080p" in BY_ID[model].resolutions for model in large)
    with_keys(settings, "runway")
    assert model_choice.eligible_models(order(resolution="1080p")) == ["gen4.5"]
    assert model_choice.eligible_models(order(resolution="1080p", model_requested="gen4.5")) == ["gen4.5"]


def test_an_unknown_name_has_suggestions() -> None:
    with pytest.raises(UnknownModel) as caught:
        model_choice.eligible_models(order(model_requested="runway-gen-33"))
    assert "runway-gen3" in caught.value.suggestions


@pytest.mark.parametrize("fallback", [True, False])
def test_a_named_model_that_cannot_is_refused_whatever_the_fallback(fallback: bool) -> None:
    with pytest.raises(model_choice.NoCapableModel) as caught:
        model_choice.eligible_models(order(model_requested="pika", duration_s=7, fallback=fallback))
    assert not isinstance(caught.value, model_choice.ModelUnavailable)
    assert {model: str(why) for model, why in caught.value.reasons.items()} == {
        "pika-2.2": "duration: Pika 2.2 makes 5 or 10 seconds, not 7"
    }


def test_a_named_model_without_a_key_gives_way_only_to_a_fallback(settings: Settings) -> None:
    with_keys(settings, "runway")
    assert model_choice.eligible_models(order(model_requested="kling", fallback=True)) == ["gen4.5"]
    for wanted in (
        order(model_requested="kling", fallback=False),
        order(model_requested="kling-3.0", duration_s=15, fallback=True),  # nobody else makes 15 s
    ):
        with pytest.raises(model_choice.ModelUnavailable) as caught:
            model_choice.eligible_models(wanted)
        assert list(map(str, caught.value.reasons.values())) == ["no key configured for Kling"]


def test_when_nobody_can_each_model_says_why(settings: Settings) -> None:
    with_keys(settings, "runway", "pika")
    with pytest.raises(model_choice.NoCapableModel) as caught:
        model_choice.eligible_models(order(duration_s=15))
    assert not isinstance(caught.value, model_choice.ModelUnavailable)
    assert set(caught.value.reasons) == set(BY_ID)
    assert caught.value.reasons["gen4.5"].field == "duration"
    assert str(caught.value.reasons["kling-3.0"]) == "no key configured for Kling"


def test_without_any_key_every_model_is_unavailable(settings: Settings) -> None:
    with_keys(settings)
    with pytest.raises(model_choice.ModelUnavailable):
        model_choice.eligible_models(order())


def test_deciding_who_may_run_it_asks_no_database() -> None:
    # Without the `db` fixture any statement would raise.
    assert model_choice.eligible_models(order())


# --- who comes next ------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_fallbacks_are_the_others_that_can_the_best_first() -> None:
    task = make_task(model_requested="gen4.5", fallback=True, duration_s=10, policy="cost")
    assert model_choice.fallbacks(task, {"gen4.5", "kling-2.6"}) == [
        "pika-2.2",
        "kling-2.5-turbo",
        "kling-3.0",
        "kling-3.0-turbo",
    ]
    assert model_choice.fallbacks(task, set(BY_ID)) == []


@pytest.mark.django_db
def test_who_wants_no_other_model_gets_none() -> None:
    assert model_choice.fallbacks(make_task(model_requested="gen4.5", fallback=False), {"gen4.5"}) == []


@pytest.mark.django_db
def test_smaller_renders_are_a_fallback_once_no_larger_one_is_left(settings: Settings) -> None:
    with_keys(settings, "runway", "pika")
    task = make_task(model_requested="pika", fallback=True, resolution="1080p")
    assert model_choice.fallbacks(task, {"pika-2.2"}) == ["pika-turbo", "pika-2.1"]
    assert model_choice.fallbacks(task, {"pika-2.2", "pika-2.1", "pika-turbo"}) == ["gen4.5"]


# --- who gets it now -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestCandidates:
    def test_a_named_model_is_the_only_usable_one(self) -> None:
        ranked = model_choice.candidates(make_task(model_requested="gen4.5"), free())
        assert [one.model for one in ranked if one.usable] == ["gen4.5"]
        assert len(ranked) == len(BY_ID)
        assert {one.reason for one in ranked if one.model == "kling-2.6"} == {"another model was named"}

    def test_whatever_else_is_true_of_the_others_another_was_named(self) -> None:
        ModelSetting.objects.create(model="kling-2.5-turbo", enabled=False)
        health.note_fault("kling-2.6", "kling", "no answer")
        task = make_task(model_requested="gen4.5", duration_s=10)
        ranked = model_choice.candidates(task, free("gen4.5", "kling-3.0"))
        assert {(one.reason, one.code) for one in ranked if one.model != "gen4.5"} == {
            ("another model was named", "left_out")
        }

    def test_a_named_model_goes_first_even_when_others_may_run_it(self) -> None:
        task = make_task(model_requested="gen4.5", fallback=True)
        task.eligible_models = [*task.eligible_models, "kling-2.5-turbo"]
        assert [one.model for one in model_choice.candidates(task, free()) if one.usable] == [
            "gen4.5",
            "kling-2.5-turbo",
        ]
        later = model_choice.candidates(task, {**free(), "gen4.5": Reason(ReasonCode.CLOSED, "account full")})
        assert [one.model for one in later if one.usable] == ["kling-2.5-turbo"]

    def test_health_switches_and_slots_count(self) -> None:
        ModelSetting.objects.create(model="kling-2.5-turbo", enabled=False)
        for _ in range(5):
            health.note_fault("kling-2.6", "kling", "no answer")
        ranked = model_choice.candidates(
            make_task(model_requested=""), {**free("gen4.5"), "pika-2.2": Reason(ReasonCode.CLOSED, "account full")}
        )
        assert ranked[0].model == "pika-turbo"
        reasons = {one.model: one.reason for one in ranked if not one.usable}
        assert reasons["kling-2.5-turbo"] == "switched off by the operator"
        assert reasons["kling-2.6"] == "circuit open after 5 faults"
        assert reasons["pika-2.2"] == "account full"
        assert reasons["gen4.5"] == "no key configured for Runway"

    def test_a_tried_model_says_so(self) -> None:
        task = make_task(model_requested="")
        task.eligible_models = ["gen4.5"]
        reasons = {one.model: one.reason for one in model_choice.candidates(task, free(), tried={"kling-2.6"})}
        assert reasons["kling-2.6"] == "tried before, and could not"
        assert reasons["kling-3.0"] == "no longer among this task's models"

    def test_prices_are_of_what_would_be_rendered(self) -> None:
        by_model = {one.model: one for one in model_choice.candidates(order(resolution="1080p"), free())}
        assert (by_model["kling-2.6"].resolution, str(by_model["kling-2.6"].price_usd)) == ("1080p", "0.35")
        assert (by_model["gen4.5"].resolution, str(by_model["gen4.5"].price_usd)) == ("720p", "0.60")
        assert by_model["gen4.5"].reason == "renders 720p at most, and others 1080p"

    def test_with_health_and_overrides_given_it_asks_nothing(self, django_assert_num_queries: Any) -> None:
        task = make_task()
        with django_assert_num_queries(0):
            model_choice.candidates(task, free(), health={}, overrides={})
        with django_assert_num_queries(1):
            model_choice.candidates(task, free())


# --- how things stand ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestAvailability:
    def account(self, model: str, **more: Any) -> None:
        provider = BY_ID[model].provider
        from django.conf import settings

        ProviderAccount.objects.update_or_create(
            provider=provider,
            account=settings.PROVIDER_KEYS[provider][0].fingerprint,
            model=model,
            defaults={"slots": 3, **more},
        )

    def test_before_the_first_admission_everything_with_a_key_is_free(self, settings: Settings) -> None:
        with_keys(settings, "runway")
        found = availability.read().of_all()
        here = {model.id for model in catalogue.MODELS if model.provider == "runway"}
        assert here == {model for model, one in found.items() if one.reason is None and one.free_slots > 0}

    def test_taken_slots_and_closed_accounts_are_told(self) -> None:
        from tests.factories import admitted

        generation = admitted(make_task(model_requested="gen4.5"))
        self.account("gen4.5", slots=1)
        self.account("pika-2.2", closed_reason="out_of_credits")
        found = availability.read().of_all()
        assert generation.model == "gen4.5"
        assert found["gen4.5"] == ModelState(ranking.FULL, 0, 1)
        assert found["pika-2.2"].reason is not None
        assert found["pika-2.2"].free_slots == 0
        self.account("gen4.5", slots=3)
        assert availability.read().of_all()["gen4.5"] == ModelState(None, 2, 3)


@pytest.mark.django_db
class TestQuote:
    def test_what_would_be_picked(self) -> None:
        quote = model_choice.quote(order())
        assert (quote.picked.model, quote.waits_for) == ("kling-2.5-turbo", None)

    def test_a_full_model_is_waited_for_when_no_other_may_run_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slots, "free", lambda found: dict.fromkeys(BY_ID, 0))
        quote = model_choice.quote(order(model_requested="gen4.5"))
        assert (quote.picked.model, quote.waits_for) == ("gen4.5", ranking.FULL.text)
        assert not any(one.usable for one in quote.candidates)

    def test_an_open_circuit_is_waited_for(self) -> None:
        for _ in range(5):
            health.note_fault("gen4.5", "runway", "no answer")
        quote = model_choice.quote(order(model_requested="gen4.5", fallback=False))
        assert (quote.picked.model, quote.waits_for) == ("gen4.5", "circuit open after 5 faults")

    def test_or_another_takes_its_place_where_the_client_allows_it(self) -> None:
        for _ in range(5):
            health.note_fault("gen4.5", "runway", "no answer")
        quote = model_choice.quote(order(model_requested="gen4.5"))
        assert (quote.picked.model, quote.waits_for) == ("kling-2.5-turbo", None)

    def test_what_is_switched_off_is_not_waited_for(self) -> None:
        ModelSetting.objects.create(model="gen4.5", enabled=False)
        with pytest.raises(model_choice.ModelUnavailable) as caught:
            model_choice.quote(order(model_requested="gen4.5", fallback=False))
        assert str(caught.value.reasons["gen4.5"]) == "switched off by the operator"
