"""Pauses: what is paused, a button that pauses, and one that resumes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from providers import catalogue
from providers.registry import BY_NAME
from video.actions import pause as pausing
from video.actions.pause import WrongTarget
from video.actions.task_rows import ActionRefused
from video.admin.read_only import ReadOnlyAdmin, ago, badge, clock
from video.infra.durations import span
from video.models import Pause, ProviderAccount
from video.routing import pauses
from video.web.actors import of_request

MAY_PAUSE = "video.pause"
EVERYTHING = "everything"
#: Value of the select and its words; seconds, or none.
ENDS = {
    "": "when it is resumed",
    "900": "in 15 minutes",
    "3600": "in an hour",
    "14400": "in 4 hours",
    "86400": "in a day",
}


class PauseForm(forms.Form):
    """What to pause, why, and for how long."""

    what = forms.ChoiceField(label="What", widget=UnfoldAdminSelectWidget)
    user = forms.CharField(
        label="User",
        max_length=150,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="For a user: the name.",
    )
    reason = forms.CharField(
        label="Reason",
        max_length=200,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Users whose videos wait for it read it. They don't see who paused it.",
    )
    ends = forms.ChoiceField(
        label="It ends", required=False, choices=list(ENDS.items()), widget=UnfoldAdminSelectWidget
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accounts = ProviderAccount.objects.order_by("provider", "account").values_list("provider", "account").distinct()
        self.fields["what"].choices = [  # type: ignore[attr-defined]  # a choice field's
            (EVERYTHING, "everything"),
            ("Providers", [(f"provider {name}", name) for name in sorted(BY_NAME)]),
            ("Models", [(f"model {model.id}", model.id) for model in catalogue.MODELS]),
            ("Accounts", [(f"account {one} {name}", f"{one} {name}") for one, name in accounts]),
            ("Users", [("user", "a user, by the name below")]),
        ]

    def words(self) -> dict[str, Any]:
        """What was chosen, as `pausing.target` takes it."""
        kind, _, name = self.cleaned_data["what"].partition(" ")
        if kind == EVERYTHING:
            return {"everything": True}
        if kind == "user":
            return {"user": self.cleaned_data["user"]}
        if kind == "account":
            provider, _, account = name.partition(" ")
            return {"provider": provider, "account": account}
        return {kind: name}


@admin.register(Pause)
class PauseAdmin(ReadOnlyAdmin):
    list_display = ("what", "stands", "reason", "paused_by", "began", "ends", "ended", "resume_link")
    list_display_links = None
    list_select_related = ("user",)
    list_filter = ("kind",)
    ordering = ("-id",)

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return request.user.has_perm(MAY_PAUSE)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or request.user.has_perm(MAY_PAUSE)

    def get_urls(self) -> list[URLPattern]:
        """With the page that resumes."""
        resume = self.admin_site.admin_view(self.resume_view)
        return [path("<int:pause_id>/resume/", resume, name="video_pause_resume"), *super().get_urls()]

    @admin.display(description="what")
    def what(self, one: Pause) -> str:
        return pauses.of_row(one).what

    @admin.display(description="state")
    def stands(self, one: Pause) -> SafeString:
        return badge("failed", "paused") if _is_live(one) else badge("cancelled", "over")

    @admin.display(description="since", ordering="since")
    def began(self, one: Pause) -> str:
        return ago(one.since)

    @admin.display(description="ends by itself", empty_value="")
    def ends(self, one: Pause) -> str:
        if one.until is None:
            return ""
        left = f", in {span((one.until - timezone.now()).total_seconds())}" if _is_live(one) else ""
        return f"{clock(one.until)} UTC{left}"

    @admin.display(description="ended", empty_value="")
    def ended(self, one: Pause) -> str:
        if _is_live(one):
            return ""
        return f"{clock(one.ended_at)} UTC, by {one.ended_by}" if one.ended_by else "at its time"

    @admin.display(description="")
    def resume_link(self, one: Pause) -> str:
        if not _is_live(one):
            return ""
        return format_html(
            '<a class="rw-button" href="{}">Resume …</a>', reverse("admin:video_pause_resume", args=[one.pk])
        )

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Pause something: GET the form, POST does it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PauseForm(request.POST or None, initial={"what": request.GET.get("what", EVERYTHING)})
        if request.method == "POST" and form.is_valid() and self._pause(request, form):
            return HttpResponseRedirect(reverse("admin:video_pause_changelist"))
        return self.page(request, "admin/video/pause/form.html", title="Pause", form=form)

    def _pause(self, request: HttpRequest, form: PauseForm) -> bool:
        ends, given = form.cleaned_data["ends"], form.words()
        try:
            wanted = pausing.target(**given)
            until = pausing.in_seconds(float(ends)) if ends else None
            made, is_new = pausing.pause(
                wanted, actor=of_request(request), reason=form.cleaned_data["reason"], until=until
            )
        except WrongTarget as err:
            form.add_error("user" if "user" in given else "what", f"{err.message}.")
            return False
        before = "" if is_new else "It was paused already: reason and end are these now. "
        self.message_user(request, f"{before}{pauses.of_row(made).told}.", messages.WARNING)
        return True

    def resume_view(self, request: HttpRequest, pause_id: int) -> HttpResponse:
        """End a pause: GET asks, POST does it."""
        if not request.user.has_perm(MAY_PAUSE):
            raise PermissionDenied
        one = get_object_or_404(Pause.objects.select_related("user"), pk=pause_id)
        if request.method == "POST":
            try:
                pausing.resume(pause_id, actor=of_request(request), reason=request.POST.get("reason", "")[:300])
                self.message_user(request, f"Resumed: {pauses.of_row(one).what}. What waited for it goes on.")
            except ActionRefused as err:
                self.message_user(request, err.message, messages.WARNING)
            return HttpResponseRedirect(reverse("admin:video_pause_changelist"))
        return self.page(request, "admin/video/pause/resume.html", title="Resume", one=pauses.of_row(one))


def _is_live(one: Pause) -> bool:
    return one.ended_at is None and (one.until is None or one.until > timezone.now())
