"""Acme's one model."""

from __future__ import annotations

from providers.models import Model, usd

MODELS: tuple[Model, ...] = (
    Model(
        id="acme-1",
        provider="acme",
        title="Acme One",
        image=False,
        durations_s=frozenset({4, 5}),
        text_ratios=("16:9", "9:16"),
        price_usd_per_s=usd(r720p="0.01"),
        quality=1,
        speed=5,
        typical_render_s=10,
        longest_render_s=600,
        prompt_limit=500,
        source="https://films.acme.invalid/docs",
    ),
)
