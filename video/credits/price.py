"""The price of an order in credits. Create, retry and quote ask here, so that they can't differ.

The price follows the order: the model that it names, or that it names none; its seconds, resolution and sound. Which
model runs it in the end, by our choice or as a fallback, changes nothing.

Rules are read by each process at most once in `KEPT_S` seconds, so a rule counts everywhere a moment after it is
changed. Who wants to pay no more than a quote said sends `maxCredits` with the order.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.conf import settings

from providers import catalogue
from video.infra import database
from video.infra.errors import Refusal
from video.models import PriceRule, VideoTask
from video.models.order import Order

KEPT_S: Final = 2.0


class DearerThanAllowed(Refusal):
    """The order costs more than its client is ready to pay. Nothing was made."""

    code = "price_too_high"

    def __init__(self, *, price: int, most: int) -> None:
        self.price, self.most = price, most
        super().__init__(f"This costs {price} credits, and the request allows {most} at most (maxCredits).")


@dataclass
class _Known:
    """The rules as this process read them last."""

    rules: Sequence[PriceRule] = ()
    read_at: float = -math.inf


_known = _Known()


def credits_of(order: Order | VideoTask) -> int:
    """What one run of this order costs its user: by the most specific rule of the price list that fits it, else
    CREDITS_PER_VIDEO (10). A render costs CREDITS_PER_RENDER (0). No statement, or one if the rules are old.
    """
    if isinstance(order, VideoTask) and order.render_of_id is not None:
        of_render: int = settings.CREDITS_PER_RENDER
        return of_render
    rule = rule_of(order, rules())
    default: int = settings.CREDITS_PER_VIDEO
    return default if rule is None else by_rule(rule, order.duration_s)


def refuse_dearer(price: int, most: int | None) -> None:
    """Raise DearerThanAllowed for a price above `most`; None: any."""
    if most is not None and price > most:
        raise DearerThanAllowed(price=price, most=most)


def by_rule(rule: PriceRule, duration_s: int) -> int:
    """Whole credits: the sum is rounded up."""
    return rule.credits + math.ceil(rule.credits_per_second * duration_s)


def rule_of(order: Order | VideoTask, among: Sequence[PriceRule]) -> PriceRule | None:
    """The most specific rule that fits the order. No two that fit it are equally specific: the table has no rule twice,
    and those that fit and name the same fields would be equal.
    """
    model = _model_of(order)
    sound = PriceRule.Sound.WITH if order.sound else PriceRule.Sound.SILENT
    fit = [
        rule
        for rule in among
        if rule.model in ("", model)
        and rule.seconds in (0, order.duration_s)
        and rule.resolution in ("", order.resolution)
        and rule.sound in ("", sound)
    ]
    return max(fit, key=_weight, default=None)


def _weight(rule: PriceRule) -> tuple[bool, ...]:
    return bool(rule.model), bool(rule.seconds), bool(rule.resolution), bool(rule.sound)


def _model_of(order: Order | VideoTask) -> str:
    """The id of the model that the order names, as rules name it."""
    if not order.model_requested:
        return PriceRule.NO_MODEL
    try:
        return catalogue.find(order.model_requested, image=bool(order.image_url)).id
    except catalogue.UnknownModel:  # of a task that an older version made
        return order.model_requested


#: The price list as one row: a SELECT that a statement may send along, for `note`.
SNAPSHOT: Final = """SELECT coalesce(json_agg(json_build_array(
    model, seconds, resolution, sound, credits, credits_per_second::text)), '[]')::text AS rules FROM video_pricerule"""


def is_old() -> bool:
    """Whether the next statement that can should read the rules anew."""
    return time.monotonic() - _known.read_at > KEPT_S


def note(found: str) -> None:
    """What `SNAPSHOT` read a moment ago."""
    _known.rules = [
        PriceRule(
            model=model,
            seconds=seconds,
            resolution=resolution,
            sound=sound,
            credits=credits,
            credits_per_second=Decimal(per_second),
        )
        for model, seconds, resolution, sound, credits, per_second in json.loads(found)
    ]
    _known.read_at = time.monotonic()


def rules() -> Sequence[PriceRule]:
    """The price list, not older than `KEPT_S`."""
    if is_old():
        note(database.value(SNAPSHOT))
    return _known.rules


def forget() -> None:
    """This process reads the rules anew."""
    _known.read_at = -math.inf
