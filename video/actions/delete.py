"""Delete a task: its files at once, and of its row and history all that is its user's own.

The row stays with its facts (model, length, sizes, times, costs), since the ledger and the providers' bills refer to
it. One transaction empties row, attempts and events, and gives the files up; then they are deleted. What a crash or the
storage leaves of them is deleted by the sweeper.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from django.db import transaction

from media_pipeline.errors import MediaError
from video.actions import task_rows
from video.actions.task_rows import ActionRefused
from video.attempts import deleted_tasks
from video.engine import stored_files
from video.infra import database
from video.web import idempotency

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deleted:
    """A task of which only facts are left."""

    task_id: str
    changed: bool  # False: it had been deleted before
    files_left: bool  # the storage could not be asked: the sweeper deletes them


def delete(task_id: str, *, user_id: int | None = None) -> Deleted:
    """Delete a task that has ended; of this user only, if one is given.

    Safe to repeat: a second run deletes what is left of its files, and answers with `changed=False`. Raises NoSuchTask,
    and ActionRefused `task_active` while it is under way.
    """
    with transaction.atomic():
        task = task_rows.find(task_id, user_id, lock=True)
        if task.is_active:
            raise ActionRefused(
                "task_active", "This task is under way: cancel it (POST /api/video/cancel), then delete it."
            )
        changed = not task.is_deleted
        if changed:
            _forget_order(task_id)
            deleted_tasks.forget_texts(task_id)
            idempotency.forget_task(task.user_id, task_id)
            _forget_events(task_id, task.user.get_username())
    return Deleted(task_id, changed, files_left=not _delete_files(task_id))


def _forget_order(task_id: str) -> None:
    """Empty the row and give up its files. The caller holds its lock.

    The Idempotency-Key goes, too: it is the client's own text, and its hash would prove a guess of the prompt. That
    there was a picture stays known: a job that is still open is polled at another address then.
    """
    database.execute(
        """
        UPDATE video_videotask SET prompt = '', negative_prompt = '', seed = NULL, metadata = '{}',
            image_url = CASE WHEN image_url = '' THEN '' ELSE 'deleted' END, idempotency_key = NULL,
            request_hash = '', park_reason = '', fence = fence + 1, webhook_url = NULL,
            error_message = CASE WHEN error_message = '' THEN '' ELSE 'It failed.' END,
            gone_at = statement_timestamp(), gone_why = 'deleted'
        WHERE id = %s AND finished_at IS NOT NULL
        """,
        [task_id],
    )


def _forget_events(task_id: str, username: str) -> None:
    """The timeline keeps its steps and times: its texts may hold a provider's words, or the user's name."""
    database.execute(
        """
        UPDATE video_taskevent SET detail = '', owner_detail = '',
            worker = CASE WHEN worker IN (%s, %s) THEN '' ELSE worker END
        WHERE task_id = %s
        """,
        [username[:120], f"operator {username}"[:120], task_id],
    )


def _delete_files(task_id: str) -> bool:
    """Whether none is left."""
    try:
        stored_files.delete_given_up(task_id)
    except (MediaError, OSError) as err:  # away, or another user's: the web server may only be allowed to read
        log.warning("%s was deleted, its files stay until the sweeper can delete them: %s", task_id, err)
        return False
    return True
