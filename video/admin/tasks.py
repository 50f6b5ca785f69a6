"""Tasks and their events; the filters of the list are those of `actions/task_filters.py`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html

from video.actions import task_filters
from video.admin import timeline
from video.admin.all_that_match import AllThatMatch
from video.admin.bulk_actions import BulkActions
from video.admin.read_only import ReadOnlyAdmin, ago, badge, bar, clock, of_task, short, since
from video.admin.shares import MOST_PRIORITY, PriorityForm, priority_from
from video.admin.task_list import TaskChangeList
from video.engine import transitions
from video.infra.durations import span
from video.models import Generation, TaskEvent, VideoTask
from video.web import actors


@admin.register(VideoTask)
class VideoTaskAdmin(AllThatMatch, BulkActions, ReadOnlyAdmin):
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
    sortable_by = ("task_id",)  # by its id alone a page begins where the one before it ended
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
            )
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[VideoTask], search_term: str
    ) -> tuple[QuerySet[VideoTask], bool]:
        """As the filters of the list do."""
        return task_filters.search(queryset, search_term), False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[TaskChangeList]:
        return TaskChangeList

    @admin.display(description="task", ordering="id")
    def task_id(self, task: VideoTask) -> str:
        start = task.prompt if len(task.prompt) <= 60 else task.prompt[:59] + "…"
        return format_html('<span title="{}">{}</span><small>{}</small>', task.pk, short(task.pk), start)

    @admin.display(description="status")
    def status_badge(self, task: VideoTask) -> str:
        return badge(task.status)

    @admin.display(description="stage")
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

    @admin.display(description="age")
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
