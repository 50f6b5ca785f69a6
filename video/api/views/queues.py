"""The state of the queues, and one task's details: staff see the whole system, users their own tasks."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors, task_details
from video.api.base import ApiView, success, user_id
from video.api.contract import answers, queue_answers
from video.api.contract.describe import Answer, describe
from video.api.contract.shapes import described
from video.api.views.video import checked_id, status_of
from video.models import Scope
from video.monitoring import as_json, overview, users


class QueuesView(ApiView):
    """GET /api/queues/status: all queues for staff who may look at tasks and accounts, else the caller's own tasks."""

    key_scope = Scope.READ
    is_compressed = True

    @describe(
        "Queues",
        "Read the state of the queues",
        answers={
            200: Answer(
                "One's own tasks, or all queues for staff; `scope` says which.",
                described(
                    {"oneOf": [queue_answers.OWN_QUEUES, queue_answers.SYSTEM_QUEUES]}, "`scope` says which of the two."
                ),
            )
        },
    )
    def get(self, request: Request) -> HttpResponse:
        if overview.may_see_all(request.user):
            return success(as_json.system(overview.read()))
        return success(as_json.own(users.of_user(user_id(request))))


class TaskView(ApiView):
    """GET /api/queues/tasks/{taskId}: one task's timeline, attempts and money, for its owner and for such staff."""

    key_scope = Scope.READ

    @describe(
        "Queues",
        "Read one task's details",
        parameters=(answers.TASK_IN_PATH,),
        answers={200: Answer("Timeline, attempts and credits.", queue_answers.DETAILS)},
        errors="not_found task_deleted",
    )
    def get(self, request: Request, task_id: str) -> HttpResponse:
        task_id, staff = checked_id(task_id), overview.may_see_all(request.user)
        task = task_details.find(task_id, of_user=None if staff else user_id(request))
        if task is None:
            raise errors.not_found()
        status = status_of(task.pk, request, owner_id=task.user_id, deleted_too=staff)
        return success({**status, **task_details.details(task, staff=staff)})
