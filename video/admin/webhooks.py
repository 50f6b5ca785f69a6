"""Webhooks: endpoints, and deliveries with their tries. Of a URL only the host is shown: the rest may hold a token."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from video.actions import for_users
from video.admin.read_only import ReadOnlyAdmin, ago, badge, clock, link, of_task, short
from video.infra.durations import count
from video.models import WebhookDelivery, WebhookEndpoint
from video.web import actors
from video.webhooks import receivers
from video.webhooks.endpoints import WebhookRefused

_TONES = {"pending": "running", "delivered": "success", "failed": "failed", "dropped": "cancelled"}
_SECRETS = ("secret", "former_secret", "url")


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(ReadOnlyAdmin):
    list_display = ("id", "user", "host", "wants", "enabled", "ended_at", "end_reason", "made")
    list_select_related = ("user",)
    list_filter = ("enabled", "end_reason")
    ordering = ("-created_at",)
    search_fields = ("user__username", "=id")
    exclude = _SECRETS
    readonly_fields = ("host",)
    actions = ("switch_off",)

    @admin.display(description="host")
    def host(self, endpoint: WebhookEndpoint) -> str:
        return receivers.host_of(endpoint.url)

    @admin.display(description="events")
    def wants(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.events) or "all"

    @admin.display(description="made", ordering="created_at")
    def made(self, endpoint: WebhookEndpoint) -> str:
        return ago(endpoint.created_at)

    def has_switch_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may switch endpoints off."""
        return bool(request.user.has_perm("video.change_webhookendpoint"))

    @admin.action(description="Switch off; what waits for them is dropped", permissions=["switch"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        done = 0
        for endpoint in queryset.filter(enabled=True, ended_at=None):
            try:
                for_users.switch_endpoint_off(endpoint, by=actors.of_request(request))
            except WebhookRefused as err:
                self.message_user(request, f"{endpoint}: {err}", messages.ERROR)
            else:
                done += 1
        self.message_user(request, f"{count(done, 'endpoint')} switched off.")


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("delivery_id", "event", "user", of_task, "host", "state_badge", "tries", "next_try", "made")
    list_display_links = ("delivery_id",)
    list_select_related = ("user", "endpoint")
    list_filter = ("state", "event")
    ordering = ("-created_at",)
    search_fields = ("=id", "=message_id", "=task__id", "=endpoint__id")
    search_help_text = "A whole delivery, message, task or endpoint id."
    searched_ids = ("pk", "message_id", "task_id", "endpoint_id")
    exclude = ("url",)
    readonly_fields = ("host", "log")
    actions = ("resend",)

    @admin.display(description="delivery", ordering="id")
    def delivery_id(self, delivery: WebhookDelivery) -> str:
        return short(delivery.pk)

    @admin.display(description="host")
    def host(self, delivery: WebhookDelivery) -> str:
        if delivery.endpoint is None:
            return receivers.host_of(delivery.url)
        shown = receivers.host_of(delivery.endpoint.url) or short(delivery.endpoint.pk)
        return link("webhookendpoint", delivery.endpoint.pk, shown)

    @admin.display(description="state", ordering="state")
    def state_badge(self, delivery: WebhookDelivery) -> SafeString:
        return badge(_TONES[delivery.state], delivery.state)

    @admin.display(description="next try", ordering="due_at")
    def next_try(self, delivery: WebhookDelivery) -> str:
        return clock(delivery.due_at)

    @admin.display(description="written", ordering="created_at")
    def made(self, delivery: WebhookDelivery) -> str:
        return ago(delivery.created_at)

    @admin.display(description="tries")
    def log(self, delivery: WebhookDelivery) -> SafeString:
        rows = (
            (one.number, clock(one.started_at), one.outcome or "no end", one.http_status or "", one.detail, one.worker)
            for one in delivery.tries_made.order_by("number")
        )
        return format_html("<ol>{}</ol>", format_html_join("", "<li>{}: {} {} {} {} <small>{}</small></li>", rows))

    def has_resend_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may send again."""
        return bool(request.user.has_perm("video.change_webhookdelivery"))

    @admin.action(description="Send again, now", permissions=["resend"])
    def resend(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        done = 0
        for delivery in queryset.order_by("created_at"):
            try:
                for_users.resend(delivery.pk, by=actors.of_request(request))
            except WebhookRefused as err:
                self.message_user(request, f"{delivery}: {err}", messages.ERROR)
            else:
                done += 1
        self.message_user(request, f"Deliveries to be sent again: {done}.")
