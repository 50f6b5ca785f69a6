"""The state of the queues, and one task's details: staff see the whole system, users their own tasks."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors, task_details
from video.api.base import ApiView, success, user_id
from video.api.views.video import checked_id, status_of
from video.models import Scope
from video.monitoring import as_json, overview, users


class QueuesView(ApiView):
    """GET /api/queues/status: all queues for staff who may look at tasks and accounts, else the caller's own tasks."""

    key_scope = Scope.READ
    is_compressed = True

    def get(self, request: Request) -> HttpResponse:
        if overview.may_see_all(request.user):
            return success(as_json.system(overview.read()))
        return success(as_json.own(users.of_user(user_id(request))))


class TaskView(ApiView):
    """GET /api/queues/tasks/{taskId}: one task's timeline, attempts and money, for its owner and for such staff."""

    key_scope = Scope.READ

    def get(self, request: Request, task_id: str) -> HttpResponse:
        task_id, staff = checked_id(task_id), overview.may_see_all(request.user)
        task = task_details.find(task_id, of_user=None if staff else user_id(request))
        if task is None:
            raise errors.not_found()
        status = status_of(task.pk, request, owner_id=task.user_id, deleted_too=staff)
        return success({**status, **task_details.details(task, staff=staff)})
