"""What the API says of a finished task's files: links, when they end, or that they are gone and why."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from media_pipeline.storage import object_keys
from video.infra.camel import utc
from video.models import VideoTask
from video.web import media

GoneWhy = VideoTask.GoneWhy

#: Columns of `t` that a statement selects for `shown`, in this order.
COLUMNS = """t.output_key, t.thumbnail_key, t.source_key, t.original_bytes, t.extra_files, t.video_duration_s,
    t.video_width_px, t.video_height_px, t.video_bytes, t.video_fps, t.video_has_sound, t.finished_at, t.expires_at,
    t.gone_at, t.gone_why"""
_FACTS = slice(5, 11)
NUMBER = COLUMNS.count(",") + 1
#: What of the files beside a video is linked, by the API's name; they refer to the others.
_EXTRAS = {"still.jpg": "stillUrl", "preview.webp": "previewUrl", "sprites.vtt": "spritesUrl", "hls.m3u8": "hlsUrl"}
#: For programs and for people.
_GONE = {
    GoneWhy.EXPIRED.value: ("video_expired", "The time for which this video was kept is over. Its files are deleted."),
    GoneWhy.MISSING.value: ("video_missing", "The files of this video are lost. Please tell the operator."),
    GoneWhy.DELETED.value: ("task_deleted", "This video was deleted, with its prompt and picture."),
}


def is_deleted(row: tuple[Any, ...]) -> bool:
    """Whether the columns are those of a task that its owner has deleted."""
    return bool(row[-1] == GoneWhy.DELETED)


def shown(row: tuple[Any, ...], base: str, *, success: bool) -> dict[str, Any]:
    """`row`: the columns of a task that has ended. `base`: the origin of links. `success`: whether it has a video."""
    video, thumbnail, source, original_bytes, extras, *_, finished_at, expires_at, gone_at, why = row
    facts = _facts(*row[_FACTS]) if success else {}
    if why:
        code, message = _GONE[why]
        at = utc(gone_at)
        return {
            **({"result": {"videoUrl": None, "thumbnailUrl": None}} if success else {}),
            **facts,
            **({"expiredAt": at} if why == GoneWhy.EXPIRED else {}),
            "gone": {"code": code, "message": message, "at": at},
        }
    if not success:
        return {}
    result = {
        "videoUrl": media.link(video, base=base),
        "thumbnailUrl": media.link(thumbnail, base=base) if thumbnail else None,
        **media.links_to_save(video),
    }
    if original_bytes is not None and timezone.now() < finished_at + timedelta(days=settings.KEEP_SOURCE_DAYS):
        result["originalUrl"] = media.link(source, base=base)
    files = json.loads(extras)  # as the driver gives it to us
    result |= {
        name: media.link(object_keys.extra_key(video, file), base=base)
        for file, name in _EXTRAS.items()
        if file in files
    }
    ends_at = _ends_at(finished_at, expires_at)
    return {"result": result, **facts, **({"expiresAt": utc(ends_at)} if ends_at else {})}


def _facts(
    duration_s: float | None, width: int | None, height: int | None, size: int | None, fps: float | None, sound: Any
) -> dict[str, Any]:
    """What the finished video is, as measured; `fps` and `sound` are null for a video of before they were kept."""
    if duration_s is None:
        return {}
    seconds = round(duration_s, 3)
    found = {"seconds": seconds, "width": width, "height": height, "bytes": size, "fps": fps, "sound": sound}
    return {"video": found}


def _ends_at(finished_at: datetime, expires_at: datetime | None) -> datetime | None:
    """When the files go, as far as is known now."""
    ends = [expires_at] if expires_at else []
    if settings.KEEP_VIDEOS_DAYS:
        ends.append(finished_at + timedelta(days=settings.KEEP_VIDEOS_DAYS))
    return min(ends, default=None)
