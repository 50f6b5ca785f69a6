"""All models that we offer, gathered from the providers' folders: found by name, and priced.

Left out on purpose: models without a published schema, and those that need more than one image.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from providers.models import Model, Sound
from providers.registry import PROVIDERS

#: When the models' figures were last compared with their sources.
CHECKED_ON = "2026-11-23"

MODELS: tuple[Model, ...] = tuple(model for entry in PROVIDERS for model in entry.models)

BY_ID: Mapping[str, Model] = MappingProxyType({model.id: model for model in MODELS})

#: Other names in lower case: (id for text, id for image). Retired ids mean what comes nearest to them today; the answer
#: to the user says which model really ran.
ALIASES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {alias: ids for entry in PROVIDERS for alias, ids in entry.aliases.items()}
)


class UnknownModel(KeyError):
    """No such model or alias. `suggestions` are ids that look alike, best first."""

    def __init__(self, name: str, suggestions: tuple[str, ...]) -> None:
        super().__init__(name)
        self.name = name
        self.suggestions = suggestions

    def __str__(self) -> str:  # KeyError's own would be a quoted repr
        hint = f" Did you mean {' or '.join(self.suggestions)}?" if self.suggestions else ""
        return f"There is no model {self.name[:80]!r}.{hint}"


def find(model_or_alias: str, *, image: bool) -> Model:
    """The model that a name means today; some names mean one for text and another for images.

    Raises UnknownModel, with what looks alike.
    """
    name = model_or_alias.strip().lower()
    if name in BY_ID:
        return BY_ID[name]
    if name in ALIASES:
        return BY_ID[ALIASES[name][1 if image else 0]]
    raise UnknownModel(model_or_alias, tuple(difflib.get_close_matches(name, [*BY_ID, *ALIASES], n=3, cutoff=0.6)))


def price_usd(model: Model, duration_s: int, resolution: str, sound: bool | None = None) -> Decimal:
    """What the provider charges for one video, in USD. Raises ValueError for a resolution that the model lacks."""
    with_sound = sound and model.sound is Sound.OPTIONAL
    prices = model.sound_price_usd_per_s if with_sound else model.price_usd_per_s
    if resolution not in prices:
        raise ValueError(f"{model.id} has no price for {resolution}{' with sound' if with_sound else ''}")
    return prices[resolution] * duration_s
