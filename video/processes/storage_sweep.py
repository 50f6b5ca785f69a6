"""Files in storage that no row names: what a crash or a late worker left behind.

A file is written before its row, so one without a row may be about to get it. Every name holds an id, and an id holds
its time; only what is a day old at least counts as left behind. A file that is not named as ours is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from media_pipeline.storage.base import MediaStorage
from video import ids
from video.models import VideoTask

LEAST_AGE_S = 86_400.0  # longer than any claim lives
BATCH = 1000

_RESULT = re.compile(r"[0-9]+/videos/(vid_[0-9a-z]{26})(?:\.mp4|_thumb\.jpg)", re.ASCII)
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


def _unnamed(keys: Iterable[str], seen: Seen) -> Iterator[tuple[str, str]]:
    """(key, the id that it was made under) of those that no row has."""
    results: dict[str, list[str]] = {}
    work: dict[str, list[str]] = {}
    for key in keys:
        if match := _RESULT.fullmatch(key):
            results.setdefault(match[1], []).append(key)
        elif match := _WORK.fullmatch(key):
            work.setdefault(match[1], []).append(key)
        else:
            seen.foreign += 1
    rows = VideoTask.objects.filter(video_id__in=list(results)).values_list("video_id", "output_key", "thumbnail_key")
    named = {name for row in rows for name in row[1:]} if results else set()
    for video_id, files in results.items():
        yield from ((key, video_id) for key in files if key not in named)
    # Work files of a task that has some are swept when it is time; an active task may be making them now.
    tasks = VideoTask.objects.filter(pk__in=list(work)).exclude(has_work_files=False, finished_at__isnull=False)
    kept = set(tasks.values_list("pk", flat=True)) if work else set()
    for task_id, files in work.items():
        if task_id not in kept:
            yield from ((key, task_id) for key in files)
