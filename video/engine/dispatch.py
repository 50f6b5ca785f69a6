"""Sends messages to the broker. Each names rows by id, never carries state, and may be lost or come twice.

Nothing here raises, whatever the broker, its address or the way to it does: the sweeper sends again whatever is due and
was not claimed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial

from celery import chain, current_app
from celery.canvas import Signature

from video.engine import queues
from video.infra import broker
from video.infra.causes import kind_of
from video.models import Stage

log = logging.getLogger(__name__)

ADMISSION_EVERY_S = 0.05
#: From this many messages of a stage in its queue on the sweeper sends no more of it. Enough to keep some ten workers
#: busy from tick to tick; more would only grow old, and fill the broker with copies once they are sent again.
MOST_IN_QUEUE = 200
MOST_BATCHES_IN_QUEUE = 40
_admission_requested_at = float("-inf")

CHAIN = (Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE)


def chain_from(task_id: str, stage: Stage, *, urgent: bool) -> Signature:
    """The chain from this stage to save. Poll takes a list: the chain's link is a batch of one."""
    links = [
        current_app.signature(queues.task_of(s), args=([task_id] if s is Stage.POLL else task_id,), immutable=True)
        for s in CHAIN[CHAIN.index(stage) :]
    ]
    if urgent:
        links[0].set(priority=queues.URGENT)
    return chain(*links) if len(links) > 1 else links[0]


def resume(task_id: str, stage: Stage, *, urgent: bool = True) -> bool:
    """Send a task into the chain from its present stage on. False: it could not be sent.

    Urgent messages are delivered before all polls and first submits.
    """
    return _is_sent(lambda: chain_from(task_id, stage, urgent=urgent).apply_async(), f"enqueues {task_id} again")


def _is_sent(send: Callable[[], object], otherwise: str) -> bool:
    """Send a message. False: it could not be sent, which is logged with what the sweeper does instead.

    Any error counts: besides an absence, the broker may refuse a name, a password, a database number or a command, TLS
    may fail, and what asks for a message has been committed already.
    """
    try:
        send()
    except Exception as err:
        log.warning("the broker can't be used (%s); the sweeper %s", kind_of(err), otherwise)
        return False
    return True


def resume_all(due: Iterable[tuple[str, Stage]], *, urgent: bool = True) -> int:
    """Resume each of these tasks, until the broker refuses one. Returns how many were sent."""
    sent = 0
    for task_id, stage in due:
        if not resume(task_id, stage, urgent=urgent):
            break
        sent += 1
    return sent


def stages_below_limit() -> list[Stage]:
    """The stages with few messages in their queue, of which the sweeper may send more; a queue only has to keep workers
    busy. All stages when the broker can't be asked: sending then logs why."""
    try:
        lengths = broker.lengths(
            [broker.sub_queue_of(queues.task_of(stage), urgent=stage is not Stage.POLL) for stage in CHAIN]
        )
    except broker.BrokerUnavailable:
        return list(CHAIN)
    return [
        stage
        for stage, length in zip(CHAIN, lengths, strict=True)
        if length < (MOST_BATCHES_IN_QUEUE if stage is Stage.POLL else MOST_IN_QUEUE)
    ]


def send_poll_batches(batches: Iterable[list[str]]) -> int:
    """Send each of these lists of tasks to be polled together, until the broker refuses one. Returns how many tasks."""
    sent = 0
    for task_ids in batches:
        poll = partial(current_app.send_task, queues.task_of(Stage.POLL), args=(task_ids,))
        if not _is_sent(poll, "enqueues polls again"):
            break
        sent += len(task_ids)
    return sent


def request_admission() -> None:
    """Ask for an admission: a slot is free, or a task waits for one. One message serves all that wait, so this process
    sends at most one every 50 ms; the sweeper admits a task that comes right after one."""
    global _admission_requested_at
    now = time.monotonic()
    if now - _admission_requested_at < ADMISSION_EVERY_S:
        return
    _admission_requested_at = now
    _is_sent(partial(current_app.send_task, queues.ADMIT), "admits")


def has_room_for_deliveries() -> bool:
    """Whether the queue of webhooks has few messages, as `stages_below_limit` asks for the stages."""
    try:
        (length,) = broker.lengths([broker.sub_queue_of(queues.DELIVER)])
    except broker.BrokerUnavailable:
        return True
    return length < MOST_IN_QUEUE


def send_deliveries(delivery_ids: Iterable[str]) -> int:
    """Send each of these webhooks to its worker, until the broker refuses one. Returns how many were sent."""
    sent = 0
    for delivery_id in delivery_ids:
        if not _is_sent(partial(current_app.send_task, queues.DELIVER, args=(delivery_id,)), "enqueues webhooks again"):
            break
        sent += 1
    return sent


def request_check(generation_id: str) -> None:
    """Ask for a status check of an attempt whose task does not run; the sweeper's reconciliation would find it too."""
    _is_sent(partial(current_app.send_task, queues.CHECK, args=(generation_id,)), f"checks {generation_id}")
