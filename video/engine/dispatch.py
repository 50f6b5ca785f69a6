"""Rings the broker: messages that say "look at this row", by name and id only.

Never raises: a bell that can't be rung now is rung by the sweeper, and a create must not fail because of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from celery import chain, current_app
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from video.infra import broker
from video.models import Stage

log = logging.getLogger(__name__)

ADMISSION_EVERY_S = 0.05
#: Messages in a stage's line at the broker from which on the sweeper rings no more of it. Enough to keep some ten
#: workers busy from tick to tick; more would only grow old, and fill the broker with copies once they are rung again.
MOST_IN_QUEUE = 200
MOST_BATCHES_IN_QUEUE = 40
_admission_requested_at = float("-inf")

CHAIN = (Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE)


def chain_from(task_id: str, stage: Stage, *, urgent: bool) -> Signature:
    """The chain from this stage to save. Poll takes a list: the chain's link is a wave of one."""
    links = [
        current_app.signature(f"video.{s}", args=([task_id] if s is Stage.POLL else task_id,), immutable=True)
        for s in CHAIN[CHAIN.index(stage) :]
    ]
    if urgent:
        links[0].set(priority=0)
    return chain(*links) if len(links) > 1 else links[0]


def resume(task_id: str, stage: Stage, *, urgent: bool = True) -> bool:
    """Send a task into the chain from its present stage on. False: the broker can't be reached.

    Urgent: before all looks and first submits. There is news, somebody asked for it, or its first bell was not heard.
    """
    try:
        chain_from(task_id, stage, urgent=urgent).apply_async()
    except (OperationalError, OSError) as err:
        log.warning("%s: the broker can't be reached (%s); the sweeper will ring", task_id, type(err).__name__)
        return False
    return True


def resume_all(due: Iterable[tuple[str, Stage]], *, urgent: bool = True) -> int:
    """Resume each of these until the broker refuses one. Returns how many were rung."""
    rung = 0
    for task_id, stage in due:
        if not resume(task_id, stage, urgent=urgent):
            break
        rung += 1
    return rung


def stages_below_limit() -> list[Stage]:
    """The stages of which the sweeper may ring more: those whose lines at the broker are short. The database remembers
    who waits; a line only has to keep workers busy. All of them when the broker can't be asked: ringing says why."""
    try:
        lengths = broker.lengths(
            [broker.sub_queue_of(f"video.{stage}", urgent=stage is not Stage.POLL) for stage in CHAIN]
        )
    except broker.BrokerUnavailable:
        return list(CHAIN)
    return [
        stage
        for stage, length in zip(CHAIN, lengths, strict=True)
        if length < (MOST_BATCHES_IN_QUEUE if stage is Stage.POLL else MOST_IN_QUEUE)
    ]


def send_poll_batches(waves: Iterable[list[str]]) -> int:
    """Send each of these lists of tasks to be polled together, until the broker refuses one. Returns how many tasks."""
    rung = 0
    for task_ids in waves:
        try:
            current_app.send_task("video.poll", args=(task_ids,))
        except (OperationalError, OSError) as err:
            log.warning("the broker can't be reached (%s); the sweeper will ring again", type(err).__name__)
            break
        rung += len(task_ids)
    return rung


def request_admission() -> None:
    """Say that a slot or a task is waiting. One bell serves all that wait, so they are rung at most every 50 ms.

    A task that comes right after a bell may be too late for it; the sweeper then admits it half a second later.
    """
    global _admission_requested_at
    now = time.monotonic()
    if now - _admission_requested_at < ADMISSION_EVERY_S:
        return
    _admission_requested_at = now
    try:
        current_app.send_task("video.admit")
    except (OperationalError, OSError) as err:
        log.warning("the broker can't be reached (%s); the sweeper will admit", type(err).__name__)


def request_check(generation_id: str) -> None:
    """Say that an attempt without a running task is due for a look; the sweeper's reconciliation would find it too."""
    try:
        current_app.send_task("video.look", args=(generation_id,))
    except (OperationalError, OSError) as err:
        log.warning("%s: the broker can't be reached (%s); the sweeper will look", generation_id, type(err).__name__)
