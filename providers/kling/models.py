"""Kling's models, and the other names that users may call them by.

Read as of 2026-11-23: https://kling.ai/document-api (model pages and price list of the newer standard). Left out:
Kling o1 and 3.0-omni, which have no published schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from providers.models import JPEG, PNG, ImageLimits, Model, Sound, usd

_model = partial(
    Model,
    provider="kling",
    # The older standard's; the newer one takes 50 MB. A picture that breaks the others makes a task that fails.
    image_limits=ImageLimits(types=(JPEG, PNG), max_bytes=10_000_000, least_px=300, widest=2.5),
    text_ratios=("16:9", "9:16", "1:1"),
    longest_render_s=3600,
    prompt_limit=2500,  # 3072 for text on the newer standard; 2500 holds everywhere
    source="https://kling.ai/document-api",
)

MODELS: tuple[Model, ...] = (
    _model(
        id="kling-3.0",
        title="Kling 3.0",
        durations_s=frozenset(range(3, 16)),
        # 4k is left out: only its price with unknown sound is published, and storage is made for 1080p.
        price_usd_per_s=usd(r720p="0.084", r1080p="0.112"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=usd(r720p="0.126", r1080p="0.168"),
        quality=5,
        speed=2,
        typical_render_s=180,
    ),
    _model(
        id="kling-3.0-turbo",
        title="Kling 3.0 Turbo",
        durations_s=frozenset(range(3, 16)),
        price_usd_per_s=usd(r720p="0.112", r1080p="0.14"),
        sound=Sound.ALWAYS,
        quality=4,
        speed=4,
        typical_render_s=90,
    ),
    _model(
        id="kling-2.6",
        title="Kling 2.6",
        durations_s=frozenset({5, 10}),
        price_usd_per_s=usd(r720p="0.042", r1080p="0.07"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=usd(r1080p="0.14"),  # sound at 1080p only
        quality=4,
        speed=3,
        typical_render_s=150,
    ),
    _model(
        id="kling-2.5-turbo",
        title="Kling 2.5 Turbo",
        durations_s=frozenset({5, 10}),
        price_usd_per_s=usd(r720p="0.042", r1080p="0.07"),
        quality=4,
        speed=4,
        typical_render_s=110,
    ),
)

ALIASES: Mapping[str, tuple[str, str]] = {
    "kling": ("kling-2.5-turbo", "kling-2.5-turbo"),
    "kling-v3": ("kling-3.0", "kling-3.0"),
    "kling-v2-6": ("kling-2.6", "kling-2.6"),
    "kling-v2-5-turbo": ("kling-2.5-turbo", "kling-2.5-turbo"),
    # "The model 'kling-v1' has been discontinued"; the rest exist on the older standard only, and go one by one.
    **dict.fromkeys(
        ("kling-v1", "kling-v1-5", "kling-v1-6", "kling-v2-master", "kling-v2-1", "kling-v2-1-master"),
        ("kling-2.5-turbo", "kling-2.5-turbo"),
    ),
}
