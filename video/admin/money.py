"""Credits: balances, the ledger, and the one way to give credits by hand."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode

from video.actions import grants
from video.admin.read_only import ReadOnlyAdmin, ago, badge, link, of_task
from video.models import Account, CreditEntry
from video.web import actors

ENTRIES_SHOWN = 100


class GrantForm(forms.Form):
    """The users, the credits that each gets, and a note."""

    users = forms.CharField(
        label="User names",
        widget=forms.TextInput(attrs={"size": 60}),
        help_text="One or more, with blanks or commas between.",
    )
    amount = forms.IntegerField(label="Credits each", min_value=1, max_value=1_000_000_000)
    note = forms.CharField(
        required=False, max_length=120, widget=forms.TextInput(attrs={"size": 60}), help_text="Stays in the ledger."
    )

    def clean_users(self) -> list[AbstractBaseUser]:
        names = sorted(set(re.split(r"[\s,]+", self.cleaned_data["users"].strip())))
        model = get_user_model()
        field = model.USERNAME_FIELD
        found = {str(getattr(user, field)): user for user in model._default_manager.filter(**{f"{field}__in": names})}
        missing = [name for name in names if name not in found]
        if missing:
            raise forms.ValidationError(f"No such user: {', '.join(missing)}.")
        return [found[name] for name in names]


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    list_display = ("user", "balance")
    list_select_related = ("user",)
    ordering = ("user__username",)
    search_fields = ("user__username",)
    actions = ("grant_to_selected",)

    def get_urls(self) -> list[URLPattern]:
        return [
            path("grant/", self.admin_site.admin_view(self.grant_view), name="video_account_grant"),
            *super().get_urls(),
        ]

    def has_grant_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("video.add_creditentry"))

    @admin.action(description="Grant credits to the selected accounts", permissions=["grant"])
    def grant_to_selected(self, request: HttpRequest, queryset: QuerySet[Account]) -> HttpResponse:
        names = queryset.values_list("user__username", flat=True)[:200]
        return HttpResponseRedirect(f"{reverse('admin:video_account_grant')}?{urlencode({'users': ', '.join(names)})}")

    def grant_view(self, request: HttpRequest) -> HttpResponse:
        """The form; granting opens an account for a user who has none."""
        if not self.has_grant_permission(request):
            raise PermissionDenied
        form = GrantForm(request.POST or None, initial={"users": request.GET.get("users", "")})
        if request.method == "POST" and form.is_valid():
            self._grant(request, **form.cleaned_data)
            return HttpResponseRedirect(reverse("admin:video_account_changelist"))
        return self.page(request, "admin/video/account/grant.html", title="Grant credits", form=form)

    def _grant(self, request: HttpRequest, users: list[Any], amount: int, note: str) -> None:
        # The ledger names the operator by itself: its entries are what is shown to whoever checks the books.
        by = actors.of_request(request).because(note)
        full_note = f"{note} (by {request.user.get_username()})".strip()[:200]
        with transaction.atomic():
            balances = [(user, grants.grant(user.pk, amount, by=by, note=full_note)) for user in users]
        for user, balance in balances:
            self.message_user(
                request, f"{user.get_username()} got {amount} credits and holds {balance} now.", messages.SUCCESS
            )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(
            request, {**(extra_context or {}), "may_grant": self.has_grant_permission(request)}
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        account = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if account is not None and self.has_view_permission(request, account):
            entries = account.entries.order_by("-id")
            extra |= {
                "title": f"Credits of {account.user.get_username()}",
                "account": account,
                "entry_sum": account.entries.aggregate(total=Sum("amount"))["total"] or 0,
                "entries": entries[:ENTRIES_SHOWN],
                "entry_count": account.entries.count(),
                "may_grant": self.has_grant_permission(request),
            }
        return super().change_view(request, object_id, form_url, extra)


@admin.register(CreditEntry)
class CreditEntryAdmin(ReadOnlyAdmin):
    list_display = ("id", "owner", "kind_badge", "signed", of_task, "run", "note", "when")
    list_filter = ("kind",)
    list_select_related = ("account__user",)
    ordering = ("-id",)
    search_fields = ("=task__id", "account__user__username")
    search_help_text = "A whole task id or a user name."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[CreditEntry], search_term: str
    ) -> tuple[QuerySet[CreditEntry], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.startswith("task_"):
            return queryset.filter(task_id=term), False
        return queryset.filter(account__user__username__istartswith=term), False

    @admin.display(description="account")
    def owner(self, entry: CreditEntry) -> str:
        return link("account", entry.account_id, entry.account.user.get_username())

    @admin.display(description="kind")
    def kind_badge(self, entry: CreditEntry) -> str:
        return badge(entry.kind)

    @admin.display(description="credits")
    def signed(self, entry: CreditEntry) -> str:
        return f"{entry.amount:+d}"

    @admin.display(description="when")
    def when(self, entry: CreditEntry) -> str:
        return ago(entry.created_at)
