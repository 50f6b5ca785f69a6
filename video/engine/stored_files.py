"""Stored files that are to go, and rows whose files are not there.

A row says first that its files are gone. Then they are deleted, and the row forgets their keys. So no row promises a
file that is not there, and what a crash leaves in between is found again: by `unfinished`, never by a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from django.conf import settings

from media_pipeline.encode.extra_kinds import kind_of
from media_pipeline.storage import object_keys
from video.infra import database
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit

DAY_S = 86_400.0


def mark_expired(limit: int) -> int:
    """Give up the files of at most `limit` videos whose time is over, the oldest first. Returns how many; two
    statements at most.

    A video's time is over at its `expires_at`, or KEEP_VIDEOS_DAYS after its success, whichever is sooner; so is that
    of what is left of a missing one.
    """
    marked = _mark_expired("expires_at IS NOT NULL AND expires_at <= statement_timestamp()", "expires_at", limit)
    if settings.KEEP_VIDEOS_DAYS and marked < limit:
        old = "status = 'success' AND finished_at <= statement_timestamp() - %(kept)s * interval '1 second'"
        marked += _mark_expired(old, "finished_at", limit - marked)
    return marked


def _mark_expired(which: str, order: str, limit: int) -> int:
    return database.execute(
        f"""
        UPDATE video_videotask SET gone_at = statement_timestamp(), gone_why = 'expired' WHERE id IN (
            SELECT id FROM video_videotask WHERE {which} AND gone_why IN ('', 'missing')
            ORDER BY {order} LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
        """,  # noqa: S608 - constants of this module
        {"limit": limit, "kept": settings.KEEP_VIDEOS_DAYS * DAY_S},
    )


def unfinished(limit: int) -> list[str]:
    """Ids of tasks whose files are given up and not all deleted, at most `limit`; one statement."""
    rows = database.fetch(
        """
        SELECT id FROM video_videotask
        WHERE gone_why IN ('expired', 'deleted') AND (output_key <> '' OR has_work_files) ORDER BY gone_at LIMIT %s
        """,
        [limit],
    )
    return [task_id for (task_id,) in rows]


def delete_given_up(task_id: str) -> bool:
    """Delete the files of a task that are given up, then forget their keys. False: they are not given up.

    Safe to repeat. Raises StorageDown, StorageRefused; the row then still says what is to be deleted.
    """
    row = database.fetch_one(
        """
        SELECT output_key, thumbnail_key, source_key, extra_files, has_work_files OR gone_why = 'deleted'
        FROM video_videotask
        WHERE id = %s AND gone_why IN ('expired', 'deleted')
        """,
        [task_id],
    )
    if row is None:
        return False
    *keys, extras, may_have_work_files = row
    keys += extra_keys(keys[0], json.loads(extras))
    storage = toolkit().storage
    for key in filter(None, keys):
        storage.delete(key)
        failpoint("removal.after_file")
    if may_have_work_files:
        storage.delete_prefix(object_keys.work_prefix(task_id))
    failpoint("removal.after_files")
    return database.changed(
        """
        UPDATE video_videotask SET output_key = '', thumbnail_key = '', source_key = '', original_bytes = NULL,
            extra_files = '{}', has_work_files = false
        WHERE id = %s AND gone_why IN ('expired', 'deleted')
        """,
        [task_id],
    )


def extra_keys(video_key: str, files: Iterable[str]) -> list[str]:
    """Where the files are that were made beside a stored video, which a column `extra_files` lists."""
    return [object_keys.extra_key(video_key, name) for name in files] if video_key else []


def old_originals(limit: int) -> list[tuple[str, str]]:
    """(task, key) of the providers' own files that were kept for KEEP_SOURCE_DAYS, at most `limit`; one statement."""
    return database.fetch(
        """
        SELECT id, source_key FROM video_videotask WHERE original_bytes IS NOT NULL
            AND finished_at <= statement_timestamp() - %s * interval '1 second'
        ORDER BY finished_at LIMIT %s
        """,
        [settings.KEEP_SOURCE_DAYS * DAY_S, limit],
    )


def delete_original(task_id: str, key: str) -> bool:
    """Delete a kept original that is too old to be offered, then forget its key. Safe to repeat.

    Raises StorageDown, StorageRefused.
    """
    toolkit().storage.delete(key)
    return forget_original(task_id, key)


def forget_original(task_id: str, key: str) -> bool:
    """The kept original is not there any more. False: the row names another file by now."""
    return database.changed(
        """
        UPDATE video_videotask SET source_key = '', original_bytes = NULL
        WHERE id = %s AND source_key = %s AND original_bytes IS NOT NULL
        """,
        [task_id, key],
    )


def forget_thumbnail(task_id: str, key: str) -> bool:
    """The thumbnail is not there any more. False: the row names another file by now."""
    return database.changed(
        """
        UPDATE video_videotask SET thumbnail_key = '', thumbnail_bytes = NULL
        WHERE id = %s AND thumbnail_key = %s AND status = 'success'
        """,
        [task_id, key],
    )


def forget_extra(task_id: str, key: str) -> bool:
    """A file that was made beside the video is not there any more: the row forgets its kind. False: it has by now."""
    row = database.fetch_one(
        "SELECT output_key, extra_files FROM video_videotask WHERE id = %s AND status = 'success'", [task_id]
    )
    video_key, files = (row[0], list(json.loads(row[1]))) if row else ("", [])
    name = next((one for one in files if key in extra_keys(video_key, [one])), None)
    if name is None:
        return False
    gone = [one for one in files if kind_of(one) == kind_of(name)]
    return database.changed(
        """
        UPDATE video_videotask SET extra_files = extra_files - %s::text[]
        WHERE id = %s AND output_key = %s AND extra_files ? %s AND status = 'success'
        """,
        [gone, task_id, video_key, name],
    )


def mark_missing(task_id: str, key: str) -> bool:
    """The stored video is not where its row says. The key stays, so that a file that is put back is found again."""
    return database.changed(
        """
        UPDATE video_videotask SET gone_at = statement_timestamp(), gone_why = 'missing'
        WHERE id = %s AND output_key = %s AND status = 'success' AND gone_at IS NULL
        """,
        [task_id, key],
    )


def mark_found(task_id: str, key: str) -> bool:
    """A video that was missing is there again."""
    return database.changed(
        """
        UPDATE video_videotask SET gone_at = NULL, gone_why = ''
        WHERE id = %s AND output_key = %s AND gone_why = 'missing'
        """,
        [task_id, key],
    )
