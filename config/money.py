"""Settings of prices: what users pay, and what our providers' units and our credits are worth."""

from __future__ import annotations

import re
from decimal import Decimal

from django.core.exceptions import ImproperlyConfigured

from config import env as read
from config.env import Environment
from providers.registry import PROVIDERS

_DECIMAL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?", re.ASCII)
_MOST = 1_000_000


def prices(env: Environment) -> tuple[int, int]:
    """Credits of a video and of a render that no rule of the price list says otherwise of."""
    of_video = read.whole(env, "CREDITS_PER_VIDEO", 10, least=0, most=_MOST)
    return of_video, read.whole(env, "CREDITS_PER_RENDER", 0, least=0, most=_MOST)


def worth(env: Environment) -> tuple[Decimal | None, dict[str, Decimal]]:
    """USD of a credit (None: not said), and USD of a unit of a provider's bill, by the provider's name."""
    of_unit: dict[str, Decimal] = {}
    known = {provider.name for provider in PROVIDERS}
    for position, word in enumerate(read.words(env, "UNIT_USD"), 1):
        name, colon, amount = word.partition(":")
        if not colon or name not in known or name in of_unit:
            raise ImproperlyConfigured(
                f"UNIT_USD: entry {position} of the list must be a provider, each once, and its price, such as "
                f"runway:0.01; there are {', '.join(sorted(known))}."
            )
        of_unit[name] = _decimal(f"UNIT_USD: entry {position} of the list", amount)
    text = read.text(env, "CREDIT_USD")
    return (_decimal("CREDIT_USD", text) if text else None), of_unit


def _decimal(what: str, text: str) -> Decimal:
    """At most four digits before the point and six after it: what is multiplied by it stays exact."""
    if not _DECIMAL.fullmatch(text):
        raise ImproperlyConfigured(f"{what} must be an amount in USD such as 0.05, with at most six decimals.")
    return Decimal(text)
