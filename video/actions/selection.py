"""Select the tasks of a command: by id, or by filters. Ids only; those of filters oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from video.actions import task_filters
from video.actions.task_filters import InvalidSelection
from video.models import Status, VideoTask


@dataclass(frozen=True)
class Filter:
    """Selects the tasks for which every given condition holds."""

    statuses: Sequence[Status]
    user: str = ""  # name
    stage: str = ""
    provider: str = ""  # of the last attempt
    error: str = ""  # code
    since_s: float | None = None  # ended within the last `since_s` seconds
    older_than_s: float | None = None  # created more than `older_than_s` seconds ago


def by_id(ids: Sequence[str]) -> list[str]:
    """The same ids without duplicates, in the order given. Raises InvalidSelection if a task does not exist."""
    wanted = list(dict.fromkeys(ids))
    existing = set(VideoTask.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    missing = [task_id for task_id in wanted if task_id not in existing]
    if missing:
        raise InvalidSelection(f"There is no task {', '.join(missing)}.")
    return wanted


def by_filter(wanted: Filter) -> list[str]:
    """Ids of all tasks that match; no limit. Raises InvalidSelection for a user who does not exist."""
    now = timezone.now()
    names = {"user": wanted.user, "stage__exact": wanted.stage, "provider": wanted.provider, "error": wanted.error}
    rows = task_filters.narrow(
        VideoTask.objects.filter(status__in=wanted.statuses), {name: value for name, value in names.items() if value}
    )
    if wanted.since_s is not None:
        rows = rows.filter(finished_at__gte=now - timedelta(seconds=wanted.since_s))
    if wanted.older_than_s is not None:
        rows = rows.filter(created_at__lte=now - timedelta(seconds=wanted.older_than_s))
    return list(rows.order_by("created_at", "id").values_list("pk", flat=True))
