"""The figures that one user may see: their own tasks and credits, and the state of the system in one word."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, DurationField, ExpressionWrapper, Min, Q
from django.db.models.functions import Now

from video.credits import ledger
from video.engine.queues import QUEUES
from video.models import VideoTask
from video.monitoring import workers
from video.routing import availability
from video.routing.health import ANOTHER_USER
from video.scheduling import storage_quota


@dataclass(frozen=True)
class OwnFigures:
    """One user's tasks."""

    by_status: dict[str, int]  # active ones
    by_stage: dict[str, int]  # active ones
    waiting: int  # for a slot at a provider
    oldest_wait_s: float | None
    last_day: dict[str, int]  # made in the last 24 hours, by how they ended
    balance: int
    stored: storage_quota.Use
    system: str  # ok: takes jobs; busy: this user's wait for a slot, or none is free; paused: nothing starts

    @property
    def active(self) -> int:
        return sum(self.by_stage.values())


def of_user(user_id: int) -> OwnFigures:
    """One user's figures; seven statements."""
    tasks = VideoTask.objects.filter(user_id=user_id)
    by_status, by_stage, waiting, waits = Counter[str](), Counter[str](), 0, list[timedelta]()
    for row in (
        tasks.filter(finished_at=None)
        .values("status", "stage")
        .annotate(
            number=Count("pk"),
            waiting=Count("admit_at"),
            longest=ExpressionWrapper(
                Now() - Min("admit_at", filter=Q(admit_at__lte=Now())), output_field=DurationField()
            ),
        )
    ):
        by_status[row["status"]] += row["number"]
        by_stage[row["stage"]] += row["number"]
        waiting += row["waiting"]
        if row["longest"] is not None:
            waits.append(row["longest"])
    ended = tasks.filter(finished_at__isnull=False, created_at__gt=Now() - timedelta(days=1))
    return OwnFigures(
        by_status=dict(by_status),
        by_stage=dict(by_stage),
        waiting=waiting,
        oldest_wait_s=max(waits).total_seconds() if waits else None,
        last_day=dict(ended.values_list("status").annotate(Count("pk"))),
        balance=ledger.balance(user_id),
        stored=storage_quota.of_user(user_id),
        system=word(user_id, waits=waiting > 0),
    )


def word(user_id: int = ANOTHER_USER, *, waits: bool = False) -> str:
    """The state of the system for this user in one word. `waits`: tasks of theirs have no slot yet. Two statements."""
    there = workers.workers()
    if not workers.sweeping(there) or not all(workers.listening(there, queue) for queue in QUEUES):
        return "paused"
    models = availability.read().of_all(user_id).values()
    if not any(model.takes_jobs for model in models):
        return "paused"
    return "busy" if waits or not any(model.free_slots for model in models) else "ok"
