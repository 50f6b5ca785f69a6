"""Who did what to the system: a row for each act of a person that changed something."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class AuditRecord(models.Model):
    """One act, written in the transaction of what it did. Append-only: a trigger refuses UPDATE and DELETE, but
    for taking the name and the reasons of a user out who is erased.

    Written by `video.audit.records` only. No foreign keys: a record outlives the user and the object that it names.
    """

    class Via(models.TextChoices):
        ADMIN = "admin", "the admin"
        COMMAND = "command", "a command"
        API = "api", "the API"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=150, help_text="Name of the user, or the OS user of a command.")
    user_id = models.BigIntegerField(null=True, blank=True, help_text="Id of the user; none for a command.")
    via = models.CharField(max_length=8, choices=Via.choices)
    source = models.CharField(
        max_length=200, blank=True, default="", help_text="Address, host of a command, or name of the API key."
    )
    action = models.CharField(max_length=40, help_text="A verb, such as cancel or pause.")
    kind = models.CharField(max_length=40, help_text="What was acted on: the model's name in lower case, or system.")
    object_id = models.CharField(max_length=200, blank=True, default="", help_text="Its primary key.")
    reason = models.CharField(max_length=300, blank=True, default="", help_text="In the actor's words.")
    detail = models.CharField(max_length=300, blank=True, default="", help_text="What came of it, in ours.")

    class Meta:
        verbose_name = "audit record"
        indexes = [
            models.Index(fields=["kind", "object_id", "-id"], name="audit_of_object"),
            models.Index(fields=["actor", "-id"], name="audit_of_actor"),
            models.Index(fields=["action", "-id"], name="audit_of_action"),
        ]
        constraints = [
            models.CheckConstraint(name="audit_via_known", condition=Q(via__in=["admin", "command", "api"])),
            models.CheckConstraint(name="audit_names_actor_and_action", condition=~Q(actor="") & ~Q(action="")),
        ]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.kind} {self.object_id}".strip()
