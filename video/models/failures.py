"""Failure texts of providers that no adapter knows, and what operators say that they mean."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class FailureText(models.Model):
    """One text with which jobs ended at a provider, and which none of our tables has. Counted, and kept for a decision.

    Until it is decided, a task whose job ended so goes to no other model: asking one vendor after the other for what
    may be forbidden is what gets accounts suspended.
    """

    class Meaning(models.TextChoices):
        UNDECIDED = "", "not decided"
        MODERATION = "moderation", "a safety check refused it"
        BAD_REQUEST = "bad_request", "the request was at fault"
        ANOTHER_MODEL = "another_model", "this model failed; another may try"
        FAILED = "failed", "it failed for good; no other may try"

    provider = models.CharField(max_length=20)
    signature = models.CharField(max_length=200, help_text="The text without ids, numbers, links and quoted parts.")
    sample = models.CharField(max_length=300, help_text="As the provider wrote it the first time, without the prompt.")
    model = models.CharField(max_length=80, help_text="Of the last job that ended so.")
    last_task = models.CharField(max_length=40, help_text="Id of the last task whose job ended so.")
    count = models.PositiveBigIntegerField(default=0, help_text="Jobs that ended so.")
    first_seen = models.DateTimeField(db_default=Now())
    last_seen = models.DateTimeField(db_default=Now())
    meaning = models.CharField(
        max_length=20, choices=Meaning.choices, blank=True, default="", help_text="What tasks do from now on."
    )
    decided_by = models.CharField(max_length=150, blank=True, default="", help_text="Who said what it means.")
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # Also serves the look-up of a text, and the count of a provider's texts.
            models.UniqueConstraint(fields=["provider", "signature"], name="failure_text_once"),
            models.CheckConstraint(
                name="failure_text_meaning_known",
                condition=Q(meaning__in=["", "moderation", "bad_request", "another_model", "failed"]),
            ),
            models.CheckConstraint(
                name="failure_text_decided_by_somebody",
                condition=Q(meaning="", decided_by="", decided_at__isnull=True)
                | (~Q(meaning="") & ~Q(decided_by="") & Q(decided_at__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        own = self.signature.startswith(f"{self.provider}:")  # as adapters write it
        return self.signature if own else f"{self.provider}: {self.signature}"
