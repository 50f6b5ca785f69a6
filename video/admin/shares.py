"""Weights and limits of users, and the priority of waiting tasks."""

from __future__ import annotations

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from video.admin.audited import ReasonForm
from video.admin.read_only import ModelForm, PageAdmin
from video.models import UserShare

MOST_PRIORITY = 100


def priority_from(text: str) -> int | None:
    """The priority that was typed, from -100 to 100; None for any other text."""
    try:
        priority = int(text)
    except ValueError:
        return None
    return priority if -MOST_PRIORITY <= priority <= MOST_PRIORITY else None


class PriorityForm(ReasonForm):
    """The box beside the actions; only the one that sets priorities reads it."""

    # Text, and read by the action: a form that is not valid would make Django say that no action was chosen.
    priority = forms.CharField(
        required=False,
        label="Priority",
        widget=forms.NumberInput(attrs={"class": "rw-input", "min": -MOST_PRIORITY, "max": MOST_PRIORITY}),
    )


class UserShareForm(ModelForm):
    """A user's part, in the bounds of the row."""

    weight = forms.IntegerField(
        min_value=1,
        max_value=1000,
        initial=1,
        help_text="Parts of what is to be shared: a user of weight 2 gets twice as much as one of weight 1.",
    )

    most_stored_bytes = forms.IntegerField(
        min_value=0,
        max_value=2**62,
        required=False,
        help_text="Bytes that stored files may have, instead of MAX_STORED_BYTES_PER_USER; 0: no limit.",
    )

    requests_per_minute = forms.IntegerField(
        min_value=0,
        max_value=1_000_000_000,
        required=False,
        help_text="Requests of the API, instead of REQUESTS_PER_MINUTE; 0: no limit. Counts within a minute.",
    )

    class Meta:
        model = UserShare
        fields = ("user", "weight", "most_waiting", "most_live", "most_stored_bytes", "requests_per_minute", "note")


@admin.register(UserShare)
class UserShareAdmin(PageAdmin):
    form = UserShareForm
    list_display = ("user", "weight", "most_waiting", "most_live", "most_stored_bytes", "requests_per_minute", "note")
    list_select_related = ("user",)
    ordering = ("user__username",)
    search_fields = ("user__username",)
    raw_id_fields = ("user",)

    def get_readonly_fields(self, request: HttpRequest, obj: UserShare | None = None) -> tuple[str, ...]:
        return () if obj is None else ("user",)
