"""Shared by all pages: read-only pages over large tables, and times, badges and ids that are quick to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import unfold.admin
from django import forms
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.paginator import Paginator
from django.db.models import JSONField, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from providers.untrusted import storable
from video.admin.audited import Audited
from video.infra.durations import span

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    PaginatorOfRows = Paginator[Any]
    DjangoModelForm = forms.ModelForm[Any]
else:
    ModelAdmin, PaginatorOfRows, DjangoModelForm = unfold.admin.ModelAdmin, Paginator, forms.ModelForm

MOST_LISTED = 10_000


class ModelForm(DjangoModelForm):
    """Of a row that operators write: its texts are kept as lines of what can be seen."""

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or self.cleaned_data
        return {name: storable(value, len(value)) if isinstance(value, str) else value for name, value in found.items()}


class BoundedPaginator(PaginatorOfRows):
    """Counts no further than 10,000: a list page over millions of rows costs what a short one does."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return int(rows.order_by().values("pk")[:MOST_LISTED].count())


class PageAdmin(Audited, ModelAdmin):
    """Answers with pages of our own beside Django's. What its forms write is audited."""

    show_facets = admin.ShowFacets.NEVER

    def page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        """One of our templates, with what all pages of the admin need."""
        return TemplateResponse(
            request, template, {**self.admin_site.each_context(request), "opts": self.opts, **context}
        )


class MadeByCodeAdmin(PageAdmin):
    """No row is added or deleted by hand."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyAdmin(MadeByCodeAdmin):
    """Read-only: only the code that keeps the rows consistent writes them."""

    show_full_result_count = False
    paginator = BoundedPaginator
    list_per_page = 50
    #: Columns of which one must equal what is searched for; without any, Django's search reads `search_fields`.
    searched_ids: tuple[str, ...] = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not self.searched_ids:
            return super().get_search_results(request, queryset, search_term)
        term = search_term.strip()
        equal = Q(*((column, term) for column in self.searched_ids), _connector=Q.OR)
        return (queryset.filter(equal) if term else queryset), False

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """As Django's, with JSON as plain text: unfold would colour it by inline styles, which the policy forbids."""
        json_columns = {field.name for field in self.opts.fields if isinstance(field, JSONField)}
        names = super().get_fields(request, obj)
        return [as_json(name) if name in json_columns else name for name in names]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Here a `change` permission allows no more than to read.
        return super().has_view_permission(request, obj) or super().has_change_permission(request, obj)


@cache
def as_json(column: str) -> Callable[[Any], SafeString]:
    """A field of a page: a column's JSON as text."""

    @admin.display(description=column.replace("_", " "))
    def shown(row: Any) -> SafeString:
        return format_html('<pre class="rw-json">{}</pre>', json.dumps(getattr(row, column), indent=2))

    return shown


def since(moment: datetime | None) -> str:
    """How long ago."""
    return "" if moment is None else span((timezone.now() - moment).total_seconds())


def clock(moment: datetime | None) -> str:
    """Date and time in UTC."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")


def ago(moment: datetime | None) -> str:
    """How long ago, with the full time as a tooltip."""
    if moment is None:
        return ""
    return format_html('<time class="rw-num" title="{} UTC">{} ago</time>', clock(moment), since(moment))


def short(public_id: str) -> str:
    """An id that fits a column and still tells two apart: the kind and the random end."""
    kind, _, rest = public_id.partition("_")
    return f"{kind}_…{rest[-8:]}" if len(rest) > 10 else public_id


def badge(word: str, label: str = "") -> SafeString:
    """A word in a coloured pill; the colour is by word, and the word alone says it all."""
    return format_html('<span class="rw-badge rw-{}">{}</span>', word, label or word)


def bar(percent: int, tone: str) -> SafeString:
    """A progress bar with its figure."""
    return format_html(
        '<svg class="rw-bar rw-{}" role="img" aria-label="{} percent"><rect width="{}%" height="100%"/></svg>'
        '<span class="rw-num rw-percent">{}%</span>',
        tone,
        percent,
        percent,
        percent,
    )


@admin.display(description="task")
def of_task(row: Any) -> str:
    """A column: a link to the row's task."""
    return link("videotask", row.task_id, short(row.task_id)) if row.task_id else ""


def link(kind: str, pk: int | str, label: str) -> SafeString:
    """A link to a row's own page; `kind` is the model's name in lower case."""
    return format_html(
        '<a href="{}" title="{}">{}</a>', reverse(f"admin:video_{kind}_change", args=[quote(pk)]), pk, label
    )
