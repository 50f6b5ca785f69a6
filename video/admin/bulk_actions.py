"""Cancel and retry from the list of tasks and a task's page: first what would happen, then how it went, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from video.actions import cancel, retry
from video.actions.task_rows import ActionRefused
from video.admin.read_only import ModelAdmin, short
from video.credits.ledger import InsufficientCredits
from video.models import VideoTask

MOST = 200  # at once; the commands take any number
MOST_TOLD = 20  # one by one


@dataclass(frozen=True)
class Told:
    """What would become of one task, or became of it."""

    task_id: str
    says: str
    ok: bool

    @property
    def short_id(self) -> str:
        return short(self.task_id)


class Steering(ModelAdmin):
    """The two actions, for the admin of tasks. Looking needs `view`; these need `change`."""

    def has_steer_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may cancel and retry."""
        return bool(request.user.has_perm("video.change_videotask"))

    @admin.action(description="Cancel …", permissions=["steer"])
    def cancel_chosen(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> HttpResponse | None:
        """Cancel those that are under way."""
        return self._steer(
            request, queryset, "cancel", cancel.would_cancel, partial(cancel.cancel, by=_operator(request))
        )

    @admin.action(description="Retry …", permissions=["steer"])
    def retry_chosen(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> HttpResponse | None:
        """Let those that failed, or were cancelled, go on where they stopped."""
        free = "free" in request.POST and request.user.has_perm("video.add_creditentry")
        anew = "regenerate" in request.POST
        return self._steer(
            request,
            queryset,
            "retry",
            partial(retry.would_retry, free=free, regenerate=anew),
            partial(retry.retry, by=_operator(request), free=free, regenerate=anew),
        )

    def _steer(
        self,
        request: HttpRequest,
        queryset: QuerySet[VideoTask],
        verb: str,
        preview: Callable[[str], Any],
        act: Callable[[str], Any],
    ) -> HttpResponse | None:
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: MOST + 1])
        if len(ids) > MOST:
            said = f"At most {MOST} at once here; `manage.py {verb}_tasks` takes any number. Nothing was changed."
            self.message_user(request, said, messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            return self._ask(request, verb, [_told(task_id, preview) for task_id in ids])
        told = [_told(task_id, act) for task_id in ids]
        self._tell(request, verb, told)
        if "from_page" in request.POST and len(ids) == 1:
            return HttpResponseRedirect(reverse("admin:video_videotask_change", args=[ids[0]]))
        return None

    def _ask(self, request: HttpRequest, verb: str, told: Sequence[Told]) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{verb.capitalize()} {len(told)} task{'' if len(told) == 1 else 's'}?",
            "verb": verb,
            "told": told,
            "possible": sum(one.ok for one in told),
            "action": request.POST["action"],
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "from_page": "from_page" in request.POST,
            "may_grant": request.user.has_perm("video.add_creditentry"),
        }
        return TemplateResponse(request, "admin/video/videotask/steer.html", context)

    def _tell(self, request: HttpRequest, verb: str, told: Sequence[Told]) -> None:
        """A message and a line in the log for each; of many only those that could not be done, and a sum."""
        tasks = VideoTask.objects.in_bulk([one.task_id for one in told if one.ok])
        for one in told:
            if one.ok:
                self.log_change(request, tasks[one.task_id], f"{verb.capitalize()}: {one.says}")
        shown = told if len(told) <= MOST_TOLD else [one for one in told if not one.ok][:MOST_TOLD]
        for one in shown:
            level = messages.SUCCESS if one.ok else messages.ERROR
            self.message_user(request, f"{one.short_id}: {one.says}.", level)
        if len(told) > MOST_TOLD:
            done = sum(one.ok for one in told)
            self.message_user(request, f"{verb.capitalize()}: {done} done, {len(told) - done} not.")


def _operator(request: HttpRequest) -> str:
    return f"operator {request.user.get_username()}"


def _told(task_id: str, act: Callable[[str], Any]) -> Told:
    try:
        done = act(task_id)
    except ActionRefused as err:
        return Told(task_id, err.message.rstrip("."), ok=False)
    except InsufficientCredits as err:
        return Told(task_id, f"its user is short of credits: {err}".rstrip("."), ok=False)
    if isinstance(done, cancel.Cancelled) and not done.changed:
        return Told(task_id, f"cancelled before; {done.refund.words}", ok=True)
    return Told(task_id, done.words, ok=True)
