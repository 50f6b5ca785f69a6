from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from providers import catalogue
from providers.catalogue import BY_ID, MODELS
from providers.contract import GenerationRequest, Reason, ReasonCode
from providers.models import can
from providers.ranking import (
    FEWEST_SAMPLES,
    UNMEASURED,
    WEIGHTS,
    Candidate,
    ModelHealth,
    Override,
    Policy,
    expected_s,
    rank,
)

ALL_FREE = dict.fromkeys(BY_ID)


def request(**changes):
    base = GenerationRequest(model="", prompt="a cat", duration_s=5, aspect_ratio="16:9")
    return replace(base, **changes)


def ranked(asked=None, *, policy=Policy.BALANCED, models=MODELS, overrides=None, health=None, available=None):
    return rank(
        asked or request(),
        policy=policy,
        models=models,
        overrides=overrides or {},
        health=health or {},
        available=ALL_FREE if available is None else available,
    )


def usable(candidates):
    return [candidate.model for candidate in candidates if candidate.usable]


def reason(candidates, model):
    (found,) = [candidate for candidate in candidates if candidate.model == model]
    assert not found.usable
    assert found.score == 0
    return found.reason


def measured(**changes):
    return replace(UNMEASURED, **{"success_rate": 1.0, "render_p50_s": 60.0, "samples": 50, **changes})


# What is picked with nothing measured. A change of prices, grades or weights shows here, and should be meant.
FIRST_PICKS = [
    # (policy, request) → model
    (Policy.BALANCED, request(), "kling-2.5-turbo"),
    (Policy.COST, request(), "pika-2.2"),
    (Policy.QUALITY, request(), "kling-3.0"),
    (Policy.SPEED, request(), "pika-turbo"),
    (Policy.BALANCED, request(image_url="https://example.com/a.png"), "gen4_turbo"),
    (Policy.SPEED, request(image_url="https://example.com/a.png"), "gen4_turbo"),
    (Policy.BALANCED, request(duration_s=7), "kling-3.0"),
    (Policy.SPEED, request(duration_s=8), "veo3.1_fast"),
    (Policy.COST, request(duration_s=14), "kling-3.0"),
    (Policy.QUALITY, request(duration_s=8, resolution="1080p"), "kling-3.0"),
    (Policy.QUALITY, request(seed=1), "gen4.5"),
    (Policy.SPEED, request(negative_prompt="blur", duration_s=6), "veo3.1_fast"),
    (Policy.COST, request(sound=True), "kling-3.0-turbo"),
    (Policy.QUALITY, request(aspect_ratio="4:5"), "pika-2.2"),
]


@pytest.mark.parametrize(("policy", "asked", "first"), FIRST_PICKS)
def test_each_policy_picks_what_it_says(policy, asked, first):
    assert ranked(asked, policy=policy)[0].model == first


def test_every_model_comes_back_once_the_usable_first():
    candidates = ranked(request(duration_s=7))
    assert sorted(candidate.model for candidate in candidates) == sorted(BY_ID)
    flags = [candidate.usable for candidate in candidates]
    assert flags == sorted(flags, reverse=True)
    scores = [candidate.score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < candidate.score <= 1 for candidate in candidates if candidate.usable)


def test_no_models_no_candidates():
    assert ranked(models=()) == []


@pytest.mark.parametrize(
    ("asked", "model", "said"),
    [
        (request(duration_s=7), "pika-2.2", "duration: Pika 2.2 makes 5 or 10 seconds, not 7"),
        (request(resolution="1080p"), "gen4.5", "resolution: Runway Gen-4.5 makes 720p, not 1080p"),
        (request(), "gen4_turbo", "imageUrl: Runway Gen-4 Turbo needs a start image"),
        (request(sound=True), "pika-2.2", "sound: Pika 2.2 makes silent videos"),
    ],
)
def test_an_incapable_model_says_what_it_can(asked, model, said):
    assert reason(ranked(asked), model) == said
    (found,) = [one for one in ranked(asked) if one.model == model]
    assert found.price_usd is None
    assert found.expected_s is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": {"kling-2.6": Override(enabled=False)}}, "switched off by the operator"),
        ({"health": {"kling-2.6": measured(circuit_open=True, recent_faults=5)}}, "circuit open after 5 faults"),
        ({"available": {"kling-2.6": Reason(ReasonCode.CLOSED, "account full")}}, "account full"),
        ({"available": {}}, "no key configured for Kling"),
        # Of several reasons the one that lasts longest is told.
        (
            {
                "overrides": {"kling-2.6": Override(enabled=False)},
                "health": {"kling-2.6": measured(circuit_open=True, recent_faults=5)},
                "available": {},
            },
            "switched off by the operator",
        ),
    ],
)
def test_an_unusable_model_says_why_and_keeps_its_price(changes, said):
    candidates = ranked(**changes)
    assert reason(candidates, "kling-2.6") == said
    (found,) = [one for one in candidates if one.model == "kling-2.6"]
    assert found.price_usd == Decimal("0.21")


def test_what_a_model_cannot_do_is_said_before_what_is_out_of_order():
    said = reason(ranked(request(duration_s=7), overrides={"pika-2.2": Override(enabled=False)}), "pika-2.2")
    assert said.startswith("duration: ")


@pytest.mark.parametrize("policy", list(Policy))
def test_a_model_that_keeps_failing_loses_its_place(policy):
    first = ranked(policy=policy)[0].model
    failing = {first: measured(success_rate=0.2, render_p50_s=float(BY_ID[first].typical_render_s))}
    if policy is Policy.SPEED:  # nothing else comes near the quickest, so more failures are borne with
        failing = {first: replace(failing[first], render_p50_s=100.0)}
    assert usable(ranked(policy=policy, health=failing))[0] != first


def test_few_failures_say_little():
    models = [BY_ID["kling-2.5-turbo"], BY_ID["gen4.5"]]
    for failed, first in ((1, "kling-2.5-turbo"), (30, "gen4.5")):
        health = {"kling-2.5-turbo": ModelHealth(0.0, None, failed, False, 0)}
        assert ranked(models=models, health=health)[0].model == first


def test_own_measurements_replace_the_catalogues_time():
    model = BY_ID["kling-3.0"]
    assert expected_s(model, UNMEASURED) == model.typical_render_s
    assert expected_s(model, measured(samples=FEWEST_SAMPLES - 1, render_p50_s=7.0)) == model.typical_render_s
    assert expected_s(model, measured(samples=FEWEST_SAMPLES, render_p50_s=7.0)) == 7.0
    assert expected_s(model, measured(samples=FEWEST_SAMPLES, render_p50_s=None)) == model.typical_render_s
    assert ranked(policy=Policy.SPEED, health={"kling-3.0": measured(render_p50_s=7.0)})[0].model == "kling-3.0"


@pytest.mark.parametrize(
    ("policy", "override", "first"),
    [
        (Policy.COST, Override(price_usd_per_s=Decimal("0.001")), True),
        (Policy.COST, Override(price_usd_per_s=Decimal(9)), False),
        (Policy.BALANCED, Override(price_usd_per_s=Decimal("0.01"), quality=5), True),
        (Policy.SPEED, Override(speed=5), True),
        (Policy.SPEED, Override(speed=1), False),
        (Policy.QUALITY, Override(quality=5), True),
        (Policy.QUALITY, Override(quality=1), False),
    ],
)
def test_an_operators_figures_stand_in_the_place_of_the_catalogues(policy, override, first):
    candidates = ranked(
        policy=policy, overrides={"pika-turbo": override}, models=[BY_ID["pika-turbo"], BY_ID["gen4.5"]]
    )
    assert (candidates[0].model == "pika-turbo") is first


def test_equal_models_are_told_apart_by_name_whatever_their_order():
    one = BY_ID["kling-2.6"]
    twins = [replace(one, id=name) for name in ("c", "a", "b")]
    free = dict.fromkeys("abc")
    for models in (twins, twins[::-1]):
        assert usable(ranked(models=models, available=free)) == ["a", "b", "c"]


def test_between_equal_scores_the_cheaper_and_then_the_better_goes_first():
    one = BY_ID["kling-2.6"]
    dear = replace(one, id="a", price_usd_per_s={"720p": Decimal("0.0420001")})
    cheap = replace(one, id="b")
    assert usable(ranked(models=[dear, cheap], available={"a": None, "b": None})) == ["b", "a"]


def test_weights_are_shares():
    assert set(WEIGHTS) == set(Policy)
    for weights in WEIGHTS.values():
        assert weights.price + weights.quality + weights.speed + weights.success == pytest.approx(1)
    assert WEIGHTS[Policy.COST].price > 0.5
    assert WEIGHTS[Policy.QUALITY].quality > 0.5
    assert WEIGHTS[Policy.SPEED].speed > 0.5


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="best"):
        ranked(policy="best")


def test_price_is_of_the_whole_video_at_the_resolution_asked_for():
    by_model = {one.model: one for one in ranked(request(duration_s=10, resolution="1080p", sound=True))}
    assert by_model["kling-3.0"].price_usd == Decimal("1.68")
    assert by_model["kling-3.0"].resolution == "1080p"


def test_json_is_plain():
    first = ranked()[0]
    assert first.as_json() == {
        "model": "kling-2.5-turbo",
        "provider": "kling",
        "usable": True,
        "score": first.score,
        "price_usd": "0.210",
        "expected_s": 110.0,
        "reason": first.reason,
        "resolution": "720p",
        "code": "",
    }
    assert first.reason == "1 of 8 by balanced: quality 4 of 5, about 110 s, not measured yet"
    assert Candidate("m", "p", False, 0.0, None, None, "no").as_json()["price_usd"] is None


def capable(asked):
    return [model.id for model in MODELS if can(model, asked) is None]


def test_capable_is_what_can_in_the_order_given():
    assert capable(request(duration_s=10, resolution="1080p")) == [
        "pika-2.2",
        "kling-3.0",
        "kling-3.0-turbo",
        "kling-2.6",
        "kling-2.5-turbo",
    ]
    assert capable(request(duration_s=60)) == []


def test_a_negative_prompt_has_the_prompts_limit():
    veo = BY_ID["veo3.1"]
    asked = request(duration_s=4, negative_prompt="a" * 1000)
    assert can(veo, asked) is None
    said = can(veo, replace(asked, negative_prompt="a" * 1001))
    assert said is not None
    assert said.field == "negativePrompt"


def test_the_bench_of_choosing_has_a_figure_for_each_part():
    from bench.choice import cost

    assert len(catalogue.MODELS) > 10
    assert all(seconds > 0 for seconds in cost(rounds=1).values())
