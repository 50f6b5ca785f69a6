"""The JWTs that are accepted and issued."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import connection
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import (
    ExpiredTokenError,
    TokenBackendError,
    TokenBackendExpiredToken,
    TokenError,
)
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token

from video.infra import database
from video.web import demo_login, request_limits
from video.web.logins.sessions import Login, is_id
from video.web.request_limits import of_user

#: `iss` of our own tokens: each belongs to a session.
ISSUER = "reelworks"
ALGORITHM = "HS256"
MOST_KEPT = 2000  # tokens with a good signature, in memory

EXPIRED = "Your login has expired; refresh it, or log in again."
REFUSED = "This token is not valid here, or its login has ended; log in again."


class RotatingKeys(TokenBackend):
    """Signs with the present key, and also takes what a former one has signed."""

    def __init__(self, key: str, *former: str) -> None:
        super().__init__(ALGORITHM, key)
        self._former = [TokenBackend(ALGORITHM, one) for one in former]
        # A client sends its token with each request; the check of one costs as much as a statement to the database.
        # What is refused is not kept, and all that time can change is asked of the token's claims each time.
        self._good = lru_cache(MOST_KEPT)(self._decode)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """The claims of a token with a good signature. Raises TokenBackendError."""
        return dict(self._good(token, verify))

    def _decode(self, token: Any, verify: bool) -> dict[str, Any]:
        try:
            return super().decode(token, verify)
        except TokenBackendExpiredToken:
            raise
        except TokenBackendError:
            for backend in self._former:
                try:
                    return backend.decode(token, verify)
                except TokenBackendExpiredToken:
                    raise
                except TokenBackendError:
                    continue  # the next former key, or none
            raise


@cache
def _backend(*keys: str) -> RotatingKeys:
    return RotatingKeys(*keys)


class _CheckedToken(Token):
    """A token of our keys whose `aud` and `iss`, where it has them, are meant for us."""

    def get_token_backend(self) -> TokenBackend:
        return _backend(settings.SIMPLE_JWT["SIGNING_KEY"], *settings.JWT_KEY_FALLBACKS)

    @property
    def session_id(self) -> str:
        """The session that it belongs to; empty for a token of another login."""
        return str(self.payload["sid"]) if self.payload.get("iss") == ISSUER else ""

    def check_origin(self) -> None:
        """Raise TokenError for another issuer or audience, and for one of ours without a session."""
        issuer, audience = self.payload.get("iss"), self.payload.get("aud")
        if issuer is not None and issuer not in (ISSUER, *settings.JWT_ISSUERS):
            raise TokenError("Token of another issuer")
        if issuer == ISSUER and not is_id(self.payload.get("sid")):
            raise TokenError("Token of no session")
        if audience is not None and settings.JWT_AUDIENCE not in (audience if type(audience) is list else [audience]):
            raise TokenError("Token for another audience")


class AcceptedToken(_CheckedToken):
    """An access token: ours, or one that another login signed with the same key.

    Such a login may leave out `jti`, `token_type`, `aud` and `iss`, but never `exp` and `user_id` (the id of a user
    here). A token that says it is of another type, such as refresh, is refused.
    """

    token_type = "access"  # noqa: S105 - a type
    lifetime = api_settings.ACCESS_TOKEN_LIFETIME

    def verify(self) -> None:
        self.check_exp()
        if self.payload.get(api_settings.TOKEN_TYPE_CLAIM, self.token_type) != self.token_type:
            raise TokenError("Token has wrong type")
        self.check_origin()


class SessionRefreshToken(_CheckedToken):
    """A refresh token of ours."""

    token_type = "refresh"  # noqa: S105 - a type
    lifetime = api_settings.REFRESH_TOKEN_LIFETIME

    def verify(self) -> None:
        super().verify()
        self.check_origin()
        if not self.session_id or not str(self.payload[api_settings.JTI_CLAIM]).isalnum():
            raise TokenError("Token of another login")


Kind = TypeVar("Kind", AcceptedToken, SessionRefreshToken)


def pair_of(user: AbstractBaseUser, login: Login) -> tuple[AcceptedToken, SessionRefreshToken]:
    """Both tokens of a session, the refresh token being its next one. Neither outlives the session's greatest age."""
    access, refresh = AcceptedToken.for_user(user), SessionRefreshToken.for_user(user)
    refresh[api_settings.JTI_CLAIM] = login.refresh_id
    for token in (access, refresh):
        token["iss"], token["aud"], token["sid"] = ISSUER, settings.JWT_AUDIENCE, login.id
        token["exp"] = min(token["exp"], int(login.ends_at.timestamp()))
    return access, refresh


def expiry(token: Token) -> datetime:
    """When it ends, in UTC."""
    return datetime.fromtimestamp(token["exp"], UTC)


@dataclass(frozen=True)
class Beside:
    """What the statement that reads a login reads as well: a SELECT of one row at most, whose first column is never
    NULL. It may speak of the user's row as `u`; its parameters have names that no statement here uses.
    """

    sql: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class KeyFacts:
    """The API key that a caller came with."""

    id: str
    name: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class Caller:
    """Who asks, by which token or key, and the row that was read beside."""

    user: AbstractBaseUser
    token: _CheckedToken | None
    beside: tuple[Any, ...] | None = None
    key: KeyFacts | None = None

    @property
    def session_id(self) -> str:
        """The login that it belongs to; empty for a key, and for a token of another login."""
        return "" if self.token is None else self.token.session_id


def caller_of_access(raw: str, beside: Beside | None = None, *, is_counted: bool = False) -> Caller:
    """The active user that an access token stands for, with one query. `is_counted`: against the user's requests a
    minute. Raises AuthenticationFailed and TooManyRequests.
    """
    return caller_of(decoded(AcceptedToken, raw), beside, is_counted=is_counted)


def user_of_refresh(raw: str) -> tuple[AbstractBaseUser, SessionRefreshToken]:
    """The same for a refresh token; whether it is the session's next one is for `sessions.exchange` to say."""
    token = decoded(SessionRefreshToken, raw)
    return caller_of(token).user, token


def decoded(kind: type[Kind], raw: str) -> Kind:
    """The token, if its signature and claims hold; no session is looked at. Raises AuthenticationFailed."""
    try:
        return kind(raw)  # type: ignore[arg-type]  # the stubs want a Token, the code takes its encoded form
    except ExpiredTokenError:
        raise AuthenticationFailed(EXPIRED, code="token_expired") from None
    except (TokenError, ValueError, TypeError, OverflowError, OSError):  # the rest: an `exp` that is no date
        raise AuthenticationFailed(REFUSED, code="invalid_token") from None


def caller_of(token: _CheckedToken, beside: Beside | None = None, *, is_counted: bool = False) -> Caller:
    """The active user of a token whose session, if it has one, is alive. Raises AuthenticationFailed, and
    TooManyRequests where it is counted.
    """
    user_id = token.payload.get(api_settings.USER_ID_CLAIM)
    row = None
    if isinstance(user_id, int | str) and not isinstance(user_id, bool):
        try:
            row = _read(get_user_model()._meta.pk.to_python(user_id), token.session_id, beside, is_counted)
        except (ValidationError, ValueError):  # no id at all
            row = None
    if row is None:
        raise AuthenticationFailed(REFUSED, code="invalid_token")
    user, found = user_and_beside(row)
    return Caller(user, token, found)


def user_and_beside(row: Sequence[Any]) -> tuple[AbstractBaseUser, tuple[Any, ...] | None]:
    """The user of `OF_USER` and what was read beside, if that has a row. Raises AuthenticationFailed for a user who is
    switched off.
    """
    user = get_user_model().from_db(connection.alias, OF_USER, row[: len(OF_USER)])
    if not user.is_active or not demo_login.may_use(user):
        raise AuthenticationFailed(REFUSED, code="invalid_token")
    more = tuple(row[len(OF_USER) :])
    return user, more if more and more[0] is not None else None


#: What a request asks of its user, in the order of the model's fields; Django reads the others when they are asked.
OF_USER = ("id", "password", "is_superuser", "username", "is_staff", "is_active")


def _read(pk: Any, session_id: str, beside: Beside | None, is_counted: bool) -> tuple[Any, ...] | None:
    """The user's columns, if the session is alive, then those beside. Read at each request; a query set costs four
    times the CPU of this.
    """
    params = {"user": pk, **({"session": session_id} if session_id else {}), **(beside.params if beside else {})}
    chunks = request_limits.limits.begin(of_user(pk)) if is_counted else None
    of_session, more = bool(session_id), beside.sql if beside else ""
    plain = _sql(of_session, more, leases=False)
    if chunks is None:
        rows = database.fetch_prepared(plain, params)
        return rows[0] if rows else None
    sent_at, counted = time.monotonic(), _sql(of_session, more, leases=True)
    rows, has_leases = request_limits.fetch(counted, plain, params, {"user_chunk": chunks[0]})
    if not rows:
        return None
    *row, leases = rows[0] if has_leases else (*rows[0], None)
    request_limits.limits.settle([of_user(pk)], chunks, leases, sent_at=sent_at)
    return tuple(row)


#: Of the login, as `request_limits.LEASES` wants it.
LIMIT_OF_USER = f"""'{request_limits.of_user("")}' || u.id AS subject, 0 AS place,
        coalesce(share.requests_per_minute, %(per_user)s::int) AS most, %(user_chunk)s::int AS chunk"""


@cache
def _sql(of_session: bool, beside: str, *, leases: bool) -> str:
    columns = ", ".join([*(f"u.{name}" for name in OF_USER), *(["beside.*"] if beside else [])])
    session = "JOIN video_loginsession s ON s.user_id = u.id AND s.id = %(session)s AND s.ended_at IS NULL"
    session = session if of_session else ""
    more = f"LEFT JOIN LATERAL ({beside}) beside ON true" if beside else ""
    first = ""
    if leases:
        columns += ", leases.leases"
        more += " CROSS JOIN leases"
        first = f"""WITH limited AS MATERIALIZED (
            SELECT {LIMIT_OF_USER} FROM auth_user u {session}
            LEFT JOIN video_usershare share ON share.user_id = u.id WHERE u.id = %(user)s
        ), {request_limits.LEASES}"""  # noqa: S608 - constants
    return f"{first} SELECT {columns} FROM auth_user u {session} {more} WHERE u.id = %(user)s"  # noqa: S608
