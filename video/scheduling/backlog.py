"""How many tasks may wait for a slot: a create and a user's retry are refused while the backlog is full."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.utils import timezone

from video.infra import database
from video.infra.errors import Refusal
from video.scheduling import estimates

COUNTED_FOR_S = 1.0  # a count of all that wait is good for so long
LONGEST_S = 3600
NOT_KNOWN_S = 60


class TooManyWaiting(Refusal):
    """The backlog is full: the user's own, or that of all users. Nothing was made."""

    code = "too_many_waiting"

    def __init__(self, *, own: bool, retry_after_s: int) -> None:
        self.own = own
        self.retry_after_s = retry_after_s
        super().__init__(
            "As many of your videos wait for their turn as may. Try again when some of them have begun."
            if own
            else "Too many videos of all users together wait for their turn just now. Please try again later."
        )


class TooManyLive(Refusal):
    """As many of the user's tasks are under way as an operator allows. Nothing was made."""

    code = "too_many_live"
    retry_after_s = NOT_KNOWN_S

    def __init__(self) -> None:
        super().__init__("As many of your videos are under way as may. Try again when some of them have ended.")


#: How many tasks more of %(user_id)s may be under way, by `most_live` of a CTE `room`, which is not NULL.
LIVE_PLACES: Final = """(SELECT most_live FROM room) - (SELECT count(*) FROM (
    SELECT FROM video_videotask WHERE user_id = %(user_id)s AND finished_at IS NULL LIMIT (SELECT most_live FROM room)
) live)"""


@dataclass
class TotalBacklog:
    """All tasks that wait for a slot, as this process counted them last."""

    number: int = 0
    counted_at: float = float("-inf")

    def is_stale(self) -> bool:
        """Whether the next statement that can should count anew."""
        return time.monotonic() - self.counted_at > COUNTED_FOR_S

    def note(self, number: int) -> None:
        """Counted just now."""
        self.number, self.counted_at = number, time.monotonic()

    def is_full(self) -> bool:
        """By the last count."""
        return self.number >= settings.MAX_WAITING


total = TotalBacklog()


def check(user_id: int, models: list[str]) -> None:
    """For a task that its user retries; create counts the same within its insert. Raises TooManyWaiting and
    TooManyLive.
    """
    ((own_is_full, all_is_full, is_full),) = database.fetch(
        f"""
        WITH room AS (
            SELECT coalesce(share.most_waiting, %(most_own)s) AS most_own, share.most_live
            FROM (SELECT) one LEFT JOIN video_usershare share ON share.user_id = %(user_id)s)
        SELECT (SELECT count(*) FROM (SELECT FROM video_videotask
                WHERE user_id = %(user_id)s AND admit_at IS NOT NULL LIMIT most_own) own) >= most_own,
            (SELECT count(*) FROM (SELECT FROM video_videotask
                WHERE admit_at IS NOT NULL LIMIT %(most)s) all_users) >= %(most)s,
            most_live IS NOT NULL AND {LIVE_PLACES} <= 0
        FROM room
        """,  # noqa: S608 - a constant
        {"user_id": user_id, "most_own": settings.MAX_WAITING_PER_USER, "most": settings.MAX_WAITING},
    )
    if own_is_full or all_is_full:
        raise TooManyWaiting(own=own_is_full, retry_after_s=retry_after_s(user_id, models))
    if is_full:
        raise TooManyLive


def check_live(user_id: int) -> None:
    """For a task that waits for no slot. Raises TooManyLive."""
    is_full = database.value(
        f"""
        WITH room AS (SELECT most_live FROM video_usershare WHERE user_id = %(user_id)s AND most_live IS NOT NULL)
        SELECT EXISTS (SELECT FROM room WHERE {LIVE_PLACES} <= 0)
        """,  # noqa: S608 - a constant
        {"user_id": user_id},
    )
    if is_full:
        raise TooManyLive


def retry_after_s(user_id: int, models: list[str]) -> int:
    """Seconds until the next of this user's waiting tasks probably begins."""
    place = estimates.place(models, user_id=user_id, own=0, rerun=False, created_at=timezone.now())
    wait_s = NOT_KNOWN_S if place.expected_wait_s is None else place.expected_wait_s
    return min(LONGEST_S, max(1, wait_s))
