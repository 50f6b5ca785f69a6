"""The roll-up of costs and usage: what the rows of a day come to, kept so that no report reads a year of them.

Written by `video.costs.roll_up` alone, but for `CostTouch`: triggers write it, in the transaction of the change.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class CostDay(models.Model):
    """A day (UTC) whose roll-up is kept. What has changed since stands in `CostTouch`."""

    day = models.DateField(primary_key=True)

    def __str__(self) -> str:
        return str(self.day)


class CostTouch(models.Model):
    """Something changed of what counts on this day: until it is rolled up again, its rows themselves are read."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()

    def __str__(self) -> str:
        return str(self.day)


class CostRollup(models.Model):
    """What one group of a day comes to. `user_id` 0: all users together."""

    ALL_USERS = 0

    id = models.BigAutoField(primary_key=True)
    day = models.DateField(help_text="UTC.")
    user_id = models.BigIntegerField()
    provider = models.CharField(max_length=20, blank=True)
    model = models.CharField(max_length=80, blank=True)
    key_fingerprint = models.CharField(max_length=16, blank=True)
    outcome = models.CharField(max_length=10)
    simulated = models.BooleanField()
    cost_unit = models.CharField(max_length=12, blank=True)
    attempts = models.BigIntegerField(help_text="That ended.")
    reports = models.BigIntegerField(help_text="Attempts whose provider said what it charged.")
    reported = models.DecimalField(max_digits=20, decimal_places=4, help_text="That charge, in its unit.")
    reports_expected_usd = models.DecimalField(max_digits=20, decimal_places=4, help_text="What was expected of them.")
    estimated_usd = models.DecimalField(
        max_digits=20, decimal_places=4, help_text="Expected of those that may be charged and were not reported."
    )
    unpriced = models.BigIntegerField(help_text="Attempts that may be charged, with neither a report nor a price.")
    debits = models.BigIntegerField(help_text="Runs that were paid for.")
    debited = models.BigIntegerField(help_text="Credits.")
    refunded = models.BigIntegerField(help_text="Credits.")
    free = models.BigIntegerField(help_text="Credits that were granted for a retry.")
    granted = models.BigIntegerField(help_text="Other credits that were granted.")
    adjusted = models.BigIntegerField(help_text="Credits of corrections, with their sign.")

    class Meta:
        indexes = [models.Index(fields=["day"], name="cost_day_of_users", condition=Q(user_id__gt=0))]
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "user_id",
                    "day",
                    "provider",
                    "model",
                    "key_fingerprint",
                    "outcome",
                    "simulated",
                    "cost_unit",
                ],
                name="cost_group_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.provider} {self.model} {self.outcome}"
