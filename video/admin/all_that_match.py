"""Retry or cancel all tasks that match the filters of an address: a preview, then a job that a sweeper does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from video.actions import jobs, retry_preview, task_filters
from video.actions.task_filters import InvalidSelection
from video.admin.read_only import PageAdmin
from video.models import OperatorJob
from video.web.actors import of_request

MOST_SHOWN = 20  # tasks of a preview, one by one
_KINDS = {"retry": OperatorJob.Kind.RETRY, "cancel": OperatorJob.Kind.CANCEL}


class AllThatMatch(PageAdmin):
    """The two pages, for the admin of tasks. They need the permission `change`, a free retry that of grants too."""

    def get_urls(self) -> list[URLPattern]:
        own = path("all/<str:verb>/", self.admin_site.admin_view(self.all_view), name="video_videotask_all")
        return [own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_steer_all = request.user.has_perm("video.change_videotask")
        return super().changelist_view(request, {**(extra_context or {}), "may_steer_all": may_steer_all})

    def all_view(self, request: HttpRequest, verb: str) -> HttpResponse:
        """GET: what would become of them. POST: ask for the job, and go to its page."""
        if verb not in _KINDS:
            raise Http404
        if not request.user.has_perm("video.change_videotask"):
            raise PermissionDenied
        filters = task_filters.given(request.GET)
        chosen = {name: name in request.POST for name in ("free", "regenerate")}
        chosen["free"] &= request.user.has_perm("video.add_creditentry")
        try:
            arguments = jobs.of_tasks(_KINDS[verb], filters, free=chosen["free"], regenerate=chosen["regenerate"])
        except InvalidSelection as err:
            self.message_user(request, str(err), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:video_videotask_changelist"))
        if request.method == "POST" and "confirmed" in request.POST:
            job, is_new = jobs.ask(_KINDS[verb], arguments, by=of_request(request))
            if not is_new:
                self.message_user(request, "The same was asked for already: this is its job.", messages.WARNING)
            return HttpResponseRedirect(reverse("admin:video_operatorjob_change", args=[job.pk]))
        return self._preview(request, verb, filters, arguments, chosen)

    def _preview(
        self,
        request: HttpRequest,
        verb: str,
        filters: dict[str, str],
        arguments: dict[str, Any],
        chosen: dict[str, bool],
    ) -> HttpResponse:
        rows = jobs.rows_of(_KINDS[verb], arguments)
        found: retry_preview.Preview | None = None
        shown: Sequence[Any] = ()
        if verb == "retry":
            found = retry_preview.preview(rows, **chosen)
            shown = found.tasks[:MOST_SHOWN]
            number, counted = found.number, found.counted
        else:
            number = rows.order_by().values("pk")[: retry_preview.MOST_COUNTED + 1].count()
            most = retry_preview.MOST_COUNTED
            counted = f"more than {most:,}" if number > most else f"{number:,}"
        return self.page(
            request,
            "admin/video/videotask/all.html",
            title=f"{verb.capitalize()} all that match",
            verb=verb,
            words=task_filters.words(filters) if filters else "",
            preview=found,
            shown=shown,
            number=number,
            counted=counted,
            chosen=chosen,
            free=chosen["free"],
            may_grant=request.user.has_perm("video.add_creditentry"),
            query=request.GET.urlencode(),
        )
