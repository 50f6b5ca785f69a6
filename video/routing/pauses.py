"""What is paused now, for whoever must respect it or show it: admission, claims, the API, the admin.

`video.actions.pause` begins and ends a pause. One that is over by its time needs no write: it is compared with the
database's clock at each read.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Case, Q, QuerySet, Value, When
from django.db.models.functions import Now

from providers.contract import Reason, ReasonCode
from video.infra import database
from video.infra.camel import camel
from video.models import Pause

CACHE_S = 1.0  # for what is shown on every page; nothing that decides reads from it
Kind = Pause.Kind


@dataclass(frozen=True)
class Paused:
    """A pause in force."""

    id: int
    kind: str
    subject: str
    user_id: int | None
    user_name: str
    reason: str
    by: str  # the operator
    since: datetime
    until: datetime | None

    def covers(self, provider: str, model: str, account: str) -> bool:
        """Whether jobs of everybody on this model at this account are paused by it."""
        match self.kind:
            case Kind.EVERYTHING:
                return True
            case Kind.PROVIDER:
                return self.subject == provider
            case Kind.MODEL:
                return self.subject == model
            case Kind.ACCOUNT:
                return self.subject == subject_of_account(provider, account)
        return False

    @property
    def what(self) -> str:
        """What is paused: everything, model gen4.5, user ann."""
        return "everything" if self.kind == Kind.EVERYTHING else f"{self.kind} {self.user_name or self.subject}"

    @property
    def told(self) -> str:
        """One sentence for operators, without its end."""
        until = f", until {minute(self.until)}" if self.until else ""
        reason = f": {self.reason}" if self.reason else ""
        return (
            f"{self.what[:1].upper()}{self.what[1:]} is paused since {minute(self.since)}{until}, by {self.by}{reason}"
        )

    @property
    def words(self) -> str:
        """For users and operators: since when, until when and why; never who."""
        until = f" until {minute(self.until)}" if self.until else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"paused by the operators since {minute(self.since)}{until}{reason}"

    @property
    def why(self) -> Reason:
        """Why no job may start."""
        return Reason(ReasonCode.PAUSED, self.words)


def minute(moment: datetime) -> str:
    """A time for a sentence, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def subject_of_account(provider: str, account: str) -> str:
    """How a pause of an account names it. No provider's name has a space."""
    return f"{provider} {account}"


def of_user(pauses: Iterable[Paused], user_id: int) -> Paused | None:
    """The pause that keeps all jobs of this user from starting: of everything, or of the user."""
    return next((one for one in pauses if one.kind == Kind.EVERYTHING or one.user_id == user_id), None)


def of_account(pauses: Iterable[Paused], provider: str, model: str, account: str) -> Paused | None:
    """The pause that keeps jobs of everybody from this model at this account."""
    return next((one for one in pauses if one.covers(provider, model, account)), None)


_USER = get_user_model()
_NAME = f"""(SELECT u.{connection.ops.quote_name(_USER.USERNAME_FIELD)}
    FROM {connection.ops.quote_name(_USER._meta.db_table)} u WHERE u.id = p.user_id)"""  # noqa: S608 - names of columns

#: One column of a SELECT, as JSON for `snapshot_of`: the pauses in force, the widest and oldest first.
SNAPSHOT = f"""(SELECT coalesce(json_agg(
        json_build_array(p.id, p.kind, p.subject, p.user_id, {_NAME}, p.reason, p.paused_by, p.since, p.until)
        ORDER BY p.kind <> 'everything', p.id), '[]')
    FROM video_pause p WHERE {Pause.LIVE_SQL})"""  # noqa: S608 - constants


def snapshot_of(rows: Sequence[Sequence[Any]]) -> list[Paused]:
    """What `SNAPSHOT` has read, once its JSON is parsed."""
    return [
        Paused(pk, kind, subject, user_id, name or "", reason, by, _moment(since), until and _moment(until))
        for pk, kind, subject, user_id, name, reason, by, since, until in rows
    ]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def live() -> list[Paused]:
    """Those in force now, the widest first; one statement."""
    return snapshot_of(json.loads(database.value(f"SELECT {SNAPSHOT}::text")))


def of_row(pause: Pause) -> Paused:
    """The same of a row whose user was read with it."""
    name = "" if pause.user is None else pause.user.get_username()
    return Paused(
        *(pause.pk, pause.kind, pause.subject, pause.user_id, name),
        *(pause.reason, pause.paused_by, pause.since, pause.until),
    )


def as_json(pause: Pause) -> dict[str, Any]:
    """A pause for staff, in the API's words; its user must have been read with it."""
    name = pause.user.get_username() if pause.user is not None else pause.subject
    found = {**camel(pause, "id kind"), "subject": name or None}
    return found | camel(pause, "reason paused_by since until ended_at")


def rows_live() -> QuerySet[Pause]:
    """The rows of those in force, with their users, the widest and oldest first; one statement."""
    is_live = Q(ended_at=None) & (Q(until=None) | Q(until__gt=Now()))
    widest_first = Case(When(kind=Kind.EVERYTHING, then=Value(0)), default=Value(1))
    return Pause.objects.filter(is_live).select_related("user").order_by(widest_first, "pk")


_lock = threading.Lock()
_cached: tuple[float, list[Paused]] | None = None


def lately() -> list[Paused]:
    """Those in force, for the top of every page: read at most once a second in each process."""
    global _cached
    with _lock:
        known = _cached
    if known is None or time.monotonic() - known[0] > CACHE_S:
        known = (time.monotonic(), live())
        with _lock:
            _cached = known
    return known[1]


def forget_cached() -> None:
    """This process has begun or ended a pause: its next page shows that."""
    global _cached
    with _lock:
        _cached = None
