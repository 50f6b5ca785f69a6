"""HLS in a real browser: the pieces of a stream play to the end, also when the size changes between two of them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from media_pipeline.encode.extras import Maker
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.probe import Prober
from tests.media_pipeline.conftest import FFMPEG
from tests.video.storing import small_clip

#: As players of HLS do it: each piece behind the head of its size, into one buffer (Media Source Extensions).
PLAY = """
async ({codecs, parts}) => {
    const video = document.createElement("video");
    const source = new MediaSource();
    video.src = URL.createObjectURL(source);
    video.muted = true;
    video.playbackRate = 4;
    document.body.append(video);
    await new Promise((resolve) => source.addEventListener("sourceopen", resolve, {once: true}));
    const buffer = source.addSourceBuffer(`video/mp4; codecs="${codecs}"`);
    for (const part of parts) {
        buffer.appendBuffer(Uint8Array.from(atob(part), (c) => c.charCodeAt(0)));
        await new Promise((resolve, reject) => {
            buffer.onupdateend = resolve;
            buffer.onerror = () => reject(new Error("a part was refused"));
        });
    }
    source.endOfStream();
    const widths = new Set();
    video.ontimeupdate = () => widths.add(video.videoWidth);
    await new Promise((resolve, reject) => {
        video.onended = resolve;
        video.onerror = () => reject(new Error(video.error.message));
        video.play().catch(reject);
    });
    const {length} = video.buffered;
    return {end: video.currentTime, start: video.buffered.start(0), gaps: length - 1, widths: [...widths].sort()};
}
"""


@pytest.fixture
def prober() -> Iterator[Prober]:
    found = Prober(workers=1)
    yield found
    found.close()


def test_a_player_may_change_the_size_at_any_piece(page: Page, prober: Prober, tmp_path: Path) -> None:
    video = small_clip(tmp_path / "v.mp4", seconds=6, size="640x360")
    maker = Maker(video, prober.probe(video), tmp_path, FFmpeg(FFMPEG), prober, deadline_s=60)
    files = {path.name: path for path in maker.make("hls")}
    codecs = re.findall(r'CODECS="([^"]+)"', files["hls.m3u8"].read_text())[0]
    parts = []
    for number, side in enumerate((240, 360, 240)):
        content, text = files[f"hls_{side}.mp4"].read_bytes(), files[f"hls_{side}.m3u8"].read_text()
        init = int(re.findall(r'BYTERANGE="(\d+)@0"', text)[0])
        size, begin = (int(one) for one in re.findall(r"BYTERANGE:(\d+)@(\d+)", text)[number])
        parts += [content[:init], content[begin : begin + size]]
    page.goto("about:blank")
    played = page.evaluate(PLAY, {"codecs": codecs, "parts": [base64.b64encode(part).decode() for part in parts]})
    assert abs(played["end"] - 6) < 0.1
    assert (played["start"], played["gaps"]) == (0, 0)
    assert played["widths"] == [426, 640]
