"""API keys: made, listed, rolled, ended. A key's text is returned once, by what makes it, and is nowhere else.

Where a key is checked: `video.api.key_login`. What it has spent: `video.credits.key_spend`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet
from django.db.models.functions import Now

from providers.untrusted import storable
from video import ids
from video.infra import database
from video.infra.errors import Refusal
from video.models import ApiKey, ApiKeySecret
from video.web.logins import key_text

MOST_OF_USER = 100  # that are alive
LONGEST_OVERLAP_S = 30 * 86400
KEPT_DAYS = 30  # that a key is shown after its end
LONGEST_NAME = 80


class TooManyKeys(Refusal):
    """The user has as many keys as may be alive."""

    code = "too_many_keys"

    def __init__(self) -> None:
        super().__init__(f"You have {MOST_OF_USER} keys already; revoke one that is not needed.")


class NoSuchKey(Refusal):
    """There is no such key that is alive, or it belongs to another user."""

    code = "not_found"


@dataclass(frozen=True)
class KeyOrder:
    """What a key is to be. The fields are those of the row."""

    name: str
    scopes: Sequence[str]
    addresses: Sequence[str] = ()  # CIDR, normalised
    daily_credits: int | None = None
    requests_per_minute: int | None = None
    lasts: timedelta | None = None  # None: for ever


def network(text: str) -> str:
    """A network or address that a key may come from, as it is kept. Raises ValueError with what would be right."""
    try:
        found = ipaddress.ip_network(text.strip())
    except ValueError:
        found = None
    if found is None or "%" in text or (found.version == 6 and found.network_address.ipv4_mapped is not None):
        raise ValueError("must be an IP address or a network such as 203.0.113.0/24 or 2001:db8::/48")
    return str(found)


def is_id(text: str) -> bool:
    """Whether a key may be called so."""
    return text.startswith("key_") and ids.made_at(text) is not None


def make(user: AbstractBaseUser, order: KeyOrder) -> tuple[str, str]:
    """(the key's id, its text). Raises TooManyKeys, and NoSuchKey if the user was switched off or the password changed
    since `user` was read.
    """
    text, key_id = key_text.new(), ids.key_id()
    with transaction.atomic():
        row = database.fetch_one(
            """
            INSERT INTO video_apikey (id, user_id, name, scopes, addresses, daily_credits, requests_per_minute,
                expires_at)
            SELECT %(id)s, u.id, %(name)s, %(scopes)s::varchar[], %(addresses)s::varchar[], %(credits)s,
                %(requests)s, statement_timestamp() + %(lasts)s::interval
            FROM auth_user u WHERE u.id = %(user)s AND u.password = %(password)s AND u.is_active FOR SHARE
            RETURNING (SELECT count(*) FROM video_apikey o WHERE o.user_id = %(user)s AND o.ended_at IS NULL
                AND (o.expires_at IS NULL OR o.expires_at > statement_timestamp()))
            """,
            {
                "id": key_id,
                "user": user.pk,
                "password": user.password,
                "name": storable(order.name, LONGEST_NAME),
                "scopes": sorted(set(order.scopes)),
                "addresses": list(order.addresses),
                "credits": order.daily_credits,
                "requests": order.requests_per_minute,
                "lasts": order.lasts,
            },
        )
        if row is None:
            raise NoSuchKey("This user can't have keys now: log in again.")
        if row[0] >= MOST_OF_USER:  # as it was before this one
            raise TooManyKeys
        _add_secret(key_id, text)
    return key_id, text


def roll(key_id: str, user_id: int | None, *, overlap: timedelta) -> str:
    """A new text of a key, of this user if one is given. What was good before stays so for `overlap`, and no longer.

    Raises NoSuchKey. Two at once: the second rolls what the first made.
    """
    text = key_text.new()
    with transaction.atomic():
        if not alive(user_id).filter(pk=key_id).select_for_update().exists():
            raise NoSuchKey("There is no such key.")
        ends_at = Now() + overlap
        ApiKeySecret.objects.filter(Q(ends_at=None) | Q(ends_at__gt=ends_at), key=key_id).update(ends_at=ends_at)
        _add_secret(key_id, text)
    return text


def change(key_id: str, **columns: Any) -> bool:
    """Set columns of a key that has not ended: its name, scopes, limits and end. Whether it was there."""
    return bool(ApiKey.objects.filter(pk=key_id, ended_at=None).update(**columns) if columns else True)


def end(key_id: str, user_id: int | None, why: ApiKey.End) -> bool:
    """Whether the key, of this user if one is given, was alive; it is over now with all its secrets."""
    return bool(alive(user_id).filter(pk=key_id).update(ended_at=Now(), end_reason=why))


def end_all(user_id: int, why: ApiKey.End) -> int:
    """End every key of a user. Returns how many."""
    return alive(user_id).update(ended_at=Now(), end_reason=why)


def alive(user_id: int | None) -> QuerySet[ApiKey]:
    """Keys that are good: of a user, or of all."""
    keys = ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), ended_at=None)
    return keys if user_id is None else keys.filter(user=user_id)


def with_secrets(keys: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
    """The same keys, the newest first, with the secrets that are good, the newest first; two statements."""
    good = ApiKeySecret.objects.filter(Q(ends_at=None) | Q(ends_at__gt=Now())).order_by("-made_at")
    return keys.order_by("-made_at", "-pk").prefetch_related(Prefetch("secrets", queryset=good))


def forget(user_id: int) -> int:
    """Delete the keys of a user who is erased. Returns how many rows."""
    return ApiKey.objects.filter(user=user_id).delete()[0]


def sweep() -> int:
    """Delete keys that ended KEPT_DAYS ago, and secrets that are over. Returns how many rows."""
    kept = Now() - timedelta(days=KEPT_DAYS)
    over = ApiKey.objects.filter(Q(ended_at__lt=kept) | Q(expires_at__lt=kept))
    return over.delete()[0] + ApiKeySecret.objects.filter(ends_at__lt=kept).delete()[0]


def _add_secret(key_id: str, text: str) -> None:
    secret = ApiKeySecret(key_id=key_id, digest=key_text.digest(text), hint=key_text.hint(text))
    secret.save(force_insert=True)
