"""Tasks and their events; the filter by what a task does now has the states of `engine/position.py`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import BooleanField, OuterRef, Q, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html

from media_pipeline.warnings import KINDS
from video.admin import timeline
from video.admin.bulk_actions import BulkActions
from video.admin.read_only import ReadOnlyAdmin, ago, badge, bar, clock, of_task, short, since
from video.admin.shares import MOST_PRIORITY, PriorityForm, priority_from
from video.engine import transitions
from video.engine.position import SQL, State
from video.infra.durations import span
from video.models import Generation, TaskEvent, VideoTask
from video.monitoring import slow
from video.web import actors

#: The rows of the filter: value in the address, title, states.
ROWS: dict[str, tuple[str, tuple[State, ...]]] = {
    "waiting": ("waits for a slot", (State.WAITS_FOR_SLOT,)),
    "off": ("its user is switched off", (State.USER_OFF,)),
    "later": ("waits for a slot later", (State.NOT_BEFORE,)),
    "core": ("waits for a core", (State.WAITS_FOR_CORE,)),
    "due": ("due, nobody has it", (State.WAITS_FOR_WORKER, State.WORKER_SILENT)),
    "held": ("in work", (State.IN_WORK,)),
    "parked": ("parked", (State.PARKED,)),
    "slow": ("its render is slow", ()),
}


class StateFilter(admin.SimpleListFilter):
    """Each active task is in exactly one row; one whose render is slow is in that row as well."""

    title = "what it does now"
    parameter_name = "stands"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, title) for name, (title, _) in ROWS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> QuerySet[VideoTask]:
        row = ROWS.get(self.value() or "")
        if row is None:
            return queryset
        condition = " OR ".join(f"({SQL[state]})" for state in row[1]) or slow.IS_SLOW
        return queryset.filter(RawSQL(condition, (), output_field=BooleanField()))  # noqa: S611 - constants


class WarningFilter(admin.SimpleListFilter):
    """Tasks with a warning, by its code."""

    title = "warning"
    parameter_name = "warning"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code, code.replace("_", " ")) for code in KINDS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> QuerySet[VideoTask]:
        code = self.value()
        if code not in KINDS:
            return queryset
        # The first condition is the one that the index `task_with_warnings` serves.
        return queryset.filter(~Q(warnings=[]), warnings__contains=[{"code": code}])


@admin.register(VideoTask)
class VideoTaskAdmin(BulkActions, ReadOnlyAdmin):
    list_display = (
        "task_id",
        "status_badge",
        "stage_now",
        "progress_bar",
        "user",
        "ran_with",
        "age",
        "waits_for",
    )
    list_display_links = ("task_id",)
    list_filter = ("status", "stage", StateFilter, WarningFilter, "created_at")
    list_select_related = ("user",)
    # Ids begin with the time: this is newest first, and the primary key's index serves it.
    ordering = ("-id",)
    search_fields = ("id", "user__username", "prompt")
    search_help_text = (
        "A task, video, attempt or job id (or the end of a task's id), a user name, or words of the prompt."
    )

    action_form = PriorityForm
    actions = ("cancel_chosen", "retry_chosen", "set_priority")

    @admin.action(description="Set the priority (the box on the right) of those that wait", permissions=["steer"])
    def set_priority(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> None:
        priority = priority_from(request.POST.get("priority", ""))
        if priority is None:
            self.message_user(
                request,
                f"Nothing was changed: give a priority from -{MOST_PRIORITY} to {MOST_PRIORITY}.",
                messages.ERROR,
            )
            return
        chosen = list(queryset)
        changed = transitions.prioritise([task.pk for task in chosen], priority, by=actors.of_request(request))
        left = len(chosen) - len(changed)
        over = f" {left} had ended, and stay as they are." if left else ""
        self.message_user(request, f"Priority {priority}: {len(changed)} changed.{over}")

    def get_queryset(self, request: HttpRequest) -> QuerySet[VideoTask]:
        last = Generation.objects.filter(task=OuterRef("pk")).order_by("-attempt")
        return (
            super()
            .get_queryset(request)
            .annotate(
                last_model=Subquery(last.values("model")[:1]),
                last_simulated=Subquery(last.values("simulated")[:1]),
                is_slow=RawSQL(slow.IS_SLOW, (), output_field=BooleanField()),  # noqa: S611 - a constant
            )
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[VideoTask], search_term: str
    ) -> tuple[QuerySet[VideoTask], bool]:
        """A whole id uses its index; any other term searches the prompts, which reads the table."""
        term = search_term.strip()
        if term.startswith("task_"):
            return queryset.filter(Q(pk__startswith=term) | Q(render_of=term)), False
        if term.startswith("vid_"):
            return queryset.filter(video_id=term), False
        if term.startswith("gen_"):
            return queryset.filter(pk__in=Generation.objects.filter(pk=term).values("task_id")), False
        if not term:
            return queryset, False
        found = Q(user__username__istartswith=term) | Q(prompt__icontains=term)
        tail = term.removeprefix("…")
        if len(tail) >= 6 and tail.replace("-", "").isalnum():
            found |= Q(pk__endswith=tail.lower()) | Q(pk__in=Generation.objects.filter(job_id=term).values("task_id"))
        return queryset.filter(found), False

    @admin.display(description="task", ordering="id")
    def task_id(self, task: VideoTask) -> str:
        start = task.prompt if len(task.prompt) <= 60 else task.prompt[:59] + "…"
        return format_html('<span title="{}">{}</span><small>{}</small>', task.pk, short(task.pk), start)

    @admin.display(description="status", ordering="status")
    def status_badge(self, task: VideoTask) -> str:
        return badge(task.status)

    @admin.display(description="stage", ordering="stage")
    def stage_now(self, task: VideoTask) -> str:
        return task.stage

    @admin.display(description="progress")
    def progress_bar(self, task: VideoTask) -> str:
        return bar(task.progress, task.status)

    @admin.display(description="model")
    def ran_with(self, task: Any) -> str:
        if task.render_of_id is not None:
            return "a render"
        if not task.last_model:
            return f"({task.model_requested})" if task.model_requested else ""
        if task.last_simulated:
            return format_html("{}<small>simulated</small>", task.last_model)
        return str(task.last_model)

    @admin.display(description="age", ordering="id")
    def age(self, task: VideoTask) -> str:
        return format_html(
            '<span class="rw-num" title="{} UTC">{}</span>', clock(task.created_at), since(task.created_at)
        )

    @admin.display(description="waits for, or failed with", empty_value="")
    def waits_for(self, task: Any) -> str:
        if task.error_code:
            return format_html('<span class="rw-code">{}</span>', task.error_code)
        if task.gone_why:
            return f"gone: {task.get_gone_why_display()}"
        words = timeline.waits_for(task, timezone.now())
        return format_html("{} {}", badge("failed", "slow"), words) if task.is_slow else words

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        task = self.get_object(request, unquote(object_id))
        extra = dict(extra_context or {})
        if task is not None and self.has_view_permission(request, task):
            extra |= {"timeline": timeline.timeline_of(task, timezone.now(), request), "title": "Task"}
        return super().change_view(request, object_id, form_url, extra)


@admin.register(TaskEvent)
class TaskEventAdmin(ReadOnlyAdmin):
    list_display = ("id", of_task, "stage", "outcome_badge", "took", "worker", "detail", "error_code", "when")
    list_filter = ("outcome", "stage")
    ordering = ("-id",)
    search_fields = ("=task__id",)
    search_help_text = "A whole task id."
    searched_ids = ("task_id",)

    @admin.display(description="outcome")
    def outcome_badge(self, event: TaskEvent) -> str:
        return badge(event.outcome)

    @admin.display(description="took")
    def took(self, event: TaskEvent) -> str:
        return span((event.finished_at - event.started_at).total_seconds())

    @admin.display(description="when")
    def when(self, event: TaskEvent) -> str:
        return ago(event.finished_at)
