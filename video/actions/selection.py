"""Select the tasks of a command: by id, or by filters. Ids only; those of filters oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.db.models import OuterRef, Subquery
from django.utils import timezone

from video.infra.errors import Refusal
from video.models import Generation, Status, VideoTask


class InvalidSelection(Refusal, ValueError):
    """The task or user that was named does not exist; the text is for the operator."""


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
    rows = VideoTask.objects.filter(status__in=wanted.statuses)
    if wanted.user:
        user = get_user_model().objects.filter(username=wanted.user).first()
        if user is None:
            raise InvalidSelection(f"There is no user {wanted.user}.")
        rows = rows.filter(user=user)
    if wanted.stage:
        rows = rows.filter(stage=wanted.stage)
    if wanted.error:
        rows = rows.filter(error_code=wanted.error)
    if wanted.since_s is not None:
        rows = rows.filter(finished_at__gte=now - timedelta(seconds=wanted.since_s))
    if wanted.older_than_s is not None:
        rows = rows.filter(created_at__lte=now - timedelta(seconds=wanted.older_than_s))
    if wanted.provider:
        last = Generation.objects.filter(task=OuterRef("pk")).order_by("-attempt")
        rows = rows.annotate(last_provider=Subquery(last.values("provider")[:1])).filter(last_provider=wanted.provider)
    return list(rows.order_by("created_at", "id").values_list("pk", flat=True))
