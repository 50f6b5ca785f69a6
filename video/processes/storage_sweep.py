"""Files in storage that no row names, which a crash or a late worker left; and rows whose files are not there.

A file is written before its row, so one without a row may be about to get it. Every name holds an id, and an id holds
its time; only what is a day old at least counts as left behind. A file that is not named as ours is never touched.

A row is read after its user's files were listed, and each file that was not among them is asked for by its name, so a
video that is saved meanwhile is not called missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.contrib.auth import get_user_model

from media_pipeline.encode.extra_kinds import KINDS
from media_pipeline.errors import MediaError
from media_pipeline.storage.base import MediaStorage
from video import ids
from video.engine import stored_files
from video.engine.stored_files import extra_keys
from video.infra import database
from video.infra.errors import Refusal
from video.models import Upload, VideoTask

LEAST_AGE_S = 86_400.0  # longer than any claim lives
BATCH = 1000

_EXTRA = rf"(?:{'|'.join(KINDS)})(?:_[a-z0-9]{{1,9}})?\.[a-z0-9]{{1,5}}"
_RESULT = re.compile(
    rf"[0-9]+/videos/(vid_[0-9a-z]{{26}})(?:\.mp4|_thumb\.jpg|_original\.[a-z0-9]{{1,5}}|_{_EXTRA})", re.ASCII
)
_UPLOAD = re.compile(r"[0-9]+/uploads/(upl_[0-9a-z]{26})\.(?:jpg|png|webp)", re.ASCII)
_WORK = re.compile(r"work/(task_[0-9a-z]{26})/[^/]+", re.ASCII)


@dataclass
class Seen:
    """What a pass has found so far; updated while it runs."""

    files: int = 0
    young: int = 0  # named by no row, and too young to be sure
    foreign: int = 0  # not named as ours


@dataclass(frozen=True)
class Orphan:
    """A file that no row names."""

    key: str
    size_bytes: int


@dataclass(frozen=True)
class Lost:
    """A stored file that a row names and that is not there; or one that was missing and is there again."""

    task_id: str
    what: str  # video, thumbnail, original, extra
    key: str
    is_back: bool = False

    def write_down(self) -> bool:
        """Let the row say so. False: the row names another file by now. Safe to repeat."""
        if self.is_back:
            return stored_files.mark_found(self.task_id, self.key)
        write = {
            "video": stored_files.mark_missing,
            "thumbnail": stored_files.forget_thumbnail,
            "original": stored_files.forget_original,
            "extra": stored_files.forget_extra,
        }
        return write[self.what](self.task_id, self.key)


class StorageEmpty(Refusal):
    """Rows name files, and the storage holds none at all: most likely it is another one, or is not mounted."""


def find(storage: MediaStorage, seen: Seen, *, now: float, older_than_s: float = LEAST_AGE_S) -> Iterator[Orphan]:
    """Every orphan, found in batches: two statements each. `now` in Unix seconds.

    Raises StorageDown, StorageRefused.
    """
    keys = iter(storage.list(""))
    while batch := list(islice(keys, BATCH)):
        seen.files += len(batch)
        for key, public_id in _unnamed(batch, seen):
            made_at = ids.made_at(public_id)
            if made_at is None or now - made_at < max(older_than_s, LEAST_AGE_S):
                seen.young += 1
                continue
            try:
                yield Orphan(key, storage.size_bytes(key))
            except FileNotFoundError:
                continue  # swept a moment ago


@dataclass(frozen=True)
class Removed:
    """What became of an orphan: it is deleted (or would be), or stays because of an error."""

    orphan: Orphan
    error: str = ""


def clean_up(
    storage: MediaStorage, seen: Seen, *, now: float, older_than_s: float = LEAST_AGE_S, dry_run: bool
) -> Iterator[Removed | Lost]:
    """Delete every orphan, then write down which rows miss their files, and yield each as it is done.

    `dry_run` changes nothing. Safe to repeat, and to end in the middle. Raises StorageEmpty, StorageDown,
    StorageRefused.
    """
    for orphan in find(storage, seen, now=now, older_than_s=older_than_s):
        error = ""
        if not dry_run:
            try:
                storage.delete(orphan.key)
            except (MediaError, OSError) as err:
                error = str(err) or type(err).__name__
        yield Removed(orphan, error)
    for one in find_lost(storage, seen):
        if dry_run or one.write_down():
            yield one


def _unnamed(keys: Iterable[str], seen: Seen) -> Iterator[tuple[str, str]]:
    """(key, the id that it was made under) of those that no row has."""
    results: dict[str, list[str]] = {}
    work: dict[str, list[str]] = {}
    uploads: dict[str, str] = {}
    for key in keys:
        if match := _RESULT.fullmatch(key):
            results.setdefault(match[1], []).append(key)
        elif match := _WORK.fullmatch(key):
            work.setdefault(match[1], []).append(key)
        elif match := _UPLOAD.fullmatch(key):
            uploads[key] = match[1]
        else:
            seen.foreign += 1
    rows = VideoTask.objects.filter(video_id__in=list(results)).values_list(
        "extra_files", "output_key", "thumbnail_key", "source_key"
    )
    named = {name for extras, *keys in rows for name in (*keys, *extra_keys(keys[0], extras))} if results else set()
    for video_id, files in results.items():
        yield from ((key, video_id) for key in files if key not in named)
    # Work files of a task that has some are swept when it is time; an active task may be making them now.
    tasks = VideoTask.objects.filter(pk__in=list(work)).exclude(has_work_files=False, finished_at__isnull=False)
    kept = set(tasks.values_list("pk", flat=True)) if work else set()
    for task_id, files in work.items():
        if task_id not in kept:
            yield from ((key, task_id) for key in files)
    rows_of_uploads = Upload.objects.filter(key__in=list(uploads)).values_list("key", flat=True)
    kept = set(rows_of_uploads) if uploads else set()
    yield from ((key, upload_id) for key, upload_id in uploads.items() if key not in kept)


def find_lost(storage: MediaStorage, seen: Seen) -> Iterator[Lost]:
    """Every stored file that a row names and that is not there, and every missing video that is there again.

    `seen`: of the pass of `find` before. Costs a listing of each user's files and a statement for each thousand rows;
    the names of one user's files are held in memory. Of a task whose video is missing nothing else is looked at.
    Raises StorageEmpty, StorageDown, StorageRefused.
    """
    for user_id in get_user_model().objects.order_by("pk").values_list("pk", flat=True):
        names: set[str] | None = None
        for batch in _stored(user_id):
            if not seen.files:
                raise StorageEmpty(f"The storage holds no file at all, and {batch[0][0]} names {batch[0][1]}.")
            if names is None:
                names = set(storage.list(f"{user_id}/videos"))
            for row in batch:
                yield from _lost(storage, names, *row)


def _lost(
    storage: MediaStorage,
    names: set[str],
    task_id: str,
    video: str,
    thumbnail: str,
    original: str,
    why: str,
    extras: str,
) -> Iterator[Lost]:
    def is_there(key: str) -> bool:
        return key in names or storage.exists(key)

    if not is_there(video):
        if not why:
            yield Lost(task_id, "video", video)
        return
    if why:
        yield Lost(task_id, "video", video, is_back=True)
    for what, key in (("thumbnail", thumbnail), ("original", original)):
        if key and not is_there(key):
            yield Lost(task_id, what, key)
    for key in extra_keys(video, json.loads(extras)):
        if not is_there(key):
            yield Lost(task_id, "extra", key)


def _stored(user_id: int) -> Iterator[list[tuple[Any, ...]]]:
    """(task, key of its video, thumbnail, original, why it is gone, names of extras) of a user's stored videos, oldest
    first.
    """
    after: tuple[Any, str] | None = None
    while True:
        rows = database.fetch(
            """
            SELECT id, output_key, thumbnail_key, CASE WHEN original_bytes IS NOT NULL THEN source_key ELSE '' END,
                gone_why, extra_files, created_at
            FROM video_videotask
            WHERE user_id = %(user)s AND status = 'success' AND output_key <> '' AND gone_why IN ('', 'missing')
                AND (%(at)s::timestamptz IS NULL
                    OR (created_at >= %(at)s::timestamptz AND (created_at, id) > (%(at)s::timestamptz, %(id)s::text)))
            ORDER BY created_at, id LIMIT %(most)s
            """,
            {"user": user_id, "at": after and after[0], "id": after and after[1], "most": BATCH},
        )
        if not rows:
            return
        after = (rows[-1][6], rows[-1][0])
        yield [row[:6] for row in rows]
