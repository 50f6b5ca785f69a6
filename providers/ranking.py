"""Choosing a model: a request, the catalogue and what was measured in; every model ranked out, each with its reason.

Pure: no clock, no I/O, no settings, so the same input gives the same order everywhere. A model is usable when it can
make the video, its operator has not switched it off, somebody has a key for it, its circuit is closed (or half open)
and a slot is free; what is usable is scored, 0 to 1, by `WEIGHTS`.

What the four parts of a score are, each 0 to 1 and best at 1:
- price: the cheapest usable candidate's price over this one's, so half the score at twice the price;
- quality: the grade, 1 to 5;
- speed: the quickest usable candidate's expected time over this one's; an operator's own grade stands in its place;
- success: the share of jobs that ended well, drawn towards `USUAL_SUCCESS` while there are few, and 0 from one half
  down: a model that fails every second time is worth nothing in this part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from providers import catalogue
from providers.contract import GenerationRequest, Reason, ReasonCode
from providers.models import Model, can

#: Own measurements of render time count from so many samples on; before that the catalogue's typical time does.
FEWEST_SAMPLES = 5
#: A model nobody has tried is believed to succeed this often, as if that had been seen in so many jobs.
USUAL_SUCCESS = 0.95
USUAL_SUCCESS_JOBS = 10
FULL = Reason(ReasonCode.FULL, "every slot is taken")
SWITCHED_OFF = Reason(ReasonCode.SWITCHED_OFF, "switched off by the operator")
#: What an operator decided is said before what a provider did.
DECIDED = frozenset({ReasonCode.SWITCHED_OFF, ReasonCode.PAUSED})


class Policy(StrEnum):
    """What a good choice is."""

    BALANCED = "balanced"
    COST = "cost"
    QUALITY = "quality"
    SPEED = "speed"


@dataclass(frozen=True)
class Weights:
    """How much each part of the score counts; together 1."""

    price: float
    quality: float
    speed: float
    success: float


WEIGHTS: Mapping[Policy, Weights] = MappingProxyType(
    {
        Policy.BALANCED: Weights(price=0.30, quality=0.30, speed=0.15, success=0.25),
        # The cheapest, unless it keeps failing; between equal prices the better grade.
        Policy.COST: Weights(price=0.75, quality=0.08, speed=0.02, success=0.15),
        # A grade is worth 0.175, more than all of price and speed: they only part equals.
        Policy.QUALITY: Weights(price=0.08, quality=0.70, speed=0.04, success=0.18),
        Policy.SPEED: Weights(price=0.05, quality=0.10, speed=0.65, success=0.20),
    }
)


@dataclass(frozen=True)
class ModelHealth:
    """What was measured of a model lately, and how its circuit stands."""

    success_rate: float | None  # 0..1; None: nothing measured
    render_p50_s: float | None  # from the provider's acceptance to its end, of those that succeeded
    samples: int  # jobs behind `success_rate`
    circuit_open: bool  # no new job now; also while the one probe of a half-open circuit is under way
    recent_faults: int  # of the provider, in a row


@dataclass(frozen=True)
class Override:
    """What an operator decided about a model; None leaves the catalogue's value."""

    enabled: bool = True
    price_usd_per_s: Decimal | None = None  # for all resolutions, with and without sound
    quality: int | None = None  # 1..5
    speed: int | None = None  # 1..5


@dataclass(frozen=True)
class Candidate:
    """One model and what speaks for or against it. `price_usd` is of the whole video, at `resolution`."""

    model: str
    provider: str
    usable: bool
    score: float  # 0..1, 0 where not usable
    price_usd: Decimal | None  # None where it can't make the video
    expected_s: float | None  # render time at the provider; None where it can't make the video
    reason: str  # for people; an incapable model's begins with the API's name of the field
    resolution: str = "720p"  # of the render that was priced
    code: str = ""  # a ReasonCode, where it is not usable

    def as_json(self) -> dict[str, Any]:
        """For the attempt's row; the price as a decimal string."""
        return {**vars(self), "price_usd": None if self.price_usd is None else str(self.price_usd)}


UNMEASURED = ModelHealth(success_rate=None, render_p50_s=None, samples=0, circuit_open=False, recent_faults=0)
_AS_IN_CATALOGUE = Override()


def rank(
    request: GenerationRequest,
    *,
    policy: Policy | str,
    models: Sequence[Model],
    overrides: Mapping[str, Override],
    health: Mapping[str, ModelHealth],
    available: Mapping[str, Reason | None],
    resolutions: Mapping[str, str] = MappingProxyType({}),
) -> list[Candidate]:
    """All of `models`: the usable ones first, best first, then the others in the order given.

    `available[model]` is None when a slot could be had, else why not; a model that is not in it has no key here.
    `resolutions[model]` is what a model renders instead of `request.resolution`. Models are compared with those of the
    same resolution only; the resolution of the first usable one comes first.
    Equal scores go to the cheaper, then the better grade, then the first by name. Raises ValueError for an unknown
    policy.
    """
    weights = WEIGHTS[Policy(policy)]
    requests = {each: replace(request, resolution=each) for each in {request.resolution, *resolutions.values()}}
    usable: dict[str, list[_Figures]] = {}
    unusable: list[Candidate] = []
    for model in models:
        own = requests[resolutions.get(model.id, request.resolution)]
        override = overrides.get(model.id, _AS_IN_CATALOGUE)
        measured = health.get(model.id, UNMEASURED)
        incapable = can(model, own)
        if incapable is not None:
            code, text = incapable.code.value, str(incapable)
            unusable.append(Candidate(model.id, model.provider, False, 0.0, None, None, text, own.resolution, code))
            continue
        figures = _figures(model, own, override, measured)
        closed = why_closed(model, override, measured, available)
        if closed is None:
            usable.setdefault(own.resolution, []).append(figures)
        else:
            unusable.append(figures.candidate(False, 0.0, str(closed), closed.code.value))
    ranked = [one for group in usable.values() for one in _scored(group, weights, Policy(policy))]
    return ranked + unusable


def why_closed(
    model: Model, override: Override, health: ModelHealth, available: Mapping[str, Reason | None]
) -> Reason | None:
    """Why no job may start on the model now, whatever the request; None when one may. `available` as for `rank`."""
    if not override.enabled:
        return SWITCHED_OFF
    if model.id not in available:
        return no_key(model.provider)
    reason = available[model.id]
    if reason is not None and reason.code in DECIDED:
        return reason
    if health.circuit_open:
        return Reason(ReasonCode.CIRCUIT_OPEN, f"circuit open after {health.recent_faults} faults")
    return reason


def expected_s(model: Model, health: ModelHealth) -> float:
    """Seconds that a render takes: measured by ourselves, else typical in the catalogue's words."""
    if health.samples >= FEWEST_SAMPLES and health.render_p50_s is not None:
        return health.render_p50_s
    return float(model.typical_render_s)


def no_key(provider: str) -> Reason:
    """The reason of a model whose provider has no key here."""
    return Reason(ReasonCode.NO_KEY, f"no key configured for {provider.capitalize()}")


@dataclass(slots=True)
class _Figures:
    model: Model
    resolution: str
    price_usd: Decimal
    quality: int
    expected_s: float
    speed_grade: int | None  # an operator's; stands in the place of the expected time
    success: float
    health: ModelHealth

    def candidate(self, usable: bool, score: float, reason: str, code: str = "") -> Candidate:
        return Candidate(
            self.model.id,
            self.model.provider,
            usable,
            score,
            self.price_usd,
            round(self.expected_s, 1),
            reason,
            self.resolution,
            code,
        )


def _figures(model: Model, request: GenerationRequest, override: Override, health: ModelHealth) -> _Figures:
    if override.price_usd_per_s is not None:
        price = override.price_usd_per_s * request.duration_s
    else:
        price = catalogue.price_usd(model, request.duration_s, request.resolution, request.sound)
    return _Figures(
        model=model,
        resolution=request.resolution,
        price_usd=price,
        quality=model.quality if override.quality is None else override.quality,
        expected_s=expected_s(model, health),
        speed_grade=override.speed,
        success=_success(health),
        health=health,
    )


def _success(health: ModelHealth) -> float:
    """The success rate to believe in, 0..1: few samples say little."""
    if health.success_rate is None:
        return USUAL_SUCCESS
    seen = health.success_rate * health.samples + USUAL_SUCCESS * USUAL_SUCCESS_JOBS
    return seen / (health.samples + USUAL_SUCCESS_JOBS)


def _scored(usable: list[_Figures], weights: Weights, policy: Policy) -> list[Candidate]:
    cheapest = min(float(one.price_usd) for one in usable)
    quickest = min(one.expected_s for one in usable)
    # Rounded, so that two models which differ by nothing but floating point are equals.
    scored = [(round(_score(one, weights, cheapest, quickest), 6), one) for one in usable]
    scored.sort(key=lambda pair: (-pair[0], pair[1].price_usd, -pair[1].quality, pair[1].model.id))
    return [
        one.candidate(True, score, _praise(one, place, len(scored), policy))
        for place, (score, one) in enumerate(scored, 1)
    ]


def _score(one: _Figures, weights: Weights, cheapest_usd: float, quickest_s: float) -> float:
    price = float(one.price_usd)
    if one.speed_grade is not None:
        speed = (one.speed_grade - 1) / 4
    else:
        speed = quickest_s / one.expected_s if one.expected_s > 0 else 1.0
    return (
        weights.price * (cheapest_usd / price if price > 0 else 1.0)
        + weights.quality * (one.quality - 1) / 4
        + weights.speed * speed
        + weights.success * max(0.0, 2 * one.success - 1)
    )


def _praise(one: _Figures, place: int, of: int, policy: Policy) -> str:
    health = one.health
    if health.success_rate is None:
        measured = "not measured yet"
    else:
        measured = f"{health.success_rate:.0%} of {health.samples} succeeded"
    return f"{place} of {of} by {policy}: quality {one.quality} of 5, about {one.expected_s:.0f} s, {measured}"
