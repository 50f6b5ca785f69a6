"""Credits: balances and the ledger that explains them."""

from __future__ import annotations

from datetime import UTC

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now, TruncDate

from video.models.tasks import VideoTask


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
        DEBIT = "debit"  # a run of a task was paid for
        REFUND = "refund"  # that run failed for good
        ADJUST = "adjust"  # a correction; the note has the reason

    id = models.BigAutoField(primary_key=True)
    # `account` and `task` have no index of their own: entry_list_of_account and entry_once_a_run begin with them.
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    amount = models.BigIntegerField(help_text="Credits; what is taken is negative.")
    task = models.ForeignKey(
        VideoTask, on_delete=models.PROTECT, null=True, blank=True, related_name="credit_entries", db_index=False
    )
    run = models.PositiveIntegerField(null=True, blank=True)
    note = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "credit entries"
        indexes = [
            models.Index(fields=["account", "-id"], name="entry_list_of_account"),
            # Serves the costs of a day.
            models.Index(TruncDate("created_at", tzinfo=UTC), name="entry_by_day"),
        ]
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
