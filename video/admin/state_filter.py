"""A filter of the list of tasks by what each does now, as the page of the queues counts them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest

from video.models import VideoTask


class StateFilter(admin.SimpleListFilter):
    """Waiting, due, held or parked."""

    title = "what it does now"
    parameter_name = "stands"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("waiting", "waits for a slot"),
            ("due", "due, nobody has it"),
            ("held", "in work"),
            ("parked", "parked"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> QuerySet[VideoTask]:
        now = Now()
        free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
        match self.value():
            case "waiting":
                return queryset.filter(admit_at__lte=now)
            case "due":
                return queryset.filter(free, next_run_at__lte=now)
            case "held":
                return queryset.filter(next_run_at__isnull=False, lease_until__gt=now)
            case "parked":
                return queryset.filter(free, next_run_at__gt=now)
            case _:
                return queryset
