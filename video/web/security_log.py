"""The security log: who logged in, was refused, changed a password or ended a login, and from where.

One line for each event, of the logger `reelworks.security`, with names and values that a program can read. Never a
password, a token, a key, or a name that no user has: it may be a password that was typed into the wrong field.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.http import HttpRequest

from providers.untrusted import storable
from video.web.client_address import client_address

log = logging.getLogger("reelworks.security")

SAMPLE_S = 10.0
_LONGEST_NAME = 150

_lock = threading.Lock()
_sampled: dict[str, tuple[float, int]] = {}


def record(
    event: str, *, address: str, user: AbstractBaseUser | None = None, level: int = logging.INFO, **facts: Any
) -> None:
    """Write one line. `address` is the client's; facts that are None are left out."""
    shown: dict[str, Any] = {"user": user.pk, "name": user.get_username()} if user is not None else {}
    shown |= {"address": address or "unknown", **facts}
    pairs = (f"{name}={_shown(value)}" for name, value in shown.items() if value is not None)
    log.log(level, "%s %s", event, " ".join(pairs))


def record_refused_name(event: str, name: str, *, address: str, **facts: Any) -> None:
    """The same for a name that was typed. One query, whether or not there is such a user."""
    user = get_user_model().objects.filter(username=name).first()
    record(event, address=address, user=user, level=logging.WARNING, unknown_name=None if user else True, **facts)


def record_sample(event: str, *, address: str, **facts: Any) -> None:
    """The same for what a flood repeats: one line in SAMPLE_S seconds; `left_out` counts those in between."""
    now = time.monotonic()
    with _lock:
        last, left_out = _sampled.get(event, (-SAMPLE_S, 0))
        if now - last < SAMPLE_S:
            _sampled[event] = (last, left_out + 1)
            return
        _sampled[event] = (now, 0)
    record(event, address=address, level=logging.WARNING, left_out=left_out or None, **facts)


def _shown(value: object) -> str:
    return json.dumps(storable(value, _LONGEST_NAME), ensure_ascii=False) if isinstance(value, str) else str(value)


class PasswordChanges:
    """Stands among AUTH_PASSWORD_VALIDATORS, since Django tells those of each change, whoever makes it."""

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        """Every password is fine."""

    def get_help_text(self) -> str:
        """Nothing to heed."""
        return ""

    def password_changed(self, password: str, user: AbstractBaseUser) -> None:
        """Called after the change was saved."""
        log.info("password_changed user=%s name=%s", user.pk, _shown(user.get_username()))


def watch() -> None:
    """Record the logins and logouts of Django's own sessions, which only the admin uses."""
    user_logged_in.connect(_admin_login, dispatch_uid="security_log")
    user_logged_out.connect(_admin_logout, dispatch_uid="security_log")


def _admin_login(sender: object, request: HttpRequest, user: AbstractBaseUser, **kwargs: object) -> None:
    record("login", address=client_address(request), user=user, door="admin")


def _admin_logout(sender: object, request: HttpRequest, user: AbstractBaseUser | None, **kwargs: object) -> None:
    record("logout", address=client_address(request), user=user, door="admin")
