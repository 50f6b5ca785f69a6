"""Attempts at providers."""

from __future__ import annotations

from datetime import UTC

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now, TruncDate

from video import ids
from video.models.providers import ProviderAccount
from video.models.tasks import VideoTask

_LIVE = ["planned", "unknown", "accepted"]


class Generation(models.Model):
    """One attempt at one provider with one key."""

    class State(models.TextChoices):
        PLANNED = "planned"  # slot reserved, certainly not sent; left by the submit, or a task that ends before it
        UNKNOWN = "unknown"  # about to be sent, or sent without a proof yet; left by the reply or by reconciliation
        ACCEPTED = "accepted"  # the provider has the job; left by its verified end, or by giving it up as lost
        REJECTED = "rejected"  # final: proof that no job exists
        SUCCEEDED = "succeeded"  # final
        FAILED = "failed"  # final
        CANCELLED = "cancelled"  # final
        LOST = "lost"  # given up, its possible cost is booked; a late proof may still change it

    LIVE = (State.PLANNED, State.UNKNOWN, State.ACCEPTED)
    #: The same in SQL, after `state`.
    LIVE_SQL = "IN ('planned', 'unknown', 'accepted')"

    id = models.CharField(primary_key=True, max_length=40, default=ids.generation_id, editable=False)
    # Without an index of its own: generation_attempt_once begins with it.
    task = models.ForeignKey(VideoTask, on_delete=models.CASCADE, related_name="generations", db_index=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        help_text="The task's; here too, so that counting the slots of each user reads one small index.",
    )
    run = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(help_text="1, 2, … over all runs of the task.")
    account = models.ForeignKey(ProviderAccount, on_delete=models.PROTECT, related_name="generations")
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=80)
    key_fingerprint = models.CharField(max_length=16)
    simulated = models.BooleanField()
    # The provider is asked for these and charges by them: written before the submit, so that price and request agree.
    duration_s = models.PositiveSmallIntegerField(default=5)
    resolution = models.CharField(max_length=8, default="720p", help_text="Of the provider's render.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PLANNED)
    is_probe = models.BooleanField(
        default=False, db_default=False, help_text="Its submit tries a key or account that was refused lately."
    )
    candidates = models.JSONField(default=list, help_text="What could have been chosen, and why it was or was not.")

    job_id = models.CharField(max_length=120, blank=True, default="")
    job_urls = models.JSONField(default=dict, blank=True)
    provider_status = models.CharField(max_length=60, blank=True, default="")
    provider_progress = models.FloatField(null=True, blank=True)
    last_polled_at = models.DateTimeField(null=True, blank=True)
    polls = models.PositiveIntegerField(default=0)
    poll_errors = models.PositiveIntegerField(default=0, help_text="In a row.")
    not_found = models.PositiveSmallIntegerField(default=0, help_text="Answers 'no such job', in a row.")
    not_found_since = models.DateTimeField(null=True, blank=True)
    look_at = models.DateTimeField(null=True, blank=True, help_text="Next look at a job whose task no longer waits.")
    expects_call = models.BooleanField(
        default=False, db_default=False, help_text="A call-back address went along with the submit."
    )
    result_dies_at = models.DateTimeField(
        null=True, blank=True, help_text="When the provider deletes the finished video, as far as is known."
    )
    cancel_wanted_at = models.DateTimeField(null=True, blank=True, help_text="Worked off by reconcile.")
    unknown_since = models.DateTimeField(
        null=True, blank=True, help_text="When the submit's call ended without an answer that proves anything."
    )
    lookups = models.PositiveSmallIntegerField(default=0, help_text="Look-ups by our reference that found nothing.")
    resent = models.BooleanField(default=False, help_text="Sent again with the same reference, which can't double.")

    fetch_errors = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Fetches of its finished video that failed, in a row."
    )

    expected_usd = models.DecimalField(max_digits=10, decimal_places=4, null=True, blank=True)
    expected_cost = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    reported_cost = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    cost_unit = models.CharField(max_length=12, blank=True, default="")
    took_nothing = models.BooleanField(
        null=True,
        blank=True,
        help_text="Of an attempt that ended: whether its provider surely charges nothing; empty: of an older version.",
    )
    aigc_tag = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="What the provider's file says of its origin (China's AIGC tag).",
    )
    has_c2pa = models.BooleanField(
        default=False, db_default=False, help_text="The provider's file had a C2PA manifest. No transcode can keep one."
    )
    error_code = models.CharField(max_length=60, blank=True, default="")
    error_message = models.TextField(blank=True, default="")
    last_answer = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="The provider's last answer that was an error or a bad end; without keys, links and the prompt.",
    )
    last_answer_at = models.DateTimeField(null=True, blank=True)
    another_model_could = models.BooleanField(
        default=True, db_default=True, help_text="After its end without a video: whether another model may be asked."
    )

    planned_at = models.DateTimeField(db_default=Now(), editable=False)
    sent_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "attempt"  # the word of pages and texts; tables and API fields keep the older one
        indexes = [
            models.Index(fields=["account"], name="generation_slots_taken", condition=Q(state__in=_LIVE)),
            models.Index(fields=["user"], name="generation_slots_of_user", condition=Q(state__in=_LIVE)),
            models.Index(fields=["look_at"], name="generation_to_look_at", condition=Q(look_at__isnull=False)),
            models.Index(
                fields=["model", "-ended_at"], name="generation_recent_by_model", condition=Q(ended_at__isnull=False)
            ),
            # Serves the list of tasks, narrowed to those of a provider or a model.
            models.Index(fields=["provider", "model", "task"], name="generation_by_model"),
            # Serves the costs of a day.
            models.Index(
                TruncDate("ended_at", tzinfo=UTC), name="generation_by_day", condition=Q(ended_at__isnull=False)
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["task"], name="generation_one_live_a_task", condition=Q(state__in=_LIVE)),
            models.UniqueConstraint(fields=["task", "attempt"], name="generation_attempt_once"),
            models.UniqueConstraint(fields=["provider", "job_id"], name="generation_job_once", condition=~Q(job_id="")),
            models.CheckConstraint(
                name="generation_sent_at_by_state",
                condition=Q(state="planned", sent_at__isnull=True)
                | Q(state="rejected")
                | (~Q(state__in=["planned", "rejected"]) & Q(sent_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="generation_job_id_by_state",
                condition=Q(state__in=["planned", "unknown", "rejected"], job_id="")
                | (Q(state__in=["accepted", "succeeded", "failed", "cancelled"]) & ~Q(job_id=""))
                | Q(state="lost"),
            ),
            models.CheckConstraint(
                name="generation_ended_at_by_state",
                condition=Q(state__in=_LIVE, ended_at__isnull=True) | (~Q(state__in=_LIVE) & Q(ended_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="generation_state_known",
                condition=Q(state__in=[*_LIVE, "rejected", "succeeded", "failed", "cancelled", "lost"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.provider} {self.model}, {self.state})"


class AttachRequest(models.Model):
    """An operator's wish to attach a job to an attempt. It is deleted when that is done."""

    generation = models.OneToOneField(Generation, on_delete=models.CASCADE, primary_key=True)
    job_id = models.CharField(max_length=120, help_text="The provider's id of the job.")
    asked_by = models.CharField(max_length=150, help_text="The operator's name.")
    refusal = models.CharField(
        max_length=300, blank=True, default="", help_text="Why it can't be attached; empty while a worker is to ask."
    )

    def __str__(self) -> str:
        return f"{self.generation_id} ({self.job_id})"
