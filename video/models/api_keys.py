"""API keys of users, with which programs come; and what requests count against the limits a minute."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now


class Scope(models.TextChoices):
    """What an API key may do."""

    READ = "read", "read: tasks, status, events, models, quotes, credits"
    CREATE = "create", "create: whatever spends credits, and uploads"
    MANAGE = "manage", "manage: cancel and delete tasks"
    WEBHOOKS = "webhooks", "webhooks: endpoints that are told of changes"


class ApiKey(models.Model):
    """A key of a user. Its secrets are rows of their own: one that is rolled has two for a while.

    A trigger of the database (migration 0027) ends all keys of a user who is switched off, whoever does it.
    """

    class End(models.TextChoices):
        REVOKED = "revoked", "revoked by its user"
        OPERATOR = "operator", "revoked by an operator"
        SWITCHED_OFF = "switched_off", "the user was switched off"

    id = models.CharField(primary_key=True, max_length=40)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=80)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope.choices))
    addresses = ArrayField(
        models.CharField(max_length=43),
        blank=True,
        default=list,
        db_default=[],
        help_text="Networks (CIDR) that it may come from; none: from everywhere.",
    )
    daily_credits = models.PositiveIntegerField(
        null=True, blank=True, help_text="Credits that it may spend on one day, in UTC; empty: no limit."
    )
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, help_text="Instead of REQUESTS_PER_MINUTE_PER_KEY; 0: no limit."
    )
    spent_credits = models.BigIntegerField(default=0, db_default=0, help_text="Debited with it on `spent_on`.")
    spent_on = models.DateField(null=True, blank=True, help_text="The last day on which it spent something, in UTC.")
    made_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=12, choices=End.choices, blank=True, default="", db_default="")

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                name="key_has_known_scopes", condition=Q(scopes__contained_by=Scope.values) & Q(scopes__len__gt=0)
            ),
            models.CheckConstraint(name="key_spent_not_negative", condition=Q(spent_credits__gte=0)),
            models.CheckConstraint(
                name="key_ends_for_a_reason",
                condition=Q(ended_at__isnull=True, end_reason="") | (Q(ended_at__isnull=False) & ~Q(end_reason="")),
            ),
        ]

    def __str__(self) -> str:
        return self.id


class ApiKeySecret(models.Model):
    """One secret of a key. It was shown when it was made; only its hash is kept."""

    digest = models.CharField(primary_key=True, max_length=64, help_text="SHA-256 of the secret, in hexadecimal.")
    # Without an index of its own: key_has_one_lasting_secret serves the lists of a user's few keys.
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="secrets")
    hint = models.CharField(max_length=20, help_text="How it begins, so that people know it again.")
    made_at = models.DateTimeField(db_default=Now())
    ends_at = models.DateTimeField(null=True, blank=True, help_text="After it was rolled: when it is no longer good.")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="To the minute.")

    class Meta:
        verbose_name = "secret of an API key"
        constraints = [
            models.UniqueConstraint(
                fields=["key"], name="key_has_one_lasting_secret", condition=Q(ends_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return self.hint


class RequestWindow(models.Model):
    """The requests of one user or key in its last minute, as they were given to processes in chunks."""

    subject = models.CharField(primary_key=True, max_length=40, help_text="`user 7`, or a key's id.")
    ends_at = models.DateTimeField(help_text="A whole minute.")
    most = models.IntegerField(help_text="The limit, or what was given before it was lowered.")
    granted = models.IntegerField(help_text="To all processes.")
    last_grant = models.IntegerField(help_text="To the process that asked last.")

    class Meta:
        constraints = [
            models.CheckConstraint(name="window_gives_no_more_than_most", condition=Q(granted__lte=F("most"))),
            models.CheckConstraint(
                name="window_counts_what_it_gives", condition=Q(last_grant__gte=0, granted__gte=F("last_grant"))
            ),
        ]

    def __str__(self) -> str:
        return self.subject
