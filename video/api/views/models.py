"""The models and their state, and the price of a video. These views make and spend nothing."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request

from providers import catalogue, ranking
from providers.models import Model, has_sound
from providers.ranking import UNMEASURED, Candidate, ModelHealth, Override, Policy
from video.actions.order_input import CreateSerializer, unavailable
from video.api.base import ApiView, success
from video.api.bodies import fields_of
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.api.parsing import OrderParser, longest_order
from video.credits import price
from video.infra.camel import camel
from video.models import Scope
from video.monitoring import overview
from video.routing import availability, health, model_choice
from video.routing.availability import ModelState
from video.scheduling import estimates
from video.web import uploads

AS_IN_CATALOGUE = Override()


class ModelsView(ApiView):
    """GET /api/models: the catalogue, with what operators changed in it, and which models could take a job now.

    What providers charge, in USD a second of video, as decimal strings, is shown to staff who may see accounts alone;
    the price list in credits to everybody.
    """

    key_scope = Scope.READ
    has_etag = True
    is_compressed = True

    @describe("Models", "List the models", answers={200: Answer("The catalogue.", answers.MODELS)})
    def get(self, request: Request) -> HttpResponse:
        user_id = request.user.pk or health.ANOTHER_USER
        now, staff = availability.read_measured(), overview.may_see_all(request.user)
        states, measured, decided = now.of_all(user_id), now.health.seen_by(user_id), now.health.overrides
        return success(
            {
                "models": [
                    _model(
                        model,
                        states[model.id],
                        measured.get(model.id, UNMEASURED),
                        decided.get(model.id, AS_IN_CATALOGUE),
                        staff=staff,
                    )
                    for model in catalogue.MODELS
                ],
                "policies": [policy.value for policy in Policy],
                "credits": _price_list(),
                "pricesCheckedOn": catalogue.CHECKED_ON,
            }
        )


class QuoteView(ApiView):
    """POST /api/video/quote: what the same body would get from create, at what price, and how soon.

    `credits` is what the user would pay; `priceUsd`, for staff who may see accounts, what the provider would charge.
    """

    key_scope = Scope.READ
    parser_classes = (OrderParser,)
    longest_body = longest_order

    @describe(
        "Models",
        "Ask what a video would cost",
        body=CreateSerializer,
        answers={200: Answer("The model that would be picked, its price, and all others.", answers.QUOTE)},
        errors="no_capable_model model_unavailable image_unreadable no_such_upload",
        examples={"The cheapest": {"prompt": "A cat walking in a garden", "policy": "cost"}},
    )
    def post(self, request: Request) -> HttpResponse:
        wanted = fields_of(request, CreateSerializer)
        order = wanted["order"]
        if wanted["picture"] is None and uploads.is_address(order.image_url):
            uploads.hold(request.user.pk or 0, order.image_url)
        try:
            quote = model_choice.quote(order, user_id=request.user.pk or health.ANOTHER_USER)
        except model_choice.ModelUnavailable as err:
            raise unavailable(order, err.reasons) from None
        picked, staff = quote.picked, overview.may_see_all(request.user)
        return success(
            {
                "model": picked.model,
                "provider": picked.provider,
                "policy": str(order.policy),
                "resolution": picked.resolution,
                "sound": has_sound(catalogue.BY_ID[picked.model], order.sound),
                **({"priceUsd": _usd(picked.price_usd)} if staff else {}),
                "credits": price.credits_of(order),
                "expectedSeconds": estimates.expected_seconds(catalogue.BY_ID[picked.model]),
                "startsNow": quote.waits_for is None,
                "waitsFor": quote.waits_for,
                "waitsForCode": quote.waits_for_code or None,
                "simulated": settings.SIMULATE,
                "candidates": [_candidate(one, staff=staff) for one in quote.candidates],
            }
        )


def _price_list() -> dict[str, Any]:
    """Null fits every order; `model` "none" stands for orders that name no model."""
    return {
        "default": settings.CREDITS_PER_VIDEO,
        "rules": [
            {
                **{name: getattr(rule, name) or None for name in ("model", "seconds", "resolution", "sound")},
                "credits": rule.credits,
                "creditsPerSecond": f"{rule.credits_per_second.normalize():f}",
            }
            for rule in price.rules()
        ],
    }


def _candidate(one: Candidate, *, staff: bool) -> dict[str, Any]:
    found = camel(one, "model provider usable score expected_s=renderSeconds reason") | {"reasonCode": one.code or None}
    return {**found, "priceUsd": _usd(one.price_usd)} if staff else found


def _charges(model: Model, decided: Override) -> dict[str, Any]:
    return {
        "pricePerSecondUsd": _prices(model.price_usd_per_s, decided),
        "pricePerSecondWithSoundUsd": _prices(model.sound_price_usd_per_s, decided),
    }


def _model(model: Model, state: ModelState, measured: ModelHealth, decided: Override, *, staff: bool) -> dict[str, Any]:
    return {
        **camel(model, "id provider title"),
        "aliases": [alias for alias, ids in catalogue.ALIASES.items() if model.id in ids],
        **camel(model, "text image"),
        "durations": sorted(model.durations_s),
        # From an image: an empty list means that the image's own shape decides.
        "aspectRatios": {"text": list(model.text_ratios), "image": list(model.image_ratios)},
        "imageLimits": camel(model.image_limits, "types least_px=leastPixels widest=widestRatio")
        if model.image
        else None,
        **camel(model, "resolutions sound seed negative_prompt prompt_limit"),
        **(_charges(model, decided) if staff else {}),
        "quality": model.quality if decided.quality is None else decided.quality,
        "speed": model.speed if decided.speed is None else decided.speed,
        "availability": _availability(model, state, measured),
    }


def _prices(listed: Mapping[str, Decimal], decided: Override) -> dict[str, str | None]:
    """By resolution, as the catalogue or an operator says."""
    own = decided.price_usd_per_s
    return {resolution: _usd(price if own is None else own) for resolution, price in listed.items()}


def _availability(model: Model, state: ModelState, measured: ModelHealth) -> dict[str, Any]:
    reason = state.reason
    if measured.circuit_open:
        circuit = "open"
    else:
        circuit = "half_open" if health.is_half_open(measured) else "closed"
    return {
        "available": reason is None,
        "reason": reason and reason.text,
        "reasonCode": reason and reason.code.value,
        "freeSlots": state.free_slots,
        "circuit": circuit,
        **camel(measured, "success_rate samples"),
        "expectedSeconds": round(ranking.expected_s(model, measured), 1),
    }


def _usd(amount: Decimal | None) -> str | None:
    """As a decimal string, so that no reader adds binary fractions; at least cents."""
    if amount is None:
        return None
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
