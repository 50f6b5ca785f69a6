"""Failed logins are counted by name and network, by network, and by name; what has too many of them has to pause.

A failure is counted before the password is looked at and given back if it was right, so that many tries at once get no
further than one after another. Each count forgets by itself. The rows are the same for all processes.

- A **name from one network** may fail a few times; then each failure makes a longer pause for this pair alone.
- A **network** may fail for many names; then it has to pause for all names but those that it knows.
- A **name** never pauses, or strangers could lock its user out. While it is tried from everywhere, each network that
  does not know it pauses from its first failure on. The first try is always looked at.
- A network **knows** a name after a good login within KNOWN_DAYS: its pauses are short, and those of its network don't
  count for it.

Codes of the second factor are counted apart, or each right password before them would forget their failures. Who tries
one has the password, so a user pauses for all networks at once, but for those with a good code within KNOWN_DAYS.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from video.infra import database
from video.infra.errors import Refusal
from video.models import LoginThrottle
from video.web.client_address import network_of

KNOWN_DAYS = 30
MOST_LEVEL = 40  # so that an attack of days is forgotten in hours
FORGOTTEN_HOURS = 7  # by then each level has fallen to nothing


@dataclass(frozen=True)
class Limit:
    """`free` failures without a pause, then 1, 2, 4 … seconds up to `most_s`. One is forgotten each `forget_s`."""

    free: float
    forget_s: float
    most_s: float


PAIR = Limit(free=5, forget_s=600, most_s=900)
KNOWN_PAIR = Limit(free=5, forget_s=600, most_s=60)
PAIR_UNDER_ATTACK = Limit(free=0, forget_s=600, most_s=900)
NETWORK = Limit(free=30, forget_s=60, most_s=300)
NAME = Limit(free=math.inf, forget_s=60, most_s=0)
#: Of a user's codes. One in 333,333 is right by chance, and so come to no more than 150 tries a day.
CODE = Limit(free=5, forget_s=600, most_s=900)
#: Of calls that anybody may make, by network, whether or not they fail; the last by the e-mail address.
SIGN_UP = Limit(free=5, forget_s=600, most_s=3600)
RESET = Limit(free=10, forget_s=300, most_s=3600)
RESET_OF_ONE = Limit(free=3, forget_s=1200, most_s=3600)
ATTACK_LEVEL = 20.0  # failures of one name from everywhere, less one forgotten each minute


class TooManyTries(Refusal):
    """This password is not looked at now; `retry_after_s` says when it would be."""

    code = "too_many_tries"

    def __init__(self, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        unit = "second" if self.retry_after_s == 1 else "seconds"
        super().__init__(f"Too many logins have failed. Try again in {self.retry_after_s} {unit}.")


class TooManyCalls(TooManyTries):
    """The call is not answered now; the same whatever was asked for."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.args = (f"Too many of these calls have come. Try again in {self.retry_after_s} s.",)


@dataclass
class Attempt:
    """A try that may be made now."""

    counted: list[tuple[str, Limit]]  # the user's in this network, then others: one order, so that no two block another
    is_known: bool
    pause_s: float | None = None  # what follows if it fails

    def count(self) -> None:
        """Count it as failed. Raises TooManyTries if others were counted since it was allowed."""
        for key, limit in self.counted:
            row = database.fetch_one(_COUNT, {"key": key, **_params(limit)})
            if row is None:
                raise TooManyTries(1)
            if row[0] is not None:
                self.pause_s = max(row[0], self.pause_s or 0)

    def succeeded(self) -> None:
        """It was right: this network knows the user from now on, and the failure is given back."""
        (pair, _), *others = self.counted
        LoginThrottle.objects.filter(pk=pair).update(level=0, paused_until=None, good_at=Now())
        for key, limit in others:
            database.execute(_GIVE_BACK, {"key": key, **_params(limit)})


def look(name: str, address: str) -> Attempt:
    """A try of this name from there, with one query that asks nothing of users. Raises TooManyTries in a pause."""
    name, network = unicodedata.normalize("NFKC", name).casefold(), network_of(address)
    keys = _key("pair", name, network), _key("network", network), _key("name", name)
    pair, of_network, of_name = _rows(*keys)
    is_known = pair.is_known
    _refuse_in_pause(pair, *([] if is_known else [of_network]))
    limit = PAIR_UNDER_ATTACK if of_name.level > ATTACK_LEVEL else PAIR
    if is_known:
        return Attempt([(keys[0], KNOWN_PAIR), (keys[2], NAME)], is_known)
    return Attempt([(keys[0], limit), (keys[1], NETWORK), (keys[2], NAME)], is_known)


def look_at_code(user_id: int, address: str) -> Attempt:
    """A try of a code of the second factor, after the right password. Raises TooManyTries in a pause."""
    keys = _key("code from network", str(user_id), network_of(address)), _key("code", str(user_id))
    pair, of_user = _rows(*keys)
    counted = keys[:1] if pair.is_known else keys
    _refuse_in_pause(pair, *([] if pair.is_known else [of_user]))
    return Attempt([(key, CODE) for key in counted], pair.is_known)


def count_key(address: str) -> None:
    """Count a key that nobody has. Raises TooManyTries while its network has to pause, which says nothing of good keys:
    they are looked at first, and count nothing.
    """
    key = _key("api key", network_of(address))
    row = database.fetch_one(_COUNT, {"key": key, **_params(NETWORK)})
    if row is None:
        _refuse_in_pause(*_rows(key))
    elif row[0] is not None:
        raise TooManyTries(row[0])


def count_call(kind: str, address: str, *more: str, limit: Limit) -> None:
    """Count a call from there ("": from anywhere), of this kind and what else tells it from others.

    Raises TooManyCalls in a pause.
    """
    key = _key(kind, network_of(address) if address else "", *more)
    (known,) = _rows(key)
    if known.pause_s > 0 or database.fetch_one(_COUNT, {"key": key, **_params(limit)}) is None:
        raise TooManyCalls(max(1.0, known.pause_s))


@dataclass(frozen=True)
class _Row:
    level: float = 0.0
    pause_s: float = 0.0  # that is left
    is_known: bool = False


def _rows(*keys: str) -> list[_Row]:
    params = [NAME.forget_s, timedelta(days=KNOWN_DAYS), list(keys)]
    found = {row[0]: _Row(*row[1:]) for row in database.fetch(_LOOK, params)}
    return [found.get(key, _Row()) for key in keys]


def _refuse_in_pause(*rows: _Row) -> None:
    wait_s = max(row.pause_s for row in rows)
    if wait_s > 0:
        raise TooManyTries(wait_s)


def sweep() -> int:
    """Delete the rows that count nothing any more. Returns how many."""
    idle = Q(counted_at__lt=Now() - timedelta(hours=FORGOTTEN_HOURS))
    unknown = Q(good_at__isnull=True) | Q(good_at__lt=Now() - timedelta(days=KNOWN_DAYS))
    return LoginThrottle.objects.filter(idle & unknown).delete()[0]


def _key(*parts: str) -> str:
    """A keyed hash: what was typed as a name may be a password."""
    return salted_hmac("reelworks login throttle", "\n".join(parts), algorithm="sha256").hexdigest()


def _params(limit: Limit) -> dict[str, Any]:
    return {"free": limit.free, "forget_s": limit.forget_s, "most_s": limit.most_s}


def _pause_sql(level: str) -> str:
    """The pause after a failure that made this level; NULL for none."""
    over = f"({level} - %(free)s::float8)"
    return (
        f"CASE WHEN {over} > 0 THEN "
        f"least(%(most_s)s::float8, power(2, least({over}, 20) - 1)) * interval '1 second' END"
    )


_LOOK = """
SELECT key, level - greatest(0, extract(epoch FROM statement_timestamp() - counted_at)::float8) / %s,
    coalesce(extract(epoch FROM paused_until - statement_timestamp())::float8, 0),
    coalesce(good_at > statement_timestamp() - %s, false)
FROM video_loginthrottle WHERE key = ANY(%s)
"""
_LEVEL = (
    "least(greatest(0, t.level - greatest(0, extract(epoch FROM statement_timestamp() - t.counted_at)::float8)"
    f" / %(forget_s)s::float8) + 1, {MOST_LEVEL})"
)
_COUNT = f"""
INSERT INTO video_loginthrottle AS t (key, level, counted_at, paused_until)
VALUES (%(key)s, 1, statement_timestamp(), statement_timestamp() + {_pause_sql("1")})
ON CONFLICT (key) DO UPDATE SET level = {_LEVEL}, counted_at = statement_timestamp(),
    paused_until = statement_timestamp() + {_pause_sql(_LEVEL)}
WHERE t.paused_until IS NULL OR t.paused_until <= statement_timestamp()
RETURNING extract(epoch FROM t.paused_until - statement_timestamp())::float8
"""  # noqa: S608 - constants
_GIVE_BACK = f"""
UPDATE video_loginthrottle t SET level = greatest(0, t.level - 1),
    paused_until = t.counted_at + {_pause_sql("(t.level - 1)")}
WHERE t.key = %(key)s
"""  # noqa: S608 - constants
