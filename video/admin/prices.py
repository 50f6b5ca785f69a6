"""The price list: what videos cost their users, in credits. Each change stands in the audit."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminSelectWidget

from providers import catalogue
from video.admin.read_only import ModelForm, PageAdmin
from video.audit import records
from video.credits import price
from video.models import PriceRule, VideoTask
from video.web.actors import of_request

KIND = PriceRule._meta.model_name or ""


class PriceRuleForm(ModelForm):
    """A rule, in the words of orders. What is left empty fits every order."""

    model = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget,
        choices=[
            ("", "every model"),
            (PriceRule.NO_MODEL, "no model named: we choose"),
            *((one.id, f"{one.title} ({one.id})") for one in catalogue.MODELS),
        ],
        help_text="As the order names it. Which model runs it in the end changes no price.",
    )
    resolution = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget,
        choices=[("", "any"), *((one, one) for one in VideoTask.Resolution.values)],
        help_text="That is ordered; source: as the model makes it.",
    )
    sound = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget,
        choices=[("", "either"), *PriceRule.Sound.choices],
        help_text="Whether sound is ordered.",
    )

    class Meta:
        model = PriceRule
        fields = ("model", "seconds", "resolution", "sound", "credits", "credits_per_second", "note")


@admin.register(PriceRule)
class PriceRuleAdmin(PageAdmin):
    form = PriceRuleForm
    list_display = ("orders", "credits", "credits_per_second", "examples", "note")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        said = (
            f"The most specific rule that fits an order counts; an order that none fits costs "
            f"{settings.CREDITS_PER_VIDEO} credits (CREDITS_PER_VIDEO). A change counts within two seconds."
        )
        return super().changelist_view(request, {**(extra_context or {}), "subtitle": said})

    @admin.display(description="orders", ordering="model")
    def orders(self, rule: PriceRule) -> str:
        return str(rule)

    @admin.display(description="such an order costs")
    def examples(self, rule: PriceRule) -> str:
        lengths = [rule.seconds] if rule.seconds else [5, 10]
        return ", ".join(f"{price.by_rule(rule, length)} for {length} s" for length in lengths)

    def log_addition(self, request: HttpRequest, obj: PriceRule, message: Any) -> Any:
        self._record(request, "add", obj)

    def log_change(self, request: HttpRequest, obj: PriceRule, message: Any) -> Any:
        self._record(request, "change", obj)

    def delete_model(self, request: HttpRequest, obj: PriceRule) -> None:
        super().delete_model(request, obj)
        price.forget()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[PriceRule]) -> None:
        super().delete_queryset(request, queryset)
        price.forget()

    def _record(self, request: HttpRequest, action: str, rule: PriceRule) -> None:
        """In the form's transaction, with the whole price: the fields that were changed would not say it."""
        says = f"{rule}: {rule.credits} credits and {rule.credits_per_second:f} a second"
        records.record(of_request(request), action, KIND, rule.pk, detail=says)
        price.forget()
