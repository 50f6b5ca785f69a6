"""What is made beside a video, as part of the stages thumbnail and save: best effort, since the video is paid for.

An extra that can't be made is a warning on the task. Work files are listed on the row by their names, which begin with
the fence that made them; `save` gives them their final names, without it. A row never lists a file before it is there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from media_pipeline import errors, warnings
from media_pipeline.disk import require_free
from media_pipeline.encode import extras
from media_pipeline.encode.cover import Cover, cover_from
from media_pipeline.encode.extra_kinds import kind_of
from media_pipeline.storage import object_keys
from video.engine.claims import Claim
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import VideoTask

log = logging.getLogger(__name__)

#: A worker that dies in a stage is not always the extras' fault; the second time they are left out.
MOST_DEATHS = 1


def wanted(task: VideoTask) -> list[str]:
    """The kinds that are to be made: those of the order, else those of EXTRAS."""
    return list(settings.EXTRAS) if task.extras is None else list(task.extras)


def cover_of(task: VideoTask) -> Cover:
    """The frame that the task's cover, and its still picture, is to show."""
    return cover_from(task.cover or settings.COVER, begins_with_picture=bool(task.image_url))


def make(claim: Claim, video: Path, folder: Path, *, reserve_bytes: int) -> tuple[dict[str, int], list[str]]:
    """Make and store the extras of the video at `video`: (bytes by the names of work files, codes of warnings).

    `reserve_bytes` stay free on the disk. Nothing is tried again: a stage whose first try failed, or that two workers
    did not survive, goes without extras. Raises Cancelled, StorageDown, StorageRefused.
    """
    task = claim.task
    kinds = wanted(task)
    if not kinds:
        return {}, []
    if task.tries or task.deaths > 1 + MOST_DEATHS:  # this claim is one of them
        log.warning("%s goes without %s: its stage failed before", task.pk, ", ".join(kinds))
        return {}, [_left_out(kind) for kind in kinds]
    maker: extras.Maker | None = None  # one look at the video serves all kinds
    made: dict[str, int] = {}
    found = []
    for kind in kinds:
        try:
            maker = maker or _maker(claim, video, folder)
            require_free(folder, expected_bytes=maker.info.size_bytes, reserve_bytes=reserve_bytes)
            made |= _stored(claim, maker.make(kind))
        except (errors.Cancelled, errors.StorageDown, errors.StorageRefused):
            raise
        except errors.MediaError as err:
            log.warning("%s goes without its %s: %s", task.pk, kind, err)
            found.append(_left_out(kind))
    return made, found


def _maker(claim: Claim, video: Path, folder: Path) -> extras.Maker:
    tools, task = toolkit(), claim.task
    return extras.Maker(
        video,
        tools.prober.probe(video, decode_first_frame=False),
        folder,
        ffmpeg=tools.ffmpeg,
        prober=tools.prober,
        deadline_s=settings.TRANSCODE_TIMEOUT_SECONDS,
        threads=settings.FFMPEG_THREADS,
        quality=task.quality,  # type: ignore[arg-type]  # the column's choices are the names that it knows
        cover=cover_of(task),
        cancelled=claim.lost,
    )


def _stored(claim: Claim, files: Iterable[Path]) -> dict[str, int]:
    """Put them into storage as work files: bytes by their names there."""
    sizes = {}
    for path in files:
        size_bytes = path.stat().st_size
        key = object_keys.work_key(claim.task.pk, claim.fence, path.name)
        toolkit().storage.put_file(path, key, move=True)
        failpoint("thumbnail.after_extra")
        sizes[key.rpartition("/")[2]] = size_bytes
    return sizes


def keep(task: VideoTask, video_key: str) -> dict[str, Any]:
    """Give the extras their final names, beside the video of that key; columns of the row."""
    storage = toolkit().storage
    kept: dict[str, int] = {}
    lost = set()
    for work_name, size_bytes in task.extra_files.items():
        name = object_keys.without_fence(work_name)
        try:
            storage.copy(object_keys.work_prefix(task.pk) + work_name, object_keys.extra_key(video_key, name))
        except FileNotFoundError:
            log.warning("%s: %s is gone from storage and can't be kept; the video is stored", task.pk, name)
            lost.add(kind_of(name))
            continue
        failpoint("save.after_extra")
        kept[name] = size_bytes
    fields: dict[str, Any] = {"extra_files": {name: kept[name] for name in kept if kind_of(name) not in lost}}
    if lost:
        codes = [one["code"] for one in task.warnings]
        fields["warnings"] = warnings.as_rows([*codes, *(_left_out(kind) for kind in sorted(lost))])
    return fields


def keys_of(fields: Mapping[str, Any]) -> list[str]:
    """Where the extras are that `make` or `keep` has listed in these columns."""
    names = fields.get("extra_files") or ()
    if "output_key" in fields:
        return [object_keys.extra_key(fields["output_key"], name) for name in names]
    return [f"{fields['thumbnail_key'].rpartition('/')[0]}/{name}" for name in names]


def _left_out(kind: str) -> str:
    return f"{kind}_left_out"
