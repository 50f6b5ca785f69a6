"""Pika's models as fal serves them, and the other names that users may call them by.

Read as of 2026-11-23: https://fal.ai/models/fal-ai/pika (`/api` and `/llms.txt` of each model). Pika runs no public
video API of its own any more. Pika 2.5 is left out: it has no published schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from providers.models import ImageLimits, Model, usd

_DOCS = "https://fal.ai/models/fal-ai/pika"

_model = partial(
    Model,
    provider="pika",
    image_limits=ImageLimits(),  # fal states none for Pika; ours keep a body small
    text_ratios=("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3"),
    longest_render_s=1800,
    prompt_limit=2000,  # none is stated; ours keeps a body small
    seed=True,
    negative_prompt=True,
)

MODELS: tuple[Model, ...] = (
    _model(
        id="pika-2.2",
        title="Pika 2.2",
        durations_s=frozenset({5, 10}),
        price_usd_per_s=usd(r720p="0.04", r1080p="0.09"),
        quality=3,
        speed=3,
        typical_render_s=90,
        source=_DOCS + "/v2.2/text-to-video",
        price_note="published for 5 s; 10 s as double is a guess",
    ),
    _model(
        id="pika-2.1",
        title="Pika 2.1",
        durations_s=frozenset({5}),  # "integer, default 5"; no other value or price is stated
        price_usd_per_s=usd(r720p="0.08", r1080p="0.08"),
        quality=3,
        speed=2,
        typical_render_s=110,
        source=_DOCS + "/v2.1/text-to-video",
    ),
    _model(
        id="pika-turbo",
        title="Pika 2 Turbo",
        durations_s=frozenset({5}),
        price_usd_per_s=usd(r720p="0.04", r1080p="0.04"),
        quality=2,
        speed=5,
        typical_render_s=45,
        longest_render_s=1200,
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
