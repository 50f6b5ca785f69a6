"""A user's own tasks and credits, a page at a time."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors
from video.api.base import ApiView, success, user_id
from video.api.contract import answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import moment, one_of, text
from video.api.views import task_list
from video.api.views.video import origin_of
from video.credits import ledger
from video.infra.camel import camel
from video.models import CreditEntry, Scope

PAGE, LARGEST_PAGE = 20, 100
NO_CURSOR = 2**63 - 1  # above every id


_STATUS = "|".join(task_list.STATUSES)
_FIELD = "|".join(task_list.FIELDS)
_WORD = {"minLength": 1, "maxLength": task_list.LONGEST_SEARCH}
_LIST_PARAMETERS = (
    Parameter("status", text("Only these, with commas between.", pattern=f"^({_STATUS})(,({_STATUS}))*$")),
    Parameter("model", {**text("Only those whose last attempt is of this model, by its id."), **_WORD}),
    Parameter("errorCode", {**text("Only those that failed with this code."), **_WORD}),
    Parameter("text", {**text("Only those with this in their prompt, in capitals or not."), **_WORD}),
    Parameter("createdAfter", moment("Only those made at this time or later.")),
    Parameter("createdBefore", moment("Only those made earlier.")),
    Parameter("endedAfter", moment("Only those that ended at this time or later.")),
    Parameter("endedBefore", moment("Only those that ended earlier.")),
    Parameter("order", {**one_of(task_list.ORDERS, "Falling with a minus before."), "default": "-createdAt"}),
    Parameter(
        "fields", text("What each entry is to have, with commas between.", pattern=f"^({_FIELD})(,({_FIELD}))*$")
    ),
    answers.LIMIT,
    Parameter("cursor", text(answers.OF_THE_PAGE_BEFORE, pattern=r"^([0-9]{1,17}\.)?task_[0-9a-z]{1,35}$")),
)
_ABOUT_LIST = (
    "GET /api/video/tasks: the caller's tasks but for deleted ones. `metadata.<name>=<value>` in the query, also more "
    "than once with other names, shows those that have these pairs. A page may have fewer tasks than `limit` and still "
    "a `nextCursor`, which is null at the end."
)


class TasksView(ApiView):
    """GET /api/video/tasks: the caller's tasks but for deleted ones, newest first. `nextCursor` is null at the end.

    Filters: `status`, `model`, `errorCode`, `text` (of the prompt), `createdAfter`, `createdBefore`, `endedAfter`,
    `endedBefore`, `metadata.<name>`. `order`: createdAt, endedAt, falling with a minus before. `fields`: names of what
    each entry is to have. A page may have fewer tasks than `limit` and still a next one.
    """

    key_scope = Scope.READ
    takes = (*task_list.PARAMETERS, "metadata.<name>")

    def takes_parameter(self, name: str) -> bool:
        return task_list.takes(name)

    has_etag = True

    @describe(
        "Tasks",
        "List one's tasks",
        about=_ABOUT_LIST,
        parameters=_LIST_PARAMETERS,
        answers={200: Answer("A page, newest first.", answers.TASKS)},
        errors="invalid_request",
    )
    def get(self, request: Request) -> HttpResponse:
        query: dict[str, Any] = request.GET.dict()
        found = task_list.page(task_list.read(query, user_id(request)), limit_of(query), origin_of(request))
        return success({"tasks": found.tasks, "nextCursor": found.next_cursor})


class CreditsView(ApiView):
    """GET /api/credits?limit=&cursor=: the caller's balance, and the entries of the ledger that explain it."""

    key_scope = Scope.READ
    takes = ("limit", "cursor")
    has_etag = True
    is_compressed = True

    @describe(
        "Credits",
        "Read one's credits",
        parameters=(answers.LIMIT, answers.ENTRY_CURSOR),
        answers={200: Answer("The balance and a page of the ledger, newest first.", answers.CREDITS)},
        errors="invalid_request",
    )
    def get(self, request: Request) -> HttpResponse:
        query: dict[str, Any] = request.GET.dict()
        limit, cursor = limit_of(query), query.get("cursor")
        if cursor is not None and not re.fullmatch(r"[1-9][0-9]{0,17}", cursor):
            raise task_list.bad_cursor()
        # One statement, by the index `entry_list_of_account`.
        older = CreditEntry.objects.filter(account_id=user_id(request), pk__lt=int(cursor or NO_CURSOR))
        rows = list(older.order_by("-pk")[: limit + 1])
        entries = [camel(row, "kind amount task_id run created_at=at") for row in rows[:limit]]
        last = str(rows[limit - 1].pk) if len(rows) > limit else None
        return success({"balance": ledger.balance(user_id(request)), "entries": entries, "nextCursor": last})


def limit_of(query: dict[str, Any]) -> int:
    """How many rows a page is to have. Raises ApiError."""
    text = query.get("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= LARGEST_PAGE:
        raise errors.invalid("limit", f"must be a whole number from 1 to {LARGEST_PAGE}")
    return int(text)
