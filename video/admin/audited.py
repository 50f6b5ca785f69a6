"""What an operator writes by a form of the admin, in the audit: by whom, from where, why, and what was changed.

Django's own log of the admin is not written any more: each act is recorded once, in the transaction of what it does.
What the actions of a page do is recorded by the function that does it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode
from unfold.forms import ActionForm

from video.audit import records
from video.web import actors

MOST_OF_REASON = 300
_PLAIN = (bool, int, float, Decimal)

if TYPE_CHECKING:
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyAdmin = object


def reason_field() -> forms.CharField:
    """Why an operator does it, in their words."""
    return forms.CharField(
        required=False,
        max_length=MOST_OF_REASON,
        label="Reason",
        widget=forms.TextInput(attrs={"class": "rw-input", "maxlength": MOST_OF_REASON, "autocomplete": "off"}),
    )


class ReasonForm(ActionForm):
    """The box beside the actions; `actors.of_request` reads it. Unfold's own form: its select shows the button."""

    reason = reason_field()


def url_of(kind: str, pk: object) -> str:
    """The audit of one object."""
    query = urlencode({"kind__exact": kind, "object_id__exact": str(pk)})
    return f"{reverse('admin:video_auditrecord_changelist')}?{query}"


class Audited(AnyAdmin):
    """Of a model that has pages in the admin. A mixin, before Django's class."""

    action_form = ReasonForm
    change_form_after_template = "admin/reason.html"  # unfold's: inside the form, behind its fields

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """In the transaction of the form, as the two below."""
        records.record(actors.of_request(request), "add", str(self.opts.model_name), obj.pk, detail=str(message))

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if message:
            records.record(actors.of_request(request), "change", str(self.opts.model_name), obj.pk, detail=str(message))

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Nothing: Django calls it before the transaction of the deletion begins. See `delete_queryset`."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        pk = obj.pk
        with transaction.atomic():
            super().delete_model(request, obj)
            records.record(actors.of_request(request), "delete", str(self.opts.model_name), pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            gone = [(pk, "") for pk in queryset.values_list("pk", flat=True)]
            super().delete_queryset(request, queryset)
            records.record_each(actors.of_request(request), "delete", str(self.opts.model_name), gone)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """What was changed: numbers, switches and choices as they were and are; of texts only the name."""
        return ", ".join(_changed(form, name) for name in form.changed_data)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The audit of the object; Django's page would show its own log."""
        return HttpResponseRedirect(url_of(str(self.opts.model_name), unquote(object_id)))


def _changed(form: Any, name: str) -> str:
    new, field = form.cleaned_data.get(name), form.fields.get(name)
    if field is None:  # the password, as Django's own form calls its two fields
        return name
    if isinstance(field, forms.ModelMultipleChoiceField):
        before, after = (", ".join(sorted(map(str, rows or ()))) for rows in (form.initial.get(name), new))
        return f"{name}: {before or 'none'} → {after or 'none'}" if name == "groups" else name
    is_choice = isinstance(field, forms.ChoiceField) and not isinstance(new, list)
    if isinstance(new, Model) or not (is_choice or new is None or isinstance(new, _PLAIN)):
        return name
    old = form.initial.get(name)
    if isinstance(old, str) and not is_choice and not isinstance(new, _PLAIN):
        return name  # a text that was emptied
    return f"{name}: {_shown(old)} → {_shown(new)}"


def _shown(value: object) -> str:
    return "none" if value in (None, "") else str(value)
