"""Tables, the constraints that keep them true, and indexes that name the query they serve.

`states.py` is the only writer of a task's status, stage and clocks; `attempts.py` of a generation's state; `credits.py`
of the ledger. What must never be false is a constraint here, so that a mistake there fails loudly.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from video import ids


class Status(models.TextChoices):
    """Where a task stands in its user's eyes."""

    PENDING = "pending"  # nothing sent to a provider yet; left by the first submit, a cancel or a failure
    RUNNING = "running"  # left by save (success), a final failure, a cancel, or the task's deadline
    SUCCESS = "success"  # final
    FAILED = "failed"  # final; a retry or a late result may bring it back to running
    CANCELLED = "cancelled"  # final


class Stage(models.TextChoices):
    """The next piece of work, or the one that failed."""

    GENERATE = "generate"
    POLL = "poll"
    DOWNLOAD = "download"
    TRANSCODE = "transcode"
    THUMBNAIL = "thumbnail"
    SAVE = "save"
    DONE = "done"


ACTIVE = (Status.PENDING, Status.RUNNING)


class VideoTask(models.Model):
    """What a user asked for: one prompt, one finished video."""

    class Quality(models.TextChoices):
        LOW = "low"
        MEDIUM = "medium"
        HIGH = "high"

    class Policy(models.TextChoices):
        BALANCED = "balanced"
        COST = "cost"
        QUALITY = "quality"
        SPEED = "speed"

    class Resolution(models.TextChoices):
        P480 = "480p"
        P720 = "720p"
        P1080 = "1080p"
        SOURCE = "source"

    id = models.CharField(primary_key=True, max_length=40, default=ids.task_id, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="video_tasks")
    run = models.PositiveIntegerField(default=1, help_text="1 at create; a retry that pays again is the next run.")

    # What was asked for.
    prompt = models.TextField()
    duration_s = models.PositiveSmallIntegerField()
    aspect_ratio = models.CharField(max_length=8)
    image_url = models.TextField(blank=True, default="")
    policy = models.CharField(max_length=10, choices=Policy.choices, default=Policy.BALANCED)
    fallback = models.BooleanField(default=True, help_text="Whether another model may run it when one could not.")
    model_requested = models.CharField(max_length=80, blank=True, default="", help_text="As named by the client.")
    eligible_models = ArrayField(
        models.CharField(max_length=80), default=list, help_text="Models that may run it now; narrowed by each attempt."
    )
    negative_prompt = models.TextField(blank=True, default="")
    seed = models.BigIntegerField(null=True, blank=True)
    quality = models.CharField(max_length=8, choices=Quality.choices, default=Quality.MEDIUM)
    resolution = models.CharField(max_length=8, choices=Resolution.choices, default=Resolution.SOURCE)
    fps = models.PositiveSmallIntegerField(default=30)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True, editable=False)  # noqa: DJ001 - NULL: no key
    request_hash = models.CharField(max_length=64, blank=True, default="", editable=False)

    # Where it stands. Written by states.py only.
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    stage = models.CharField(max_length=10, choices=Stage.choices, default=Stage.GENERATE)
    progress = models.PositiveSmallIntegerField(default=0, help_text="0 to 100 over all stages; never falls in a run.")
    admit_at = models.DateTimeField(null=True, blank=True, help_text="Waits for a free slot; not before this time.")
    next_run_at = models.DateTimeField(null=True, blank=True, help_text="When the stage is due.")
    lease_until = models.DateTimeField(null=True, blank=True, help_text="Held by a worker until then.")
    fence = models.BigIntegerField(default=0, help_text="Token of the last claim; a write under an older one is lost.")
    claimed_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.CharField(max_length=120, blank=True, default="")
    rung_at = models.DateTimeField(null=True, blank=True, help_text="When the broker was last told.")
    hinted_at = models.DateTimeField(null=True, blank=True, help_text="When something said: look now.")
    park_reason = models.CharField(max_length=200, blank=True, default="")
    tries = models.PositiveSmallIntegerField(default=0, help_text="Failed tries of this stage so far.")
    deaths = models.PositiveSmallIntegerField(default=0, help_text="Claims of this stage whose worker never came back.")
    deadline_at = models.DateTimeField(null=True, blank=True, help_text="A job still open at its provider then ends.")
    error_code = models.CharField(max_length=60, blank=True, default="")
    error_message = models.TextField(blank=True, default="", help_text="A plain sentence that a page may print.")

    # What was made. Keys in storage, never paths or links.
    source_key = models.CharField(max_length=200, blank=True, default="")
    output_key = models.CharField(max_length=200, blank=True, default="")
    thumbnail_key = models.CharField(max_length=200, blank=True, default="")
    has_work_files = models.BooleanField(default=False)
    video_id = models.CharField(max_length=40, null=True, blank=True, unique=True)
    video_bytes = models.BigIntegerField(null=True, blank=True)
    video_width_px = models.PositiveIntegerField(null=True, blank=True)
    video_height_px = models.PositiveIntegerField(null=True, blank=True)
    video_duration_s = models.FloatField(null=True, blank=True)

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When the first submit was sent.")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "task"
        indexes = [
            models.Index(fields=["next_run_at"], name="task_due", condition=Q(next_run_at__isnull=False)),
            models.Index(fields=["created_at"], name="task_waiting_by_age", condition=Q(admit_at__isnull=False)),
            models.Index(
                fields=["finished_at"],
                name="task_work_to_sweep",
                condition=Q(has_work_files=True, finished_at__isnull=False),
            ),
            models.Index(fields=["deadline_at"], name="task_deadline", condition=Q(finished_at__isnull=True)),
            models.Index(fields=["user", "-created_at"], name="task_list_of_user"),
            models.Index(fields=["status", "-created_at"], name="task_list_in_admin"),
            models.Index(F("finished_at").desc(), name="task_recent_successes", condition=Q(status="success")),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "idempotency_key"],
                name="task_one_per_idempotency_key",
                condition=Q(idempotency_key__isnull=False),
            ),
            models.CheckConstraint(
                name="task_active_has_one_clock",
                condition=Q(status__in=ACTIVE, admit_at__isnull=True, next_run_at__isnull=False)
                | Q(status__in=ACTIVE, admit_at__isnull=False, next_run_at__isnull=True)
                | (
                    ~Q(status__in=ACTIVE) & Q(admit_at__isnull=True, next_run_at__isnull=True, lease_until__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="task_waits_in_generate_and_unheld",
                condition=Q(admit_at__isnull=True) | Q(stage="generate", lease_until__isnull=True),
            ),
            models.CheckConstraint(
                name="task_success_is_done_and_has_video",
                condition=Q(status="success", stage="done", video_id__isnull=False, progress=100)
                | (~Q(status="success") & ~Q(stage="done") & Q(video_id__isnull=True)),
            ),
            models.CheckConstraint(
                name="task_error_only_when_failed",
                condition=(Q(status="failed") & ~Q(error_code="") & ~Q(error_message=""))
                | (~Q(status="failed") & Q(error_code="", error_message="")),
            ),
            models.CheckConstraint(
                name="task_finished_at_when_final",
                condition=Q(status__in=ACTIVE, finished_at__isnull=True)
                | (~Q(status__in=ACTIVE) & Q(finished_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="task_pending_only_in_generate", condition=~Q(status="pending") | Q(stage="generate")
            ),
            models.CheckConstraint(name="task_progress_percent", condition=Q(progress__lte=100)),
            models.CheckConstraint(name="task_run_from_one", condition=Q(run__gte=1)),
            models.CheckConstraint(name="task_status_known", condition=Q(status__in=Status.values)),
            models.CheckConstraint(name="task_stage_known", condition=Q(stage__in=Stage.values)),
            models.CheckConstraint(
                name="task_key_has_hash", condition=Q(idempotency_key__isnull=True) | ~Q(request_hash="")
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_active(self) -> bool:
        """Whether anything may still happen by itself."""
        return self.status in ACTIVE


class ProviderKey(models.Model):
    """One API key, by its fingerprint; its value is only in the environment."""

    class State(models.TextChoices):
        ACTIVE = "active"
        DRAINING = "draining"  # set by an operator: no new jobs, old ones are still polled with it
        QUARANTINED = "quarantined"  # the provider refused it; an operator, or a good check, brings it back

    provider = models.CharField(max_length=20)
    fingerprint = models.CharField(max_length=16)
    account = models.CharField(max_length=80, help_text="KEY_ACCOUNTS groups keys; else each is its own account.")
    state = models.CharField(max_length=12, choices=State.choices, default=State.ACTIVE)
    last_error = models.CharField(max_length=300, blank=True, default="")
    checked_at = models.DateTimeField(null=True, blank=True, help_text="Last answer to an account call.")
    gone_since = models.DateTimeField(
        null=True, blank=True, help_text="No longer configured though jobs hang on it: put it back."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "fingerprint"], name="key_once"),
            models.CheckConstraint(
                name="key_state_known", condition=Q(state__in=["active", "draining", "quarantined"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} key {self.fingerprint}"


class ProviderAccount(models.Model):
    """What a provider's limits belong to: one or more keys, and a model.

    A slot is a live Generation, counted under this row's lock in the transaction that inserts it.
    """

    provider = models.CharField(max_length=20)
    account = models.CharField(max_length=80, help_text="Name of the account, or the fingerprint of its only key.")
    model = models.CharField(max_length=80)
    slots = models.PositiveIntegerField(help_text="Generations that may be live at once, as the provider says.")
    slots_override = models.PositiveIntegerField(null=True, blank=True, help_text="The operator's own limit.")
    lowered_slots = models.PositiveIntegerField(
        null=True, blank=True, help_text="Fewer for a while, since the provider said 'too many at once'."
    )
    lowered_until = models.DateTimeField(null=True, blank=True)
    cooldown_until = models.DateTimeField(null=True, blank=True, help_text="The provider asked to wait until then.")
    busies = models.PositiveIntegerField(default=0, help_text="Cool-downs in a row, each longer than the last.")
    closed_reason = models.CharField(
        max_length=40, blank=True, default="", help_text="Why no job starts here: out_of_credits, model_forbidden."
    )
    balance = models.DecimalField(max_digits=14, decimal_places=4, null=True, blank=True)
    balance_unit = models.CharField(max_length=12, blank=True, default="")
    last_error = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "account", "model"], name="account_once"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.account} {self.model}"


class ModelSetting(models.Model):
    """What an operator decided about a model of the catalogue: switched off, another price, other grades."""

    model = models.CharField(max_length=80, primary_key=True, help_text="Id in the catalogue.")
    enabled = models.BooleanField(default=True)
    price_usd_per_s = models.DecimalField(
        max_digits=10, decimal_places=4, null=True, blank=True, help_text="Instead of the catalogue's, all resolutions."
    )
    quality = models.PositiveSmallIntegerField(null=True, blank=True, help_text="1 to 5, instead of the catalogue's.")
    speed = models.PositiveSmallIntegerField(null=True, blank=True, help_text="1 to 5, instead of the catalogue's.")
    note = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="model_grades_from_1_to_5",
                condition=(Q(quality__isnull=True) | Q(quality__range=(1, 5)))
                & (Q(speed__isnull=True) | Q(speed__range=(1, 5))),
            ),
            models.CheckConstraint(
                name="model_price_positive", condition=Q(price_usd_per_s__isnull=True) | Q(price_usd_per_s__gt=0)
            ),
        ]

    def __str__(self) -> str:
        return self.model


class Circuit(models.Model):
    """The circuit breaker of one model: opens after provider faults in a row, closes by a success.

    Only faults of the provider count, never a user's request, a key or an account.
    """

    model = models.CharField(max_length=80, primary_key=True)
    provider = models.CharField(max_length=20)
    faults = models.PositiveIntegerField(default=0, help_text="In a row.")
    open_until = models.DateTimeField(null=True, blank=True, help_text="No new job before; then one is let through.")
    probing_since = models.DateTimeField(null=True, blank=True, help_text="That one job is under way.")
    last_error = models.CharField(max_length=300, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.model}: {self.faults} faults in a row"


class Generation(models.Model):
    """One attempt at one provider with one key."""

    class State(models.TextChoices):
        PLANNED = "planned"  # slot reserved, certainly not sent; left by the submit, or a task that ends before it
        UNKNOWN = "unknown"  # about to be sent, or sent and no truth yet; left by the reply or by reconciliation
        ACCEPTED = "accepted"  # the provider has the job; left by its end, verified, or by giving it up as lost
        REJECTED = "rejected"  # final: proof that no job exists
        SUCCEEDED = "succeeded"  # final
        FAILED = "failed"  # final
        CANCELLED = "cancelled"  # final
        LOST = "lost"  # given up with its possible cost booked; late truth may still move it

    LIVE = (State.PLANNED, State.UNKNOWN, State.ACCEPTED)

    id = models.CharField(primary_key=True, max_length=40, default=ids.generation_id, editable=False)
    task = models.ForeignKey(VideoTask, on_delete=models.CASCADE, related_name="generations")
    run = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(help_text="1, 2, … over all runs of the task.")
    account = models.ForeignKey(ProviderAccount, on_delete=models.PROTECT, related_name="generations")
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=80)
    key_fingerprint = models.CharField(max_length=16)
    simulated = models.BooleanField()
    # What is asked for and charged by: written before the submit, so that price and request are of the same values.
    duration_s = models.PositiveSmallIntegerField(default=5)
    resolution = models.CharField(max_length=8, default="720p", help_text="Of the provider's render.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PLANNED)
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
    cancel_wanted_at = models.DateTimeField(null=True, blank=True, help_text="Worked off by reconcile.")
    unknown_since = models.DateTimeField(
        null=True, blank=True, help_text="When the submit's call ended without an answer that proves anything."
    )
    lookups = models.PositiveSmallIntegerField(default=0, help_text="Look-ups by our reference that found nothing.")
    resent = models.BooleanField(default=False, help_text="Sent again with the same reference, which can't double.")

    expected_usd = models.DecimalField(max_digits=10, decimal_places=4, null=True, blank=True)
    expected_cost = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    reported_cost = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    cost_unit = models.CharField(max_length=12, blank=True, default="")
    error_code = models.CharField(max_length=60, blank=True, default="")
    error_message = models.TextField(blank=True, default="")

    planned_at = models.DateTimeField(db_default=Now(), editable=False)
    sent_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["account"],
                name="generation_slots_taken",
                condition=Q(state__in=["planned", "unknown", "accepted"]),
            ),
            models.Index(fields=["look_at"], name="generation_to_look_at", condition=Q(look_at__isnull=False)),
            models.Index(
                fields=["model", "-ended_at"], name="generation_recent_by_model", condition=Q(ended_at__isnull=False)
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["task"],
                name="generation_one_live_a_task",
                condition=Q(state__in=["planned", "unknown", "accepted"]),
            ),
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
                condition=Q(state__in=["planned", "unknown", "accepted"], ended_at__isnull=True)
                | (~Q(state__in=["planned", "unknown", "accepted"]) & Q(ended_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="generation_state_known",
                condition=Q(
                    state__in=["planned", "unknown", "accepted", "rejected", "succeeded", "failed", "cancelled", "lost"]
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.provider} {self.model}, {self.state})"


class TaskEvent(models.Model):
    """One transition of a task: the timeline that API and admin show, and the source of every duration."""

    class Outcome(models.TextChoices):
        CREATED = "created"
        ADMITTED = "admitted"  # got a slot, a model and a key
        ADVANCED = "advanced"  # the stage is done
        PARKED = "parked"  # waits for a time
        WAITING = "waiting"  # back in line for a slot
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"
        RESUMED = "resumed"  # brought back by a retry or a late result

    id = models.BigAutoField(primary_key=True)
    task = models.ForeignKey(VideoTask, on_delete=models.CASCADE, related_name="events")
    run = models.PositiveIntegerField()
    generation = models.ForeignKey(Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    stage = models.CharField(max_length=10, choices=Stage.choices)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    fence = models.BigIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True, default="")
    detail = models.CharField(max_length=300, blank=True, default="")
    error_code = models.CharField(max_length=60, blank=True, default="")
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["task", "id"], name="event_timeline_of_task")]

    def __str__(self) -> str:
        return f"{self.task_id} {self.stage} {self.outcome}"


class Account(models.Model):
    """A user's credits. `balance` moves only together with an entry, in one transaction."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.PROTECT, related_name="credit_account"
    )
    balance = models.BigIntegerField(default=0, help_text="Credits.")

    class Meta:
        verbose_name = "credit account"
        constraints = [models.CheckConstraint(name="account_balance_not_negative", condition=Q(balance__gte=0))]

    def __str__(self) -> str:
        return f"account of user {self.pk}"


class CreditEntry(models.Model):
    """One line of the ledger. Append-only: a trigger refuses UPDATE and DELETE."""

    class Kind(models.TextChoices):
        GRANT = "grant"  # given by an operator
        DEBIT = "debit"  # a run of a task was paid
        REFUND = "refund"  # that run failed for good
        ADJUST = "adjust"  # a correction, with its reason in the note

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    amount = models.BigIntegerField(help_text="Credits; what is taken is negative.")
    task = models.ForeignKey(VideoTask, on_delete=models.PROTECT, null=True, blank=True, related_name="credit_entries")
    run = models.PositiveIntegerField(null=True, blank=True)
    note = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "credit entries"
        indexes = [models.Index(fields=["account", "-id"], name="entry_list_of_account")]
        constraints = [
            models.UniqueConstraint(
                fields=["task", "run", "kind"], name="entry_once_a_run", condition=Q(task__isnull=False)
            ),
            models.CheckConstraint(
                name="entry_sign_by_kind",
                condition=Q(kind__in=["grant", "refund"], amount__gt=0)
                | Q(kind="debit", amount__lt=0)
                | (Q(kind="adjust") & ~Q(amount=0)),
            ),
            models.CheckConstraint(
                name="entry_of_a_run_names_it",
                condition=Q(kind__in=["debit", "refund"], task__isnull=False, run__isnull=False)
                | Q(kind="adjust")
                | Q(kind="grant"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount:+d}"


class PeriodicRun(models.Model):
    """A periodic job of the sweeper that has been taken for a period; unique, so two sweepers do it once."""

    name = models.CharField(max_length=40)
    period = models.DateTimeField(help_text="Start of the period.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "period"], name="periodic_run_once")]

    def __str__(self) -> str:
        return f"{self.name} {self.period:%Y-%m-%d %H:%M}"
