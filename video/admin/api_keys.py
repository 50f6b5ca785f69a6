"""API keys as an operator sees, makes, changes, rolls and revokes them. A text is shown once, when it is made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from video.actions import for_users
from video.admin.read_only import ModelForm, PageAdmin, ago
from video.infra.durations import count
from video.models import ApiKey, Scope
from video.web import actors
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder, NoSuchKey, TooManyKeys

OVERLAP = timedelta(days=1)


class ApiKeyForm(ModelForm):
    """What an operator says of a key."""

    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)
    addresses = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="IP addresses and networks that it may come from, with blanks between; empty: from everywhere.",
    )
    daily_credits = forms.IntegerField(
        min_value=0,
        max_value=1_000_000_000,
        required=False,
        help_text="Credits that it may spend on one day, in UTC; empty: no limit.",
    )

    requests_per_minute = forms.IntegerField(
        min_value=0,
        max_value=1_000_000_000,
        required=False,
        help_text="Instead of REQUESTS_PER_MINUTE_PER_KEY; 0: no limit but that of its user.",
    )

    class Meta:
        model = ApiKey
        fields = ("user", "name", "scopes", "addresses", "daily_credits", "requests_per_minute", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["addresses"] = " ".join(self.instance.addresses)

    def clean_addresses(self) -> list[str]:
        """The networks."""
        try:
            return [api_keys.network(one) for one in self.cleaned_data["addresses"].replace(",", " ").split()]
        except ValueError as err:
            raise ValidationError(f"Each {err}.") from None

    def clean_expires_at(self) -> Any:
        """A time to come."""
        ends_at = self.cleaned_data["expires_at"]
        if ends_at is not None and ends_at <= timezone.now():
            raise ValidationError("This time is over.")
        return ends_at


@admin.register(ApiKey)
class ApiKeyAdmin(PageAdmin):
    """Keys that are good, and those that ended in the last 30 days."""

    form = ApiKeyForm
    list_display = ("id", "user", "name", "shown_scopes", "texts", "daily_credits", "used", "expires_at", "ended_at")
    list_select_related = ("user",)
    ordering = ("-made_at",)
    search_fields = ("user__username", "=id", "name")
    raw_id_fields = ("user",)
    readonly_fields = ("spent_credits", "spent_on", "made_at", "ended_at", "end_reason")
    actions = ("roll", "revoke")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return api_keys.with_secrets(super().get_queryset(request)).order_by()

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return () if obj is None else ("user", *self.readonly_fields)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        # What ended stays as it was.
        return super().has_change_permission(request, obj) and (obj is None or obj.ended_at is None)

    @admin.display(description="scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return " ".join(key.scopes)

    @admin.display(description="begins")
    def texts(self, key: ApiKey) -> str:
        return " ".join(one.hint for one in key.secrets.all())

    @admin.display(description="last used")
    def used(self, key: ApiKey) -> str:
        return ago(max((one.last_used_at for one in key.secrets.all() if one.last_used_at), default=None))

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            changed = {name: getattr(obj, name) for name in form.changed_data}
            if not for_users.change_key(obj, by=actors.of_request(request), **changed):
                self.message_user(request, "This key has ended meanwhile; nothing was changed.", "ERROR")
            return
        lasts = None if obj.expires_at is None else obj.expires_at - timezone.now()
        order = KeyOrder(obj.name, obj.scopes, obj.addresses, obj.daily_credits, obj.requests_per_minute, lasts)
        try:
            obj.pk, request.made_text = for_users.make_key(  # type: ignore[attr-defined]
                obj.user, order, by=actors.of_request(request)
            )
        except (TooManyKeys, NoSuchKey) as err:
            request.not_made = str(err)  # type: ignore[attr-defined]

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """`for_users` records it, as it does a change."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """See `log_addition`."""

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        if hasattr(request, "made_text"):
            return self._texts_page(request, [(obj, request.made_text)])
        self.message_user(request, request.not_made, "ERROR")  # type: ignore[attr-defined]
        return self.response_post_save_add(request, obj)

    @admin.action(description="Roll: a new text, the old one is good for a day", permissions=["change"])
    def roll(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """New texts of the selected keys."""
        rolled, by = [], actors.of_request(request)
        for key in queryset.select_related("user"):
            try:
                rolled.append((key, for_users.roll_key(key.pk, overlap=OVERLAP, by=by)))
            except NoSuchKey:
                self.message_user(request, f"{key.pk} has ended.", "ERROR")
        return self._texts_page(request, rolled) if rolled else None

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """End the selected keys at once."""
        by = actors.of_request(request)
        ended = sum(for_users.revoke_key(key.pk, by=by) for key in queryset)
        self.message_user(request, f"{count(ended, 'API key')} revoked.")

    def _texts_page(self, request: HttpRequest, made: list[tuple[ApiKey, str]]) -> HttpResponse:
        """A page of this answer alone: a message of Django's would be stored in the session."""
        return self.page(request, "admin/api_keys/texts.html", title="Copy it now", made=made)
