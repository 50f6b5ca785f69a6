"""Failure texts that no adapter knows: what is not decided first, with a select for what each means."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from video.admin.read_only import ModelForm, PageAdmin, ago, badge, link, short
from video.attempts import failure_texts
from video.attempts.failure_texts import OTHER, DecisionRefused
from video.infra.durations import count
from video.models import FailureText
from video.web import actors

Meaning = FailureText.Meaning
_TONES = {
    Meaning.UNDECIDED: "unknown",
    Meaning.MODERATION: "failed",
    Meaning.BAD_REQUEST: "failed",
    Meaning.ANOTHER_MODEL: "success",
    Meaning.FAILED: "failed",
}


class MeaningForm(ModelForm):
    """What a text means; nothing else can be changed."""

    class Meta:
        model = FailureText
        fields = ("meaning",)


@admin.register(FailureText)
class FailureTextAdmin(PageAdmin):
    """A decision needs `change`; to forget a text needs `delete`."""

    form = MeaningForm
    list_display = ("text", "provider", "model", "count", "task", "last", "means", "decided")
    list_filter = ("provider", "meaning")
    search_fields = ("signature", "sample")
    fields = (
        *("provider", "signature", "sample", "count", "model", "task", "first_seen", "last_seen"),
        *("meaning", "decided_by", "decided_at"),
    )
    readonly_fields = tuple(name for name in fields if name != "meaning")
    actions = ("moderation", "bad_request", "another_model", "failed")

    def get_queryset(self, request: HttpRequest) -> QuerySet[FailureText]:
        return failure_texts.listed()

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return ()  # of the query

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: FailureText | None = None) -> tuple[str, ...]:
        fixed = obj is not None and obj.signature == OTHER
        return self.fields if fixed else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: FailureText, form: Any, change: bool) -> None:
        if "meaning" not in form.changed_data:
            return
        try:
            failure_texts.decide(obj.pk, obj.meaning, by=actors.of_request(request))
        except DecisionRefused as err:
            self.message_user(request, str(err), messages.ERROR)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """`decide` records it."""

    def delete_model(self, request: HttpRequest, obj: FailureText) -> None:
        self._forget(request, obj.pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[FailureText]) -> None:
        with transaction.atomic():
            for pk in queryset.values_list("pk", flat=True):
                self._forget(request, pk)

    def _forget(self, request: HttpRequest, pk: int) -> None:
        try:
            failure_texts.forget(pk, by=actors.of_request(request))
        except DecisionRefused as err:  # somebody else was faster
            self.message_user(request, str(err), messages.ERROR)

    @admin.display(description="text")
    def text(self, row: FailureText) -> SafeString:
        return format_html("{}<small>{}</small>", row.sample or row.signature, row.signature if row.sample else "")

    @admin.display(description="last task")
    def task(self, row: FailureText) -> str:
        return link("videotask", row.last_task, short(row.last_task))

    @admin.display(description="last seen", ordering="last_seen")
    def last(self, row: FailureText) -> str:
        return ago(row.last_seen)

    @admin.display(description="means", ordering="meaning")
    def means(self, row: FailureText) -> SafeString:
        return badge(_TONES[Meaning(row.meaning)], Meaning(row.meaning).label)

    @admin.display(description="decided")
    def decided(self, row: FailureText) -> str:
        return format_html("{}<small>{}</small>", row.decided_by, ago(row.decided_at)) if row.decided_by else ""

    @admin.action(description="It means: a safety check refused it (no other model)", permissions=["change"])
    def moderation(self, request: HttpRequest, queryset: QuerySet[FailureText]) -> None:
        self._decide(request, queryset, Meaning.MODERATION)

    @admin.action(description="It means: the request was at fault (no other model)", permissions=["change"])
    def bad_request(self, request: HttpRequest, queryset: QuerySet[FailureText]) -> None:
        self._decide(request, queryset, Meaning.BAD_REQUEST)

    @admin.action(description="It means: this model failed (another may try)", permissions=["change"])
    def another_model(self, request: HttpRequest, queryset: QuerySet[FailureText]) -> None:
        self._decide(request, queryset, Meaning.ANOTHER_MODEL)

    @admin.action(description="It means: it failed for good (no other model)", permissions=["change"])
    def failed(self, request: HttpRequest, queryset: QuerySet[FailureText]) -> None:
        self._decide(request, queryset, Meaning.FAILED)

    def _decide(self, request: HttpRequest, queryset: QuerySet[FailureText], meaning: FailureText.Meaning) -> None:
        decided = 0
        for row in queryset.exclude(meaning=meaning):
            try:
                failure_texts.decide(row.pk, meaning, by=actors.of_request(request))
            except DecisionRefused as err:
                self.message_user(request, str(err), messages.ERROR)
            else:
                decided += 1
        if decided:
            self.message_user(request, f"Decided for {count(decided, 'text')}: {meaning.label}. Tasks do so from now.")
