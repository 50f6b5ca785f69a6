"""What a provider's file says of its origin is on its attempt, for owners and operators, and in the finished video."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import av
import pytest
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from pytest_django import Settings

from media_pipeline.encode.boxes import C2PA_UUID
from tests.factories import accepted, claimed, make_task
from tests.media_pipeline.conftest import run_ffmpeg
from video import checks
from video.admin import timeline
from video.attempts import records
from video.engine.outcomes import Advance
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, VideoTask
from video.pipeline import media_stages

pytestmark = pytest.mark.django_db

TAG = '{"AIGC":{"Label":"1","ContentProducer":"kling"}}'


def _file(path: Path, *, tag: str, c2pa: bool) -> Path:
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "30")
    metadata = ("-metadata", f"AIGC={tag}", "-movflags", "+use_metadata_tags") if tag else ()
    run_ffmpeg("-f", "lavfi", "-i", "color=gray:s=320x180:r=30:d=0.2", *options, *metadata, str(path))
    if c2pa:
        path.write_bytes(path.read_bytes() + (8 + 16 + 4).to_bytes(4) + b"uuid" + C2PA_UUID + bytes(4))
    return path


@pytest.fixture
def configured(settings: Settings) -> Settings:
    """Django's own name is taken by the module that `_run` reads."""
    return settings


@pytest.fixture
def store(configured: Settings, tmp_path: Path) -> Any:
    configured.STORAGE_LOCAL_PATH, configured.SCRATCH_PATH = tmp_path / "storage", tmp_path / "scratch"
    toolkit.cache_clear()
    yield
    toolkit.cache_clear()


def _run(task: VideoTask, source: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Generation, Path]:
    """Download (of a file that is here) and transcode; the attempt, and the finished file."""
    generation = accepted(task)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    monkeypatch.setattr("video.attempts.provider_calls.result_url", lambda _: "https://example.com/v.mp4")
    monkeypatch.setattr(media_stages, "fetch", lambda _, path, **__: shutil.copyfile(source, path))
    claim = claimed(task, Stage.POLL)
    claim.stage, claim.task.stage = Stage.DOWNLOAD, Stage.DOWNLOAD
    claim.attempt = Generation.objects.get(pk=generation.pk)
    claim.task.duration_s = 0  # a short file is no odd one here
    outcome = media_stages.download(claim)
    assert isinstance(outcome, Advance)
    claim.task.source_key = outcome.fields["source_key"]
    claim.stage = Stage.TRANSCODE
    made = media_stages.transcode(claim)
    assert isinstance(made, Advance)
    return Generation.objects.get(pk=generation.pk), Path(settings.STORAGE_LOCAL_PATH) / made.fields["output_key"]


def _tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_tag_and_manifest_are_recorded_and_the_tag_is_kept(
    user: AbstractBaseUser, api: Client, store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(user)
    generation, video = _run(task, _file(tmp_path / "in.mp4", tag=TAG, c2pa=True), monkeypatch)
    assert (generation.aigc_tag, generation.has_c2pa) == (TAG, True)
    assert _tags(video)["AIGC"] == TAG
    (seen,) = api.get(f"/api/queues/tasks/{task.pk}").json()["data"]["generations"]
    assert (seen["aigcTag"], seen["hasC2pa"]) == (TAG, True)
    facts = dict(timeline._attempt(generation, generation.planned_at)["facts"])
    assert facts["AIGC tag"] == TAG
    assert "manifest" in facts["C2PA"]


def test_a_file_that_says_nothing_gets_the_label_that_is_configured(
    user: AbstractBaseUser, store: None, configured: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(user)
    configured.LABEL_PRODUCER = "Reel Works"
    generation, video = _run(task, _file(tmp_path / "in.mp4", tag="", c2pa=False), monkeypatch)
    assert (generation.aigc_tag, generation.has_c2pa) == ("", False)
    assert f'"ContentProducer":"Reel Works","ProduceID":"{task.pk}"' in _tags(video)["AIGC"]


def test_only_a_job_that_succeeded_has_a_file(user: AbstractBaseUser) -> None:
    generation = accepted(make_task(user))
    assert not records.record_provenance(generation.pk, aigc_tag=TAG, has_c2pa=False)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert not records.record_provenance(generation.pk, aigc_tag="", has_c2pa=False)
    assert records.record_provenance(generation.pk, aigc_tag=TAG, has_c2pa=False)


def test_label_that_can_not_be_made_stops_the_start(configured: Settings) -> None:
    assert checks.label_can_be_made(None) == []
    configured.LABEL_MARK, configured.LABEL_PRODUCER = "AI生成", "x" * 201
    said = [message.msg for message in checks.label_can_be_made(None)]
    assert said == [
        "LABEL_PRODUCER can't be used: it has more than 200 characters.",
        "LABEL_MARK can't be used: its font has no '生'.",
    ]
