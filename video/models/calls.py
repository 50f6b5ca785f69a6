"""Answers to calls that may be sent again."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class AnsweredCall(models.Model):
    """What a call with an `Idempotency-Key` was answered. A repeat gets the same, and does nothing.

    Written by `video.web.idempotency` only, in the transaction of what the call did: there is no row without its
    effect, and no effect without its row. A create needs none: its task has the key.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,  # call_answered_once begins with it
    )
    call = models.CharField(max_length=40, help_text="Name of its address.")
    key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64, help_text="Of what was asked, keyed: it proves no guess of it.")
    status = models.PositiveSmallIntegerField(help_text="Of HTTP.")
    answer = models.TextField(help_text="The body.")
    answered_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(help_text="From then on the key is free.")

    class Meta:
        verbose_name = "answered call"
        indexes = [models.Index(fields=["expires_at"], name="call_to_sweep")]
        constraints = [
            models.UniqueConstraint(fields=["user", "call", "key"], name="call_answered_once"),
            models.CheckConstraint(name="call_succeeded", condition=Q(status__range=(200, 299))),
            models.CheckConstraint(
                name="call_expires_after_its_answer", condition=Q(expires_at__gt=models.F("answered_at"))
            ),
        ]

    def __str__(self) -> str:
        return f"{self.call} of {self.user_id}"
