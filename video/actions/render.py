"""Render a stored video anew: another size, rate or quality, or other files beside it, from the provider's own file.

A render is a task of its own, which begins with its transcode: the original is copied to the new task's work files
first, then the row is written, in one transaction with its debit, if the first task still has its files. So retention
may delete the original at any moment, and no provider is ever asked. A crash in between leaves a work file without a
row, which `cleanup_storage` finds.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from media_pipeline.errors import MediaError
from media_pipeline.storage import object_keys
from video import ids
from video.actions import task_rows
from video.actions.order_input import refuse_late_cover
from video.actions.task_rows import ActionRefused, TaskDeleted
from video.credits import key_spend, ledger, price
from video.engine.transitions import PROGRESS_AT, WAITS_FOR_CORE
from video.infra import database
from video.infra.after_commit import after_commit
from video.infra.errors import Refusal
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import Stage, Status, TaskEvent, VideoTask
from video.models.order import Order
from video.scheduling import backlog, storage_quota, transcode_slots

log = logging.getLogger(__name__)

RETRY_AFTER_S = 30  # for a user who has as many renders under way as may be
_GONE = "The provider's own file of this video is not kept any more, so nothing can be rendered from it."
#: Fields that a render never takes over: the first task's receiver was given that task's events only.
_ITS_OWN = dict.fromkeys(("expires_in_s", "webhook_url", "cover", "extras"))


def render(
    user_id: int,
    task_id: str,
    changes: dict[str, Any],
    *,
    idempotency_key: str | None = None,
    api_key: str | None = None,
) -> tuple[VideoTask, bool]:
    """A new task that renders this user's video anew; or the one that this key already made. (task, whether it is new).

    `changes`: fields of the order that differ from the first one, and `metadata` of its own. `api_key`: the id of the
    key that asks for it, whose limit counts. A render of a render is one of the first task. Raises NoSuchTask,
    TaskDeleted, ActionRefused (`original_gone`, `not_finished`), InsufficientCredits, KeyLimitReached, TooManyWaiting,
    TooManyLive, StorageFull, KeyReused, ValidationError for a `cover` behind the end, and what the storage raises; no
    task is made then.
    """
    asked_hash = _hash_of(task_id, changes) if idempotency_key else ""
    if earlier := task_rows.of_key(user_id, idempotency_key, asked_hash):
        return earlier, False
    first = _first(user_id, task_id)
    task = _row(first, changes, idempotency_key, asked_hash)
    try:
        toolkit().storage.copy(first.source_key, task.source_key)
    except FileNotFoundError:
        raise ActionRefused("original_gone", _GONE) from None
    failpoint("render.after_copy")
    try:
        made = _insert(first, task, api_key)  # after an error of the database the row may be there: its copy stays
    except Refusal:
        _drop(task)
        # An earlier run of the same call may have taken the user's last credits, bytes or place.
        if not (earlier := task_rows.of_key(user_id, idempotency_key, asked_hash)):
            raise
        return earlier, False
    if not made:
        _drop(task)
        if earlier := task_rows.of_key(user_id, idempotency_key, asked_hash):
            return earlier, False
        # It was deleted in this very moment, so the key is free again.
        return render(user_id, task_id, changes, idempotency_key=idempotency_key, api_key=api_key)
    failpoint("render.committed")
    return task, True


def _hash_of(task_id: str, changes: dict[str, Any]) -> str:
    asked = {"render": task_id, **changes}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _first(user_id: int, task_id: str) -> VideoTask:
    """The task whose original is rendered. Raises NoSuchTask, TaskDeleted, ActionRefused."""
    task = task_rows.find(task_id, user_id)
    if task.is_deleted:
        raise TaskDeleted
    if task.render_of_id is not None:
        task = task_rows.find(task.render_of_id, user_id)
    if task.is_active:
        raise ActionRefused("not_finished", "This task is under way: wait until its video is stored.")
    is_kept = task.status == Status.SUCCESS and not task.gone_why and task.original_bytes is not None
    ended_before = timezone.now() - timedelta(days=settings.KEEP_SOURCE_DAYS)
    if not is_kept or task.finished_at is None or task.finished_at <= ended_before:
        raise ActionRefused("original_gone", _GONE)
    return task


def _row(first: VideoTask, changes: dict[str, Any], key: str | None, asked_hash: str) -> VideoTask:
    changes = dict(changes)
    metadata = changes.pop("metadata", {})
    order = replace(Order.of(first), **{**_ITS_OWN, **changes})
    refuse_late_cover(order)
    task_id = ids.task_id()
    return VideoTask(
        id=task_id,
        user_id=first.user_id,
        render_of=first,
        is_padded="aspect_ratio" in changes,
        **asdict(order),
        metadata=metadata,
        idempotency_key=key,
        request_hash=asked_hash,
        status=Status.RUNNING,
        stage=Stage.TRANSCODE,
        progress=PROGRESS_AT[Stage.TRANSCODE],
        next_run_at=Now(),
        park_reason=WAITS_FOR_CORE,
        source_key=object_keys.work_key(task_id, 0, f"source{PurePosixPath(first.source_key).suffix}"),
        has_work_files=True,
    )


def _insert(first: VideoTask, task: VideoTask, api_key: str | None) -> bool:
    """The row, its debit and its first event. False: another request has the key. Raises as `render`."""
    with transaction.atomic():
        # A deletion of the first task ends before this row is written, or waits for it; what was deleted is not copied.
        if not database.fetch(
            "SELECT FROM video_videotask WHERE id = %s AND status = 'success' AND gone_why = '' FOR SHARE", [first.pk]
        ):
            raise ActionRefused("original_gone", _GONE)
        _refuse_too_many(task.user_id)
        backlog.check_live(task.user_id)
        storage_quota.check(task.user_id)
        # A key that is taken is no violation of a constraint: a database's log would quote the prompt.
        cost = task.price_credits = price.credits_of(task)
        VideoTask.objects.bulk_create([task], ignore_conflicts=True)
        if not VideoTask.objects.filter(pk=task.pk).exists():
            return False
        ledger.debit(task.user_id, cost, task_id=task.pk, run=1)
        if api_key is not None:
            key_spend.spend(api_key, cost)
        detail = f"a render of {first.pk}"
        TaskEvent.objects.create(
            task_id=task.pk,
            run=1,
            stage=Stage.TRANSCODE,
            outcome=TaskEvent.Outcome.CREATED,
            fence=0,
            detail=detail,
            owner_detail=detail,
        )
        after_commit(transcode_slots.dispatch_granted)
    return True


def _refuse_too_many(user_id: int) -> None:
    """Renders wait for a core, not for a slot, and have the same limit. Raises TooManyWaiting."""
    is_full = database.value(
        """
        WITH room AS (SELECT coalesce(
            (SELECT most_waiting FROM video_usershare WHERE user_id = %(user)s), %(most)s) AS most)
        SELECT (SELECT count(*) FROM (SELECT FROM video_videotask
            WHERE user_id = %(user)s AND finished_at IS NULL AND render_of_id IS NOT NULL LIMIT most) own) >= most
        FROM room
        """,
        {"user": user_id, "most": settings.MAX_WAITING_PER_USER},
    )
    if is_full:
        raise backlog.TooManyWaiting(own=True, retry_after_s=RETRY_AFTER_S)


def _drop(task: VideoTask) -> None:
    """No row names the copy; what can't be deleted now is found by `cleanup_storage`."""
    try:
        toolkit().storage.delete(task.source_key)
    except (MediaError, OSError) as err:
        log.warning("a copy for %s, which was not made, stays: %s", task.pk, err)
