"""Which model runs an order or a task: the one named, else the best of those that can make it.

The rules are in `providers.ranking`; this module gives them the order, the keys of this server and the database.

The render's resolution is 720p, which every model has. An order of 1080p goes to a model that renders 1080p if one can
make the video. Otherwise, or when it names a model that can't, the transcode makes the render larger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

from django.conf import settings

from providers import catalogue, ranking
from providers.catalogue import UnknownModel
from providers.contract import GenerationRequest, Reason, ReasonCode
from providers.models import Model, can
from providers.ranking import Candidate, ModelHealth, Override
from video.infra.errors import Refusal
from video.models import VideoTask
from video.models.order import Order, values
from video.routing import availability
from video.routing import health as health_of_models
from video.routing.slots import WITHOUT_MODEL

RENDER = "720p"
RENDER_LARGE = "1080p"
NOT_HERE = Reason(ReasonCode.NO_KEY, "no key for it is configured")
ANOTHER, LEFT_OUT = "another model was named", ReasonCode.LEFT_OUT.value
_OF_PROVIDERS = frozenset(each.name for each in fields(GenerationRequest))


class NoCapableModel(Refusal):
    """No model can make this video. `reasons` by model id: the wrong field, or why the model is not available here."""

    code = "no_capable_model"

    def __init__(self, reasons: Mapping[str, Reason]) -> None:
        super().__init__("; ".join(f"{model}: {why}" for model, why in reasons.items()))
        self.reasons = dict(reasons)


class ModelUnavailable(NoCapableModel):
    """The order is fine, but no model for it is available here: no adapter, no key, or switched off."""

    code = "model_unavailable"


@dataclass(frozen=True)
class Quote:
    """The model that would be picked. `waits_for`: None when the task could start now, else what it would wait for."""

    picked: Candidate
    waits_for: str | None
    candidates: list[Candidate]
    waits_for_code: str | None = None  # a ReasonCode


def render_resolution(wanted: str, model: Model) -> str:
    """The resolution that a model is asked for when the user wants `wanted` in the end."""
    return RENDER_LARGE if wanted == RENDER_LARGE and RENDER_LARGE in model.resolutions else RENDER


def request_of(wanted: Order | VideoTask, *, model: str, resolution: str) -> GenerationRequest:
    """What a provider is asked for: every field of the order that a `GenerationRequest` has, by the same name."""
    asked = {name: value for name, value in values(wanted).items() if name in _OF_PROVIDERS}
    return GenerationRequest(**{**asked, "model": model, "resolution": resolution})


def request_for(wanted: Order | VideoTask, model: Model) -> GenerationRequest:
    """What this model would be asked for."""
    return request_of(wanted, model=model.id, resolution=render_resolution(wanted.resolution, model))


def providers_here() -> frozenset[str]:
    """Providers that have both an adapter and a key on this server."""
    from video.infra import toolkit  # it brings HTTP clients and media code, which most API calls need not wait for

    names = (adapter.name for adapter in toolkit.ADAPTERS)
    return frozenset(name for name in names if settings.PROVIDER_KEYS.get(name))


def models_here() -> list[Model]:
    """Models of the catalogue whose provider has an adapter, and a key that speaks an API with the model."""
    return [model for model in catalogue.MODELS if why_absent(model) is None]


def why_absent(model: Model) -> Reason | None:
    """Why the configuration has the model on no key; None where it has."""
    if model.provider not in providers_here():
        return ranking.no_key(model.provider)
    from video.infra.toolkit import toolkit  # lazily, as above

    offers = toolkit().provider(model.provider).offers
    if any(offers(model.id, key.shape) for key in settings.PROVIDER_KEYS[model.provider]):
        return None
    return Reason(ReasonCode.NO_KEY, WITHOUT_MODEL)


def eligible_models(order: Order) -> list[str]:
    """Models that may run the order: only the one it names, else all that can, best first by the policy.

    Reads no table: measured figures count at admission. Other models replace a named one that has no key here only if
    `order.fallback`. Raises UnknownModel, NoCapableModel, and ModelUnavailable.
    """
    if not order.model_requested:
        found = _capable(order, models_here())
        if not found:
            raise _no_capable_model(order)
        return found
    model = catalogue.find(order.model_requested, image=bool(order.image_url))
    incapable = can(model, request_for(order, model))
    if incapable is not None:
        raise NoCapableModel({model.id: incapable})
    absent = why_absent(model)
    if absent is None:
        return [model.id]
    found = _capable(order, models_here()) if order.fallback else []
    if not found:
        raise ModelUnavailable({model.id: absent})
    return found


def fallbacks(wanted: Order | VideoTask, tried: Collection[str]) -> list[str]:
    """Models that may run it after those `tried` could not, best first; none if its user allows no other."""
    if not wanted.fallback:
        return []
    return _capable(wanted, [model for model in models_here() if model.id not in tried])


def candidates(
    wanted: Order | VideoTask,
    available: Mapping[str, Reason | None],
    *,
    health: Mapping[str, ModelHealth] | None = None,
    overrides: Mapping[str, Override] | None = None,
    eligible: Collection[str] | None = None,
    tried: Collection[str] = (),
) -> list[Candidate]:
    """Every model of the catalogue for one task: the usable first, best first, the others with the reason why not.

    `available`: None for each model with a free slot, else why not; models without a key are not in it. `health` and
    `overrides` are read (one statement) unless given. `eligible`: the models that may run it, else the task's own
    or those of the order. `tried` only words the reason of models that the task may no longer use.

    Raises UnknownModel and NoCapableModel for an order, never for a task.
    """
    if health is None or overrides is None:
        found = health_of_models.read()
        owner = wanted.user_id if isinstance(wanted, VideoTask) else health_of_models.ANOTHER_USER
        health = found.seen_by(owner) if health is None else health
        overrides = found.overrides if overrides is None else overrides
    if eligible is None:
        eligible = wanted.eligible_models if isinstance(wanted, VideoTask) else eligible_models(wanted)
    open_to = {
        model: why if model in eligible or why is not None else _why_left_out(wanted, model, tried)
        for model, why in available.items()
    }
    ranked = _rank(wanted, catalogue.MODELS, open_to, health, overrides)
    named = _named(wanted)
    if named:  # that is why, whatever else is true of them
        others = set(catalogue.BY_ID).difference(eligible, tried, [named])
        ranked = [replace(one, reason=ANOTHER, code=LEFT_OUT) if one.model in others else one for one in ranked]
    # The sort is stable. A named model comes first, even when its task may go to other models by now.
    return sorted(ranked, key=lambda candidate: (not candidate.usable, candidate.model != named))


def _rank(
    wanted: Order | VideoTask,
    models: Sequence[Model],
    available: Mapping[str, Reason | None],
    health: Mapping[str, ModelHealth],
    overrides: Mapping[str, Override],
) -> list[Candidate]:
    """The usable models first, and of these the larger renders; models are compared within one resolution."""
    resolutions = {model.id: render_resolution(wanted.resolution, model) for model in models}
    return ranking.rank(
        request_of(wanted, model="", resolution=RENDER),
        policy=wanted.policy,
        models=sorted(models, key=lambda model: resolutions[model.id] != RENDER_LARGE),
        overrides=overrides,
        health=health,
        available=available,
        resolutions=resolutions,
    )


def quote(order: Order, *, user_id: int = health_of_models.ANOTHER_USER) -> Quote:
    """What admission would decide if this user created the task now; writes nothing. About four statements.

    Raises UnknownModel, NoCapableModel, and ModelUnavailable where operators have switched off all capable models.
    """
    eligible = eligible_models(order)
    now = availability.read_measured()
    check_switched_on(order, eligible, now)
    health, reasons, serving = now.health.seen_by(user_id), now.reasons(user_id), now.serving(user_id)
    if serving.isdisjoint(eligible):  # as admission does, which adds the fallback models
        others = fallbacks(order, eligible)
        is_off = all(now.is_switched_off(model) for model in eligible)
        eligible += [model for model in others if model in serving] or (others if is_off else [])
    rank = partial(candidates, order, overrides=now.health.overrides, eligible=eligible)
    ranked = rank(reasons, health=health)
    if ranked[0].usable:
        return Quote(ranked[0], None, ranked)
    # The task would wait for the model that is best once slots are free and circuits are closed.
    healthy = {model: replace(one, circuit_open=False) for model, one in health.items()}
    later = rank(dict.fromkeys(reasons), health=healthy)[0]
    now_closed = next(candidate for candidate in ranked if candidate.model == later.model)
    return Quote(later, now_closed.reason, ranked, now_closed.code)


def check_switched_on(
    wanted: Order | VideoTask, eligible: Sequence[str], now: availability.Availability | None = None
) -> None:
    """Raises ModelUnavailable where operators have switched off all models that may run it, its fallbacks included.

    One statement unless `now` is given. Whatever else is in the way passes by itself, so a task may wait for it.
    """
    now = availability.read() if now is None else now
    if all(now.is_switched_off(model) for model in (*eligible, *fallbacks(wanted, eligible))):
        off = [model.id for model in catalogue.MODELS if now.is_switched_off(model.id)]
        raise ModelUnavailable(dict.fromkeys(off, ranking.SWITCHED_OFF))


def _named(wanted: Order | VideoTask) -> str:
    """Id of the model that the client named; empty when it named none, or one that left the catalogue."""
    try:
        return catalogue.find(wanted.model_requested, image=bool(wanted.image_url)).id if wanted.model_requested else ""
    except UnknownModel:
        return ""


def _capable(wanted: Order | VideoTask, models: Sequence[Model]) -> list[str]:
    """Ids of the capable models, best first by price and grades; smaller renders only where no larger one is there."""
    ranked = _rank(wanted, models, dict.fromkeys(model.id for model in models), {}, {})
    return [one.model for one in ranked if one.usable and one.resolution == ranked[0].resolution]


def _no_capable_model(order: Order) -> NoCapableModel:
    reasons = {
        model.id: can(model, request_for(order, model)) or why_absent(model) or NOT_HERE for model in catalogue.MODELS
    }
    return NoCapableModel(reasons) if providers_here() else ModelUnavailable(reasons)


def _why_left_out(wanted: Order | VideoTask, model: str, tried: Collection[str]) -> Reason:
    why = "no longer among this task's models"
    if model in tried:
        why = "tried before, and could not"
    elif wanted.model_requested:
        why = ANOTHER
    elif wanted.resolution == RENDER_LARGE and RENDER_LARGE not in catalogue.BY_ID[model].resolutions:
        why = f"renders {RENDER} at most, and others {RENDER_LARGE}"
    return Reason(ReasonCode.LEFT_OUT, why)
