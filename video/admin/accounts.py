"""Keys and accounts at providers: which are in use, how many jobs each may run, and whether new jobs start there."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from providers import catalogue
from providers.contract import ReasonCode
from video.actions import provider_remedies
from video.admin.former import FormerAccounts, FormerKeys
from video.admin.read_only import MadeByCodeAdmin, ModelForm, PageAdmin, ReadOnlyAdmin, ago, badge
from video.engine import dispatch
from video.infra.after_commit import after_commit
from video.infra.durations import count, span
from video.models import Circuit, Generation, ModelSetting, ProviderAccount, ProviderKey
from video.monitoring import providers
from video.routing import health, key_labels, slots
from video.routing.slots import AccountState
from video.web.actors import of_request

#: More for a second of video is a slip.
MOST_USD_PER_S = 10_000


def _live(**outer: str) -> Coalesce:
    """How many live generations have these columns in common with the row."""
    rows = (
        Generation.objects.filter(**{name: OuterRef(column) for name, column in outer.items()})
        .filter(state__in=Generation.LIVE)
        .order_by()
        .values(next(iter(outer)))
        .annotate(n=Count("*"))
        .values("n")
    )
    return Coalesce(Subquery(rows, output_field=IntegerField()), 0)


@admin.register(ProviderKey)
class ProviderKeyAdmin(MadeByCodeAdmin):
    list_display = ("key", "provider", "in_account", "state_badge", "jobs", "checked", "last_error")
    list_filter = (FormerKeys, "provider", "state")
    ordering = ("provider", "label", "fingerprint")
    fields = (
        *("key", "fingerprint", "provider", "in_account", "base_url"),
        *("state_badge", "jobs", "checked_at", "gone_since"),
        *("refusals", "refused_since", "retry_at", "last_error"),
    )
    readonly_fields = fields
    actions = ("drain", "activate")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProviderKey]:
        return super().get_queryset(request).annotate(live=_live(provider="provider", key_fingerprint="fingerprint"))

    @admin.display(description="key", ordering="label")
    def key(self, key: ProviderKey) -> str:
        return key_labels.of(key.provider, key.fingerprint, key.label)

    @admin.display(description="account", ordering="account")
    def in_account(self, key: ProviderKey) -> str:
        return "its own" if key.account == key.fingerprint else key.account

    @admin.display(description="state", ordering="state")
    def state_badge(self, key: ProviderKey) -> SafeString:
        if key.gone_since is not None:
            return badge("failed", "gone while jobs hang on it: put it back")
        if not _is_configured(key):
            return badge("cancelled", "not configured")
        if key.state == ProviderKey.State.DRAINING:
            return badge("parked", "draining: no new jobs")
        if key.state == ProviderKey.State.QUARANTINED:
            return badge("failed", f"quarantined: it was refused{_again(key)}")
        if key.refusals:
            return badge("parked", f"refused lately{_again(key)}")
        return badge("success", "active")

    @admin.display(description="jobs that hang on it")
    def jobs(self, key: Any) -> str:
        return str(key.live)

    @admin.display(description="last answer", ordering="checked_at")
    def checked(self, key: ProviderKey) -> str:
        return ago(key.checked_at)

    @admin.action(
        description="Drain (start no new jobs with them; those under way are still looked at)", permissions=["change"]
    )
    def drain(self, request: HttpRequest, queryset: QuerySet[ProviderKey]) -> None:
        changed = provider_remedies.drain(queryset, by=of_request(request))
        if not changed:
            self.message_user(request, "All of these were draining already.")
            return
        hanging = sum(key.live for key in queryset)  # type: ignore[attr-defined]  # annotated
        left = (
            f"{count(hanging, 'job')} still under way: leave them configured until that is 0."
            if hanging
            else "Nothing hangs on them: they can be taken away."
        )
        self.message_user(request, f"No new job starts with {count(changed, 'key')}. {left}")

    @admin.action(description="Activate (after draining, or when a refused key was put right)", permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[ProviderKey]) -> None:
        done = provider_remedies.activate(queryset, by=of_request(request))
        self.message_user(request, done.words or "All of these were active already.")


def _is_configured(key: ProviderKey) -> bool:
    return any(one.fingerprint == key.fingerprint for one in settings.PROVIDER_KEYS.get(key.provider, ()))


class SlotsForm(ModelForm):
    """The one field of a row of the list, named for who does not see the column's head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        widget = self.fields["slots_override"].widget
        widget.attrs["aria-label"] = f"Slots override of {self.instance.account}, {self.instance.model}"


@admin.register(ProviderAccount)
class ProviderAccountAdmin(MadeByCodeAdmin):
    list_display = ("name", "provider", "model", "state", "in_use", "slots_override", "balance_shown", "last_error")
    list_editable = ("slots_override",)
    list_filter = (FormerAccounts, "provider", "closed_reason")
    ordering = ("provider", "account", "model")
    fields = (
        "provider",
        "name",
        "account",
        "model",
        "state",
        "in_use",
        "slots",
        "slots_override",
        "lowered_slots",
        "lowered_until",
        "cooldown_until",
        "busies",
        "closed_reason",
        "refusals",
        "refused_since",
        "retry_at",
        "balance_shown",
        "last_error",
    )
    readonly_fields = tuple(name for name in fields if name != "slots_override")
    actions = ("open_again",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProviderAccount]:
        rows = super().get_queryset(request).annotate(live=_live(account="pk"))
        return key_labels.accounts_with_labels(rows)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """With how each account of the page stands, read once for all of them."""
        page = super().get_changelist_instance(request)
        now = {one.row.pk: one for one in providers.account_states()}
        for account in page.result_list:
            account.now = now.get(account.pk)
        return page

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> Any:
        return super().get_changelist_form(request, **{"form": SlotsForm, **kwargs})

    def save_model(self, request: HttpRequest, obj: ProviderAccount, form: Any, change: bool) -> None:
        """Only the operator's limit: a cool-down that began while the form was open must stay."""
        obj.save(update_fields=["slots_override"])
        after_commit(dispatch.request_admission)

    @admin.display(description="account", ordering="account")
    def name(self, account: ProviderAccount) -> str:
        return key_labels.of_account_row(account)

    @admin.display(description="state")
    def state(self, account: Any) -> SafeString:
        if not hasattr(account, "now"):  # on the page of one
            account.now = next((one for one in providers.account_states() if one.row.pk == account.pk), None)
        now: AccountState | None = account.now
        if now is None or (now.reason is not None and now.reason.code is ReasonCode.NO_KEY):
            return badge("cancelled", "no key is configured")
        if account.closed_reason and not now.is_open:
            return badge("failed", f"closed: {account.closed_reason.replace('_', ' ')}{_again(account)}")
        if not now.is_open and now.reason is not None:
            passes = bool(account.refusals) or _left_s(account.cooldown_until) > 0
            return badge("parked" if passes else "failed", now.reason.text)
        if account.refusals:
            return badge("parked", f"refused lately{_again(account)}")
        return badge("success", "open" if now.reason is None else "open, full")

    @admin.display(description="in use")
    def in_use(self, account: Any) -> str:
        left_s = _left_s(account.lowered_until)
        text = f"{account.live} of {slots.limit(account, lowered=left_s > 0)}"
        if left_s > 0 and account.lowered_slots is not None:
            return format_html("{}<small>lowered, {} more</small>", text, span(left_s))
        return text

    @admin.display(description="balance", ordering="balance")
    def balance_shown(self, account: ProviderAccount) -> str:
        return "" if account.balance is None else f"{account.balance.normalize():f} {account.balance_unit}"

    @admin.action(
        description="Open again (take back a closing, a cool-down or a lowered limit)", permissions=["change"]
    )
    def open_again(self, request: HttpRequest, queryset: QuerySet[ProviderAccount]) -> None:
        opened = provider_remedies.open_again(queryset, by=of_request(request))
        done = f"Opened {count(opened, 'account')}; waiting tasks may start there now."
        self.message_user(request, done if opened else "All of these were open already.")


def _again(row: ProviderKey | ProviderAccount) -> str:
    """When a refused key or account is tried again, in words."""
    if not row.refusals:
        return ""
    left_s = _left_s(row.retry_at)
    return f", tried again in {span(left_s)}" if left_s > 0 else ", tried again with the next job"


def _left_s(until: datetime | None) -> float:
    return 0.0 if until is None else (until - timezone.now()).total_seconds()


class ModelSettingForm(ModelForm):
    """A setting for one model of the catalogue, in the catalogue's own bounds."""

    quality = forms.IntegerField(
        required=False, min_value=1, max_value=5, help_text="1 to 5, instead of the catalogue's."
    )
    speed = forms.IntegerField(
        required=False, min_value=1, max_value=5, help_text="1 to 5, instead of the catalogue's; 5 is fastest."
    )

    class Meta:
        model = ModelSetting
        fields = ("model", "enabled", "price_usd_per_s", "quality", "speed", "note")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "model" in self.fields:  # not when it is changed or only looked at
            taken = set(ModelSetting.objects.values_list("model", flat=True))
            self.fields["model"] = forms.ChoiceField(
                choices=[
                    (one.id, f"{one.title} ({one.id}, {one.provider})")
                    for one in catalogue.MODELS
                    if one.id not in taken
                ],
                help_text="Models without a setting are as the catalogue says.",
            )

    def clean_price_usd_per_s(self) -> Decimal | None:
        price: Decimal | None = self.cleaned_data["price_usd_per_s"]
        if price is not None and price <= 0:
            raise forms.ValidationError("A price is more than 0; leave it empty for the catalogue's.")
        if price is not None and price > MOST_USD_PER_S:
            raise forms.ValidationError(f"A price is at most {MOST_USD_PER_S} USD a second.")
        return price


@admin.register(ModelSetting)
class ModelSettingAdmin(PageAdmin):
    form = ModelSettingForm
    list_display = ("model", "enabled", "price", "quality_shown", "speed_shown", "note")
    ordering = ("model",)

    def get_readonly_fields(self, request: HttpRequest, obj: ModelSetting | None = None) -> tuple[str, ...]:
        return () if obj is None else ("model",)

    def save_model(self, request: HttpRequest, obj: ModelSetting, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        after_commit(dispatch.request_admission)  # switched on again, tasks may be waiting for it

    @admin.display(description="USD a second")
    def price(self, row: ModelSetting) -> str:
        if row.price_usd_per_s is not None:
            return f"{row.price_usd_per_s.normalize():f}"
        model = catalogue.BY_ID.get(row.model)
        prices = sorted(set(model.price_usd_per_s.values())) if model else []
        return f"{' to '.join(map(str, [prices[0], *prices[1:][-1:]]))} (catalogue)" if prices else ""

    @admin.display(description="quality")
    def quality_shown(self, row: ModelSetting) -> str:
        return _own_or(row.quality, row.model, "quality")

    @admin.display(description="speed")
    def speed_shown(self, row: ModelSetting) -> str:
        return _own_or(row.speed, row.model, "speed")


def _own_or(value: int | None, model: str, name: str) -> str:
    if value is not None:
        return str(value)
    known = catalogue.BY_ID.get(model)
    return f"{getattr(known, name)} (catalogue)" if known else "not in the catalogue"


@admin.register(Circuit)
class CircuitAdmin(ReadOnlyAdmin):
    list_display = ("model", "provider", "state", "faults", "last_error")
    list_filter = ("provider",)
    ordering = ("provider", "model")
    fields = (
        *("model", "provider", "state", "faults", "users"),
        *("open_until", "probing_since", "probing_users", "last_error"),
    )
    readonly_fields = fields
    actions = ("close",)

    def has_close_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("video.change_circuit"))

    @admin.display(description="state")
    def state(self, circuit: Circuit) -> SafeString:
        left_s = _left_s(circuit.open_until)
        alone = health.alone(circuit.fault_users)
        if left_s > 0:
            said = f"open, {span(left_s)} more: no new jobs"
            if alone is None:
                return badge("failed", said)
            return badge(
                "parked", f"{said} of user {alone}; {'one' if circuit.is_for_all else 'those'} of others may go"
            )
        if circuit.probing_since is not None:
            return badge("parked", "one job tries whether it works again")
        if circuit.open_until is not None and alone is not None and not circuit.is_for_all:
            return badge("parked", f"half open: the next job of user {alone} tries")
        if circuit.open_until is not None:
            return badge("parked", "half open: the next job tries")
        return badge("success", "closed")

    @admin.display(description="users whose jobs failed")
    def users(self, circuit: Circuit) -> str:
        named = [f"user {one}" for one in circuit.fault_users if one != health.NOBODYS]
        return ", ".join(named if len(named) == len(circuit.fault_users) else [*named, "several at once"]) or "-"

    @admin.action(description="Close (let jobs through again, forget the faults)", permissions=["close"])
    def close(self, request: HttpRequest, queryset: QuerySet[Circuit]) -> None:
        closed = provider_remedies.close(queryset, by=of_request(request))
        done = f"Closed {count(closed, 'circuit')}; jobs may start there now."
        self.message_user(request, done if closed else "All of these were closed already.")
