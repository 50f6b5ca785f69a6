"""Tasks with files in storage, saved by the stage that saves them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import connection

from tests.factories import accepted, claimed, make_task, reload
from tests.media_pipeline.conftest import X264, run_ffmpeg
from video.attempts import records
from video.engine import transitions
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, VideoTask
from video.pipeline import runner

VIDEO, THUMBNAIL, SOURCE = b"a video of 21 bytes..", b"a picture", b"what the provider made"


def put(key: str, content: bytes) -> str:
    """A file in storage."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        toolkit().storage.put_file(path, key)
    return key


def before_save(user: AbstractBaseUser | None = None, **order: Any) -> VideoTask:
    """A task that is to be saved next, with its work files."""
    task = make_task(user, **order)
    generation = accepted(task, f"job-{task.pk}")
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    work = f"work/{task.pk}/1-"
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD, has_work_files=True)
    steps = {
        Stage.TRANSCODE: {"source_key": put(f"{work}source.mp4", SOURCE)},
        Stage.THUMBNAIL: {"output_key": put(f"{work}video.mp4", VIDEO), "video_bytes": len(VIDEO)},
        Stage.SAVE: {"thumbnail_key": put(f"{work}thumb.jpg", THUMBNAIL)},
    }
    at = Stage.DOWNLOAD
    for to, columns in steps.items():
        assert transitions.advance(claimed(task, at), to, **columns)
        at = to
    return task


def saved(user: AbstractBaseUser | None = None, **order: Any) -> VideoTask:
    """A task with a stored video."""
    task = before_save(user, **order)
    runner.run_stage(Stage.SAVE, task.pk)
    found = reload(task)
    assert found.status == "success"
    return found


def with_extras(user: AbstractBaseUser | None = None, *, clip: Path | None = None, **order: Any) -> VideoTask:
    """A task with a stored video that is one, as is its original. Cover and extras were made by the stages that make
    them.
    """
    task = make_task(user, **order)
    generation = accepted(task, f"job-{task.pk}")
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD, has_work_files=True)
    with tempfile.TemporaryDirectory() as folder:
        clip = clip or small_clip(Path(folder) / "clip.mp4")
        key = f"work/{task.pk}/1-video.mp4"
        toolkit().storage.put_file(clip, key)
        source = key.replace("video", "source")
        toolkit().storage.put_file(clip, source)
        assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE, source_key=source)
        made = {"output_key": key, "video_bytes": clip.stat().st_size}
    assert transitions.advance(claimed(task, Stage.TRANSCODE), Stage.THUMBNAIL, **made)
    for stage in (Stage.THUMBNAIL, Stage.SAVE):
        runner.run_stage(stage, task.pk)
    found = reload(task)
    assert found.status == "success"
    return found


def small_clip(path: Path, *, seconds: float = 1, size: str = "96x54") -> Path:
    """A small video with sound."""
    inputs = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r=10:d={seconds}", "-f", "lavfi", "-i", f"sine=d={seconds}")
    run_ffmpeg(*inputs, *X264, "-c:a", "aac", "-movflags", "+faststart", str(path))
    return path


def days_pass(task: VideoTask, days: float) -> None:
    """The task ended so much earlier."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET finished_at = finished_at - %(days)s * interval '1 day',
                expires_at = expires_at - %(days)s * interval '1 day' WHERE id = %(id)s
            """,
            {"days": days, "id": task.pk},
        )


def files(task: VideoTask) -> list[str]:
    """Of the task or its user, in storage."""
    storage = toolkit().storage
    return sorted([*storage.list(str(task.user_id)), *storage.list(f"work/{task.pk}")])
