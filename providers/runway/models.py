"""Runway's models, and the other names that users may call them by.

Read as of 2026-11-23: https://docs.dev.runwayml.com (models, errors, tiers), the `runwayml` 5.24.0 package's request
types, and https://github.com/runwayml/skills for credits per second. 1 credit is $0.01. Other vendors' models that
Runway resells are left out but for Veo.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from providers.models import ImageLimits, Model, PromptUnit, Sound, usd

_IMAGE_RATIOS = ("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")

#: A data URI may have 5 MB as text, by https://docs.dev.runwayml.com/assets/inputs; base64 makes 4 bytes of 3. Which
#: ratios it takes is not documented, so it is asked: a refusal costs nothing.
_DATA_URI = ImageLimits(max_bytes=(5_000_000 - len("data:image/jpeg;base64,")) // 4 * 3)

_model = partial(
    Model,
    provider="runway",
    image_limits=_DATA_URI,
    text_ratios=("16:9", "9:16"),
    longest_render_s=1800,
    prompt_limit=1000,
    prompt_unit=PromptUnit.UTF16,
    source="https://docs.dev.runwayml.com",
)
_veo = partial(
    _model,
    durations_s=frozenset({4, 6, 8}),
    image_ratios=("16:9", "9:16"),
    sound=Sound.OPTIONAL,
    image_needs_prompt=False,
    negative_prompt=True,
    seed=True,
)

MODELS: tuple[Model, ...] = (
    _model(
        id="gen4.5",
        title="Runway Gen-4.5",
        durations_s=frozenset(range(2, 11)),
        image_ratios=_IMAGE_RATIOS,
        price_usd_per_s=usd(r720p="0.12"),
        quality=5,
        speed=3,
        typical_render_s=120,
        seed=True,
    ),
    _model(
        id="gen4_turbo",
        title="Runway Gen-4 Turbo",
        text=False,
        durations_s=frozenset(range(2, 11)),  # an older rule was 5 or 10; 2..10 is from a reseller's page
        text_ratios=(),
        image_ratios=_IMAGE_RATIOS,
        price_usd_per_s=usd(r720p="0.05"),
        quality=4,
        speed=5,
        typical_render_s=40,
        longest_render_s=1200,
        image_needs_prompt=False,
        seed=True,
    ),
    _veo(
        id="veo3.1",
        title="Veo 3.1 (through Runway)",
        price_usd_per_s=usd(r720p="0.20", r1080p="0.20"),
        sound_price_usd_per_s=usd(r720p="0.40", r1080p="0.40"),
        quality=5,
        speed=2,
        typical_render_s=150,
        price_note="20 to 40 credits a second are published; silent and with sound is our reading of the range",
    ),
    _veo(
        id="veo3.1_fast",
        title="Veo 3.1 Fast (through Runway)",
        price_usd_per_s=usd(r720p="0.10", r1080p="0.10"),
        sound_price_usd_per_s=usd(r720p="0.15", r1080p="0.15"),
        quality=4,
        speed=4,
        typical_render_s=75,
        price_note="10 to 15 credits a second are published; silent and with sound is our reading of the range",
    ),
)

ALIASES: Mapping[str, tuple[str, str]] = {
    # Runway took gen3a_turbo (and veo3) out of service in June 2026; it never made videos from text alone.
    **dict.fromkeys(("runway", "runway-gen3", "gen3a_turbo", "gen3", "gen-3"), ("gen4.5", "gen4_turbo")),
    "gen-4.5": ("gen4.5", "gen4.5"),
    "gen4": ("gen4.5", "gen4_turbo"),
    "gen4-turbo": ("gen4_turbo", "gen4_turbo"),
    "veo3": ("veo3.1", "veo3.1"),
}
