"""Pictures that users sent for their videos."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

SCHEME = "upload://"


class Upload(models.Model):
    """One picture of a user, in storage. The same bytes of the same user are one row, under one address.

    Written by `video.web.uploads` only. A row outlives its file: it is marked deleted, the file goes, then the row.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,  # upload_one_per_user_and_name begins with it
    )
    name = models.CharField(max_length=40, help_text="The begin of the SHA-256 of what was sent; in its address.")
    key = models.CharField(max_length=200, help_text="In storage.")
    media_type = models.CharField(max_length=20)
    size_bytes = models.BigIntegerField(help_text="As stored: upright, without metadata.")
    width_px = models.PositiveIntegerField()
    height_px = models.PositiveIntegerField()
    made_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(help_text="No new task may use it after that.")
    deleted_at = models.DateTimeField(null=True, blank=True, help_text="It is gone for all; its file may still go.")

    class Meta:
        indexes = [
            models.Index(fields=["expires_at"], name="upload_to_sweep", condition=Q(deleted_at__isnull=True)),
            models.Index(fields=["deleted_at"], name="upload_to_delete", condition=Q(deleted_at__isnull=False)),
        ]
        constraints = [
            models.UniqueConstraint(fields=["user", "name"], name="upload_one_per_user_and_name"),
            models.UniqueConstraint(fields=["key"], name="upload_has_its_own_file"),
            models.CheckConstraint(
                name="upload_has_bytes_and_a_size", condition=Q(size_bytes__gt=0, width_px__gt=0, height_px__gt=0)
            ),
        ]

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        """What its owner gives as `imageUrl`."""
        return f"{SCHEME}{self.name}"
