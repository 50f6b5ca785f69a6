"""`cover`: which frame the thumbnail of a task shows, from the order to the stored file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from PIL import Image, ImageStat
from pytest_django import Settings

from config import beside
from media_pipeline.encode.cover import Cover
from media_pipeline.encode.probe import Prober
from media_pipeline.errors import MediaTimeout
from tests.factories import make_task
from tests.media_pipeline.conftest import X264, run_ffmpeg
from video.admin import timeline
from video.engine.claims import Claim
from video.engine.outcomes import Advance
from video.infra.toolkit import toolkit
from video.models import Stage, VideoTask
from video.pipeline import media_stages

pytestmark = pytest.mark.django_db
JSON = "application/json"


def create(api: Client, order: dict[str, Any], cover: object) -> Any:
    return api.post("/api/video/create", {**order, "cover": cover}, content_type=JSON)


@pytest.mark.parametrize(
    ("given", "stored", "shown"),
    [("auto", "auto", "auto"), ("first", "first", "first"), (0, "0", 0.0), (2.5, "2.5", 2.5), (None, None, None)],
)
def test_a_choice_is_taken_kept_and_shown(
    api: Client, order: dict[str, Any], given: object, stored: str | None, shown: object
) -> None:
    reply = create(api, order, given)
    assert reply.status_code == 201
    task = VideoTask.objects.get(pk=reply.json()["data"]["taskId"])
    assert task.cover == stored
    assert api.get(f"/api/queues/tasks/{task.pk}").json()["data"]["request"]["cover"] == shown
    assert dict(timeline._asked(task)).get("Cover") == stored


@pytest.mark.parametrize("given", ["", "last", "2.5", -1, 5, 5.5, 10**400, True, [1], {}])
def test_another_choice_is_refused_by_name(api: Client, order: dict[str, Any], given: object) -> None:
    reply = create(api, order, given)
    assert reply.status_code == 400
    assert [one["field"] for one in reply.json()["error"]["details"]] == ["cover"]
    assert not VideoTask.objects.exists()


def test_the_setting_is_spelled_once_or_stops_the_start() -> None:
    assert [beside.cover(text) for text in ("first", "auto", "1.50")] == ["first", "auto", "1.5"]
    with pytest.raises(ImproperlyConfigured, match="COVER must be first, auto, or a second of the video"):
        beside.cover("best")


@pytest.fixture
def store(settings: Settings, tmp_path: Path) -> Any:
    settings.STORAGE_LOCAL_PATH, settings.SCRATCH_PATH = tmp_path / "storage", tmp_path / "scratch"
    toolkit.cache_clear()
    yield
    toolkit.cache_clear()


def test_a_frame_that_can_not_be_had_gives_way_to_the_first_one(
    user: AbstractBaseUser, store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(user, cover="auto")
    task.output_key = f"work/{task.pk}/1-video.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=96x54:r=10:d=1", *X264, str(tmp_path / "v.mp4"))
    toolkit().storage.put_file(tmp_path / "v.mp4", task.output_key)
    ask = Prober.cover_jpeg

    def late(self: Prober, path: Path, cover: Cover, **size: Any) -> bytes:
        if cover.is_auto:
            raise MediaTimeout("probing the file took too long")
        return ask(self, path, cover, **size)

    monkeypatch.setattr(Prober, "cover_jpeg", late)
    claim = Claim(task=task, stage=Stage.THUMBNAIL, fence=2, claimed_at=task.created_at)
    with pytest.raises(MediaTimeout):
        media_stages.thumbnail(claim)
    task.tries = 1
    outcome = media_stages.thumbnail(claim)
    assert isinstance(outcome, Advance)
    assert [one["code"] for one in outcome.fields["warnings"]] == ["cover_is_first_frame"]


def main_colour(task: VideoTask) -> str:
    """Of the thumbnail that the stage makes of a second of red and one of blue."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        scenes = "color=red:s=96x54:r=10:d=1[a];color=blue:s=96x54:r=10:d=1[b];[a][b]concat"
        run_ffmpeg("-f", "lavfi", "-i", scenes, *X264, str(path))
        task.output_key = f"work/{task.pk}/1-video.mp4"
        toolkit().storage.put_file(path, task.output_key)
    claim = Claim(task=task, stage=Stage.THUMBNAIL, fence=2, claimed_at=task.created_at)
    outcome = media_stages.thumbnail(claim)
    assert isinstance(outcome, Advance)
    assert outcome.fields["warnings"] == []
    with toolkit().storage.open(outcome.fields["thumbnail_key"]) as file, Image.open(file) as picture:
        assert picture.size == (1280, 720)
        red, _, blue = ImageStat.Stat(picture).mean
    return "red" if red > blue else "blue"


def test_the_thumbnail_shows_that_second(user: AbstractBaseUser, store: None, settings: Settings) -> None:
    assert main_colour(make_task(user)) == "red"
    assert main_colour(make_task(user, cover="1.5")) == "blue"
    assert main_colour(make_task(user, cover="3")) == "blue"
    settings.COVER = "1"
    assert main_colour(make_task(user)) == "blue"
    assert main_colour(make_task(user, cover="first")) == "red"
