"""Open cases: unsettled attempts that may have cost money, and the two actions of an operator on them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from video.admin import timeline
from video.admin.read_only import PageAdmin, clock
from video.attempts import attach_requests, unsettled
from video.infra.durations import span
from video.models import Generation
from video.routing import key_labels
from video.web import actors

LIST, ONE = "video_generation_open_cases", "video_generation_open_case"


class AttachForm(forms.Form):
    """The provider's own id of a job that an operator found there."""

    job_id = forms.CharField(
        label="Job id",
        max_length=unsettled.MAX_JOB_ID,
        widget=forms.TextInput(attrs={"size": 60, "autocomplete": "off", "spellcheck": "false"}),
        help_text="As the provider's dashboard shows it. It can't be changed afterwards.",
    )

    def clean_job_id(self) -> str:
        try:
            return unsettled.clean_job_id(self.cleaned_data["job_id"])
        except unsettled.SettlementRefused as err:
            raise forms.ValidationError(str(err)) from None


class OpenCases(PageAdmin):
    """The pages, part of the admin of attempts."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("open-cases/", view(self.open_cases_view), name=LIST),
            path("open-cases/<str:generation_id>/", view(self.open_case_view), name=ONE),
            *super().get_urls(),
        ]

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Whether the operator may act: to read needs `view`, to act needs `change`."""
        return bool(request.user.has_perm("video.change_generation"))

    def open_cases_view(self, request: HttpRequest) -> HttpResponse:
        """The open cases, the oldest first, and those that were given up lately."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = unsettled.find()
        stake = unsettled.stake(found)
        return self.page(
            request,
            "admin/video/generation/open_cases.html",
            open=[_show(case) for case in found if case.open],
            lost=[_show(case) for case in found if not case.open],
            stake=stake,
            usd=unsettled.amount(stake.usd, "USD"),
            simulated_usd=unsettled.amount(stake.simulated_usd, "USD") if stake.simulated_usd else "",
            days=unsettled.LOST_SHOWN_DAYS,
            title="Open cases",
        )

    def open_case_view(self, request: HttpRequest, generation_id: str) -> HttpResponse:
        """One case, with the two actions."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST" and not self.has_settle_permission(request):
            raise PermissionDenied
        case = unsettled.get(generation_id)
        if case is None:
            raise Http404
        form = AttachForm(request.POST if "attach" in request.POST else None)
        if "settle" in request.POST:
            return self._settle(request, generation_id)
        if "attach" in request.POST and form.is_valid():
            try:
                attach_requests.ask(generation_id, form.cleaned_data["job_id"], actors.of_request(request))
            except unsettled.SettlementRefused as err:
                form.add_error("job_id", str(err))
            else:
                return HttpResponseRedirect(request.path)
        return self.page(
            request,
            "admin/video/generation/open_case.html",
            shown=_show(case),
            facts=_facts(case),
            form=form,
            asked=attach_requests.of(generation_id),
            may_settle=self.has_settle_permission(request),
            title="Open case" if case.open else "Attempt",
        )

    def _settle(self, request: HttpRequest, generation_id: str) -> HttpResponse:
        try:
            settled = unsettled.settle_as_lost(generation_id, actors.of_request(request)).generation
        except unsettled.SettlementRefused as err:
            self.message_user(request, str(err), messages.ERROR)
            return HttpResponseRedirect(request.path)
        self.message_user(request, f"Settled as lost: {settled.pk}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse(f"admin:{LIST}"))


def _show(case: unsettled.UnsettledAttempt) -> dict[str, Any]:
    now = timezone.now()
    word, label = timeline.state_of(case.generation, now)
    if case.open and case.generation.state == Generation.State.UNKNOWN:
        word, label = "unknown", "outcome unknown"
    return {
        "case": case,
        "generation": case.generation,
        "word": word,
        "label": label,
        "key": key_labels.of_generation(case.generation),
        "stake": unsettled.exposure_in_words(case.generation),
        "age": span(case.age_s),
        "next": "" if case.next_at is None else f"in {span((case.next_at - now).total_seconds())}",
        "until": "" if case.until is None else f"{clock(case.until)} UTC",
    }


def _facts(case: unsettled.UnsettledAttempt) -> list[tuple[str, str]]:
    generation, task = case.generation, case.generation.task
    facts = [
        ("At stake", unsettled.exposure_in_words(generation) + (", simulated" if generation.simulated else "")),
        ("Provider and model", f"{generation.provider} {generation.model}"),
        ("Key", key_labels.of_generation(generation)),
        ("Account", key_labels.of_account_row(generation.account)),
        ("Our reference", generation.pk),
        ("Job id", generation.job_id),
        ("Asked for", f"{generation.duration_s} s, {generation.resolution}"),
        ("Sent", clock(generation.sent_at)),
        ("No answer since", clock(generation.unknown_since)),
        ("Accepted", clock(generation.accepted_at)),
        ("Provider says", generation.provider_status),
        ("Looks", str(generation.polls) if generation.polls else ""),
        ("Look-ups by our reference", str(generation.lookups) if generation.lookups else ""),
        ("User", task.user.get_username()),
        ("Task", f"{task.status}, {task.stage}" + (f", {task.error_code}" if task.error_code else "")),
        ("Prompt", task.prompt if len(task.prompt) <= 300 else task.prompt[:299] + "…"),
    ]
    return [(name, value) for name, value in facts if value]
