"""Create many tasks: their rows, debits and first events in one statement, however many they are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings

from video import ids
from video.actions import create, order_input
from video.credits import key_spend, ledger, price
from video.engine import dispatch
from video.engine.sql import RECORD_EVENT
from video.infra import database, tracing
from video.infra.after_commit import after_commit
from video.infra.errors import Refusal
from video.models import TaskEvent, VideoTask
from video.models.order import Order
from video.routing import availability, model_choice
from video.scheduling import backlog, storage_quota
from video.web import uploads

MOST = 100  # tasks of one call

#: Orders are taken in their turn, as long as they fit: `place` counts from 0. Each is a microsecond younger than the
#: one before it, so that they have their turn, and stand in lists, in this order.
_INSERT = """
    WITH wanted AS MATERIALIZED (
        SELECT w.*, sum(price) OVER (ORDER BY place) AS total
        FROM jsonb_to_recordset(%(wanted)s::jsonb) AS w (place int, price int, {types})
    ), {room}, {space}, {purse}, {allowance}, fits AS MATERIALIZED (
        SELECT w.place FROM wanted w CROSS JOIN room CROSS JOIN own CROSS JOIN space LEFT JOIN purse ON true
            LEFT JOIN allowance ON true
        WHERE w.place < room.most_own - own.waiting AND w.place < %(most)s - room.all_users
            AND (own.live_places IS NULL OR w.place < own.live_places)
            AND (space.places IS NULL OR w.place < space.places) AND (w.total = 0 OR w.total <= purse.balance)
            AND {allows}
    ), inserted AS (
        INSERT INTO video_videotask (created_at, {columns})
        SELECT statement_timestamp() + w.place * interval '1 microsecond', {values}
        FROM wanted w JOIN fits USING (place)
        WHERE NOT %(whole)s::boolean OR (SELECT count(*) FROM fits) = (SELECT count(*) FROM wanted)
        RETURNING id, user_id, run
    ), made AS MATERIALIZED (
        SELECT inserted.*, wanted.price, wanted.place FROM inserted JOIN wanted USING (id)
    ), {debit}, {spend}, recorded AS (
        {record_event}
        SELECT id, run, NULL, 'generate', %(outcome)s, 0, '', '', '', '', statement_timestamp() FROM made
    )
    SELECT (SELECT count(*) FROM made), (SELECT count(*) FROM fits), room.most_own - own.waiting,
        %(most)s - room.all_users, space.places, (SELECT balance FROM purse),
        (SELECT credits FROM allowance), own.live_places
    FROM room, own, space
"""


@dataclass(frozen=True)
class Wanted:
    """One order of many. `models`: what `model_choice.eligible_models(order)` has said."""

    order: Order
    models: list[str]
    metadata: dict[str, str] = field(default_factory=dict)
    most_credits: int | None = None  # what the client is ready to pay for it


class OneRefused(Exception):
    """What refuses one order refuses all of them. `at`: its index; `why`: what is wrong with it."""

    def __init__(self, at: int, why: Refusal) -> None:
        super().__init__(str(why))
        self.at, self.why = at, why


def create_many(
    user_id: int, wanted: Sequence[Wanted], *, whole: bool, api_key: str | None = None
) -> list[VideoTask | Refusal]:
    """New pending tasks, paid for, in this order: for each what was made, or why it was not.

    `whole`: all or none; then whatever refuses one is raised, as OneRefused where it is its order. Otherwise they are
    made as far as credits, backlog and storage go, the first ones first. Three statements, one more for start images
    that were sent before, and those that word a refusal. `api_key`: the id of the key that they are ordered with, whose
    limit counts. Raises InsufficientCredits, KeyLimitReached, TooManyWaiting, TooManyLive, StorageFull, OneRefused.
    """
    begun, found = time.time(), list[VideoTask | Refusal]()
    addresses = {one.order.image_url for one in wanted if uploads.is_address(one.order.image_url)}
    held = uploads.hold_all(user_id, addresses) if addresses else set()
    now = availability.read()
    for at, one in enumerate(wanted):
        task = _task(user_id, one)
        refused = _why_not(task, one.most_credits, now, missing=addresses - held)
        if refused is not None and whole:
            raise OneRefused(at, refused)
        found.append(task if refused is None else refused)
    tasks = [one for one in found if isinstance(one, VideoTask)]
    number, refusal = _insert(user_id, tasks, whole=whole, api_key=api_key)
    if refusal is not None and whole:
        raise refusal
    if number:
        after_commit(dispatch.request_admission)
    made = {task.pk for task in tasks[:number]}
    for task_id in made if tracing.is_on() else ():
        tracing.wrote("create", task_id, since_s=begun)
    return [one if isinstance(one, Refusal) or one.pk in made or refusal is None else refusal for one in found]


def _why_not(
    task: VideoTask, most_credits: int | None, now: availability.Availability, *, missing: set[str]
) -> Refusal | None:
    """What refuses this task, whatever the others are. `missing`: uploads that are not there."""
    try:
        model_choice.check_switched_on(task, task.eligible_models, now)
        price.refuse_dearer(task.price_credits or 0, most_credits)
    except model_choice.ModelUnavailable as err:
        return order_input.unavailable(Order.of(task), err.reasons)
    except price.DearerThanAllowed as err:
        return err
    return uploads.NoSuchUpload() if task.image_url in missing else None


def _task(user_id: int, wanted: Wanted) -> VideoTask:
    return VideoTask(
        id=ids.task_id(),
        user_id=user_id,
        eligible_models=wanted.models,
        metadata=wanted.metadata,
        price_credits=price.credits_of(wanted.order),
        **asdict(wanted.order),
    )


def _insert(user_id: int, tasks: list[VideoTask], *, whole: bool, api_key: str | None) -> tuple[int, Refusal | None]:
    """(How many were made, the first ones; why not the next)."""
    if not tasks:
        return 0, None
    prices = [task.price_credits or 0 for task in tasks]
    rows = [
        {name: getattr(task, name) for name in create.GIVEN} | {"place": place, "price": prices[place]}
        for place, task in enumerate(tasks)
    ]
    (row,) = database.fetch_prepared(
        _insert_statement(),
        {
            "wanted": json.dumps(rows),
            "user_id": user_id,
            "whole": whole,
            "api_key": api_key,
            "outcome": TaskEvent.Outcome.CREATED.value,
            "most_own": settings.MAX_WAITING_PER_USER,
            "most": settings.MAX_WAITING,
            "count_all": True,
            **storage_quota.limit(),
        },
    )
    found = _Found(*row)
    backlog.total.note(settings.MAX_WAITING - found.of_all)
    if found.made == len(tasks):
        return found.made, None
    cost = sum(prices if whole else prices[: found.fit + 1])
    return found.made, _why(tasks[found.fit], found, cost, api_key)


class _Found(NamedTuple):
    """How many tasks were made, how many fit, and how many each bound leaves room for; None: it is no bound."""

    made: int
    fit: int
    own: int  # of the user's tasks that wait
    of_all: int  # of all that wait
    places: int | None  # of stored files
    balance: int | None  # credits; None: there is no account
    allowance: int | None  # credits that the API key may spend today
    live: int | None  # of the user's tasks under way


def _why(task: VideoTask, found: _Found, cost: int, api_key: str | None) -> Refusal:
    """What refuses the first task that does not fit. `cost`: credits of those that were to be paid, up to it."""
    fit, balance = found.fit, found.balance or 0
    if found.live is not None and fit >= found.live:
        return backlog.TooManyLive()
    if api_key is not None and found.allowance is not None and found.allowance < cost <= balance:
        return key_spend.reached(api_key, cost)
    if fit >= min(found.own, found.of_all):
        return create.too_many(task, own=fit >= found.own)
    if found.places is not None and fit >= found.places:
        return storage_quota.full(task.user_id)
    return ledger.InsufficientCredits(needed=cost, balance=balance)


@cache
def _insert_statement() -> str:
    row: dict[str, Any] = {**{name: f"w.{name}" for name in create.GIVEN}, **create.NEW_TASK}
    return _INSERT.format(
        types=", ".join(f"{name} {create.sql_type(name)}" for name in create.GIVEN),
        columns=", ".join(row),
        values=", ".join(row.values()),
        room=create.ROOM,
        space=storage_quota.SPACE,
        purse=ledger.PURSE_OF_MANY,
        allowance=key_spend.ALLOWANCE_OF_MANY,
        allows=key_spend.ALLOWS_OF_MANY,
        spend=key_spend.SPEND_OF_MANY,
        debit=ledger.DEBIT_OF_MANY,
        record_event=RECORD_EVENT,
    )
