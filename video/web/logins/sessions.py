"""Sessions of the API: a login, the refresh tokens that follow one another, and its end.

Each refresh token is exchanged once. The one that was exchanged last is taken again for GRACE_S seconds: two tabs
refresh at the same moment, or an answer is lost on its way. It then yields what the first exchange did, so there is
always one token that is next. Any older one proves that somebody kept a copy, and the session ends.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.models import Session as AdminSession
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from providers.untrusted import storable
from video import ids
from video.infra import database
from video.models import LoginSession

GRACE_S = 30
KEPT_DAYS = 30  # that a session is shown to operators after its end


def is_id(text: object) -> bool:
    """Whether a session may be called so."""
    return isinstance(text, str) and text.startswith("login_") and ids.made_at(text) is not None


@dataclass(frozen=True)
class Login:
    """A session, as tokens are made of it."""

    id: str
    refresh_id: str
    ends_at: datetime


def start(user: AbstractBaseUser, *, address: str, user_agent: str) -> Login | None:
    """A new session. None if the user was switched off or the password changed since `user` was read."""
    row = database.fetch_one(
        """
        INSERT INTO video_loginsession (id, user_id, ends_at, address, user_agent, refresh_id, exchanged_id, end_reason)
        SELECT %(id)s, id, statement_timestamp() + %(age)s, %(address)s::inet, %(agent)s, %(refresh)s, '', ''
        FROM auth_user WHERE id = %(user)s AND password = %(password)s AND is_active FOR SHARE
        RETURNING id, refresh_id, ends_at
        """,
        {
            "id": ids.login_id(),
            "user": user.pk,
            "password": user.password,
            "age": timedelta(days=settings.LOGIN_DAYS),
            "refresh": secrets.token_hex(16),
            **_client(address, user_agent),
        },
    )
    return Login(*row) if row else None


def exchange(session_id: str, refresh_id: str, *, address: str, user_agent: str) -> Login | None:
    """The session with the refresh token that comes after this one.

    None if the session is over, or if this token came too late: then it must end.
    """
    params: dict[str, Any] = {
        "id": session_id,
        "presented": refresh_id,
        "next": secrets.token_hex(16),
        "grace": timedelta(seconds=GRACE_S),
        **_client(address, user_agent),
    }
    # The second statement sees what the first one waited for: of two at once, one exchanges and one comes after it.
    row = database.fetch_one(_EXCHANGE, params) or database.fetch_one(_REPEAT, params)
    return Login(*row) if row else None


def end(session_id: str, user_id: int, why: LoginSession.End) -> bool:
    """Whether the session of this user was alive; it is over now, with all its tokens."""
    return bool(_end(alive(user_id).filter(pk=session_id), why))


def end_all(user: AbstractBaseUser, why: LoginSession.End) -> int:
    """End every session of a user, in the admin too. Returns how many."""
    ended = _end(alive(user.pk), why)
    if user.is_staff:  # type: ignore[attr-defined]  # AbstractUser's
        for session in AdminSession.objects.filter(expire_date__gt=timezone.now()):
            if session.get_decoded().get("_auth_user_id") == str(user.pk):
                session.delete()
                ended += 1
    return ended


def forget(user_id: int) -> int:
    """Delete the sessions of a user who is erased, with their addresses and clients. Returns how many."""
    return LoginSession.objects.filter(user=user_id).delete()[0]


def alive(user_id: int) -> QuerySet[LoginSession]:
    """The sessions of a user whose tokens are good, the last used first."""
    sessions = LoginSession.objects.filter(user=user_id, ended_at__isnull=True, ends_at__gt=Now())
    return sessions.filter(last_used_at__gt=Now() - timedelta(days=settings.REFRESH_DAYS)).order_by("-last_used_at")


def sweep() -> int:
    """Delete what ended KEPT_DAYS ago, and sessions of the admin that are over. Returns how many."""
    kept = Now() - timedelta(days=KEPT_DAYS)
    unused = Q(last_used_at__lt=kept - timedelta(days=settings.REFRESH_DAYS))
    over = Q(ended_at__lt=kept) | Q(ends_at__lt=kept) | unused
    of_admin = AdminSession.objects.filter(expire_date__lt=timezone.now())
    return LoginSession.objects.filter(over).delete()[0] + of_admin.delete()[0]


def _end(sessions: QuerySet[LoginSession], why: LoginSession.End) -> int:
    return sessions.order_by().update(ended_at=Now(), end_reason=why)


def _client(address: str, user_agent: str) -> dict[str, str | None]:
    return {"address": address or None, "agent": storable(user_agent, 200)}


_ALIVE = "id = %(id)s AND ended_at IS NULL AND ends_at > statement_timestamp()"
_EXCHANGE = f"""
UPDATE video_loginsession SET exchanged_id = refresh_id, refresh_id = %(next)s, exchanged_at = statement_timestamp(),
    last_used_at = statement_timestamp(), address = %(address)s::inet, user_agent = %(agent)s
WHERE {_ALIVE} AND refresh_id = %(presented)s
RETURNING id, refresh_id, ends_at
"""  # noqa: S608 - constants
_REPEAT = f"""
UPDATE video_loginsession SET last_used_at = statement_timestamp()
WHERE {_ALIVE} AND exchanged_id = %(presented)s AND exchanged_at > statement_timestamp() - %(grace)s
RETURNING id, refresh_id, ends_at
"""  # noqa: S608 - constants
