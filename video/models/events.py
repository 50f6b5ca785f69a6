"""What happened to each task."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from video.models.tasks import Stage, VideoTask


class TaskEvent(models.Model):
    """One transition of a task. API and admin show them as its timeline, and every duration is computed from them."""

    class Outcome(models.TextChoices):
        CREATED = "created"
        ADMITTED = "admitted"  # got a slot, a model and a key
        ADVANCED = "advanced"  # the stage is done
        PARKED = "parked"  # waits for a time
        WAITING = "waiting"  # waits for a slot again
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"
        RESUMED = "resumed"  # brought back by a retry or a late result

    #: What the owner reads of an event that an operator caused.
    BY_OPERATOR = "an operator saw to it"

    id = models.BigAutoField(primary_key=True)
    # Without an index of its own: event_timeline_of_task begins with it, and no table gets more rows.
    task = models.ForeignKey(VideoTask, on_delete=models.CASCADE, related_name="events", db_index=False)
    run = models.PositiveIntegerField()
    generation = models.ForeignKey("Generation", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    stage = models.CharField(max_length=10, choices=Stage.choices)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    fence = models.BigIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True, default="")
    detail = models.CharField(max_length=300, blank=True, default="")
    owner_detail = models.CharField(
        max_length=300,
        blank=True,
        default="",
        db_default="",
        help_text="All that the owner of the task may read of it; empty: nothing.",
    )
    error_code = models.CharField(max_length=60, blank=True, default="")
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "event"
        indexes = [
            models.Index(fields=["task", "id"], name="event_timeline_of_task"),
            models.Index(
                fields=["finished_at"],
                name="event_recent_moves",
                condition=Q(outcome__in=["advanced", "succeeded", "failed"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} {self.stage} {self.outcome}"
