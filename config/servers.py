"""Which embedded servers the settings ask for, held up for as long as this process lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.embedded import Held


def hold_embedded() -> Held | None:
    """Start (or join) the embedded servers that stand in for an unset DATABASE_URL or CELERY_BROKER_URL.

    None when both are configured. Raises the embedded package's error, in plain words, when a server won't start.
    """
    from django.conf import settings

    if not (settings.EMBEDDED_DATABASE or settings.EMBEDDED_BROKER):
        return None
    from config import embedded

    return embedded.hold(settings.REELWORKS_HOME, postgres=settings.EMBEDDED_DATABASE, valkey=settings.EMBEDDED_BROKER)
