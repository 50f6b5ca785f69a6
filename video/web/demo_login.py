"""The demo user, who can sign in only where every video is simulated.

Its row has no password: demo/demo is known to a backend that the settings install only while simulating. So a database
that was tried out with the simulator opens no door once it has real keys.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, transaction
from django.db.models import Model
from django.http import HttpRequest

from video.credits import ledger

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
                user = users.objects.create_user(NAME, password=None, is_staff=True)
        except IntegrityError:
            user = users.objects.get(username=NAME)  # another process made it a moment ago
    short = CREDITS - ledger.balance(user.pk)
    if short > CREDITS // 2:
        ledger.grant(user.pk, short, note="demo")


def may_use(user: AbstractBaseUser) -> bool:
    """Whether a token or session of this user counts: the demo user's only while simulating."""
    return settings.SIMULATE or user.has_usable_password() or user.get_username() != NAME


class DemoBackend(BaseBackend):
    """Signs the demo user in, and lets it read the admin."""

    def authenticate(self, request: HttpRequest | None, **kwargs: Any) -> User | None:
        """The demo user for demo/demo, else None."""
        if (kwargs.get("username"), kwargs.get("password")) != (NAME, PASSWORD):
            return None
        return get_user_model().objects.filter(username=NAME, is_active=True).first()

    def get_user(self, user_id: int) -> User | None:
        """The demo user, when the session says so."""
        return get_user_model().objects.filter(pk=user_id, username=NAME).first()

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Model | None = None) -> bool:
        """Everything of a job may be looked at, nothing changed."""
        return user_obj.get_username() == NAME and perm.startswith("video.view_")

    def has_module_perms(self, user_obj: AbstractBaseUser | AnonymousUser, app_label: str) -> bool:
        """Only the app of the jobs."""
        return user_obj.get_username() == NAME and app_label == "video"


def template_context(request: HttpRequest) -> dict[str, Any]:
    """`simulated` for every page: all of them say so."""
    return {"simulated": settings.SIMULATE}
