"""The servers that this process needs: the embedded ones held up, and the database found fit, before it begins."""

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


def require_fit_database() -> None:
    """End this process with one sentence, and code 1, if the database is there but can't be worked on: a pooler before
    it refuses or drops the time-outs that each connection asks for."""
    from video.infra import timeouts

    try:
        timeouts.require()
    except timeouts.NotInForce as unfit:
        raise SystemExit(str(unfit)) from None
