"""A sample of what becomes of odd files, played to its end by a real browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Target
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.transcode import transcode
from tests.media_pipeline.conftest import FFMPEG
from tests.media_pipeline.table import cases

NAMES = {
    "no ftyp",
    "rubbish behind: text",
    "fragmented, B-frames",
    "webp",
    "m2ts",
    "picture late",
    "sound longer",
    "cut by an edit list",
    "ts from 1000 s on",
    "matrix 8",
    "matrix 14",
    "zeros in the middle",
    "dead sound",
    "cut at half",
}
EVERY = cases.containers() | cases.times() | cases.tags() | cases.damaged()
SAMPLE = {name: EVERY[name] for name in sorted(NAMES)}
PLAY = """
async (data) => {
    const video = document.createElement("video");
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    video.src = URL.createObjectURL(new Blob([bytes], {type: "video/mp4"}));
    video.muted = true;
    video.playbackRate = 4;
    document.body.append(video);
    await new Promise((resolve, reject) => {
        video.onended = resolve;
        video.onerror = () => reject(new Error(video.error.message));
        video.play().catch(reject);
    });
    return {end: video.currentTime, duration: video.duration, width: video.videoWidth, height: video.videoHeight,
            dropped: video.getVideoPlaybackQuality().corruptedVideoFrames};
}
"""


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    found = Prober(workers=1)
    yield found
    found.close()


@pytest.mark.parametrize("name", SAMPLE)
def test_it_plays_to_its_end(page: Page, prober: Prober, tmp_path: Path, name: str) -> None:
    case, dest = SAMPLE[name], tmp_path / "out.mp4"
    source = case.recipe(tmp_path)
    done = transcode(
        source,
        dest,
        info=prober.probe(source),
        target=Target("medium", "source", 30),
        ffmpeg=FFmpeg(FFMPEG),
        prober=prober,
        deadline_s=60,
        accept_damage=True,
    )
    page.set_content("<body></body>")
    played = page.evaluate(PLAY, base64.b64encode(dest.read_bytes()).decode())
    assert (played["width"], played["height"], played["dropped"]) == (*case.size, 0)
    assert played["end"] == pytest.approx(played["duration"], abs=0.01)
    assert played["duration"] == pytest.approx(done.info.duration_s, abs=0.06)
