"""Webhooks that users are sent: where to, what, and each try.

A trigger of the database (migration 0030) writes a delivery for each endpoint that wants the event, and for the task's
own URL, in the statement that changes a task's status, whoever sends it. So a delivery exists exactly when the change
does. It reads one index where nobody is to be told.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from video import ids
from video.models.tasks import VideoTask


class Signing(models.Model):
    """Secrets that messages are signed with: the present one, and for a while the one before it.

    Encrypted (see `video.webhooks.signing`): they must be used, so a hash won't do.
    """

    secret = models.TextField(help_text="Encrypted.")
    former_secret = models.TextField(blank=True, default="", help_text="Encrypted; signs as well until `former_until`.")
    former_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class WebhookSecret(Signing):
    """What messages to the URLs of a user's single tasks are signed with."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"webhook secret of user {self.pk}"


class WebhookEndpoint(Signing):
    """A URL that a user's events are sent to. Its row outlives its end until its deliveries are pruned."""

    class EndReason(models.TextChoices):
        GONE = "gone", "its receiver answered 410"
        DELETED = "deleted", "deleted by its user"

    id = models.CharField(primary_key=True, max_length=40, default=ids.webhook_endpoint_id, editable=False)
    # Without an index of its own: webhook_endpoint_live and webhook_endpoint_list begin with it.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    url = models.TextField()
    events = ArrayField(
        models.CharField(max_length=40), default=list, blank=True, help_text="Which ones it wants; none: all."
    )
    description = models.CharField(max_length=200, blank=True, default="")
    enabled = models.BooleanField(default=True, help_text="Off: nothing is written for it, nor sent to it.")
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=8, choices=EndReason.choices, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [
            # The trigger's only look at each change of a task.
            models.Index(
                fields=["user"], name="webhook_endpoint_live", condition=Q(enabled=True, ended_at__isnull=True)
            ),
            models.Index(fields=["user", "created_at"], name="webhook_endpoint_list"),
        ]
        constraints = [
            models.CheckConstraint(
                name="webhook_endpoint_ends_for_a_reason",
                condition=Q(ended_at__isnull=True, end_reason="") | (Q(ended_at__isnull=False) & ~Q(end_reason="")),
            )
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_live(self) -> bool:
        """Whether events are sent to it."""
        return self.enabled and self.ended_at is None


class WebhookDelivery(models.Model):
    """One event for one receiver: a snapshot of ids, status and times, and how far it got.

    `video.webhooks.deliveries` writes what comes after the trigger.
    """

    class State(models.TextChoices):
        PENDING = "pending"  # waits for its time, or is under way
        DELIVERED = "delivered"  # the receiver answered 2xx
        FAILED = "failed"  # given up: all tries failed, or the receiver answered 410
        DROPPED = "dropped"  # its endpoint was switched off, deleted or has ended

    id = models.CharField(primary_key=True, max_length=40, editable=False)
    message_id = models.CharField(max_length=40, help_text="`webhook-id`: the same for all receivers and all tries.")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    task = models.ForeignKey(VideoTask, on_delete=models.CASCADE, related_name="webhook_deliveries")
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, null=True, blank=True, related_name="deliveries"
    )
    url = models.TextField(blank=True, default="", help_text="The task's own; empty for an endpoint, which has one.")
    target = models.CharField(max_length=320, help_text="What shares a circuit: an endpoint, or a user and a host.")
    event = models.CharField(max_length=40)
    facts = models.JSONField(help_text="Of the task when it changed, in the API's words.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    tries = models.PositiveIntegerField(default=0, db_default=0, help_text="The number of the last try.")
    step = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Tries since it was written or sent again: its place in the schedule."
    )
    due_at = models.DateTimeField(null=True, blank=True, help_text="When the next try may begin.")
    lease_until = models.DateTimeField(null=True, blank=True, help_text="A worker tries it until then.")
    rung_at = models.DateTimeField(null=True, blank=True, help_text="When the broker was last told.")
    give_up_at = models.DateTimeField(help_text="It fails then, whatever tries are left.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "webhook deliveries"
        indexes = [
            models.Index(fields=["target", "due_at"], name="webhook_due", condition=Q(due_at__isnull=False)),
            models.Index(fields=["user", "target"], name="webhook_rung", condition=Q(rung_at__isnull=False)),
            models.Index(fields=["give_up_at"], name="webhook_to_give_up", condition=Q(due_at__isnull=False)),
            models.Index(fields=["settled_at"], name="webhook_to_prune", condition=Q(settled_at__isnull=False)),
            models.Index(fields=["user", "-created_at", "-id"], name="webhook_list_of_user"),
        ]
        constraints = [
            models.CheckConstraint(
                name="webhook_state_known", condition=Q(state__in=["pending", "delivered", "failed", "dropped"])
            ),
            models.CheckConstraint(
                name="webhook_pending_has_a_clock",
                condition=Q(state="pending", due_at__isnull=False, settled_at__isnull=True)
                | (
                    ~Q(state="pending")
                    & Q(due_at__isnull=True, lease_until__isnull=True, rung_at__isnull=True, settled_at__isnull=False)
                ),
            ),
            models.CheckConstraint(
                name="webhook_has_one_receiver",
                condition=Q(endpoint__isnull=False, url="") | (Q(endpoint__isnull=True) & ~Q(url="")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.event}"


class WebhookTry(models.Model):
    """One try of a delivery. It is written when a worker takes it, so one without an end was cut by a crash."""

    class Outcome(models.TextChoices):
        DELIVERED = "delivered"  # 2xx
        REFUSED = "refused", "another answer than 2xx, a redirect too"
        GONE = "gone", "410"
        TIMEOUT = "timeout", "no answer in time"
        UNREACHABLE = "unreachable", "no connection, or no answer"
        FORBIDDEN = "forbidden", "an address that may not be connected to"
        DROPPED = "dropped", "its endpoint is off; nothing was sent"
        UNSIGNED = "unsigned", "its secret can't be read; nothing was sent"

    id = models.BigAutoField(primary_key=True)
    # Without an index of its own: webhook_try_once begins with it.
    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.CASCADE, related_name="tries_made", db_index=False)
    number = models.PositiveIntegerField()
    worker = models.CharField(max_length=120)
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, blank=True, default="")
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    detail = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        verbose_name_plural = "webhook tries"
        constraints = [
            models.UniqueConstraint(fields=["delivery", "number"], name="webhook_try_once"),
            models.CheckConstraint(
                name="webhook_try_ends_with_an_outcome",
                condition=Q(ended_at__isnull=True, outcome="") | (Q(ended_at__isnull=False) & ~Q(outcome="")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.delivery_id} try {self.number}"


class WebhookCircuit(models.Model):
    """The circuit breaker of one receiver: opens after failures in a row, closes by a success, which deletes it."""

    target = models.CharField(primary_key=True, max_length=320)
    faults = models.PositiveIntegerField(help_text="In a row.")
    open_until = models.DateTimeField(null=True, blank=True, help_text="Nothing is sent before; then one try.")
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["changed_at"], name="webhook_circuit_to_prune")]

    def __str__(self) -> str:
        return self.target
