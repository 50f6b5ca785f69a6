"""The audit: who did what, when, from where and why. Nobody changes it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html

from video.admin.read_only import ReadOnlyAdmin, ago, short
from video.audit import reading
from video.models import AuditRecord

MOST_ROWS = 100_000  # of one download, the newest


class _Values(admin.SimpleListFilter):
    """The values that a column has."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value.replace("_", " ")) for value in reading.values_of(str(self.parameter_name))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditRecord]) -> QuerySet[AuditRecord]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class WhoFilter(_Values):
    title = "who"
    parameter_name = "actor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value) for value in reading.values_of("actor")]


class ActionFilter(_Values):
    title = "action"
    parameter_name = "action"


class KindFilter(_Values):
    title = "kind of object"
    parameter_name = "kind"


@admin.register(AuditRecord)
class AuditRecordAdmin(ReadOnlyAdmin):
    list_display = ("when", "actor", "via", "source", "action", "what", "reason", "detail")
    list_display_links = ("when",)
    list_filter = (WhoFilter, ActionFilter, KindFilter, "via", "at")
    ordering = ("-id",)
    search_fields = ("=object_id",)
    search_help_text = "A whole id of what was acted on."
    searched_ids = ("object_id",)
    list_before_template = "admin/video/auditrecord/above.html"

    def get_urls(self) -> list[URLPattern]:
        return [
            path("csv/", self.admin_site.admin_view(self.csv_view), name="video_auditrecord_csv"),
            *super().get_urls(),
        ]

    def csv_view(self, request: HttpRequest) -> HttpResponse:
        """GET: what the list shows with this query, as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            rows = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:
            return HttpResponseBadRequest("This filter is not known here.")
        found = reading.as_csv(rows.order_by("-id")[:MOST_ROWS])
        response = HttpResponse(found, content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="audit.csv"'
        response["Cache-Control"] = "no-store"
        return response

    @admin.display(description="when", ordering="id")
    def when(self, row: AuditRecord) -> str:
        return ago(row.at)

    @admin.display(description="what")
    def what(self, row: AuditRecord) -> str:
        for app in ("video", "auth"):
            try:
                url = reverse(f"admin:{app}_{row.kind}_change", args=[quote(row.object_id)])
            except NoReverseMatch:
                continue
            return format_html('{} <a href="{}">{}</a>', row.kind, url, short(row.object_id))
        return f"{row.kind} {row.object_id}".strip()
