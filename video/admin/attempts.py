"""Attempts at providers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from video.admin import timeline
from video.admin.read_only import ReadOnlyAdmin, ago, badge, of_task, short
from video.admin.unsettled import OpenCases
from video.attempts.unsettled import amount
from video.models import Generation
from video.routing import key_labels


@admin.register(Generation)
class GenerationAdmin(OpenCases, ReadOnlyAdmin):
    list_display = (
        "generation_id",
        of_task,
        "attempt",
        "runs_on",
        "state_badge",
        "job",
        "polls",
        "cost",
        "planned",
    )
    list_display_links = ("generation_id",)
    list_filter = ("state", "provider", "simulated")
    ordering = ("-id",)
    search_fields = ("=id", "=task__id", "=job_id")
    search_help_text = "A whole attempt, task or job id."
    searched_ids = ("pk", "task_id", "job_id")

    @admin.display(description="attempt id", ordering="id")
    def generation_id(self, generation: Generation) -> str:
        return short(generation.pk)

    @admin.display(description="state", ordering="state")
    def state_badge(self, generation: Generation) -> str:
        word, label = timeline.state_of(generation, timezone.now())
        return format_html("{}<small>{}</small>", badge(word, label), generation.error_code)

    @admin.display(description="model, key", ordering="model")
    def runs_on(self, generation: Generation) -> str:
        note = f"{generation.provider}, simulated" if generation.simulated else generation.provider
        key = key_labels.of_generation(generation)
        return format_html("{}<small>{}</small><small>{}</small>", generation.model, note, key)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Generation]:
        return key_labels.with_labels(super().get_queryset(request))

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Every column, and before a key's fingerprint what people call it."""
        found: list[Any] = list(super().get_fields(request, obj))
        found = [name for name in found if name != "key"]
        if "key_fingerprint" in found:
            found.insert(found.index("key_fingerprint"), "key")
        return found

    readonly_fields = ("key",)

    @admin.display(description="key", ordering="key_fingerprint")
    def key(self, generation: Generation) -> str:
        return key_labels.of_generation(generation)

    @admin.display(description="job")
    def job(self, generation: Generation) -> str:
        job = generation.job_id
        return format_html('<span title="{}">{}</span>', job, job if len(job) <= 14 else f"…{job[-12:]}") if job else ""

    @admin.display(description="cost: expected, reported")
    def cost(self, generation: Generation) -> str:
        expected = amount(generation.expected_usd, "USD")
        reported = amount(generation.reported_cost, generation.cost_unit)
        return format_html("{}<small>{}</small>", expected, reported)

    @admin.display(description="planned", ordering="id")
    def planned(self, generation: Generation) -> str:
        return ago(generation.planned_at)
