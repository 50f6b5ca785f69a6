"""Cancel videos that are under way, and let those that failed go on: one, or up to 100 by one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from video.actions import cancel, retry
from video.actions.cancel import Cancelled
from video.actions.retry import Retried
from video.actions.task_rows import TaskDeleted
from video.api import errors, idempotency
from video.api.base import ApiView, key_id, user_id
from video.api.bodies import CancelSerializer, RetrySerializer, fields_of
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.api.views.video import checked_id, origin_of, status_of, statuses
from video.audit.actors import Unaudited
from video.infra.errors import Refusal
from video.models import Scope
from video.web.idempotency import Done

Outcome = Cancelled | Retried | Refusal


class CancelView(ApiView):
    """POST /api/video/cancel: 200 with the task's status and what becomes of its credits. Safe to repeat.

    With `taskIds` an entry for each of them: that, or a `refusal`.
    """

    key_scope = Scope.MANAGE

    @describe(
        "Tasks",
        "Cancel a task, or several",
        about="POST /api/video/cancel: the task's status and what becomes of its credits; with `taskIds` an entry for "
        "each of them, that or a `refusal`. Safe to repeat.",
        body=CancelSerializer,
        parameters=(answers.IDEMPOTENCY_KEY,),
        answers={
            200: Answer(
                "The task, and what becomes of its credits; by `taskIds` an entry for each.",
                answers.CANCELLED_OR_MANY,
                headers=answers.REPLAYED,
            )
        },
        errors="not_found not_cancellable task_deleted idempotency_key_reused idempotency_key_in_use",
        examples={"A task": {"taskId": "task_01jd3v4k"}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, CancelSerializer)
        if several := fields.get("task_ids"):
            return idempotency.once(request, partial(_cancel_many, request, several))
        return idempotency.once(request, partial(_cancel, request, checked_id(fields["task_id"])))


def _cancel(request: Request, task_id: str) -> Done:
    done = cancel.cancel(task_id, by=_name(request), user_id=user_id(request))
    return Done({**status_of(task_id, request), **_told(done)}, changed=done.changed)


def _cancel_many(request: Request, task_ids: list[str]) -> Done:
    done = cancel.cancel_many(task_ids, by=_name(request), user_id=user_id(request))
    changed = any(isinstance(one, Cancelled) and one.changed for one in done.values())
    return Done(_each(request, task_ids, done), changed=changed)


class RetryView(ApiView):
    """POST /api/video/retry: 200 with the task's status and what it costs again.

    With `taskIds` an entry for each of them, in this order as far as the credits go: that, or a `refusal`.
    """

    key_scope = Scope.CREATE  # it spends credits

    @describe(
        "Tasks",
        "Let a failed task go on, or several",
        about="POST /api/video/retry: the task's status and what it costs again; with `taskIds` an entry for each of "
        "them, in this order as far as the credits go: that, or a `refusal`.",
        body=RetrySerializer,
        parameters=(answers.IDEMPOTENCY_KEY,),
        answers={
            200: Answer(
                "The task, and what it costs again; by `taskIds` an entry for each.",
                answers.RETRIED_OR_MANY,
                headers=answers.REPLAYED,
            )
        },
        errors="not_found not_retryable attempt_unsettled source_gone user_off model_unavailable task_deleted "
        "original_gone forbidden insufficient_credits key_limit_reached price_too_high storage_full "
        "idempotency_key_reused "
        "idempotency_key_in_use too_many_waiting too_many_live",
        examples={
            "Where it stopped": {"taskId": "task_01jd3v4k"},
            "Anew, and paid again": {"taskId": "task_01jd3v4k", "regenerate": True},
        },
    )
    def post(self, request: Request) -> HttpResponse:
        wanted = fields_of(request, RetrySerializer)
        by_key = key_id(request)
        if wanted.get("free", False) and (by_key is not None or not request.user.has_perm("video.add_creditentry")):
            raise errors.ApiError(403, "forbidden", "free: only those who may grant credits can retry for free.")
        if several := wanted.pop("task_ids", None):
            return idempotency.once(request, partial(_retry_many, request, several, api_key=by_key, **wanted))
        checked_id(wanted["task_id"])
        return idempotency.once(request, partial(_retry, request, api_key=by_key, **wanted))


def _retry(request: Request, task_id: str, *, api_key: str | None, **how: Any) -> Done:
    done = retry.retry(task_id, by=_name(request), user_id=user_id(request), api_key=api_key, **how)
    return Done({**status_of(task_id, request), **_told(done)})


def _retry_many(request: Request, task_ids: list[str], *, api_key: str | None, **how: Any) -> Done:
    done = retry.retry_many(task_ids, by=_name(request), user_id=user_id(request), api_key=api_key, **how)
    changed = any(isinstance(one, Retried) for one in done.values())
    return Done(_each(request, task_ids, done), changed=changed)


def _told(done: Cancelled | Retried) -> dict[str, Any]:
    if isinstance(done, Cancelled):
        return {"refund": done.refund.value}
    return {"run": done.run, "debited": done.debited - done.granted}


def _each(request: Request, task_ids: Sequence[str], done: Mapping[str, Outcome]) -> dict[str, Any]:
    """An entry for each task, in the order of the request; the statuses of all are one statement."""
    well = [one for one in task_ids if not isinstance(done[one], Refusal)]
    shown = statuses(well, origin_of(request)) if well else {}
    tasks = []
    for one in task_ids:
        outcome = done[one]
        if isinstance(outcome, Refusal) or one not in shown:  # the latter was deleted in this very moment
            refusal = outcome if isinstance(outcome, Refusal) else TaskDeleted()
            tasks.append({"taskId": one, "refusal": errors.told(refusal)})
        else:
            tasks.append({**shown[one], **_told(outcome)})
    return {"tasks": tasks, "done": len(shown), "refused": len(task_ids) - len(shown)}


def _name(request: Request) -> Unaudited:
    return Unaudited(request.user.get_username())
