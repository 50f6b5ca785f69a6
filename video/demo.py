"""The demo user, who exists only where every video is simulated."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from video import credits

NAME = PASSWORD = "demo"  # noqa: S105 - public on purpose, and refused outside simulation
CREDITS = 1000


def ensure_demo_user() -> None:
    """Make the user demo/demo, and fill its account up to 1,000 credits. Raises RuntimeError outside simulation."""
    if not settings.SIMULATE:
        raise RuntimeError("The demo user exists only with REELWORKS_SIMULATE=1.")
    users = get_user_model()
    user = users.objects.filter(username=NAME).first()
    if user is None:
        try:
            with transaction.atomic():
                user = users.objects.create_user(NAME, password=PASSWORD)
        except IntegrityError:
            user = users.objects.get(username=NAME)  # another start made it a moment ago
    short = CREDITS - credits.balance(user.pk)
    if short > CREDITS // 2:
        credits.grant(user.pk, short, note="demo")


def template_context(request: HttpRequest) -> dict[str, Any]:
    """`simulated` for every page: all of them say so."""
    return {"simulated": settings.SIMULATE}
