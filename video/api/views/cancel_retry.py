"""Cancel a video that is under way, and let one that failed go on."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from video.actions import cancel, retry
from video.api import errors
from video.api.base import ApiView, key_id, success, user_id
from video.api.bodies import CancelSerializer, RetrySerializer, fields_of
from video.api.views.video import checked_id, status_of
from video.models import Scope


class CancelView(ApiView):
    """POST /api/video/cancel: 200 with the task's status and what becomes of its credits. Safe to repeat."""

    key_scope = Scope.MANAGE

    def post(self, request: Request) -> HttpResponse:
        task_id = checked_id(fields_of(request, CancelSerializer)["task_id"])
        done = cancel.cancel(task_id, by=_name(request), user_id=user_id(request))
        return success({**status_of(task_id, request), "refund": done.refund.value})


class RetryView(ApiView):
    """POST /api/video/retry: 200 with the task's status and what it costs again."""

    key_scope = Scope.CREATE  # it spends credits

    def post(self, request: Request) -> HttpResponse:
        wanted = fields_of(request, RetrySerializer)
        task_id, free = checked_id(wanted["task_id"]), wanted.get("free", False)
        by_key = key_id(request)
        if free and (by_key is not None or not request.user.has_perm("video.add_creditentry")):
            raise errors.ApiError(403, "forbidden", "free: only those who may grant credits can retry for free.")
        regenerate = wanted.get("regenerate", False)
        done = retry.retry(
            task_id, by=_name(request), user_id=user_id(request), free=free, regenerate=regenerate, api_key=by_key
        )
        return success({**status_of(task_id, request), "run": done.run, "debited": done.debited - done.granted})


def _name(request: Request) -> str:
    return request.user.get_username()
