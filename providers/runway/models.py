"""Runway's models, and the other names that users may call them by.

Read as of 2026-11-23: https://docs.dev.runwayml.com (models, errors, tiers), the `runwayml` 5.24.0 package's request
types, and https://github.com/runwayml/skills for credits per second. 1 credit is $0.01. Other vendors' models that
Runway resells are left out but for Veo.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.models import Model, PromptUnit, Sound, usd

_IMAGE_RATIOS = ("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")
_DOCS = "https://docs.dev.runwayml.com"

MODELS: tuple[Model, ...] = (
    Model(
        id="gen4.5",
        provider="runway",
        title="Runway Gen-4.5",
        text=True,
        image=True,
        durations_s=frozenset(range(2, 11)),
        text_ratios=("16:9", "9:16"),
        image_ratios=_IMAGE_RATIOS,
        price_usd_per_s=usd(r720p="0.12"),
        quality=5,
        speed=3,
        typical_render_s=120,
        longest_render_s=1800,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        seed=True,
        source=_DOCS,
    ),
    Model(
        id="gen4_turbo",
        provider="runway",
        title="Runway Gen-4 Turbo",
        text=False,
        image=True,
        durations_s=frozenset(range(2, 11)),  # an older rule was 5 or 10; 2..10 is from a reseller's page
        text_ratios=(),
        image_ratios=_IMAGE_RATIOS,
        price_usd_per_s=usd(r720p="0.05"),
        quality=4,
        speed=5,
        typical_render_s=40,
        longest_render_s=1200,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        image_needs_prompt=False,
        seed=True,
        source=_DOCS,
    ),
    Model(
        id="veo3.1",
        provider="runway",
        title="Veo 3.1 (through Runway)",
        text=True,
        image=True,
        durations_s=frozenset({4, 6, 8}),
        text_ratios=("16:9", "9:16"),
        image_ratios=("16:9", "9:16"),
        price_usd_per_s=usd(r720p="0.20", r1080p="0.20"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=usd(r720p="0.40", r1080p="0.40"),
        quality=5,
        speed=2,
        typical_render_s=150,
        longest_render_s=1800,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        image_needs_prompt=False,
        negative_prompt=True,
        source=_DOCS,
        price_note="20 to 40 credits a second are published; silent and with sound is our reading of the range",
    ),
    Model(
        id="veo3.1_fast",
        provider="runway",
        title="Veo 3.1 Fast (through Runway)",
        text=True,
        image=True,
        durations_s=frozenset({4, 6, 8}),
        text_ratios=("16:9", "9:16"),
        image_ratios=("16:9", "9:16"),
        price_usd_per_s=usd(r720p="0.10", r1080p="0.10"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=usd(r720p="0.15", r1080p="0.15"),
        quality=4,
        speed=4,
        typical_render_s=75,
        longest_render_s=1800,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        image_needs_prompt=False,
        negative_prompt=True,
        source=_DOCS,
        price_note="10 to 15 credits a second are published; silent and with sound is our reading of the range",
    ),
)

ALIASES: Mapping[str, tuple[str, str]] = {
    # Runway took gen3a_turbo (and veo3) out of service in June 2026; it never made videos from text alone.
    "runway": ("gen4.5", "gen4_turbo"),
    "runway-gen3": ("gen4.5", "gen4_turbo"),
    "gen3a_turbo": ("gen4.5", "gen4_turbo"),
    "gen3": ("gen4.5", "gen4_turbo"),
    "gen-3": ("gen4.5", "gen4_turbo"),
    "gen-4.5": ("gen4.5", "gen4.5"),
    "gen4": ("gen4.5", "gen4_turbo"),
    "gen4-turbo": ("gen4_turbo", "gen4_turbo"),
    "veo3": ("veo3.1", "veo3.1"),
}
