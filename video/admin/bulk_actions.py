"""Cancel and retry from the list of tasks and from a task's page: a preview first, then the result of each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from video.actions import cancel, retry, retry_preview
from video.actions.task_rows import ActionRefused
from video.admin.read_only import PageAdmin, short
from video.credits.ledger import InsufficientCredits
from video.infra.durations import count
from video.models import VideoTask
from video.web import actors

MOST = 200  # tasks of one action; the commands take any number
MOST_SHOWN = 20  # results with a message each


@dataclass(frozen=True)
class Result:
    """What an action did to one task, or what it would do."""

    task_id: str
    message: str
    ok: bool
    cause: str = ""  # before a retry: the code with which it failed
    warning: str = ""  # why a retry is known to fail again

    @property
    def short_id(self) -> str:
        return short(self.task_id)


class BulkActions(PageAdmin):
    """The two actions, for the admin of tasks. They need the permission `change`."""

    def has_steer_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may cancel and retry."""
        return bool(request.user.has_perm("video.change_videotask"))

    @admin.action(description="Cancel …", permissions=["steer"])
    def cancel_chosen(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> HttpResponse | None:
        """Cancel the selected tasks that are active."""
        return self._run(
            request, queryset, "cancel", cancel.would_cancel, partial(cancel.cancel, by=actors.of_request(request))
        )

    @admin.action(description="Retry …", permissions=["steer"])
    def retry_chosen(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> HttpResponse | None:
        """Retry the selected tasks that failed or were cancelled: each continues where it stopped."""
        free = "free" in request.POST and request.user.has_perm("video.add_creditentry")
        anew = "regenerate" in request.POST
        return self._run(
            request,
            queryset,
            "retry",
            None,
            partial(retry.retry, by=actors.of_request(request), free=free, regenerate=anew),
        )

    def _run(
        self,
        request: HttpRequest,
        queryset: QuerySet[VideoTask],
        verb: str,
        preview: Callable[[str], Any] | None,
        act: Callable[[str], Any],
    ) -> HttpResponse | None:
        ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: MOST + 1])
        if len(ids) > MOST:
            text = (
                f"At most {MOST} at once here; “{verb.capitalize()} all that match” above the list takes any number, "
            )
            text += f"as does `manage.py {verb}_tasks`. Nothing was changed."
            self.message_user(request, text, messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            if preview is None:
                return self._confirm_retry(request, ids)
            return self._confirm(request, verb, [_result_of(task_id, preview) for task_id in ids])
        results = [_result_of(task_id, act) for task_id in ids]
        self._show(request, verb, results)
        if "from_page" in request.POST and len(ids) == 1:
            return HttpResponseRedirect(reverse("admin:video_videotask_change", args=[ids[0]]))
        return None

    def _confirm_retry(self, request: HttpRequest, ids: Sequence[str]) -> HttpResponse:
        """With the sums of credits and USD, the cause of each, and which of them are known to fail again."""
        found = retry_preview.preview(VideoTask.objects.filter(pk__in=ids))
        results = [
            Result(one.task_id, one.words, one.ok, one.cause if one.ok else "", one.warning) for one in found.tasks
        ]
        return self._confirm(request, "retry", results, preview=found)

    def _confirm(
        self,
        request: HttpRequest,
        verb: str,
        results: Sequence[Result],
        preview: retry_preview.Preview | None = None,
    ) -> HttpResponse:
        return self.page(
            request,
            "admin/video/videotask/steer.html",
            title=f"{verb.capitalize()} {count(len(results), 'task')}?",
            verb=verb,
            preview=preview,
            results=results,
            possible=sum(one.ok for one in results),
            action=request.POST["action"],
            checkbox=helpers.ACTION_CHECKBOX_NAME,
            from_page="from_page" in request.POST,
            may_grant=request.user.has_perm("video.add_creditentry"),
        )

    def _show(self, request: HttpRequest, verb: str, results: Sequence[Result]) -> None:
        """A message for each task; beyond MOST_SHOWN tasks, messages for the refused ones and a sum."""
        shown = results if len(results) <= MOST_SHOWN else [one for one in results if not one.ok][:MOST_SHOWN]
        for one in shown:
            level = messages.SUCCESS if one.ok else messages.ERROR
            self.message_user(request, f"{one.short_id}: {one.message}.", level)
        if len(results) > MOST_SHOWN:
            done = sum(one.ok for one in results)
            self.message_user(request, f"{verb.capitalize()}: {done} done, {len(results) - done} not.")


def _result_of(task_id: str, act: Callable[[str], Any]) -> Result:
    try:
        done = act(task_id)
    except ActionRefused as err:
        return Result(task_id, err.message.rstrip("."), ok=False)
    except InsufficientCredits as err:
        return Result(task_id, f"its user is short of credits: {err}".rstrip("."), ok=False)
    if isinstance(done, cancel.Cancelled) and not done.changed:
        return Result(task_id, f"cancelled before; {done.refund.words}", ok=True)
    return Result(task_id, done.words, ok=True)
