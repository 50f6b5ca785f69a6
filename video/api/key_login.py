"""API keys as callers: who comes with one, and what it may do.

The key, its user and what the view reads beside are one prepared statement, as of a login.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Any

from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from video.api import tokens
from video.api.errors import ApiError
from video.api.tokens import Beside, Caller, KeyFacts
from video.infra import database
from video.models import Scope
from video.web import request_limits, security_log
from video.web.client_address import client_address
from video.web.logins import key_text, throttle
from video.web.request_limits import LEASES, LEAST_CHUNK, of_user

#: How often the time of a secret's last use is written.
NOTED_S = 60.0
_MOST_REMEMBERED = 10_000

#: What the scope of a view is, for all its methods or for each; None: only a login may.
KeyScope = Scope | Mapping[str, Scope] | None

_REFUSALS = {
    "key_revoked": "This API key was revoked, or its user switched off.",
    "key_expired": "The time of this API key is over; make or roll one.",
}


class _Seen:
    """Keys that this process has seen lately: whose windows count, and when the last use is written again."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._subjects: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def subjects(self, digest: str) -> tuple[str, str] | None:
        """The user and the key of a digest, as `RequestLimits` knows them."""
        return self._subjects.get(digest)

    def is_due(self, digest: str) -> bool:
        """Whether to write the last use now; the next NOTED_S seconds not again."""
        now = time.monotonic()
        with self._lock:
            if self._until.get(digest, 0.0) > now:
                return False
            self._until[digest] = now + NOTED_S
            self._until.move_to_end(digest)
            while len(self._until) > _MOST_REMEMBERED:
                self._subjects.pop(self._until.popitem(last=False)[0], None)
        return True

    def belongs_to(self, digest: str, subjects: tuple[str, str]) -> None:
        """Remember whose it is, as long as its last use is remembered."""
        with self._lock:
            if digest in self._until:
                self._subjects[digest] = subjects


_seen = _Seen()


def caller(raw: str, request: Request, beside: Beside | None, *, is_counted: bool) -> Caller:
    """Who comes with this key, with one query; none for a text that can't be one. `is_counted`: against the requests a
    minute of the user and the key.

    Raises AuthenticationFailed, ApiError 403 `address_not_allowed`, TooManyRequests, and TooManyTries for one of many
    wrong keys.
    """
    if not key_text.is_well_formed(raw):
        raise AuthenticationFailed("This is no API key: a letter is missing or wrong.", code="invalid_key")
    digest, address = key_text.digest(raw), client_address(request._request)
    subjects, is_noted = _seen.subjects(digest), _seen.is_due(digest)
    chunks: list[int] | None = None
    if is_counted:
        chunks = [LEAST_CHUNK, LEAST_CHUNK] if subjects is None else request_limits.limits.begin(*subjects)
    params: dict[str, Any] = {"digest": digest, "address": address or None, **(beside.params if beside else {})}
    plain, sent_at = _sql(beside.sql if beside else "", is_written=False), time.monotonic()
    if is_noted or chunks is not None:
        user_chunk, key_chunk = chunks or (0, 0)
        written = _sql(beside.sql if beside else "", is_written=True)
        rows, _ = request_limits.fetch(written, plain, params, {"user_chunk": user_chunk, "key_chunk": key_chunk})
    else:
        rows = database.fetch_prepared(plain, params)
    if not rows:
        security_log.record_sample("key_refused", address=address, reason="unknown")
        throttle.count_key(address)
        raise AuthenticationFailed("There is no such API key.", code="invalid_key")
    state, key_id, name, scopes, leases, *row = rows[0]
    if state:
        security_log.record_sample("key_refused", address=address, reason=state, key=key_id)
        if state == "address":
            raise ApiError(403, "address_not_allowed", "This API key may not be used from this address.")
        raise AuthenticationFailed(_REFUSALS[f"key_{state}"], code=f"key_{state}")
    user, found = tokens.user_and_beside(row)
    subjects = (of_user(user.pk), key_id)
    _seen.belongs_to(digest, subjects)
    if chunks is not None:
        request_limits.limits.settle(subjects, chunks, leases, sent_at=sent_at)
    return Caller(user, None, found, KeyFacts(key_id, name, frozenset(scopes)))


def refuse_beyond(key: KeyFacts, needed: KeyScope, method: str) -> None:
    """Raise a 403 unless the key has the scope that a view needs."""
    scope = needed.get("GET" if method == "HEAD" else method) if isinstance(needed, Mapping) else needed
    if scope is None:
        raise ApiError(403, "login_needed", "No API key may do this. Log in: POST /api/auth/login.")
    if scope not in key.scopes:
        raise ApiError(
            403,
            "scope_missing",
            f"This API key lacks the scope {scope.value}; its scopes are {', '.join(sorted(key.scopes))}.",
            {"scope": scope.value, "scopes": sorted(key.scopes)},
        )


_STATE = """CASE WHEN k.ended_at IS NOT NULL OR NOT u.is_active THEN 'revoked'
    WHEN k.expires_at <= statement_timestamp() OR s.ends_at <= statement_timestamp() THEN 'expired'
    WHEN cardinality(k.addresses) > 0 AND (%(address)s::inet <<= ANY (k.addresses::text[]::inet[])) IS NOT TRUE
        THEN 'address' ELSE '' END"""
_FROM = """video_apikeysecret s JOIN video_apikey k ON k.id = s.key_id JOIN auth_user u ON u.id = k.user_id"""
#: What is written beside, of a key that is good: when it was used last, to the minute, unless another process has
#: written it; and what the limits give.
_WRITTEN = f"""WITH good AS MATERIALIZED (
    SELECT s.digest, k.id, k.requests_per_minute, u.id AS user_id FROM {_FROM}
    WHERE s.digest = %(digest)s AND {_STATE} = ''
), noted AS (
    UPDATE video_apikeysecret s SET last_used_at = statement_timestamp() FROM good WHERE s.digest = good.digest
        AND (s.last_used_at IS NULL OR s.last_used_at < statement_timestamp() - interval '{NOTED_S:.0f} seconds')
), limited AS MATERIALIZED (
    SELECT {tokens.LIMIT_OF_USER} FROM good JOIN auth_user u ON u.id = good.user_id
    LEFT JOIN video_usershare share ON share.user_id = u.id
    UNION ALL SELECT id, 1, coalesce(requests_per_minute, %(per_key)s::int), %(key_chunk)s::int FROM good
), {LEASES}
"""  # noqa: S608 - constants


@cache
def _sql(beside: str, *, is_written: bool) -> str:
    leases = "leases.leases" if is_written else "NULL::float8[]"
    columns = ", ".join([*(f"u.{name}" for name in tokens.OF_USER), *(["beside.*"] if beside else [])])
    more = f"LEFT JOIN LATERAL ({beside}) beside ON true" if beside else ""
    return (
        f"{_WRITTEN if is_written else ''} SELECT {_STATE}, k.id, k.name, k.scopes, {leases}, {columns} "  # noqa: S608
        f"FROM {_FROM} {more} {'CROSS JOIN leases' if is_written else ''} WHERE s.digest = %(digest)s"
    )
