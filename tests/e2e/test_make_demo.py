"""`make demo` as a newcomer types it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import av
import pytest
from PIL import Image

from media_pipeline.encode.containers import inspect
from tests.e2e.conftest import Canary, bare_environment, processes_of
from tests.system.system import until


@pytest.fixture(scope="module")
def demo(project: Path, canary: Canary) -> subprocess.CompletedProcess[str]:
    """One run, with real-looking keys and a canary for an address lying about in every place that is read."""
    names = ("RUNWAY", "PIKA", "KLING")
    file = "".join(f"{name}_API_KEY=key_canary\n{name}_BASE_URL={canary.url}\n" for name in names)
    (project / ".env.local").write_text(
        file + f"DATABASE_URL=postgres://x@127.0.0.1:1/x\nPUBLIC_BASE_URL={canary.url}\n"
    )
    return subprocess.run(
        ["make", "demo"],
        cwd=project,
        env=bare_environment(RUNWAY_API_KEY="key_canary", RUNWAY_BASE_URL=canary.url, DATABASE_URL="postgres://x@h/x"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def files(demo: subprocess.CompletedProcess[str], project: Path) -> tuple[Path, Path]:
    """What its last two lines name."""
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    video, thumbnail = demo.stdout.strip().splitlines()[-2:]
    assert re.fullmatch(r"video: storage/\d+/videos/vid_\w+\.mp4", video)
    assert re.fullmatch(r"thumbnail: storage/\d+/videos/vid_\w+_thumb\.jpg", thumbnail)
    return project / video.removeprefix("video: "), project / thumbnail.removeprefix("thumbnail: ")


def test_a_prompt_becomes_a_video_that_plays_everywhere(demo: subprocess.CompletedProcess[str], project: Path) -> None:
    video, _ = files(demo, project)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.width, stream.codec_context.height) == (1280, 720)
        assert stream.average_rate == 30
        assert container.duration is not None
        assert 4.8 < container.duration / 1_000_000 < 5.3
    assert inspect(video).faststart


def test_the_thumbnail_is_a_jpeg_of_1280_by_720(demo: subprocess.CompletedProcess[str], project: Path) -> None:
    with Image.open(files(demo, project)[1]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (1280, 720))


def test_every_stage_is_shown(demo: subprocess.CompletedProcess[str], project: Path) -> None:
    for stage in ("generate", "poll", "download", "transcode", "thumbnail", "save"):
        assert stage in demo.stdout
    assert "SIMULATED" in demo.stdout + demo.stderr


def test_no_configured_provider_is_called(demo: subprocess.CompletedProcess[str], canary: Canary) -> None:
    assert demo.returncode == 0
    assert canary.calls == []


def test_no_process_is_left_behind(demo: subprocess.CompletedProcess[str], project: Path) -> None:
    # PostgreSQL's own end takes a moment on a busy machine; its sitter stays for just that.
    until("no process is left", lambda: not processes_of(project), seconds=60)


def test_no_key_is_in_any_log(demo: subprocess.CompletedProcess[str], project: Path) -> None:
    assert "key_canary" not in demo.stdout + demo.stderr
    for log in (project / ".reelworks" / "log").iterdir():
        assert b"key_canary" not in log.read_bytes(), log.name
