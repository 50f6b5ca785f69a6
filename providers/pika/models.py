"""Pika's models as fal serves them, and the other names that users may call them by.

Read as of 2026-11-23: https://fal.ai/models/fal-ai/pika (`/api` and `/llms.txt` of each model). Pika runs no public
video API of its own any more. Pika 2.5 is left out: it has no published schema.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.models import Model, usd

_RATIOS = ("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3")
_DOCS = "https://fal.ai/models/fal-ai/pika"

MODELS: tuple[Model, ...] = (
    Model(
        id="pika-2.2",
        provider="pika",
        title="Pika 2.2",
        text=True,
        image=True,
        durations_s=frozenset({5, 10}),
        text_ratios=_RATIOS,
        image_ratios=(),
        price_usd_per_s=usd(r720p="0.04", r1080p="0.09"),
        quality=3,
        speed=3,
        typical_render_s=90,
        longest_render_s=1800,
        prompt_limit=2000,  # none is stated; ours keeps a body small
        seed=True,
        negative_prompt=True,
        source=_DOCS + "/v2.2/text-to-video",
        price_note="published for 5 s; 10 s as double is a guess",
    ),
    Model(
        id="pika-2.1",
        provider="pika",
        title="Pika 2.1",
        text=True,
        image=True,
        durations_s=frozenset({5}),  # "integer, default 5"; no other value or price is stated
        text_ratios=_RATIOS,
        image_ratios=(),
        price_usd_per_s=usd(r720p="0.08", r1080p="0.08"),
        quality=3,
        speed=2,
        typical_render_s=110,
        longest_render_s=1800,
        prompt_limit=2000,
        seed=True,
        negative_prompt=True,
        source=_DOCS + "/v2.1/text-to-video",
    ),
    Model(
        id="pika-turbo",
        provider="pika",
        title="Pika 2 Turbo",
        text=True,
        image=True,
        durations_s=frozenset({5}),
        text_ratios=_RATIOS,
        image_ratios=(),
        price_usd_per_s=usd(r720p="0.04", r1080p="0.04"),
        quality=2,
        speed=5,
        typical_render_s=45,
        longest_render_s=1200,
        prompt_limit=2000,
        seed=True,
        negative_prompt=True,
        source=_DOCS + "/v2/turbo/text-to-video",
    ),
)

ALIASES: Mapping[str, tuple[str, str]] = {
    # No API model was ever called "Pika 1.0"; 2.2 is Pika's best on fal, at the cheapest price.
    "pika": ("pika-2.2", "pika-2.2"),
    "pika-1.0": ("pika-2.2", "pika-2.2"),
    "pika-2-turbo": ("pika-turbo", "pika-turbo"),
    **{
        f"fal-ai/pika/{path}{kind}": (ours, ours)
        for path, ours in (("v2.2", "pika-2.2"), ("v2.1", "pika-2.1"), ("v2/turbo", "pika-turbo"))
        for kind in ("", "/text-to-video", "/image-to-video")
    },
}
