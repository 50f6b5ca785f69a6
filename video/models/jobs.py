"""Work that operators ask for and that takes longer than a page may."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Now
from django.db.models.lookups import Exact

from video.models.audit import AuditRecord

_OPEN = ["waiting", "running"]


class OperatorJob(models.Model):
    """One such work: a sweeper does it, item by item, and another goes on with it when that one dies."""

    class Kind(models.TextChoices):
        RETRY = "retry", "Retry tasks"
        CANCEL = "cancel", "Cancel tasks"
        CHECK_LEDGER = "check_ledger", "Verify the ledger"
        CLEANUP_STORAGE = "cleanup_storage", "Clean up the storage"
        RECONCILE = "reconcile", "Reconcile open attempts"
        CHECK_KEYS = "check_keys", "Check keys"

    class State(models.TextChoices):
        WAITING = "waiting"  # no sweeper has it
        RUNNING = "running"  # a sweeper holds it for a lease, or did so when it died
        DONE = "done"  # final; some items may have been refused
        FAILED = "failed"  # final: it could not be done, `summary` says why
        STOPPED = "stopped"  # final: an operator ended it, the items before that are done

    OPEN = (State.WAITING, State.RUNNING)

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    arguments = models.JSONField(default=dict, db_default=Value({}, models.JSONField()), help_text="By kind.")
    same_as = models.CharField(
        max_length=64, editable=False, help_text="A hash of kind and arguments; of one hash only one job is open."
    )
    asked_by = models.CharField(max_length=150, help_text="Name of the user, or the OS user of a command.")
    user_id = models.BigIntegerField(null=True, blank=True, help_text="Id of the user; none for a command.")
    via = models.CharField(max_length=8, choices=AuditRecord.Via.choices)
    source = models.CharField(max_length=200, blank=True, default="", help_text="Address, or host of a command.")
    reason = models.CharField(max_length=300, blank=True, default="", help_text="In the operator's words.")

    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    of = models.PositiveIntegerField(null=True, blank=True, help_text="Items in all, once they are counted.")
    done = models.PositiveIntegerField(default=0, db_default=0, help_text="Items that were dealt with.")
    refused = models.PositiveIntegerField(default=0, db_default=0, help_text="Of these, items that were refused.")
    cursor = models.CharField(max_length=200, blank=True, default="", help_text="The last item that was dealt with.")
    summary = models.CharField(max_length=300, blank=True, default="", help_text="What came of it, or why it failed.")
    lines = models.JSONField(
        default=list, db_default=Value([], models.JSONField()), blank=True, help_text="Results of items, 200 at most."
    )

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.CharField(max_length=120, blank=True, default="", help_text="host:pid of the last sweeper.")
    lease_until = models.DateTimeField(null=True, blank=True, help_text="Held by that sweeper until then.")
    fence = models.BigIntegerField(default=0, db_default=0, help_text="Token of the last claim.")
    deaths = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Claims since the last progress whose sweeper never came back."
    )

    class Meta:
        verbose_name = "job"
        indexes = [models.Index(fields=["id"], name="job_open", condition=Q(state__in=_OPEN))]
        constraints = [
            models.UniqueConstraint(fields=["same_as"], name="job_open_once", condition=Q(state__in=_OPEN)),
            models.CheckConstraint(
                name="job_kind_known",
                condition=Q(kind__in=["retry", "cancel", "check_ledger", "cleanup_storage", "reconcile", "check_keys"]),
            ),
            models.CheckConstraint(name="job_via_known", condition=Q(via__in=["admin", "command", "api"])),
            models.CheckConstraint(
                name="job_has_end_when_final",
                condition=Q(state__in=_OPEN, ended_at__isnull=True)
                | Q(state__in=["done", "failed", "stopped"], ended_at__isnull=False),
            ),
            models.CheckConstraint(
                name="job_is_held_only_while_it_runs", condition=Q(lease_until__isnull=True) | Q(state="running")
            ),
            models.CheckConstraint(name="job_refused_are_of_done", condition=Q(refused__lte=F("done"))),
            models.CheckConstraint(
                name="job_lines_is_array",
                condition=Q(Exact(Func(F("lines"), function="jsonb_typeof", output_field=models.TextField()), "array")),
            ),
        ]

    def __str__(self) -> str:
        return f"job {self.pk}: {self.get_kind_display()}"

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done, or being done."""
        return self.state in self.OPEN
