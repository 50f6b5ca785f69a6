"""A stream of one's tasks as they change."""

from __future__ import annotations

import re

from django.http import HttpResponse, HttpResponseBase
from rest_framework.request import Request

from video.api import errors
from video.api.base import ApiView, user_id
from video.api.contract import answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import text
from video.api.views.video import checked_id, newest_event, origin_of, status_of, statuses
from video.infra import database
from video.models import Scope
from video.web.front.changes import ENDED, Listener, message
from video.web.front.streams import EventStream

EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
NEVER = 2**63 - 1  # above every event
#: Of the user's tasks, the newest that are looked at for what a stream begins with, and how many it begins with.
LOOKED_AT, MOST_FIRST = 1000, 200


class EventsView(ApiView):
    """GET /api/video/events[?taskId=…]: server-sent events, each the status of a task as `video/status` shows it.

    Without a task: all of the caller's. It begins with the task, or with those that have not ended; after a
    reconnection (`Last-Event-ID`) with those, too, that changed since. One task's stream ends with it; who then comes
    again is answered 204, after which a browser's EventSource does not come back.
    """

    key_scope = Scope.READ
    takes = ("taskId",)

    @describe(
        "Tasks",
        "Follow tasks as they change",
        parameters=(
            Parameter("taskId", answers.TASK_ID),
            Parameter(
                "Last-Event-ID",
                text("The last event that was seen; empty as if left out.", pattern="^[0-9]{0,18}$"),
                place="header",
            ),
        ),
        answers={
            200: Answer(
                "A stream. Each event's `data` is a Task as `status` answers it.",
                text("Server-sent events."),
                media_type="text/event-stream",
            ),
            204: Answer("The task has ended, and its last event was seen."),
        },
        errors="invalid_request not_found task_deleted overloaded",
    )
    def get(self, request: Request) -> HttpResponseBase:
        task_id, since = request.GET.get("taskId"), _last_event(request)
        newest = newest_event()  # before what is read: nothing is missed between the two
        owner, base = user_id(request), origin_of(request)
        if task_id is not None:
            known = {checked_id(task_id): status_of(task_id, request)}
            if known[task_id]["status"] in ENDED and since is not None and _changed(owner, since, task_id) == []:
                return HttpResponse(status=204)
        else:
            known = statuses(_changed(owner, NEVER if since is None else since), base)
        first = [message(known[one], newest) for one in sorted(known)]
        active = {one: status for one, status in known.items() if status["status"] not in ENDED}
        listener = Listener(owner, task_id, newest, told=active, render=statuses, base=base)
        listener.is_over = task_id is not None and not active
        return EventStream(listener, first)


def _changed(owner: int, since: int, task_id: str | None = None) -> list[str]:
    """The caller's tasks that have not ended or have an event after this one; of one task: that, if it has one."""
    rows = database.fetch(
        """
        SELECT id FROM (
            SELECT id, finished_at FROM video_videotask
            WHERE user_id = %(owner)s AND (%(task)s::text IS NULL OR id = %(task)s) ORDER BY id DESC LIMIT %(looked_at)s
        ) t
        WHERE finished_at IS NULL OR EXISTS (SELECT FROM video_taskevent WHERE task_id = t.id AND id > %(since)s)
        ORDER BY id DESC LIMIT %(most)s
        """,
        {"owner": owner, "since": since, "task": task_id, "looked_at": LOOKED_AT, "most": MOST_FIRST},
    )
    return [one for (one,) in rows]


def _last_event(request: Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or None
    if text is None:
        return None
    if not EVENT_ID.fullmatch(text):
        raise errors.invalid("Last-Event-ID", "must be the id of an event that this address has sent")
    return int(text)
