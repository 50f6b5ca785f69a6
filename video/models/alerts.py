"""Troubles that need a person, and what was told of them to whom."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Alert(models.Model):
    """One trouble while it lasts. Only `video.alerts` writes it."""

    id = models.BigAutoField(primary_key=True)
    code = models.CharField(max_length=40, help_text="As in the list of what is wrong.")
    about = models.CharField(max_length=200, blank=True, default="", help_text="Which queue, key, account or host.")
    sentence = models.CharField(max_length=500, help_text="What is wrong, as it was said last.")
    operator = models.CharField(max_length=500, blank=True, default="", help_text="What a person can do.")
    begun_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="When a sweeper saw it last.")
    told_at = models.DateTimeField(null=True, blank=True, help_text="Since when messages are sent; it had to last.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="alert_open_once", fields=["code", "about"], condition=Q(ended_at__isnull=True)
            ),
            models.CheckConstraint(
                name="alert_ends_after_it_was_told", condition=Q(ended_at__isnull=True) | Q(told_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.about}".strip()


class AlertMessage(models.Model):
    """One message for one receiver: that a trouble began, or that it is over."""

    class What(models.TextChoices):
        BEGUN = "begun", "it began"
        ENDED = "ended", "it is over"

    class State(models.TextChoices):
        PENDING = "pending", "waits to be sent"
        SENT = "sent", "sent"
        FAILED = "failed", "given up"

    id = models.BigAutoField(primary_key=True)
    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="messages")
    what = models.CharField(max_length=5, choices=What.choices)
    receiver = models.CharField(max_length=16, help_text="A hash of its address, which may hold a token.")
    label = models.CharField(max_length=200, help_text="Its kind and host, for people.")
    state = models.CharField(max_length=7, choices=State.choices, default=State.PENDING)
    tries = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        verbose_name = "alert message"
        constraints = [
            models.UniqueConstraint(name="alert_message_once", fields=["alert", "what", "receiver"]),
            models.CheckConstraint(
                name="alert_message_settled",
                condition=Q(state="pending", settled_at__isnull=True)
                | (~Q(state="pending") & Q(settled_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(name="alert_message_due", fields=["due_at"], condition=Q(state="pending")),
        ]

    def __str__(self) -> str:
        return f"{self.what} to {self.label}"


class AlertSilence(models.Model):
    """Until when no message is sent. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    until = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(name="alert_silence_is_one_row", condition=Q(id=1))]

    def __str__(self) -> str:
        return f"until {self.until:%Y-%m-%d %H:%M} UTC"
