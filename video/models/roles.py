"""The three roles of the staff: groups of Django, kept in step with what there is to be allowed."""

from __future__ import annotations

from django.contrib.auth.models import Group
from django.contrib.postgres.fields import ArrayField
from django.db import models


class Role(models.Model):
    """A role and its group. What was given once is not given again: whoever takes a permission away by hand, or
    deletes the group, is not overruled by the next `migrate`.

    Written by `video.web.roles` only.
    """

    name = models.CharField(primary_key=True, max_length=20)
    group = models.OneToOneField(Group, null=True, on_delete=models.SET_NULL, related_name="+")
    given = ArrayField(models.CharField(max_length=140), default=list, help_text="Permissions that it was given.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
