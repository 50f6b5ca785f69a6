"""What operators have paused: no new job starts there until the pause ends."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now


class Pause(models.Model):
    """An operator's wish that no new submit is sent: at all, to a provider, a model or an account, or of a user.

    It ends when somebody resumes it (`ended_at`), or by itself at `until`, which needs no write: every reader compares
    it with the time. `video.actions.pause` writes it, with a record of the audit.
    """

    class Kind(models.TextChoices):
        EVERYTHING = "everything", "everything"
        PROVIDER = "provider", "a provider"
        MODEL = "model", "a model"
        ACCOUNT = "account", "an account"
        USER = "user", "a user"

    #: Of a row `p` in SQL: it is in force.
    LIVE_SQL = "p.ended_at IS NULL AND (p.until IS NULL OR p.until > statement_timestamp())"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=10, choices=Kind.choices, help_text="What is paused.")
    subject = models.CharField(
        max_length=101,
        blank=True,
        default="",
        help_text="The provider, the model, or provider and account with a space between; empty for the others.",
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    reason = models.CharField(
        max_length=200, blank=True, default="", help_text="Shown to users whose videos wait for it."
    )
    paused_by = models.CharField(max_length=150, help_text="The operator's name. Users don't see it.")
    since = models.DateTimeField(db_default=Now(), help_text="When it began.")
    until = models.DateTimeField(null=True, blank=True, help_text="When it ends by itself; empty: never.")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="When it was resumed, or found to be over.")
    ended_by = models.CharField(
        max_length=150, blank=True, default="", help_text="Who resumed it; empty: it ended at its time."
    )

    class Meta:
        permissions = [("pause", "Can pause and resume")]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                name="pause_once_an_object",
                condition=Q(ended_at__isnull=True, user__isnull=True),
            ),
            models.UniqueConstraint(fields=["user"], name="pause_once_a_user", condition=Q(ended_at__isnull=True)),
            models.CheckConstraint(
                name="pause_names_its_object",
                condition=Q(kind="everything", subject="", user__isnull=True)
                | (Q(kind__in=["provider", "model", "account"], user__isnull=True) & ~Q(subject=""))
                | Q(kind="user", subject="", user__isnull=False),
            ),
            models.CheckConstraint(
                name="pause_ends_after_it_began",
                condition=(Q(until__isnull=True) | Q(until__gt=F("since")))
                & (Q(ended_at__isnull=True) | Q(ended_at__gte=F("since"))),
            ),
            models.CheckConstraint(name="pause_names_who", condition=~Q(paused_by="")),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.subject}".strip()
