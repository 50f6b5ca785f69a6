"""Create a video, and read its status."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpResponse, HttpResponseBase
from rest_framework.request import Request

from providers import catalogue
from video.actions import create
from video.actions.order_input import CreateSerializer
from video.actions.task_rows import TaskDeleted
from video.api import errors, idempotency, stored
from video.api.base import ApiView, beside, key_id, success, user_id
from video.api.bodies import TASK_ID, fields_of
from video.api.contract import answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import whole
from video.api.parsing import OrderParser, longest_order
from video.api.tokens import Beside
from video.attempts import poll_policy
from video.credits import price
from video.engine import transitions
from video.infra import database
from video.models import ACTIVE, Scope, Status
from video.scheduling import estimates
from video.scheduling.estimates import OWN_BEFORE, OWN_COUNTED
from video.web.front.changes import ENDED, Listener
from video.web.front.streams import Later, can_wait

_COLUMNS = f"""
    SELECT t.status, t.progress, t.stage, t.error_code, t.error_message, t.render_of_id, {stored.COLUMNS},
        g.model, t.warnings, t.metadata, CASE WHEN t.stage = 'poll' AND g.state = 'accepted' THEN ARRAY[
            extract(epoch FROM g.last_polled_at - g.accepted_at),
            extract(epoch FROM statement_timestamp() - g.accepted_at)]::float8[] END,
        t.eligible_models, t.rerun, t.created_at,
        {OWN_BEFORE}
    FROM video_videotask t LEFT JOIN LATERAL (
        SELECT model, state, accepted_at, last_polled_at FROM video_generation
        WHERE task_id = t.id ORDER BY attempt DESC LIMIT 1
    ) g ON true
"""  # noqa: S608 - a constant
_STATUS = f"{_COLUMNS} WHERE t.id = %(task)s AND t.user_id = %(user)s"
_STATUS_OF_CALLER = f"{_COLUMNS} WHERE t.id = %(task)s AND t.user_id = u.id"
_STATUSES = f"""
    SELECT one.id, one.user_id, found.* FROM video_videotask one
    CROSS JOIN LATERAL ({_COLUMNS} WHERE t.id = one.id) found WHERE one.id = ANY(%(tasks)s)
        AND one.gone_why <> 'deleted'
"""  # noqa: S608 - a constant
_FILES = slice(6, 6 + stored.NUMBER)
_SHOWN = _FILES.stop + 4  # columns of `shown`, and the age of a render
LONGEST_WAIT_S = 60
#: What clients may see; a cancelled task is a failed one to them.
PUBLIC_STATUS = {Status.CANCELLED.value: Status.FAILED.value}


class CreateView(ApiView):
    """POST /api/video/create: 201 with the new task, or 200 with the one that this Idempotency-Key made before."""

    key_scope = Scope.CREATE
    parser_classes = (OrderParser,)
    longest_body = longest_order

    def beside_login(self, request: Request) -> Beside | None:
        """The price list, where this process read it some time ago."""
        return Beside(price.SNAPSHOT, {}) if price.is_old() else None

    @describe(
        "Tasks",
        "Create a video",
        body=CreateSerializer,
        parameters=(answers.IDEMPOTENCY_KEY,),
        answers={
            200: Answer(
                "The task that this Idempotency-Key made before.",
                answers.CREATED,
                headers=answers.REPLAYED,
            ),
            201: Answer("The new task.", answers.CREATED, examples=answers.EXAMPLES_OF_CREATE),
        },
        errors="no_capable_model model_unavailable image_unreadable image_too_large no_such_upload "
        "insufficient_credits key_limit_reached price_too_high storage_full idempotency_key_reused too_many_waiting "
        "too_many_live too_many_uploads overloaded unavailable",
        examples={
            "The shortest": {"prompt": "A cat walking in a garden"},
            "A named model": {
                "prompt": "A beautiful sunset over the ocean",
                "duration": 5,
                "aspectRatio": "16:9",
                "model": "runway-gen3",
                "fallback": False,
            },
        },
    )
    def post(self, request: Request) -> HttpResponse:
        key = idempotency.key_of(request)
        if (row := beside(request)) is not None:
            price.note(row[0])
        wanted = fields_of(request, CreateSerializer)
        task, is_new = create.create(user_id(request), **wanted, idempotency_key=key, api_key=key_id(request))
        response = success(
            {
                "taskId": task.pk,
                "status": PUBLIC_STATUS.get(task.status, str(task.status)),
                "estimatedTime": estimates.expected_seconds(catalogue.BY_ID[wanted["models"][0]], task.user_id),
                **({"metadata": task.metadata} if task.metadata else {}),
            },
            status=201 if is_new else 200,
        )
        if not is_new:
            response[idempotency.REPLAYED] = "true"
        return response


class StatusView(ApiView):
    """GET /api/video/status?taskId=…[&wait=30]: how far a task is; its links once it is done.

    `wait`: seconds. A task that has not ended is answered when it changes (a stage or its end, not each step of its
    progress), or when they are over. No thread waits.
    """

    key_scope = Scope.READ
    takes = ("taskId", "wait")
    has_etag = True

    def beside_login(self, request: Request) -> Beside | None:
        """The task itself: each waiting client sends this request every few seconds."""
        given = request.GET
        task_id = given.get("taskId", "")
        if "wait" in given or not TASK_ID.fullmatch(task_id):
            return None
        return Beside(_STATUS_OF_CALLER, {"task": task_id, "most": OWN_COUNTED})

    @describe(
        "Tasks",
        "Read a task's status",
        parameters=(
            Parameter("taskId", answers.TASK_ID, required=True),
            Parameter("wait", whole("Seconds to wait for a change.", 0, LONGEST_WAIT_S)),
        ),
        answers={200: Answer("The task.", answers.TASK, examples=answers.EXAMPLES_OF_STATUS)},
        errors="invalid_request not_found task_deleted overloaded",
    )
    def get(self, request: Request) -> HttpResponseBase:
        given = request.GET
        task_id, wait = given.get("taskId", ""), given.get("wait")
        if not task_id:
            raise errors.invalid("taskId", "is missing; ask as /api/video/status?taskId=task_…")
        if wait is None:
            row = beside(request)
            base = "" if row is None or row[0] in ACTIVE else origin_of(request)  # only an ended task has links
            return success(_whole(checked_id(task_id), user_id(request), row, base))
        wait_s = _wait_s(wait)
        since = newest_event() if wait_s and can_wait(request._request) else None  # before what it must not miss
        status = status_of(task_id, request)
        if since is None or status["status"] in ENDED:
            return success(status)
        return Later(Listener(user_id(request), task_id, since), wait_s)


def _wait_s(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) or int(text) > LONGEST_WAIT_S:
        raise errors.invalid("wait", f"must be a whole number of seconds from 0 to {LONGEST_WAIT_S}")
    return int(text)


def newest_event() -> int:
    """The number of the last event of any task."""
    found: int = database.value("SELECT coalesce(max(id), 0) FROM video_taskevent")
    return found


def checked_id(task_id: str) -> str:
    """A task's id as the caller gave it. Raises a 404 if it has no task's shape."""
    if not TASK_ID.fullmatch(task_id):
        raise errors.not_found()
    return task_id


def status_of(
    task_id: str, request: Request, *, owner_id: int | None = None, deleted_too: bool = False
) -> dict[str, Any]:
    """The caller's task, or `owner_id`'s, as the API shows it. Raises a 404 if it isn't there or isn't theirs, and a
    410 if it was deleted.
    """
    owner = user_id(request) if owner_id is None else owner_id
    rows = database.fetch_prepared(_STATUS, {"task": checked_id(task_id), "user": owner, "most": OWN_COUNTED})
    return _whole(task_id, owner, rows[0] if rows else None, origin_of(request), deleted_too=deleted_too)


def statuses(task_ids: Sequence[str], base: str) -> dict[str, dict[str, Any]]:
    """The same for many tasks, by id, whoever's they are, with links of this origin; one statement."""
    rows = database.fetch(_STATUSES, {"tasks": list(task_ids), "most": OWN_COUNTED})
    return {task_id: _whole(task_id, owner, tuple(row), base, deleted_too=True) for task_id, owner, *row in rows}


def origin_of(request: Request) -> str:
    """Where the caller finds this server: links begin with it."""
    return settings.PUBLIC_BASE_URL or f"{request.scheme}://{request.get_host()}"


def _whole(
    task_id: str, owner: int, row: tuple[Any, ...] | None, base: str, *, deleted_too: bool = False
) -> dict[str, Any]:
    if row is None:
        raise errors.not_found()
    if stored.is_deleted(row[_FILES]) and not deleted_too:
        raise TaskDeleted
    return shown(task_id, _up_to_now(row[:_SHOWN]), base) | _place(*row[_SHOWN:], user_id=owner)


def _place(models: list[str], rerun: bool, created_at: datetime, own: int | None, *, user_id: int) -> dict[str, Any]:
    """Position, expected wait and what is waited for, of a task that waits for a slot; empty for any other."""
    if own is None:
        return {}
    place = estimates.place(models, user_id=user_id, own=own, rerun=rerun, created_at=created_at)
    shown: dict[str, Any] = {"position": place.position}
    if place.expected_wait_s is not None:
        shown["expectedWait"] = place.expected_wait_s
    if place.waits_for is not None:
        shown |= {"waitsFor": str(place.waits_for), "waitsForCode": place.waits_for.code.value}
    return shown


def _up_to_now(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as `shown` takes it: the progress of a job that renders grows between two polls."""
    status, progress, *more, ages_s = row
    if ages_s is not None and None not in ages_s:
        share = poll_policy.progress_since(transitions.render_fraction(progress), *ages_s)
        progress = max(progress, transitions.progress_in_poll(share))
    return status, progress, *more


def shown(task_id: str, row: tuple[Any, ...], base: str) -> dict[str, Any]:
    """A task's status in the API's words; `row` as `_COLUMNS` begins, `base` as of `origin_of`."""
    status, progress, stage, error_code, error_message, render_of, *files, model, warnings, metadata = row
    shown = {"taskId": task_id, "status": PUBLIC_STATUS.get(status, status), "progress": progress, "stage": stage}
    if model is not None:
        shown["model"] = model
    if render_of is not None:
        shown["renderOf"] = render_of
    if status == Status.SUCCESS.value and (odd := json.loads(warnings)):  # as the driver gives it to us
        shown["warnings"] = odd
    if pairs := json.loads(metadata):
        shown["metadata"] = pairs
    if status == Status.FAILED.value:
        shown |= {"error": error_message, "errorCode": error_code}
    elif status == Status.CANCELLED.value:
        shown |= {"error": "This video was cancelled.", "errorCode": "cancelled"}
    return shown | stored.shown(tuple(files), base, success=status == Status.SUCCESS.value)
