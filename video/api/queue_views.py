"""How the queues do, and one task's whole story: staff see the system, users what is theirs."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from video import figures
from video.api.base import ApiView, success, user_id
from video.figures import as_json, users


class QueuesView(ApiView):
    """GET /api/queues/status: all queues for staff who may look at tasks and accounts, else the caller's own tasks."""

    def get(self, request: Request) -> Response:
        if figures.may_see_all(request.user):
            return success(as_json.system(figures.read()))
        return success(as_json.own(users.of_user(user_id(request))))
