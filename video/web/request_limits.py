"""Requests a minute of a user and of an API key, in all processes together.

A minute's window of a user or key is one row, from which a process takes chunks that it then counts down by itself; the
row never gives more than the limit. A chunk is about as much as the process has needed so far in the window, and never
more than an eighth of what is left, so near the end of it chunks are single requests. A chunk ends with its window:
what a process took and did not need is lost until then, so a user may be refused a little early, and never late.

The row is written by the statement that reads the login (`LEASES`), so a request costs no statement more.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import Error, connection
from django.db.models.functions import Now

from video.infra import database
from video.infra.causes import kind_of
from video.infra.errors import Refusal
from video.models import RequestWindow

log = logging.getLogger(__name__)

WINDOW_S: Final = 60
LEAST_CHUNK: Final = 16
#: SQL states: read_only_sql_transaction, disk_full.
_TAKES_NO_WRITES = frozenset({"25006", "53100"})
_MOST_KEPT = 20_000  # windows of users and keys, in memory
#: Where Django keeps the header fields of a request's answer (a dict).
META = "reelworks.rate_limit"
_LEFT = "(excluded.most - w.granted)"
#: In the window that the row has already. `last_grant` of the new row is the chunk that is wanted.
_AGAIN = f"greatest(0, least({_LEFT}, excluded.last_grant, greatest(1, {_LEFT} / 8)))"
_IS_SAME = "w.ends_at >= excluded.ends_at"

#: CTEs after one, `limited`, with a row for each window that may be asked: subject, place (0: the user's, 1: the
#: key's), most (the limit; 0: none), chunk (requests that are wanted; 0: none). `leases` has one row and column: for
#: each window that was asked [place, most, granted to all, granted now, seconds left].
LEASES: Final = f"""leased AS (
    INSERT INTO video_requestwindow AS w (subject, ends_at, most, granted, last_grant)
    SELECT subject, to_timestamp((floor(extract(epoch FROM statement_timestamp()) / {WINDOW_S}) + 1) * {WINDOW_S}),
        most, least(chunk, greatest(1, most / 8)), least(chunk, greatest(1, most / 8))
    FROM limited WHERE most > 0 AND chunk > 0 ORDER BY place
    ON CONFLICT (subject) DO UPDATE SET
        ends_at = greatest(w.ends_at, excluded.ends_at),
        most = CASE WHEN {_IS_SAME} THEN greatest(excluded.most, w.granted) ELSE excluded.most END,
        granted = CASE WHEN {_IS_SAME} THEN w.granted + {_AGAIN} ELSE excluded.granted END,
        last_grant = CASE WHEN {_IS_SAME} THEN {_AGAIN} ELSE excluded.last_grant END
    RETURNING subject, most, granted, last_grant, extract(epoch FROM ends_at - statement_timestamp()) AS left_s
), leases AS (
    SELECT array_agg(ARRAY[limited.place, l.most, l.granted, l.last_grant, l.left_s]::float8[]) AS leases
    FROM leased l JOIN limited USING (subject)
)"""  # noqa: S608 - constants


class TooManyRequests(Refusal):
    """The user's or the key's requests of this minute are used up. `fields`: headers of the answer."""

    code = "too_many_requests"

    def __init__(self, subject: str, window: Window, fields: dict[str, str]) -> None:
        self.retry_after_s = window.seconds_left()
        self.fields = fields
        whose = "your account" if subject.startswith(_USER) else "this API key"
        super().__init__(
            f"All {window.most} requests a minute of {whose} are used up. Try again in {self.retry_after_s} s."
        )


@dataclass
class Window:
    """What this process may still let through of one user or key. `most` 0: there is no limit."""

    ends_at: float  # by the monotonic clock, and never later than the row says
    most: int = 0
    shared: int = 0  # that the row had left when it was asked last
    left: int = 0  # of this process's chunks
    used: int = 0  # by this process

    def is_over(self) -> bool:
        """Whether its time is."""
        return time.monotonic() >= self.ends_at

    def is_spent(self) -> bool:
        """Whether nothing is left in it, here or in the row."""
        return bool(self.most) and self.left <= 0 and self.shared <= 0

    def seconds_left(self) -> int:
        """Whole seconds until the next one begins."""
        return max(1, math.ceil(self.ends_at - time.monotonic()))

    def take(self) -> bool:
        """Whether it had a request left; it is taken."""
        if self.most:
            if self.left <= 0:
                return False
            self.left -= 1
            self.used += 1
        return True


_USER = "user "


def of_user(user_id: Any) -> str:
    """The subject of a user's window; that of a key is its id."""
    return f"{_USER}{user_id}"


class RequestLimits:
    """The windows of one process. Subjects come in the order of their places: the user, then the key."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()

    def begin(self, *subjects: str) -> list[int] | None:
        """Take a request of each of them. None: that was all; else how large a chunk each one's row is to be asked for,
        with the statement that reads the login (0: this one had a request). Raises TooManyRequests.
        """
        now = time.monotonic()
        with self._lock:
            found = [self._windows.get(subject) for subject in subjects]
            if _have_one(found, now):  # nearly always; each microsecond here is one of each request
                for window in found:
                    window.take()  # type: ignore[union-attr]  # it is there
                return None
            found = [self._alive(subject) for subject in subjects]
            for subject, window in zip(subjects, found, strict=True):
                if window is not None and window.is_spent():
                    raise TooManyRequests(subject, window, self.fields(*subjects))
            chunks = [
                0 if window is not None and window.take() else self._chunk(subject, window)
                for subject, window in zip(subjects, found, strict=True)
            ]
        return chunks if any(chunks) else None

    def settle(self, subjects: Sequence[str], chunks: Sequence[int], leases: Any, *, sent_at: float) -> None:
        """Note what the rows gave, and take the requests that `begin` could not. `leases`: as the statement said that
        was sent at `sent_at` (monotonic). Raises TooManyRequests.
        """
        by_place = {int(place): rest for place, *rest in leases or ()}
        with self._lock:
            if len(self._windows) > _MOST_KEPT:
                self._windows = {one: window for one, window in self._windows.items() if not window.is_over()}
            if len(self._windows) > _MOST_KEPT:
                self._windows = {}  # their chunks are lost: some are refused early
            for place, (subject, chunk) in enumerate(zip(subjects, chunks, strict=True)):
                if not chunk:
                    continue
                window = self._noted(subject, by_place.get(place), sent_at)
                if not window.take():
                    raise TooManyRequests(subject, window, self.fields(*subjects))

    def fields(self, *subjects: str) -> dict[str, str]:
        """RateLimit and RateLimit-Policy of an answer; empty without limits.

        Source: draft-ietf-httpapi-ratelimit-headers-10 (2025-09-27), read 2026-11-28.
        """
        left, policies = [], []
        for name, subject in zip(("user", "key"), subjects, strict=False):
            window = self._windows.get(subject)
            if window is not None and window.most and not window.is_over():
                left.append(f'"{name}";r={window.left + window.shared};t={window.seconds_left()}')
                policies.append(f'"{name}";q={window.most};w={WINDOW_S}')
        return {"RateLimit": ", ".join(left), "RateLimit-Policy": ", ".join(policies)} if left else {}

    def _alive(self, subject: str) -> Window | None:
        window = self._windows.get(subject)
        return None if window is None or window.is_over() else window

    def _chunk(self, subject: str, alive: Window | None) -> int:
        """As many as were needed in this window so far; of a new one, a quarter of what the last one took."""
        last = self._windows.get(subject)
        used = alive.used if alive is not None else last.used // 4 if last is not None else 0
        return max(LEAST_CHUNK, used)

    def _noted(self, subject: str, lease: Sequence[float] | None, sent_at: float) -> Window:
        """The window with what a lease adds; without one, a window without a limit."""
        if lease is None:
            window = self._windows[subject] = Window(sent_at + WINDOW_S)
            return window
        most, granted, added, left_s = lease
        known, ends_at = self._alive(subject), sent_at + left_s
        if known is None or not known.most or ends_at - known.ends_at > WINDOW_S / 2:  # the next minute has begun
            known = self._windows[subject] = Window(ends_at)
        known.ends_at = min(known.ends_at, ends_at)
        known.most, known.shared, known.left = int(most), int(most - granted), known.left + int(added)
        return known


def _have_one(windows: Sequence[Window | None], now: float) -> bool:
    """Whether each of them lets one more through by itself."""
    for window in windows:  # noqa: SIM110 - a generator costs as much as all the rest
        if window is None or now >= window.ends_at or (window.most and window.left <= 0):
            return False
    return True


limits = RequestLimits()


def fetch(counted: str, plain: str, params: dict[str, Any], chunks: dict[str, int]) -> tuple[list[Any], bool]:
    """Rows of a statement with `LEASES` and whether it is that one's. While the database takes no writes (its disk is
    full, or it is a standby that will lead soon) those of the plain one: reads go on, and are not counted for a minute.
    """
    try:
        return database.fetch_prepared(counted, params | chunks | parameters()), True
    except Error as err:
        if getattr(err.__cause__, "sqlstate", None) not in _TAKES_NO_WRITES or connection.in_atomic_block:
            raise
        log.warning("requests are not counted: the database takes no writes (%s)", kind_of(err))
    return database.fetch_prepared(plain, params), False


def parameters() -> dict[str, int]:
    """Parameters of a CTE `limited` that are settings."""
    return {"per_user": settings.REQUESTS_PER_MINUTE, "per_key": settings.REQUESTS_PER_MINUTE_PER_KEY}


def sweep() -> int:
    """Delete the windows of users and keys that ask nothing any more. Returns how many."""
    return RequestWindow.objects.filter(ends_at__lt=Now() - timedelta(hours=1)).delete()[0]
