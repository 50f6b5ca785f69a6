"""Attempts at providers."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html

from video.admin import timeline
from video.admin.read_only import ReadOnlyAdmin, ago, badge, of_task, short
from video.admin.unsettled import OpenCases
from video.attempts.unsettled import amount
from video.models import Generation


@admin.register(Generation)
class GenerationAdmin(OpenCases, ReadOnlyAdmin):
    list_display = (
        "generation_id",
        of_task,
        "attempt",
        "runs_on",
        "key_fingerprint",
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

    @admin.display(description="model", ordering="model")
    def runs_on(self, generation: Generation) -> str:
        note = f"{generation.provider}, simulated" if generation.simulated else generation.provider
        return format_html("{}<small>{}</small>", generation.model, note)

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
