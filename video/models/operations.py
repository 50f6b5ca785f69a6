"""Worker processes, the users' shares, and the sweeper's periodic jobs."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now


class PeriodicRun(models.Model):
    """A periodic job that a sweeper has taken for one period; unique, so of two sweepers only one does it."""

    name = models.CharField(max_length=40)
    period = models.DateTimeField(help_text="Start of the period.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "period"], name="periodic_run_once")]

    def __str__(self) -> str:
        return f"{self.name} {self.period:%Y-%m-%d %H:%M}"


class HourFigures(models.Model):
    """What an hour that is over came to, for the charts of the admin; made by the sweeper from events and attempts.

    Nothing else reads it: a missing row is a gap in a chart.
    """

    hour = models.DateTimeField(primary_key=True, help_text="Its start.")
    videos = models.PositiveIntegerField(help_text="Tasks that succeeded.")
    failures = models.PositiveIntegerField(help_text="Tasks that failed.")
    waits = models.PositiveIntegerField(help_text="Waits for a slot that ended with one.")
    waited_s = models.FloatField(help_text="The sum of these waits.")
    longest_wait_s = models.FloatField()
    cost_usd = models.JSONField(
        default=dict, db_default=Value({}, models.JSONField()), help_text="Expected USD of the jobs, by provider."
    )

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}:00"


class UserShare(models.Model):
    """An operator's decision on one user's share of slots and cores. Users without a row have weight 1."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="share"
    )
    weight = models.PositiveSmallIntegerField(
        default=1, help_text="Parts of what is to be shared: a user of weight 2 gets twice as much as one of weight 1."
    )
    most_waiting = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tasks that may wait at once, instead of MAX_WAITING_PER_USER."
    )
    most_live = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tasks that may be under way at once, waiting ones included; empty: no limit."
    )
    most_stored_bytes = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="Bytes that stored files may have, instead of MAX_STORED_BYTES_PER_USER; 0: no limit.",
    )
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, help_text="API requests, instead of REQUESTS_PER_MINUTE; 0: no limit."
    )
    note = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [models.CheckConstraint(name="share_weight_from_1_to_1000", condition=Q(weight__range=(1, 1000)))]

    def __str__(self) -> str:
        return f"user {self.pk}: weight {self.weight}"


class UserStorage(models.Model):
    """What a user's stored files come to. A trigger (migration 0017) counts them in the statement that changes a task.

    Nothing else writes it, and no constraint holds it: a wrong count must not fail a task that is paid for.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="storage"
    )
    bytes = models.BigIntegerField(default=0, help_text="Videos, thumbnails and kept originals.")
    videos = models.IntegerField(default=0, help_text="Tasks that have such files.")

    def __str__(self) -> str:
        return f"user {self.pk}: {self.bytes} bytes"


class UserErasure(models.Model):
    """An operator's wish to erase a user. The command does it; the sweeper goes on with what a crash left."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="erasure"
    )
    asked_by = models.CharField(max_length=150, help_text="The operator's name.")
    asked_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True, help_text="When nothing of the user was left.")

    class Meta:
        constraints = [
            models.CheckConstraint(name="erasure_ends_after_it_was_asked", condition=Q(ended_at__gte=F("asked_at")))
        ]

    def __str__(self) -> str:
        return f"user {self.pk}, asked by {self.asked_by}"


class UserUsage(models.Model):
    """How many slots and cores a user was given lately, as fair share counts them; it decays over time."""

    class Resource(models.TextChoices):
        SLOT = "slot"
        CORE = "core"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    resource = models.CharField(max_length=4, choices=Resource.choices)
    amount = models.FloatField(help_text="At `as_of`; half of it is forgotten in each half-life.")
    as_of = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "user usage"
        constraints = [
            models.UniqueConstraint(fields=["user", "resource"], name="usage_once_a_resource"),
            models.CheckConstraint(name="usage_resource_known", condition=Q(resource__in=["slot", "core"])),
            models.CheckConstraint(name="usage_not_negative", condition=Q(amount__gte=0)),
        ]

    def __str__(self) -> str:
        return f"user {self.user_id}: {self.amount:.1f} {self.resource}s"


class WorkerSign(models.Model):
    """The presence of a worker or sweeper, which writes it every few seconds. An old row belongs to a dead process."""

    class Kind(models.TextChoices):
        WORKER = "worker"
        SWEEPER = "sweeper"

    name = models.CharField(primary_key=True, max_length=120, help_text="host:pid, as in the events.")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    host = models.CharField(max_length=100)
    queues = models.CharField(max_length=100, blank=True, default="", help_text="Separated by commas.")
    threads = models.PositiveSmallIntegerField(default=1)
    held = models.PositiveSmallIntegerField(default=0, help_text="Stages that it works on.")
    draining = models.BooleanField(default=False, help_text="It stops, and takes nothing new.")
    memory_bytes = models.BigIntegerField(default=0, help_text="Resident.")
    disk_free_bytes = models.BigIntegerField(default=0, help_text="Where it keeps its scratch files.")
    disk_low = models.BooleanField(default=False, help_text="Too little of it for new work.")
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    pid_space = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="The boot and pid namespace in which its process id is unique.",
    )
    pid = models.IntegerField(
        null=True, blank=True, help_text="Of its process; unknown for workers of an older version."
    )
    gone_at = models.DateTimeField(null=True, blank=True, help_text="When it was found to have died.")

    class Meta:
        indexes = [models.Index(fields=["-seen_at"], name="worker_seen_lately")]
        constraints = [models.CheckConstraint(name="worker_kind_known", condition=Q(kind__in=["worker", "sweeper"]))]

    def __str__(self) -> str:
        return self.name


class ProcessFigures(models.Model):
    """What one process has counted and measured since it began (`video.infra.metrics`), for whoever is asked for
    `/metrics`. It writes the row every few seconds; an old row belongs to a dead process.
    """

    name = models.CharField(primary_key=True, max_length=120, help_text="host:pid, as in the events.")
    kind = models.CharField(max_length=8, help_text="web, worker or sweeper.")
    queues = models.CharField(max_length=100, blank=True, default="", help_text="Of a worker, separated by commas.")
    samples = models.BinaryField(help_text="Compressed JSON.")
    written_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "process figures"
        constraints = [
            models.CheckConstraint(name="figures_kind_known", condition=Q(kind__in=["web", "worker", "sweeper"]))
        ]

    def __str__(self) -> str:
        return self.name
