"""Settings of what is made beside a video."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from media_pipeline.encode.cover import WHAT_IT_MAY_BE, spelled


def cover(text: str) -> str:
    """COVER in its one spelling. Raises ImproperlyConfigured."""
    try:
        return spelled(text)
    except ValueError:
        raise ImproperlyConfigured(f"COVER must be {WHAT_IT_MAY_BE}.".replace('"', "")) from None
