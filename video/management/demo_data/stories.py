"""The lives of made-up tasks, drawn by a seeded generator: what was asked for, which attempts were made, how it ended.

Pure: no clock, no database. Equal seeds give equal stories.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from providers import catalogue, ranking
from providers.catalogue import BY_ID
from providers.contract import GenerationRequest, Reason, ReasonCode
from providers.ranking import FULL, Candidate, Policy
from video.management.demo_data import failures
from video.management.demo_data.failures import Failure

DAYS = 30
DAY_S = 86_400.0
PROMPTS = (
    "A lighthouse in fog, its beam turning slowly over black water",
    "Close-up of espresso running into a glass, warm morning light",
    "A paper boat drifts down a rain gutter, seen from very low",
    "Drone flight over terraced rice fields at sunrise",
    "A red fox crosses a snowy road and looks back",
    "Neon market street in the rain, reflections, slow dolly forward",
    "An old tram climbs a steep street, passengers in silhouette",
    "Macro of a watch movement, gears turning, shallow depth of field",
    "A dancer in a white hall, long exposure trails",
    "Time lapse of clouds over a desert observatory",
    "Sneaker turning on a plinth, studio light, clean background",
    "A kite above dunes, strong wind, handheld camera",
    "Two chess players in a park, autumn leaves falling",
    "Underwater: a diver meets a sea turtle, sun rays",
    "A baker dusts flour over dough, dust in a beam of light",
    "Night train passing a small station, one lamp swinging",
    "Orbit around a glass office tower, golden hour",
    "A cat on a windowsill follows a snowflake with its eyes",
)
PROJECTS = ("spring", "launch", "teaser", "reels", "archive")


@dataclass(frozen=True)
class Person:
    """A made-up user: how much of all tasks is theirs, and what an operator decided about them."""

    name: str
    part: int
    weight: int = 1
    spare_credits: int = 500  # left of what they were given
    is_active: bool = True
    note: str = ""


PEOPLE = (
    Person("studio-north", 40, weight=3, spare_credits=2400, note="Contract of 2026: three parts of the slots."),
    Person("acme-ads", 24, weight=2, spare_credits=900),
    Person("film-school", 16, spare_credits=350),
    Person("newsroom", 12, spare_credits=40, note="Pays in advance each month."),
    Person("lena", 6, spare_credits=120),
    Person("old-agency", 2, spare_credits=10, is_active=False),
)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a provider. `failure` is None for one that made a video; times are seconds."""

    candidates: list[dict[str, Any]]
    model: str
    provider: str
    price_usd: Decimal
    resolution: str
    queue_s: float  # from the wish for a slot to the slot
    render_s: float  # from the provider's acceptance to the job's end
    failure: Failure | None = None


@dataclass(frozen=True)
class Run:
    """One paid run: its attempts, and how it ended."""

    attempts: list[Attempt]
    end: str  # success, failed or cancelled
    failure: Failure | None = None
    is_late: bool = False  # the video came after the refund


@dataclass(frozen=True)
class Story:
    """One task from its create to its end, `age_s` seconds before now."""

    person: int  # place in PEOPLE
    age_s: float
    prompt: str
    duration_s: int
    aspect_ratio: str
    policy: str
    quality: str
    resolution: str
    model_requested: str
    metadata: dict[str, str]
    runs: list[Run]
    warnings: tuple[str, ...] = ()
    media_s: tuple[float, ...] = ()  # download, transcode, thumbnail, save
    rerun_after_s: float = 0.0
    bits: list[int] = field(default_factory=list)  # for ids


def draw(number: int, seed: int) -> list[Story]:
    """So many stories, the oldest first, and one more, whose outcome is not known."""
    dice = random.Random(seed)
    ages = sorted((_age(dice) for _ in range(number)), reverse=True)
    return [*(_story(dice, age_s) for age_s in ages), _open_case(dice)]


def _open_case(dice: random.Random) -> Story:
    """A task of some minutes ago whose attempt is not settled: of a provider that can't be asked for it."""
    story = _story(dice, 1500)
    ordered: dict[str, Any] = {"prompt": story.prompt, "duration_s": 5, "aspect_ratio": "16:9", "policy": "quality"}
    attempts = _attempt(dice, {**ordered, "resolution": "source"}, "gen4.5", (), failures.OPEN_CASE)
    return replace(
        story,
        person=0,
        **ordered,
        resolution="source",
        model_requested="gen4.5",
        runs=[Run(attempts, "failed", failures.OPEN_CASE)],
        warnings=(),
    )


def _age(dice: random.Random) -> float:
    """More tasks lately than at first, and more in one half of each day; some minutes ago at the least."""
    while True:
        age_s = 900 + (DAYS * DAY_S - 7200) * (1 - dice.random() ** 0.7)
        if dice.random() < (1.0 if 7 <= (age_s / 3600) % 24 <= 19 else 0.35):
            return age_s


def _story(dice: random.Random, age_s: float) -> Story:
    ordered: dict[str, Any] = {
        "prompt": dice.choice(PROMPTS),
        "duration_s": dice.choices((5, 10, 8, 4), (70, 18, 8, 4))[0],
        "aspect_ratio": dice.choices(("16:9", "9:16"), (65, 35))[0],
        "policy": dice.choices([policy.value for policy in Policy], (55, 20, 15, 10))[0],
        "quality": dice.choices(("medium", "high", "low"), (70, 25, 5))[0],
        "resolution": dice.choices(("source", "1080p", "720p"), (70, 20, 10))[0],
    }
    named = ""
    if dice.random() < 0.25:
        able = [one["model"] for one in _ranked(dice, ordered, (), "") if one["usable"]]
        named = dice.choice(able) if able else ""
    runs = _runs(dice, ordered, named, age_s)
    return Story(
        person=dice.choices(range(len(PEOPLE)), [person.part for person in PEOPLE])[0],
        age_s=age_s,
        **ordered,
        model_requested=named,
        metadata={"project": dice.choice(PROJECTS)} if dice.random() < 0.4 else {},
        runs=runs,
        warnings=dice.choice(failures.WARNINGS) if runs[-1].end == "success" and dice.random() < 0.05 else (),
        media_s=(dice.uniform(0.4, 3), dice.uniform(2, 14), dice.uniform(0.1, 0.6), dice.uniform(0.02, 0.15)),
        rerun_after_s=dice.uniform(60, 700),
        bits=[dice.getrandbits(80) for _ in range(12)],
    )


def _runs(dice: random.Random, ordered: dict[str, Any], named: str, age_s: float) -> list[Run]:
    last = _run(dice, ordered, named, age_s)
    if last.end == "failed" and last.attempts and dice.random() < 0.2:
        again = _run(dice, ordered, named, age_s, always="success")
        return [last, again]
    return [last]


def _run(dice: random.Random, ordered: dict[str, Any], named: str, age_s: float, always: str = "") -> Run:
    """One run; last night one provider was in trouble for some hours, and its failures are many."""
    is_incident = 5 * 3600 < age_s < 11 * 3600
    end = always or dice.choices(("success", "failed", "cancelled"), (83, 12, 5))[0]
    attempts: list[Attempt] = []
    tried: list[str] = []
    faults = 0 if named else dice.choices((0, 1, 2), (55, 35, 10) if is_incident else (93, 6, 1))[0]
    for _ in range(faults):
        attempts += _attempt(dice, ordered, named, tried, dice.choice(failures.OF_PROVIDERS))
        tried += [one.model for one in attempts if one.model not in tried]
    if end == "success":
        made = _attempt(dice, ordered, named, tried, None)
        if not made:  # every model was tried
            return Run(attempts, "failed", attempts[-1].failure if attempts else failures.NO_ROOM)
        is_late = not faults and dice.random() < 0.01
        return Run(attempts + made, "success", failures.OUT_OF_TIME if is_late else None, is_late)
    if end == "cancelled":
        how = dice.choice((failures.CANCELLED_IN_LINE, failures.CANCELLED_WHILE_RENDERING))
        made = [] if how is failures.CANCELLED_IN_LINE else _attempt(dice, ordered, named, tried, how)
        return Run(attempts + made, "cancelled", how)
    failure = dice.choices(failures.FINAL, [one.part for one in failures.FINAL])[0]
    if failure.state:
        attempts += _attempt(dice, ordered, named, tried, failure)
    return Run(attempts, "failed", failure)


def _attempt(
    dice: random.Random, ordered: dict[str, Any], named: str, tried: Collection[str], failure: Failure | None
) -> list[Attempt]:
    """One attempt with the best model of those with a free slot; none where no model is left."""
    ranked = _ranked(dice, ordered, tried, named)
    chosen = next((one for one in ranked if one["usable"]), None)
    if chosen is None:
        return []
    usual_s = BY_ID[chosen["model"]].typical_render_s
    render_s = usual_s * dice.lognormvariate(0, 0.35)
    if failure is not None:
        render_s *= failure.part_of_render
    return [
        Attempt(
            [{**one, "chosen": one is chosen} for one in ranked],
            chosen["model"],
            chosen["provider"],
            Decimal(chosen["price_usd"]),
            chosen["resolution"],
            queue_s=dice.choice((dice.uniform(0.02, 0.3), dice.expovariate(1 / 40))),
            render_s=render_s,
            failure=failure,
        )
    ]


def _ranked(dice: random.Random, ordered: dict[str, Any], tried: Collection[str], named: str) -> list[dict[str, Any]]:
    """Every model of the catalogue, the usable ones first, as an attempt keeps them; some have no free slot."""
    large = ordered["resolution"] == "1080p"
    resolutions = {
        model.id: "1080p" if large and "1080p" in model.resolutions else "720p" for model in catalogue.MODELS
    }
    request = GenerationRequest(
        model="",
        prompt=ordered["prompt"],
        duration_s=ordered["duration_s"],
        aspect_ratio=ordered["aspect_ratio"],
    )
    full = {model.id: FULL for model in catalogue.MODELS if dice.random() < 0.35}
    left_out = {model.id: _why_not(model.id, tried, named) for model in catalogue.MODELS}
    ranked: list[Candidate] = []
    for taken in (full, {}):  # a slot is free somewhere in the end
        ranked = ranking.rank(
            request,
            policy=ordered["policy"],
            models=sorted(catalogue.MODELS, key=lambda model: resolutions[model.id] != "1080p"),
            overrides={},
            health={},
            available={model: why or taken.get(model) for model, why in left_out.items()},
            resolutions=resolutions,
        )
        if ranked[0].usable:
            break
    return [one.as_json() for one in ranked]


def _why_not(model: str, tried: Collection[str], named: str) -> Reason | None:
    if model in tried:
        return Reason(ReasonCode.LEFT_OUT, "tried before, and could not")
    return Reason(ReasonCode.LEFT_OUT, "another model was named") if named not in {"", model} else None
