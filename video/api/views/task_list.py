"""A user's tasks, by what the query of a request says: filters, order, place and fields.

Every list goes along an index from the place where the page before it ended, so a page costs the same at the end of a
million tasks as at their begin. What no order serves (a model, an error, words of the prompt) is asked of LOOKED_AT
tasks a page at most: a page may then have fewer tasks than its limit, or none, and still a next one. Pairs of metadata
that are rare among those are found by an index of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from video.actions.order_input import LONGEST_VALUE, PAIR_NAME
from video.api import errors, stored
from video.api.bodies import TASK_ID
from video.api.views.video import shown
from video.infra import database
from video.infra.camel import utc
from video.models import ACTIVE, Status
from video.models.tasks import BY_USER_SQL, MOST_PAIRS

LOOKED_AT = 5000
LONGEST_SEARCH = 200  # characters
#: The API's words for a status, and the rows that they stand for.
STATUSES: dict[str, tuple[Status, ...]] = {
    "pending": (Status.PENDING,),
    "running": (Status.RUNNING,),
    "success": (Status.SUCCESS,),
    "failed": (Status.FAILED, Status.CANCELLED),
}
#: The column of each order, and whether it falls.
ORDERS: dict[str, tuple[str, bool]] = {
    "-createdAt": ("created_at", True),
    "createdAt": ("created_at", False),
    "-endedAt": ("finished_at", True),
    "endedAt": ("finished_at", False),
}
#: What an entry may have.
FIELDS = (
    *(
        "taskId",
        "status",
        "progress",
        "stage",
        "model",
        "warnings",
        "metadata",
        "renderOf",
        "error",
        "errorCode",
        "result",
        "video",
    ),
    *("expiresAt", "expiredAt", "gone", "prompt", "run", "createdAt", "finishedAt"),
)
PAIR = "metadata."
TIMES = ("createdAfter", "createdBefore", "endedAfter", "endedBefore")
PARAMETERS = ("status", "model", "errorCode", "text", *TIMES, "order", "fields", "limit", "cursor")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_ENDED_CURSOR = re.compile(rf"([0-9]{{1,17}})\.({TASK_ID.pattern})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MODEL = "(SELECT g.model FROM video_generation g WHERE g.task_id = t.id ORDER BY g.attempt DESC LIMIT 1)"


@dataclass(frozen=True)
class Asked:
    """What a list is asked for. `along`: conditions that an index serves; `of_each`: what is asked of each task."""

    column: str
    falls: bool
    along: tuple[str, ...]
    of_each: tuple[str, ...]
    params: Mapping[str, Any]
    fields: frozenset[str] | None  # None: all


@dataclass(frozen=True)
class Page:
    """Some of the tasks, and the cursor of the next ones; None at the end."""

    tasks: list[dict[str, Any]]
    next_cursor: str | None


def takes(name: str) -> bool:
    """Whether the query of a list may have this parameter."""
    return name in PARAMETERS or (name.startswith(PAIR) and PAIR_NAME.fullmatch(name[len(PAIR) :]) is not None)


def read(query: Mapping[str, str], user_id: int) -> Asked:
    """The parameters, checked. Raises ApiError, which names the wrong one."""
    order = query.get("order", "-createdAt")
    if order not in ORDERS:
        raise errors.invalid("order", f"must be one of {', '.join(ORDERS)}")
    column, falls = ORDERS[order]
    along = ["t.user_id = %(user)s", "t.gone_why <> 'deleted'"]
    of_each: list[str] = []
    params: dict[str, Any] = {"user": user_id}
    if column == "finished_at":
        along.append("t.finished_at IS NOT NULL")
    for add in (_statuses, _words, _times, _pairs, _cursor):
        add(query, along, of_each, params, order)
    return Asked(column, falls, tuple(along), tuple(of_each), params, _fields(query))


Conditions = list[str]


def _statuses(query: Mapping[str, str], along: Conditions, of_each: Conditions, params: Any, order: str) -> None:
    if "status" not in query:
        return
    words = query["status"].split(",")
    if not all(word in STATUSES for word in words):
        raise errors.invalid("status", f"must be one of {', '.join(STATUSES)}")
    rows = {status for word in words for status in STATUSES[word]}
    params["statuses"] = [status.value for status in rows]
    if rows <= set(ACTIVE):
        along.append("t.finished_at IS NULL AND t.status = ANY(%(statuses)s)")
    else:
        of_each.append("t.status = ANY(%(statuses)s)")


def _words(query: Mapping[str, str], along: Conditions, of_each: Conditions, params: Any, order: str) -> None:
    conditions = {
        "model": f"{_MODEL} = %(model)s",
        "errorCode": "CASE WHEN t.status = 'cancelled' THEN 'cancelled' ELSE t.error_code END = %(errorCode)s",
        "text": "strpos(lower(t.prompt), lower(%(text)s)) > 0",
    }
    for name in conditions.keys() & query.keys():
        word = query[name]
        if not 1 <= len(word) <= LONGEST_SEARCH or "\0" in word or not _is_whole(word):
            raise errors.invalid(name, f"must have 1 to {LONGEST_SEARCH} characters")
        params[name] = word
        of_each.append(conditions[name])


def _is_whole(text: str) -> bool:
    """Whether it is text: halves of pairs are not."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _times(query: Mapping[str, str], along: Conditions, of_each: Conditions, params: Any, order: str) -> None:
    for name in TIMES:
        if name not in query:
            continue
        params[name] = _time(name, query[name])
        column = "created_at" if name.startswith("created") else "finished_at"
        sign = ">=" if name.endswith("After") else "<"
        (along if column == ORDERS[order][0] else of_each).append(f"t.{column} {sign} %({name})s")
    if order in ("createdAt", "-createdAt") and "endedBefore" in query:
        along.append("t.created_at < %(endedBefore)s")  # follows, and an index serves it


def _time(name: str, text: str) -> datetime:
    try:
        if _TIME.fullmatch(text):
            return _in_utc(datetime.fromisoformat(text.upper()))
    except ValueError:
        pass
    why = "must be a time with its zone, such as 2026-11-28T08:00:00Z (a plus in an address is written %2B)"
    raise errors.invalid(name, why)


def _in_utc(moment: datetime) -> datetime:
    """The moment by UTC: PostgreSQL takes no offset of 16 hours or more, ISO 8601 has those up to 24. What would lie
    before the year 1 or after 9999 there is the first or last moment of those, as no task is so old or so late."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return datetime(1, 1, 1, tzinfo=UTC) if moment.year == 1 else datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def _pairs(query: Mapping[str, str], along: Conditions, of_each: Conditions, params: Any, order: str) -> None:
    pairs = {name[len(PAIR) :]: value for name, value in query.items() if name.startswith(PAIR)}
    if not pairs:
        return
    if len(pairs) > MOST_PAIRS:
        raise errors.invalid("metadata", f"has more than {MOST_PAIRS} pairs")
    for name, value in pairs.items():
        if not 1 <= len(value) <= LONGEST_VALUE or "\0" in value or not _is_whole(value):
            raise errors.invalid(PAIR + name, f"must have 1 to {LONGEST_VALUE} characters")
    params |= {"pairs": Jsonb(pairs), "pairs_of_user": Jsonb({str(params["user"]): pairs})}
    of_each.append("t.metadata @> %(pairs)s")


def _cursor(query: Mapping[str, str], along: Conditions, of_each: Conditions, params: Any, order: str) -> None:
    if "cursor" not in query:
        return
    column, falls = ORDERS[order]
    sign = "<" if falls else ">"
    if column == "created_at":
        if not TASK_ID.fullmatch(query["cursor"]):
            raise bad_cursor()
        params["after"] = query["cursor"]
        # The id orders rows of equal times; the first condition is the one that the index serves.
        along.append(
            f"""t.created_at {sign}= (SELECT created_at FROM video_videotask WHERE id = %(after)s)
            AND (t.created_at, t.id) {sign} (SELECT created_at, id FROM video_videotask
                WHERE id = %(after)s AND user_id = %(user)s)"""  # noqa: S608 - constants
        )
        return
    match = _ENDED_CURSOR.fullmatch(query["cursor"])
    if match is None:
        raise bad_cursor()
    params["after_at"] = _EPOCH + timedelta(microseconds=int(match[1]))
    params["after"] = match[2]
    along.append(
        f"t.finished_at {sign}= %(after_at)s AND (t.finished_at, t.id) {sign} (%(after_at)s::timestamptz, %(after)s)"
    )


def bad_cursor() -> errors.ApiError:
    """The answer to a cursor that no list has given."""
    return errors.invalid("cursor", "must be the nextCursor of an earlier answer, asked for in the same order")


def _fields(query: Mapping[str, str]) -> frozenset[str] | None:
    if "fields" not in query:
        return None
    names = query["fields"].split(",")
    if not set(names) <= set(FIELDS):
        raise errors.invalid("fields", f"must be some of {', '.join(FIELDS)}, with commas between")
    return frozenset(names)


def page(asked: Asked, limit: int, base: str) -> Page:
    """So many tasks at most. One statement; a second one for a short page of tasks that were asked one by one."""
    rows, last = _select(asked, limit + 1), None
    if len(rows) <= limit and "pairs" in asked.params:
        rows = _select_by_pairs(asked, limit + 1)
    elif len(rows) <= limit and asked.of_each:
        last = _last_looked_at(asked)
    if len(rows) > limit:
        last = rows[limit - 1]
    tasks = [_task(row[2:], base, asked.fields) for row in rows[:limit]]
    return Page(tasks, None if last is None else _cursor_of(asked, last))


def _select(asked: Asked, number: int) -> list[tuple[Any, ...]]:
    way = "DESC" if asked.falls else "ASC"
    return _entries(asked, f"({_looked_at(asked, 't.*')}) t", way, number)


def _select_by_pairs(asked: Asked, number: int) -> list[tuple[Any, ...]]:
    """The same of all tasks that have the pairs, by their index: for pairs that are rare where the page begins.

    Apart from the order and the limit, which would lead the planner along the list to its end.
    """
    having = " AND ".join([*asked.along, f"t.metadata <> '{{}}' AND {BY_USER_SQL} @> %(pairs_of_user)s"])
    found = f"WITH matching AS MATERIALIZED (SELECT t.id FROM video_videotask t WHERE {having})"  # noqa: S608 - constants
    way = "DESC" if asked.falls else "ASC"
    return _entries(asked, "matching JOIN video_videotask t ON t.id = matching.id", way, number, before=found)


def _entries(asked: Asked, source: str, way: str, number: int, *, before: str = "") -> list[tuple[Any, ...]]:
    """The columns of each entry, after its place in the order."""
    where = " AND ".join(asked.of_each) or "true"
    return database.fetch(
        f"""
        {before} SELECT t.{asked.column}, t.id, t.id, t.prompt, t.created_at, t.finished_at, t.run,
            t.status, t.progress, t.stage, t.error_code, t.error_message, t.render_of_id, {stored.COLUMNS}, {_MODEL},
            t.warnings, t.metadata
        FROM {source} WHERE {where} ORDER BY t.{asked.column} {way}, t.id {way} LIMIT %(number)s
        """,  # noqa: S608 - constants of this module
        {**asked.params, "number": number},
    )


def _looked_at(asked: Asked, what: str, *, skipped: int = 0) -> str:
    way = "DESC" if asked.falls else "ASC"
    return f"""
        SELECT {what} FROM video_videotask t WHERE {" AND ".join(asked.along)}
        ORDER BY t.{asked.column} {way}, t.id {way} LIMIT {LOOKED_AT - skipped} OFFSET {skipped}
    """  # noqa: S608 - constants of this module


def _last_looked_at(asked: Asked) -> tuple[Any, ...] | None:
    """The place of the last task that a page has looked at; None if it has seen all."""
    rows = database.fetch(_looked_at(asked, f"t.{asked.column}, t.id", skipped=LOOKED_AT - 1), asked.params)
    return rows[0] if rows else None


def _cursor_of(asked: Asked, row: tuple[Any, ...]) -> str:
    at, task_id = row[:2]
    if asked.column == "created_at":
        return str(task_id)
    return f"{(at - _EPOCH) // timedelta(microseconds=1)}.{task_id}"


def _task(row: tuple[Any, ...], base: str, fields: frozenset[str] | None) -> dict[str, Any]:
    task_id, prompt, created_at, finished_at, run, *status = row
    found = {
        **shown(task_id, tuple(status), base),
        "prompt": prompt,
        "run": run,
        "createdAt": utc(created_at),
        "finishedAt": None if finished_at is None else utc(finished_at),
    }
    return found if fields is None else {name: value for name, value in found.items() if name in fields}
