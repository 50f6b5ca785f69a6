"""A user's own tasks and credits, newest first, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from django.db import connection
from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors, stored
from video.api.base import ApiView, success, user_id
from video.api.bodies import TASK_ID
from video.api.views.video import origin_of, shown
from video.credits import ledger
from video.infra.camel import camel, utc
from video.models import ACTIVE, CreditEntry, Scope, Status

PAGE, LARGEST_PAGE = 20, 100
NO_CURSOR = 2**63 - 1  # above every id
#: The API's words for a status, and the rows that they stand for.
STATUSES: dict[str, tuple[Status, ...]] = {
    "pending": (Status.PENDING,),
    "running": (Status.RUNNING,),
    "success": (Status.SUCCESS,),
    "failed": (Status.FAILED, Status.CANCELLED),
}


class TasksView(ApiView):
    """GET /api/video/tasks?status=&limit=&cursor=: the caller's tasks but for deleted ones. `nextCursor` is null at
    the end.
    """

    key_scope = Scope.READ

    def get(self, request: Request) -> HttpResponse:
        asked = _asked(request, {"status", "limit", "cursor"})
        status, limit, cursor = asked.get("status"), _limit(asked), asked.get("cursor")
        if status is not None and status not in STATUSES:
            raise errors.invalid("status", f"must be one of {', '.join(STATUSES)}")
        if cursor is not None and not TASK_ID.fullmatch(cursor):
            raise _bad_cursor()
        rows = _tasks(user_id(request), STATUSES[status] if status else (), limit + 1, cursor)
        tasks = [_task(row, request) for row in rows[:limit]]
        return success({"tasks": tasks, "nextCursor": tasks[-1]["taskId"] if len(rows) > limit else None})


class CreditsView(ApiView):
    """GET /api/credits?limit=&cursor=: the caller's balance, and the entries of the ledger that explain it."""

    key_scope = Scope.READ

    def get(self, request: Request) -> HttpResponse:
        asked = _asked(request, {"limit", "cursor"})
        limit, cursor = _limit(asked), asked.get("cursor")
        if cursor is not None and not re.fullmatch(r"[1-9][0-9]{0,17}", cursor):
            raise _bad_cursor()
        # One statement, by the index `entry_list_of_account`.
        older = CreditEntry.objects.filter(account_id=user_id(request), pk__lt=int(cursor or NO_CURSOR))
        rows = list(older.order_by("-pk")[: limit + 1])
        entries = [camel(row, "kind amount task_id run created_at=at") for row in rows[:limit]]
        last = str(rows[limit - 1].pk) if len(rows) > limit else None
        return success({"balance": ledger.balance(user_id(request)), "entries": entries, "nextCursor": last})


def _asked(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's parameters; unknown ones and those that come twice are refused."""
    for name in request.GET:
        if name not in known:
            raise errors.invalid(name[:60], f"is not known here; there are {', '.join(sorted(known))}")
        if len(request.GET.getlist(name)) > 1:
            raise errors.invalid(name, "is given twice")
    return {name: request.GET[name] for name in request.GET}


def _limit(asked: dict[str, str]) -> int:
    text = asked.get("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= LARGEST_PAGE:
        raise errors.invalid("limit", f"must be a whole number from 1 to {LARGEST_PAGE}")
    return int(text)


def _bad_cursor() -> errors.ApiError:
    return errors.invalid("cursor", "must be the nextCursor of an earlier answer")


def _tasks(user: int, statuses: tuple[Status, ...], number: int, after: str | None) -> list[tuple[Any, ...]]:
    """One statement: by the index `task_list_of_user`, active ones by `task_active_of_user`."""
    where = ""
    if statuses:
        where += " AND t.status = ANY(%(statuses)s)"
        where += " AND t.finished_at IS NULL" if set(statuses) <= set(ACTIVE) else ""
    if after:
        # The id orders rows of equal times; the first condition is the one that the index serves.
        where += """ AND t.created_at <= (SELECT created_at FROM video_videotask WHERE id = %(after)s)
            AND (t.created_at, t.id) < (SELECT created_at, id FROM video_videotask
                WHERE id = %(after)s AND user_id = %(user)s)"""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT t.id, t.prompt, t.created_at, t.finished_at, t.run,
                t.status, t.progress, t.stage, t.error_code, t.error_message, {stored.COLUMNS},
                (SELECT g.model FROM video_generation g WHERE g.task_id = t.id ORDER BY g.attempt DESC LIMIT 1),
                t.warnings, t.metadata
            FROM video_videotask t WHERE t.user_id = %(user)s AND t.gone_why <> 'deleted'{where}
            ORDER BY t.created_at DESC, t.id DESC LIMIT %(number)s
            """,  # noqa: S608 - conditions of this function alone
            {"user": user, "statuses": [status.value for status in statuses], "after": after, "number": number},
        )
        return cursor.fetchall()


def _task(row: tuple[Any, ...], request: Request) -> dict[str, Any]:
    task_id, prompt, created_at, finished_at, run, *status = row
    return {
        **shown(task_id, tuple(status), origin_of(request)),
        "prompt": prompt,
        "run": run,
        "createdAt": utc(created_at),
        "finishedAt": None if finished_at is None else utc(finished_at),
    }
