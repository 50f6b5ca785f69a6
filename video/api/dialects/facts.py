"""A task as both dialects need it: its status in the API's words, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone
from rest_framework.request import Request

from video.api import errors
from video.api.base import user_id
from video.api.bodies import TASK_ID
from video.api.dialects import words
from video.api.views.video import PUBLIC_STATUS, checked_id, origin_of, status_of, statuses
from video.models import VideoTask

_ROW = (
    "id", "created_at", "finished_at", "prompt", "duration_s", "aspect_ratio", "resolution", "model_requested",
    "eligible_models", "video_width_px", "video_height_px",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """One task."""

    task: VideoTask
    created_at: datetime
    status: dict[str, Any]  # as /api/video/status has it

    @property
    def is_cancelled(self) -> bool:
        """Whether its user has ended it: the API calls that failed, and says so in a code."""
        return bool(self.status.get("errorCode") == "cancelled")

    @property
    def model(self) -> str:
        """That which made it, or the likely one."""
        likely = self.task.eligible_models[:1] or [words.AUTO]
        return str(self.status.get("model") or self.task.model_requested or likely[0])

    @property
    def size(self) -> str:
        """Of its video where it is there, else what was asked for comes to."""
        if self.task.video_width_px and self.task.video_height_px:
            return f"{self.task.video_width_px}x{self.task.video_height_px}"
        return words.size_of(self.task.aspect_ratio, self.task.resolution)


def of_new(task: VideoTask) -> Facts:
    """Of a task that was made a moment ago: no statement."""
    status = {"taskId": task.pk, "status": PUBLIC_STATUS.get(task.status, str(task.status)), "progress": 0}
    return Facts(task, timezone.now(), status)


def of(task_id: str, request: Request) -> Facts:
    """Of a task of the caller's. Raises a 404, and a 410 if it was deleted."""
    status = status_of(task_id, request)
    task = VideoTask.objects.only(*_ROW).filter(pk=task_id).first()
    if task is None:  # erased in this very moment
        raise errors.not_found()
    return Facts(task, task.created_at, status)


def page(request: Request, *, after: str | None, limit: int, oldest_first: bool) -> tuple[list[Facts], bool]:
    """`limit` of the caller's tasks but for deleted ones, and whether there are more. `after`: a task's id.

    Three statements, by the index `task_list_of_user`. Raises a 404 for a task that is not the caller's.
    """
    own = VideoTask.objects.filter(user_id=user_id(request))
    if after is not None:
        last = own.filter(pk=after).only("id", "created_at").first() if TASK_ID.fullmatch(after) else None
        if last is None:
            raise errors.invalid("after", "must be the id of a video of yours")
        # The id orders rows of equal times; the first condition is the one that the index serves.
        beyond, at = ("gt", "gte") if oldest_first else ("lt", "lte")
        own = own.filter(
            Q(**{f"created_at__{beyond}": last.created_at}) | Q(**{f"pk__{beyond}": last.pk}),
            **{f"created_at__{at}": last.created_at},
        )
    order = ("created_at", "id") if oldest_first else ("-created_at", "-id")
    rows = list(own.exclude(gone_why=VideoTask.GoneWhy.DELETED).only(*_ROW).order_by(*order)[: limit + 1])
    found = statuses([task.pk for task in rows[:limit]], origin_of(request))
    shown = [Facts(task, task.created_at, found[task.pk]) for task in rows[:limit] if task.pk in found]
    return shown, len(rows) > limit


def file_of(facts: Facts, which: str = "videoUrl") -> str:
    """A link to its video or picture that needs no login. Raises what is said of one that isn't there."""
    status = facts.status
    if gone := status.get("gone"):
        raise errors.ApiError(410, gone["code"], gone["message"])
    if status["status"] == "failed":
        raise errors.ApiError(404, "not_found", f"There is no video: {status['error']}")
    link = status.get("result", {}).get(which)
    if status["status"] != "success":
        raise errors.ApiError(409, "video_not_ready", "This video is not ready yet; ask for its status until it is.")
    if link is None:
        raise errors.not_found("file of this video")
    return str(link)


__all__ = ["Facts", "checked_id", "file_of", "of", "of_new", "page"]
