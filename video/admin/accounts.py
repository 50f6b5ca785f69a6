"""Accounts at providers: how much each may run at once, and whether any job starts there."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, IntegerField, Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone

from video import bell
from video.admin.reading import ModelAdmin, badge, span
from video.kit import kit
from video.models import Generation, ProviderAccount


@admin.register(ProviderAccount)
class ProviderAccountAdmin(ModelAdmin):
    list_display = ("account", "provider", "model", "state", "in_use", "slots", "last_error")
    list_filter = ("provider", "closed_reason")
    ordering = ("provider", "account", "model")
    fields = (
        "provider",
        "account",
        "model",
        "state",
        "in_use",
        "slots",
        "cooldown_until",
        "closed_reason",
        "last_error",
    )
    readonly_fields = tuple(name for name in fields if name != "slots")
    actions = ("open_again",)
    show_facets = admin.ShowFacets.NEVER

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProviderAccount]:
        live = (
            Generation.objects.filter(account=OuterRef("pk"), state__in=Generation.LIVE)
            .order_by()
            .values("account")
            .annotate(n=Count("*"))
            .values("n")
        )
        return super().get_queryset(request).annotate(live=Coalesce(Subquery(live, output_field=IntegerField()), 0))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # made from the configured keys

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ProviderAccount, form: Any, change: bool) -> None:
        """Only the slots: a cool-down that began while the form was open must stay."""
        obj.save(update_fields=["slots"])
        transaction.on_commit(bell.ring_admission)

    @admin.display(description="state")
    def state(self, account: ProviderAccount) -> str:
        if account.closed_reason:
            return badge("failed", f"closed: {account.closed_reason.replace('_', ' ')}")
        if kit().fingerprint_of(account.provider, account.account) is None:
            return badge("cancelled", "its key is not configured")
        if account.cooldown_until and account.cooldown_until > timezone.now():
            return badge(
                "parked", f"asked to wait, {span((account.cooldown_until - timezone.now()).total_seconds())} more"
            )
        return badge("success", "open")

    @admin.display(description="in use")
    def in_use(self, account: Any) -> str:
        return f"{account.live} of {account.slots}"

    @admin.action(description="Open again (take back a closing or a cool-down)", permissions=["change"])
    def open_again(self, request: HttpRequest, queryset: QuerySet[ProviderAccount]) -> None:
        opened = 0
        with transaction.atomic():
            for account in (
                ProviderAccount.objects.filter(pk__in=queryset.values("pk")).order_by("pk").select_for_update()
            ):
                if account.closed_reason or account.cooldown_until:
                    opened += ProviderAccount.objects.filter(pk=account.pk).update(
                        closed_reason="", cooldown_until=None
                    )
                    self.log_change(request, account, "Opened again")
        bell.ring_admission()
        if opened:
            self.message_user(
                request, f"Opened {opened} account{'s'[: opened != 1]}; waiting tasks may start there now."
            )
        else:
            self.message_user(request, "All of these were open already.", messages.INFO)
