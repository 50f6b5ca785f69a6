"""What a unit of a provider's bill is worth in USD, and a credit of ours."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings

from providers.registry import PROVIDERS


@dataclass(frozen=True)
class Rate:
    """USD for one unit. `source`: where that is written, with its date; or the setting."""

    provider: str
    unit: str
    usd: Decimal
    source: str


def rates() -> list[Rate]:
    """One for each provider: as the adapter says, unless UNIT_USD says otherwise. They count for all times: a unit
    that was charged last year is worth what the rate says today.
    """
    own: dict[str, Decimal] = settings.UNIT_USD
    return [
        Rate(
            one.name,
            one.adapter.cost_unit,
            own.get(one.name, one.adapter.unit_usd),
            "UNIT_USD" if one.name in own else one.adapter.unit_usd_source,
        )
        for one in PROVIDERS
    ]


def credit_usd() -> Decimal | None:
    """What users pay for a credit, in USD; None: not said, so there is no margin."""
    found: Decimal | None = settings.CREDIT_USD
    return found
