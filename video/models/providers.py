"""What is known of the providers: keys, accounts with their limits, models and circuits."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class Refusable(models.Model):
    """What is known of refusals of a key, or of an account and model. `video.routing.refusals` writes these columns.

    Nothing new starts until `retry_at`; then one read or one job tries. Each pause is longer than the last.
    """

    refusals = models.PositiveIntegerField(default=0, db_default=0, help_text="Pauses in a row after a refusal.")
    refused_since = models.DateTimeField(null=True, blank=True, help_text="The first refusal of this row of them.")
    refused_task = models.CharField(
        max_length=40, blank=True, default="", db_default="", help_text="Whose submit was refused first; or `check`."
    )
    refused_several = models.BooleanField(
        default=False, db_default=False, help_text="Submits of more than one task were refused, or a check was too."
    )
    retry_at = models.DateTimeField(null=True, blank=True, help_text="After a refusal: when it is tried again.")

    class Meta:
        abstract = True


class ProviderKey(Refusable):
    """One API key, by its fingerprint; its value is only in the environment. `video.routing.key_labels` says how people
    call it.
    """

    class State(models.TextChoices):
        ACTIVE = "active"
        DRAINING = "draining"  # set by an operator: no new jobs; jobs made with it are still polled
        QUARANTINED = "quarantined"  # refused again and again; still tried at times, a good answer activates it again

    provider = models.CharField(max_length=20)
    fingerprint = models.CharField(max_length=16)
    label = models.CharField(
        max_length=80,
        blank=True,
        default="",
        db_default="",
        help_text="What the settings call it, or called it last: its name, else its place and last four characters.",
    )
    account = models.CharField(max_length=80, help_text="KEY_ACCOUNTS groups keys; else each is its own account.")
    state = models.CharField(max_length=12, choices=State.choices, default=State.ACTIVE)
    base_url = models.CharField(
        max_length=300,
        blank=True,
        default="",
        db_default="",
        help_text="The provider's address that it is used at.",
    )
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
        return f"{self.provider} key {self.label or self.fingerprint}"


class ProviderAccount(Refusable):
    """One account at a provider and one model, which its limits belong to. An account has one or more keys.

    A slot is a live Generation, counted under this row's lock in the transaction that inserts it.
    """

    provider = models.CharField(max_length=20)
    account = models.CharField(max_length=80, help_text="Name of the account, or the fingerprint of its only key.")
    model = models.CharField(max_length=80)
    slots = models.PositiveIntegerField(help_text="Jobs that may be under way at once, as the provider says.")
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
        constraints = [models.UniqueConstraint(fields=["provider", "account", "model"], name="account_once")]

    def __str__(self) -> str:
        return f"{self.provider} {self.account} {self.model}"


class ModelSetting(models.Model):
    """An operator's decisions on a model of the catalogue: switched off, another price, other grades."""

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

    Only faults of the provider count, never a user's request, a key or an account. Faults of one user's jobs alone open
    it for that user alone. `video.routing.health` writes it and says how.
    """

    model = models.CharField(max_length=80, primary_key=True)
    provider = models.CharField(max_length=20)
    faults = models.PositiveIntegerField(default=0, help_text="In a row.")
    open_until = models.DateTimeField(null=True, blank=True, help_text="No new job before; then one is let through.")
    fault_users = ArrayField(
        models.BigIntegerField(),
        default=list,
        db_default=[],
        help_text="Users whose jobs failed in this row of faults, two at most; 0: no single user's.",
    )
    is_for_all = models.BooleanField(
        default=False, db_default=False, help_text="Was open for everybody, not for one user alone."
    )
    probing_users = ArrayField(
        models.BigIntegerField(), default=list, db_default=[], help_text="Users whose job tries now, two at most."
    )
    probing_since = models.DateTimeField(null=True, blank=True, help_text="Since when a job tries.")
    last_error = models.CharField(max_length=300, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.model}: {self.faults} faults in a row"
