"""The jobs that operators asked for: a list with what can be asked for, and a page of each that follows by itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from video.actions import jobs
from video.actions.jobs import JobRefused
from video.admin import remedies
from video.admin.read_only import ReadOnlyAdmin, ago, badge
from video.infra.durations import span
from video.models import OperatorJob
from video.monitoring.remedies import CHECK_LEDGER, CHECK_PROVIDERS, LOOK_AT_STORAGE, RECONCILE
from video.web.actors import of_request

TONES = {"waiting": "waiting", "running": "running", "done": "success", "failed": "failed", "stopped": "cancelled"}
#: Who may ask for a kind may stop it.
PERMISSIONS = {
    OperatorJob.Kind.RETRY: "video.change_videotask",
    OperatorJob.Kind.CANCEL: "video.change_videotask",
    OperatorJob.Kind.CHECK_LEDGER: "video.change_videotask",
    OperatorJob.Kind.CLEANUP_STORAGE: "video.change_videotask",
    OperatorJob.Kind.RECONCILE: "video.change_generation",
    OperatorJob.Kind.CHECK_KEYS: "video.change_providerkey",
}


@admin.register(OperatorJob)
class OperatorJobAdmin(ReadOnlyAdmin):
    list_display = ("job", "about", "state_badge", "progress", "asked_by", "asked", "summary")
    list_filter = ("kind", "state")
    ordering = ("-id",)
    list_before_template = "admin/video/operatorjob/_ask.html"
    change_form_template = "admin/video/operatorjob/page.html"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:job_id>/stop/", view(self.stop_view), name="video_operatorjob_stop"),
            path("<int:job_id>/delete-found/", view(self.clean_view), name="video_operatorjob_clean"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        offered = (CHECK_LEDGER, LOOK_AT_STORAGE, RECONCILE, CHECK_PROVIDERS)
        buttons = remedies.buttons(offered, request)
        return super().changelist_view(request, {**(extra_context or {}), "buttons": buttons, "title": "Jobs"})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        job = self.get_object(request, unquote(object_id))
        extra = dict(extra_context or {})
        if isinstance(job, OperatorJob) and self.has_view_permission(request, job):
            extra |= self._page(request, job)
        response = super().change_view(request, object_id, form_url, extra)
        response["Cache-Control"] = "no-store"
        return response

    def _page(self, request: HttpRequest, job: OperatorJob) -> dict[str, Any]:
        kind = OperatorJob.Kind(job.kind)
        may = request.user.has_perm(PERMISSIONS[kind])
        is_look = kind == OperatorJob.Kind.CLEANUP_STORAGE and job.arguments.get("dryRun")
        tasks = reverse("admin:video_videotask_changelist")
        return {
            "title": f"Job {job.pk}: {job.get_kind_display()}",
            "job": job,
            "about": jobs.words(kind, job.arguments),
            "tone": TONES[job.state],
            "refused_word": "refused" if "until" in job.arguments else "not as it should be",
            "took": span((job.ended_at - job.started_at).total_seconds()) if job.ended_at and job.started_at else "",
            "may_stop": may and job.is_open,
            "may_clean": may and is_look and job.state == OperatorJob.State.DONE and job.done > 0,
            "list_url": f"{tasks}?{urlencode(job.arguments['address'])}" if job.arguments.get("address") else "",
        }

    def stop_view(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """POST: end it; what it has done stays done."""
        job = self._of_post(request, job_id)
        try:
            jobs.stop(job.pk, by=of_request(request))
        except JobRefused as err:
            self.message_user(request, str(err), messages.WARNING)
        return self._to(job)

    def clean_view(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """POST: delete what this look at the storage has found."""
        look = self._of_post(request, job_id)
        try:
            arguments = jobs.of_cleanup(look)
        except JobRefused as err:
            self.message_user(request, str(err), messages.ERROR)
            return self._to(look)
        return self._to(jobs.ask(OperatorJob.Kind.CLEANUP_STORAGE, arguments, by=of_request(request))[0])

    def _of_post(self, request: HttpRequest, job_id: int) -> OperatorJob:
        job = OperatorJob.objects.filter(pk=job_id).first()
        if job is None:
            raise Http404
        if request.method != "POST" or not request.user.has_perm(PERMISSIONS[OperatorJob.Kind(job.kind)]):
            raise PermissionDenied
        return job

    def _to(self, job: OperatorJob) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:video_operatorjob_change", args=[job.pk]))

    @admin.display(description="job", ordering="id")
    def job(self, job: OperatorJob) -> str:
        return f"{job.pk}: {job.get_kind_display()}"

    @admin.display(description="about")
    def about(self, job: OperatorJob) -> str:
        return jobs.words(OperatorJob.Kind(job.kind), job.arguments)

    @admin.display(description="state")
    def state_badge(self, job: OperatorJob) -> SafeString:
        return badge(TONES[job.state], job.state)

    @admin.display(description="progress")
    def progress(self, job: OperatorJob) -> SafeString:
        of = "" if job.of is None else f" of {job.of}"
        refused = f", {job.refused} refused" if job.refused else ""
        return format_html('<span class="rw-num">{}{}{}</span>', job.done, of, refused)

    @admin.display(description="asked")
    def asked(self, job: OperatorJob) -> str:
        return ago(job.created_at)
