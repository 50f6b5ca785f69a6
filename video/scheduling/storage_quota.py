"""How many bytes the stored files of a user may have: a create, and a retry that makes a new video, is refused above.

A video that is paid for is stored whatever the limit says. So tasks under way count beforehand, each as the mean of the
user's stored videos. The sums are kept by a trigger (migration 0017): the cost does not grow with the videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings

from video.infra import database
from video.infra.errors import Refusal

#: What a task under way counts for a user who has no video yet: a high estimate for 5 to 10 seconds in 1080p.
EXPECTED_BYTES: Final = 8 * 1024**2
_MOST_COUNTED = 10_000  # tasks under way

#: A CTE `space` with one row, for %(user_id)s: whether more may be stored. `most`: the limit, 0 for none; `places`: how
#: many tasks more may be made, NULL for any number.
SPACE: Final = f"""space AS MATERIALIZED (
    SELECT most, places, coalesce(places > 0, true) AS is_free FROM (
        SELECT most, CASE WHEN most > 0 THEN (
            SELECT ceil((most - coalesce(sum(s.bytes), 0))
                    / greatest(1, coalesce(sum(s.bytes) / nullif(sum(s.videos), 0), {EXPECTED_BYTES}))) - (
                SELECT count(*) FROM (SELECT FROM video_videotask
                    WHERE user_id = %(user_id)s AND finished_at IS NULL LIMIT {_MOST_COUNTED}) live)
            FROM video_userstorage s WHERE s.user_id = %(user_id)s) END AS places
        FROM (SELECT coalesce((SELECT most_stored_bytes FROM video_usershare WHERE user_id = %(user_id)s),
            %(most_stored)s::bigint) AS most) limits
    ) counted
)"""  # noqa: S608 - constants


class StorageFull(Refusal):
    """The user's stored files have all the bytes that they may have. Nothing was made."""

    code = "storage_full"

    def __init__(self, *, used: int, limit: int) -> None:
        self.used, self.limit = used, limit
        super().__init__(
            f"Your stored videos, with those under way, fill the {limit} bytes that you may use ({used} are stored). "
            "Delete some of them: DELETE /api/video/tasks/{taskId}."
        )


@dataclass(frozen=True)
class Use:
    """What one user, or all of them, have stored."""

    bytes: int
    videos: int
    limit: int | None  # bytes


NOTHING: Final = Use(0, 0, None)


def limit() -> dict[str, Any]:
    """The parameter of `SPACE` that is a setting."""
    return {"most_stored": settings.MAX_STORED_BYTES_PER_USER}


def of_user(user_id: int) -> Use:
    """One statement."""
    ((used, videos, most),) = database.fetch(
        """
        SELECT coalesce(sum(s.bytes), 0), coalesce(sum(s.videos), 0), coalesce(
            (SELECT most_stored_bytes FROM video_usershare WHERE user_id = %(user_id)s), %(most_stored)s::bigint)
        FROM video_userstorage s WHERE s.user_id = %(user_id)s
        """,
        {"user_id": user_id, **limit()},
    )
    return Use(int(used), int(videos), most or None)


def of_all() -> Use:
    """What all users have stored. One statement over a row for each user."""
    ((used, videos),) = database.fetch(
        "SELECT coalesce(sum(bytes), 0), coalesce(sum(videos), 0) FROM video_userstorage"
    )
    return Use(int(used), int(videos), None)


def check(user_id: int) -> None:
    """For a retry by its user; create asks the same within its insert. Raises StorageFull."""
    params = {"user_id": user_id, **limit()}
    if not database.value(f"WITH {SPACE} SELECT is_free FROM space", params):  # noqa: S608 - a constant
        raise full(user_id)


def full(user_id: int) -> StorageFull:
    """The refusal, with the figures of now."""
    use = of_user(user_id)
    return StorageFull(used=use.bytes, limit=use.limit or 0)
