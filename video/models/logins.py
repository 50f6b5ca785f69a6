"""Logins of the API, the counts of failed ones, and recovery codes of the admin's second factor."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class LoginSession(models.Model):
    """One login: all tokens that were made from it. When it ends, they end.

    A trigger of the database (migration 0014) ends all of a user's logins when the password is changed or the user is
    switched off, whoever does it.
    """

    class End(models.TextChoices):
        LOGOUT = "logout", "logout"
        ENDED = "ended", "ended by its user from another login"
        OPERATOR = "operator", "ended by an operator"
        PASSWORD = "password", "the password was changed"
        SWITCHED_OFF = "switched_off", "the user was switched off"
        REUSED = "reused", "an exchanged refresh token came again"

    id = models.CharField(primary_key=True, max_length=40)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    made_at = models.DateTimeField(db_default=Now())
    last_used_at = models.DateTimeField(db_default=Now(), help_text="The login, or its last refresh.")
    ends_at = models.DateTimeField(help_text="Its greatest age.")
    address = models.GenericIPAddressField(null=True, blank=True, help_text="Of the login or its last refresh.")
    user_agent = models.CharField(max_length=200, blank=True, default="", help_text="What the client calls itself.")
    refresh_id = models.CharField(max_length=32, help_text="Of the refresh token that may be exchanged next.")
    exchanged_id = models.CharField(
        max_length=32, blank=True, default="", help_text="Of the refresh token that was exchanged last."
    )
    exchanged_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=12, choices=End.choices, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="login_ends_for_a_reason",
                condition=Q(ended_at__isnull=True, end_reason="") | (Q(ended_at__isnull=False) & ~Q(end_reason="")),
            )
        ]

    def __str__(self) -> str:
        return self.id


class LoginThrottle(models.Model):
    """Failed logins of a name from a network, of a network, or of a name. What a stranger typed is in no row."""

    key = models.CharField(primary_key=True, max_length=64, help_text="A keyed hash.")
    level = models.FloatField(help_text="Failures, less those that were forgotten until `counted_at`.")
    counted_at = models.DateTimeField()
    paused_until = models.DateTimeField(null=True, help_text="No password is looked at before.")
    good_at = models.DateTimeField(null=True, help_text="Of a name from a network: the last good login.")

    class Meta:
        constraints = [models.CheckConstraint(name="throttle_level_not_negative", condition=Q(level__gte=0))]

    def __str__(self) -> str:
        return self.key


class RecoveryCode(models.Model):
    """One code that stands in for the authenticator app, once. It was shown when it was made; only its hash is kept."""

    # Without an index of its own: recovery_code_once begins with it.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    digest = models.CharField(max_length=64, help_text="A hash; see video.web.logins.second_factor.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "digest"], name="recovery_code_once")]

    def __str__(self) -> str:
        return f"recovery code of user {self.user_id}"
