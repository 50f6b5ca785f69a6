"""Render a stored video anew."""

from __future__ import annotations

import logging

from django.http import HttpResponse
from rest_framework.request import Request

from media_pipeline.errors import DiskFull, StorageDown, StorageRefused
from video.actions import render
from video.actions.render_input import RenderSerializer
from video.api import errors, idempotency
from video.api.base import ApiView, key_id, success, user_id
from video.api.bodies import fields_of
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.api.views.video import PUBLIC_STATUS, checked_id
from video.models import Scope

log = logging.getLogger(__name__)


class RenderView(ApiView):
    """POST /api/video/render: 201 with the new task, or 200 with the one that this Idempotency-Key made before."""

    key_scope = Scope.CREATE

    @describe(
        "Tasks",
        "Render a video anew",
        body=RenderSerializer,
        parameters=(answers.IDEMPOTENCY_KEY,),
        answers={
            200: Answer("The task of this Idempotency-Key.", answers.RENDERED, headers=answers.REPLAYED),
            201: Answer("The new task.", answers.RENDERED),
        },
        errors="not_found task_deleted not_finished original_gone insufficient_credits key_limit_reached storage_full "
        "idempotency_key_reused too_many_waiting too_many_live unavailable",
        examples={"Half the size": {"taskId": "task_01jd3v4k", "resolution": "480p"}},
    )
    def post(self, request: Request) -> HttpResponse:
        key = idempotency.key_of(request)
        changes = dict(fields_of(request, RenderSerializer))
        first = checked_id(changes.pop("task_id"))
        try:
            task, is_new = render.render(user_id(request), first, changes, idempotency_key=key, api_key=key_id(request))
        except (DiskFull, StorageDown, StorageRefused) as err:
            log.error("the original of %s can't be copied: %s", first, err)  # noqa: TRY400 - nothing of ours broke
            raise errors.ApiError(
                503, "unavailable", "The video can't be rendered just now. Please try again in a moment."
            ) from None
        status = PUBLIC_STATUS.get(task.status, str(task.status))
        response = success(
            {
                "taskId": task.pk,
                "renderOf": task.render_of_id,
                "status": status,
                **({"metadata": task.metadata} if task.metadata else {}),
            },
            status=201 if is_new else 200,
        )
        if not is_new:
            response[idempotency.REPLAYED] = "true"
        return response
