"""The list of tasks: its filters, all of which stand in the address, and pages that begin where the last one ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import unfold.views
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import BooleanField, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.urls import reverse

from media_pipeline.warnings import KINDS
from providers import catalogue
from providers.registry import NAMES
from video.actions import task_filters
from video.actions.task_filters import SPAN_WORDS, SPANS, STANDS, InvalidSelection
from video.attempts import slow
from video.models import Stage, Status

if TYPE_CHECKING:
    Page = ChangeList
else:
    Page = unfold.views.ChangeList

AFTER, BEFORE = "after", "before"


@dataclass(frozen=True)
class Field:
    """One filter of the form above the list."""

    name: str
    label: str
    value: str
    kind: str = "select"  # or text, datetime-local
    choices: tuple[tuple[str, str], ...] = ()  # of a select, and suggestions of a text
    complete: str = ""  # an address that suggests more
    hint: str = ""


class TaskChangeList(Page):
    """Narrowed by our filters, without a count, and paged by the key: page 10,000 costs what the first one does."""

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Those that are Django's own: ours are no columns."""
        found: dict[str, Any] = super().get_filters_params(params)
        ours = {*task_filters.FILTERS, AFTER, BEFORE}
        return {name: value for name, value in found.items() if name not in ours}

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str | None] | None = None) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        # Of the list alone: the page of one task asks by itself, of that one.
        rows = rows.annotate(is_slow=RawSQL(slow.IS_SLOW, (), output_field=BooleanField()))  # noqa: S611 - a constant
        self.filters = task_filters.given(self.params)
        try:
            # The search is Django's.
            return task_filters.narrow(rows, {name: value for name, value in self.filters.items() if name != "q"})
        except InvalidSelection as err:
            raise IncorrectLookupParameters(str(err)) from None

    def get_results(self, request: HttpRequest) -> None:
        """One page, and whether there is more on either side of it. One statement."""
        newest_first = str(self.queryset.query.order_by[0]).startswith("-")
        after, before = self.params.get(AFTER, ""), self.params.get(BEFORE, "")
        rows, backwards = self.queryset, bool(before)
        if place := before or after:
            rows = rows.filter(**{"pk__lt" if newest_first != backwards else "pk__gt": place.replace("\x00", "")})
        if backwards:
            rows = rows.order_by("pk" if newest_first else "-pk")
        found = list(rows[: self.list_per_page + 1])
        is_more = len(found) > self.list_per_page
        found = found[: self.list_per_page]
        if backwards:
            found.reverse()
        self.result_list = found
        self.result_count = len(found)
        self.full_result_count = self.result_count  # nobody counts them all
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = True
        self.paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        self.next_page = self._page(AFTER, found[-1:]) if is_more or backwards else ""
        self.previous_page = self._page(BEFORE, found[:1]) if (is_more if backwards else after) else ""

    def _page(self, side: str, edge: list[Any]) -> str:
        if not edge:
            return ""
        kept = {name: value for name, value in self.params.items() if name not in {AFTER, BEFORE}}
        return f"?{urlencode({**kept, side: edge[0].pk})}"

    @property
    def first_page(self) -> str:
        kept = {name: value for name, value in self.params.items() if name not in {AFTER, BEFORE}}
        return f"?{urlencode(kept)}"

    @property
    def words(self) -> str:
        """What the filters say."""
        return task_filters.words(self.filters) if self.filters else ""

    def all_url(self, verb: str) -> str:
        """The preview of an action on all that match."""
        return f"{reverse('admin:video_videotask_all', args=[verb])}?{urlencode(self.filters)}"

    @property
    def retry_url(self) -> str:
        return self.all_url("retry")

    @property
    def cancel_url(self) -> str:
        return self.all_url("cancel")

    @property
    def filter_fields(self) -> list[Field]:
        """Those that are always in sight. One statement."""
        value = self._value
        users = (
            reverse("admin:autocomplete")
            + "?"
            + urlencode({"app_label": "video", "model_name": "videotask", "field_name": "user"})
        )
        search = "an id (or the end of a task's), a user, or words of the prompt"
        codes = tuple((code, "") for code in task_filters.error_codes())
        models = tuple((one.id, f"{one.id} ({one.provider})") for one in catalogue.MODELS)
        return [
            Field("q", "Search", value("q"), "text", hint=search),
            Field("status__exact", "Status", value("status__exact"), choices=_words(Status.values)),
            Field("error", "Error code", value("error"), "text", codes),
            Field("provider", "Provider of the last attempt", value("provider"), choices=_words(NAMES)),
            Field("model", "Model of the last attempt", value("model"), choices=models),
            Field("user", "User", value("user"), "text", complete=users),
            Field("ended", "Ended in the last", value("ended"), choices=_spans()),
            Field(
                "stands", "What it does now", value("stands"), choices=tuple((one, STANDS[one][0]) for one in STANDS)
            ),
        ]

    @property
    def more_fields(self) -> list[Field]:
        value, moment = self._value, "datetime-local"
        stages = [stage for stage in Stage.values if stage != Stage.DONE]
        return [
            Field("stage__exact", "Stage", value("stage__exact"), choices=_words(stages)),
            Field("in_stage", "In its stage for longer than", value("in_stage"), choices=_spans()),
            Field("warning", "Warning", value("warning"), choices=_words(KINDS)),
            Field("ended_after", "Ended since (UTC)", value("ended_after"), moment),
            Field("ended_before", "Ended before (UTC)", value("ended_before"), moment),
            Field("created_at__gte", "Created since (UTC)", value("created_at__gte"), moment),
            Field("created_at__lt", "Created before (UTC)", value("created_at__lt"), moment),
        ]

    @property
    def more_is_open(self) -> bool:
        """Whether a filter that is folded away is in use."""
        return any(field.value for field in self.more_fields)

    def _value(self, name: str) -> str:
        return self.filters.get(name, "")


def _words(values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((value, value.replace("_", " ")) for value in values)


def _spans() -> tuple[tuple[str, str], ...]:
    return tuple((name, SPAN_WORDS[name]) for name in SPANS)
