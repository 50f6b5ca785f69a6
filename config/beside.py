"""Settings of what is made beside a video."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.exceptions import ImproperlyConfigured

from media_pipeline.encode import extra_kinds
from media_pipeline.encode.cover import WHAT_IT_MAY_BE, spelled


def cover(text: str) -> str:
    """COVER in its one spelling. Raises ImproperlyConfigured."""
    try:
        return spelled(text)
    except ValueError:
        raise ImproperlyConfigured(f"COVER must be {WHAT_IT_MAY_BE}.".replace('"', "")) from None


def extras(words: Iterable[str]) -> tuple[str, ...]:
    """EXTRAS in their order. Raises ImproperlyConfigured."""
    try:
        return tuple(extra_kinds.spelled(words))
    except ValueError:
        known = ", ".join(extra_kinds.KINDS)
        raise ImproperlyConfigured(f"EXTRAS must be words of {known}, with commas between them.") from None
