"""Create a task: its row, its debit and its first event in one statement; admission is requested after the commit."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from datetime import timedelta
from functools import cache

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now
from psycopg.types.json import Jsonb

from video import ids
from video.actions import order_input, task_rows
from video.credits import key_spend, ledger, price
from video.engine import dispatch
from video.engine.sql import RECORD_EVENT
from video.infra import database, tracing
from video.infra.after_commit import after_commit
from video.models import Status, TaskEvent, VideoTask
from video.models.order import ABOUT, Order
from video.routing import model_choice
from video.scheduling import backlog, storage_quota
from video.web import uploads

#: Columns of a new task that take a value of the caller's; the fields of an order are all among them.
GIVEN = (
    "id",
    "user_id",
    *ABOUT,
    "eligible_models",
    "priority",
    "metadata",
    "price_credits",
    "idempotency_key",
    "request_hash",
)
#: The other columns that have no default in the database, as SQL.
NEW_TASK = {
    **dict.fromkeys(("progress", "fence", "tries", "deaths"), "0"),
    **dict.fromkeys(("claimed_by", "park_reason", "error_code", "error_message"), "''"),
    **dict.fromkeys(("source_key", "output_key", "thumbnail_key"), "''"),
    "run": "1",
    "status": "'pending'",
    "stage": "'generate'",
    "admit_at": "statement_timestamp()",
    "has_work_files": "false",
}
#: How many tasks may wait and be under way, and how many do.
ROOM = f"""room AS MATERIALIZED (
        SELECT coalesce(share.most_waiting, %(most_own)s) AS most_own, share.most_live,
            CASE WHEN %(count_all)s THEN (SELECT count(*) FROM (
                SELECT FROM video_videotask WHERE admit_at IS NOT NULL LIMIT %(most)s) waiting) END AS all_users
        FROM (SELECT) one LEFT JOIN video_usershare share ON share.user_id = %(user_id)s
    ), own AS MATERIALIZED (
        SELECT count(*) AS waiting,
            CASE WHEN (SELECT most_live FROM room) IS NOT NULL THEN {backlog.LIVE_PLACES} END AS live_places
        FROM (
            SELECT FROM video_videotask WHERE user_id = %(user_id)s AND admit_at IS NOT NULL
            LIMIT (SELECT most_own FROM room)) waiting
    )"""  # noqa: S608 - a constant
_INSERT = """
    WITH {room}, {space}, choice AS MATERIALIZED (  -- of models that no operator has switched off
        SELECT %(any_model)s::boolean OR EXISTS (SELECT FROM unnest(%(eligible_models)s::varchar[]) may (model)
            WHERE NOT EXISTS (SELECT FROM video_modelsetting o WHERE o.model = may.model AND NOT o.enabled)) AS is_open
    ), allowed AS MATERIALIZED (
        SELECT FROM room, own, space, choice
        WHERE own.waiting < room.most_own AND coalesce(own.live_places, 1) > 0
            AND coalesce(room.all_users, 0) < %(most)s AND space.is_free AND choice.is_open
    ), {purse}, {allowance}, made AS (
        INSERT INTO video_videotask ({columns})
        SELECT {values}
        FROM allowed WHERE (%(price)s = 0 OR EXISTS (SELECT FROM purse)) AND {allows}
        ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING id, user_id, run
    ), {debit}, {spend}, recorded AS (
        {record_event}
        SELECT id, run, NULL, 'generate', %(outcome)s, 0, '', '', '', '', statement_timestamp() FROM made
    )
    SELECT EXISTS (SELECT FROM made), EXISTS (SELECT FROM purse), own.waiting >= room.most_own, room.all_users,
        space.is_free, choice.is_open, {allows}, coalesce(own.live_places, 1) <= 0
    FROM room, own, space, choice
"""


_USED_UP = (
    price.DearerThanAllowed,
    ledger.InsufficientCredits,
    key_spend.KeyLimitReached,
    backlog.TooManyWaiting,
    backlog.TooManyLive,
    storage_quota.StorageFull,
    uploads.NoSuchUpload,
    uploads.UploadsFull,
    model_choice.ModelUnavailable,
)


def create(
    user_id: int,
    order: Order,
    *,
    models: list[str] | None = None,
    picture: bytes | None = None,
    metadata: dict[str, str] | None = None,
    idempotency_key: str | None = None,
    repeat_within_s: float | None = None,
    priority: int = 0,
    api_key: str | None = None,
    most_credits: int | None = None,
) -> tuple[VideoTask, bool]:
    """A new pending task, paid for; or the one that this key already made. Returns (task, whether it is new).

    `models`: what `model_choice.eligible_models(order)` has just said, if it was asked already. `picture`: the start
    image where it came along; the order names the upload that is made of it first. `metadata`: the client's own pairs.
    `priority`: -100 to 100, among the user's own; for operators. `api_key`: the id of the key whose limit counts.
    `most_credits`: what the client is ready to pay. A second run with the same `idempotency_key` and order makes
    nothing and returns the first task. `repeat_within_s`: the key, made of what was asked for, stands so many seconds,
    and never for a task that failed or was cancelled.

    Raises DearerThanAllowed, InsufficientCredits, KeyLimitReached, TooManyWaiting, TooManyLive, StorageFull, KeyReused,
    NoSuchUpload, as `uploads.keep` and `model_choice.eligible_models`, and OrderRefused where operators have switched
    all models off.
    """
    begun = time.time()
    task = VideoTask(
        id=ids.task_id(),
        user_id=user_id,
        request_hash=order.fingerprint(metadata=metadata) if idempotency_key else "",
        metadata=metadata or {},
        idempotency_key=idempotency_key,
        priority=priority,
        eligible_models=model_choice.eligible_models(order) if models is None else models,
        price_credits=(cost := price.credits_of(order)),
        **asdict(order),
    )
    while True:
        try:
            price.refuse_dearer(cost, most_credits)
            _have_image(task, picture)
            made = _insert(task, api_key)
        except _USED_UP as err:
            # An earlier run of the same call may have taken the user's last credits, bytes, upload or place.
            if earlier := _earlier(task, repeat_within_s):
                return earlier, False
            if isinstance(err, model_choice.ModelUnavailable):
                raise order_input.unavailable(order, err.reasons) from None
            raise
        if made:
            after_commit(dispatch.request_admission)
            tracing.wrote("create", task.pk, since_s=begun)
            return task, True
        if earlier := _earlier(task, repeat_within_s):
            return earlier, False
        # It was deleted in this very moment, or is no first one of a repeat, so the key is free again.


def _have_image(task: VideoTask, picture: bytes | None) -> None:
    """An upload that the task begins with is there, and stays until the task has it."""
    if picture is not None:
        uploads.keep(task.user_id, picture)
    if uploads.is_address(task.image_url):
        uploads.hold(task.user_id, task.image_url)


def _earlier(task: VideoTask, repeat_within_s: float | None) -> VideoTask | None:
    """The task that has this one's key. Raises KeyReused when it was made by another order.

    None, too, for one that its derived key does not stand for any more: it has lost the key then. Of two that see this
    at once, one makes the next task with it, and the other one finds that.
    """
    if repeat_within_s is None or task.idempotency_key is None:
        return task_rows.of_key(task.user_id, task.idempotency_key, task.request_hash)
    holders = VideoTask.objects.filter(user_id=task.user_id, idempotency_key=task.idempotency_key)
    is_over = Q(created_at__lt=Now() - timedelta(seconds=repeat_within_s)) | Q(
        status__in=(Status.FAILED, Status.CANCELLED)
    )
    holder = holders.annotate(is_over=is_over).first()
    if holder is not None and holder.is_over:
        holders.filter(is_over, pk=holder.pk).update(idempotency_key=None, request_hash="")
        return None
    return holder


def _insert(task: VideoTask, api_key: str | None, *, any_model: bool = False) -> bool:
    """The row, its debit and its first event, in one statement, which also counts the tasks that wait; creates at the
    same moment may exceed the limit by as many as they are. False: the key has a task already. Raises
    TooManyWaiting, TooManyLive, StorageFull, InsufficientCredits, KeyLimitReached, and ModelUnavailable where operators
    have switched off all models that may run it. `any_model`: the task's own models are off, and others may run it.

    A key that is taken is no violation of a constraint: a database's log quotes the statement of a violation, and with
    it the prompt. While another create of the same key is under way the statement waits for its end.
    """
    cost = task.price_credits or 0
    count_all = backlog.total.is_stale()
    if not count_all and backlog.total.is_full():
        raise too_many(task, own=False)
    ((made, can_pay, own_is_full, counted, has_space, is_open, key_may, is_full),) = database.fetch_prepared(
        _insert_statement(),
        {
            **{name: getattr(task, name) for name in GIVEN},
            "metadata": Jsonb(task.metadata),
            "price": cost,
            "api_key": api_key,
            "outcome": TaskEvent.Outcome.CREATED.value,
            "most_own": settings.MAX_WAITING_PER_USER,
            "most": settings.MAX_WAITING,
            "count_all": count_all,
            "any_model": any_model,
            **storage_quota.limit(),
        },
    )
    if counted is not None:
        backlog.total.note(counted)
    if not made and (own_is_full or (counted or 0) >= settings.MAX_WAITING):
        raise too_many(task, own=own_is_full)
    if not made and is_full:
        raise backlog.TooManyLive
    if not (made or has_space):
        raise storage_quota.full(task.user_id)
    if not (made or is_open):
        model_choice.check_switched_on(task, task.eligible_models)
        return _insert(task, api_key, any_model=True)
    if not (made or can_pay or cost == 0):
        raise ledger.InsufficientCredits(needed=cost, balance=ledger.balance(task.user_id))
    if not (made or key_may or api_key is None):
        raise key_spend.reached(api_key, cost)
    return bool(made)


@cache
def _insert_statement() -> str:
    given = {name: f"%({name})s::{sql_type(name)}" for name in GIVEN}
    row = {**given, **NEW_TASK}
    return _INSERT.format(
        room=ROOM,
        columns=", ".join(row),
        values=", ".join(row.values()),
        space=storage_quota.SPACE,
        purse=ledger.PURSE,
        allowance=key_spend.ALLOWANCE,
        allows=key_spend.ALLOWS,
        debit=ledger.DEBIT,
        spend=key_spend.SPEND,
        record_event=RECORD_EVENT,
    )


def sql_type(column: str) -> str:
    """The type of a column of VideoTask, without its length: a cast to `varchar(80)` would cut a longer text short."""
    return re.sub(r"\(\d+\)", "", VideoTask._meta.get_field(column).db_type(connection) or "")


def too_many(task: VideoTask, *, own: bool) -> backlog.TooManyWaiting:
    """The refusal of a task, with the time after which it may be asked for again."""
    return backlog.TooManyWaiting(own=own, retry_after_s=backlog.retry_after_s(task.user_id, task.eligible_models))
