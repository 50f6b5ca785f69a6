"""Delete one's task: its files at once, and all of its row that is its user's own."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from video.actions import delete
from video.api.base import ApiView, success, user_id
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.api.views.video import checked_id
from video.models import Scope
from video.monitoring import as_json
from video.scheduling import storage_quota


class OwnTaskView(ApiView):
    """DELETE /api/video/tasks/{taskId}: 200, also when it was deleted before. A task under way is refused with 409."""

    key_scope = Scope.MANAGE

    @describe(
        "Tasks",
        "Delete a task",
        parameters=(answers.TASK_IN_PATH,),
        answers={200: Answer("It is deleted, now or before.", answers.DELETED)},
        errors="not_found task_active",
    )
    def delete(self, request: Request, task_id: str) -> HttpResponse:
        done = delete.delete(checked_id(task_id), user_id=user_id(request))
        return success({"taskId": done.task_id, "deleted": True, "filesLeft": done.files_left})


class StorageView(ApiView):
    """GET /api/storage: what the caller's stored files come to, and what they may."""

    key_scope = Scope.READ

    @describe("Credits", "Read what one's files come to", answers={200: Answer("Bytes.", answers.STORAGE)})
    def get(self, request: Request) -> HttpResponse:
        return success(as_json.storage(storage_quota.of_user(user_id(request))))
