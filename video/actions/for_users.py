"""What an operator does to the logins, keys and receivers of others: each act, its record and its line of the security
log in one place. What users do for themselves is in `video.web.logins` and `video.webhooks`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from video.audit import records
from video.audit.actors import Actor
from video.models import ApiKey, LoginSession, WebhookEndpoint
from video.web import security_log
from video.web.logins import api_keys, second_factor, sessions
from video.web.logins.api_keys import KeyOrder
from video.webhooks import endpoints


def end_login(login: LoginSession, *, by: Actor) -> bool:
    """Whether the login was alive; it is over now, with all its tokens."""
    with transaction.atomic():
        if not sessions.end(login.pk, login.user_id, LoginSession.End.OPERATOR):
            return False
        records.record(by, "end", "loginsession", login.pk, detail=f"of user {login.user_id}")
    _log("session_ended", login.user, by, session=login.pk)
    return True


def end_logins(user: AbstractBaseUser, *, by: Actor) -> int:
    """End everything that a user is logged in to, in the admin too. Returns how many logins."""
    with transaction.atomic():
        ended = sessions.end_all(user, LoginSession.End.OPERATOR)
        records.record(by, "end_logins", "user", user.pk, detail=f"{ended} ended")
    _log("logout_everywhere", user, by, ended=ended)
    return ended


def reset_second_factor(user: AbstractBaseUser, *, by: Actor) -> bool:
    """Whether the user had a second factor. It is gone, with the recovery codes."""
    with transaction.atomic():
        if not second_factor.reset(user):
            return False
        records.record(by, "reset_second_factor", "user", user.pk)
    _log("second_factor_reset", user, by)
    return True


def make_key(user: AbstractBaseUser, order: KeyOrder, *, by: Actor) -> tuple[str, str]:
    """(the key's id, its text). Raises as `api_keys.make` does."""
    with transaction.atomic():
        key_id, text = api_keys.make(user, order)
        detail = f"for user {user.pk}: {', '.join(sorted(set(order.scopes)))}"
        records.record(by, "make", "apikey", key_id, detail=detail)
    _log("key_made", user, by, key=key_id)
    return key_id, text


def change_key(key: ApiKey, *, by: Actor, **columns: Any) -> bool:
    """Whether the key had not ended; its name, scopes, limits and end are as given now."""
    with transaction.atomic():
        if not api_keys.change(key.pk, **columns):
            return False
        if columns:
            records.record(by, "change", "apikey", key.pk, detail=", ".join(columns))
    if columns:
        _log("key_changed", key.user, by, key=key.pk)
    return True


def roll_key(key_id: str, *, overlap: timedelta, by: Actor) -> str:
    """A new text of a key. Raises NoSuchKey."""
    with transaction.atomic():
        text = api_keys.roll(key_id, None, overlap=overlap)
        records.record(by, "roll", "apikey", key_id, detail=f"the old text is good for {overlap} more")
    _log("key_rolled", _owner(key_id), by, key=key_id)
    return text


def revoke_key(key_id: str, *, by: Actor) -> bool:
    """Whether the key was alive; it is over now with all its secrets."""
    with transaction.atomic():
        if not api_keys.end(key_id, None, ApiKey.End.OPERATOR):
            return False
        records.record(by, "revoke", "apikey", key_id)
    _log("key_revoked", _owner(key_id), by, key=key_id)
    return True


def revoke_keys(user: AbstractBaseUser, *, by: Actor) -> int:
    """End all API keys of a user. Returns how many."""
    with transaction.atomic():
        ended = api_keys.end_all(user.pk, ApiKey.End.OPERATOR)
        records.record(by, "revoke_keys", "user", user.pk, detail=f"{ended} revoked")
    _log("keys_revoked", user, by, ended=ended)
    return ended


def switch_endpoint_off(endpoint: WebhookEndpoint, *, by: Actor) -> None:
    """What waits for it is dropped. Raises WebhookRefused."""
    with transaction.atomic():
        endpoints.change(endpoint.pk, endpoint.user_id, enabled=False)
        records.record(by, "switch_off", "webhookendpoint", endpoint.pk)


def resend(delivery_id: str, *, by: Actor) -> None:
    """Send a delivery again, now. Raises WebhookRefused."""
    with transaction.atomic():
        endpoints.resend(delivery_id)
        records.record(by, "resend", "webhookdelivery", delivery_id)


def _owner(key_id: str) -> AbstractBaseUser:
    user: AbstractBaseUser = ApiKey.objects.select_related("user").get(pk=key_id).user
    return user


def _log(event: str, user: AbstractBaseUser, by: Actor, **facts: Any) -> None:
    address = by.source if by.via == by.via.ADMIN else "this host"
    security_log.record(event, address=address, user=user, by=by.words, **facts)
