"""Alerts: what was told, to whom, and what is open; with a test, and silence for some hours."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from video.admin.read_only import ReadOnlyAdmin, ago, badge, clock
from video.alerts import send, watch
from video.infra.durations import span
from video.models import Alert, AlertMessage
from video.web import actors

MOST_HOURS = int(watch.LONGEST_SILENCE_S / 3600)
_TONES = {"pending": "waiting", "sent": "success", "failed": "failed"}


class SilenceForm(forms.Form):
    """For how long nothing is sent."""

    hours = forms.FloatField(label="Hours", min_value=0, max_value=MOST_HOURS)


class OpenFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("over", "over"), ("failed", "a message was given up")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        match self.value():
            case "open":
                return queryset.filter(ended_at=None)
            case "over":
                return queryset.filter(ended_at__isnull=False)
            case "failed":
                return queryset.filter(messages__state=AlertMessage.State.FAILED).distinct()
        return queryset


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("state", "code", "about", "sentence", "begun", "over", "told")
    list_display_links = ("code",)
    list_filter = (OpenFilter, "code")
    ordering = ("-id",)
    readonly_fields = ("told",)
    list_before_template = "admin/video/alert/above.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        sent = Prefetch("messages", queryset=AlertMessage.objects.order_by("id"))
        return super().get_queryset(request).prefetch_related(sent)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("silence/", view(require_POST(self.silence_view)), name="video_alert_silence"),
            path("test/", view(require_POST(self.test_view)), name="video_alert_test"),
            *super().get_urls(),
        ]

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may silence alerts, and send a test."""
        return bool(request.user.has_perm("video.change_alert"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        more = {
            "receivers": [one.label for one in watch.receivers()],
            "silent_until": clock(watch.silent_until()),
            "may_send": self.has_send_permission(request),
            "most_hours": MOST_HOURS,
        }
        return super().changelist_view(request, {**(extra_context or {}), **more})

    def silence_view(self, request: HttpRequest) -> HttpResponse:
        """POST: nothing is sent for so many hours; 0 ends it."""
        self._check(request)
        form = SilenceForm(request.POST)
        if not form.is_valid():
            text = f"Nothing was changed: give a number of hours from 0 to {MOST_HOURS}."
            self.message_user(request, text, messages.ERROR)
            return self._back()
        seconds = 3600.0 * form.cleaned_data["hours"]
        watch.silence(seconds, by=actors.of_request(request))
        self.message_user(request, f"Nothing is sent for {span(seconds)}." if seconds else "Messages are sent again.")
        return self._back()

    def test_view(self, request: HttpRequest) -> HttpResponse:
        """POST: a test to every receiver, now."""
        self._check(request)
        for label, why in send.send_test(by=actors.of_request(request)):
            text = f"{label}: {why}." if why else f"{label}: it took the test."
            self.message_user(request, text, messages.ERROR if why else messages.SUCCESS)
        return self._back()

    def _check(self, request: HttpRequest) -> None:
        if not self.has_send_permission(request):
            raise PermissionDenied

    def _back(self) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:video_alert_changelist"))

    @admin.display(description="state")
    def state(self, alert: Alert) -> SafeString:
        if alert.ended_at is not None:
            return badge("success", "over")
        return badge("failed", "open") if alert.told_at else badge("waiting", "open, not told yet")

    @admin.display(description="began", ordering="id")
    def begun(self, alert: Alert) -> str:
        return ago(alert.begun_at)

    @admin.display(description="over")
    def over(self, alert: Alert) -> str:
        return ago(alert.ended_at)

    @admin.display(description="told")
    def told(self, alert: Alert) -> SafeString:
        rows = (
            (badge(_TONES[one.state], f"{one.what}: {one.get_state_display()}"), one.label, _tries(one))
            for one in alert.messages.all()
        )
        return format_html("<div>{}</div>", format_html_join("", "<div>{} {}<small>{}</small></div>", rows))


def _tries(one: AlertMessage) -> str:
    if one.state == AlertMessage.State.SENT or not one.tries:
        return ""
    return f"{one.tries} tries; {one.last_error}"
