"""HLS: playlists as RFC 8216 has them, and pieces that a player can begin with, read by other programs."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from media_pipeline.encode import hls
from media_pipeline.encode.extras import Maker
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.probe import Prober
from media_pipeline.errors import TranscodeFailed
from tests.media_pipeline.conftest import X264, run_ffmpeg


def maker_of(
    tmp_path: Path,
    ffmpeg: FFmpeg,
    prober: Prober,
    *,
    size: str,
    fps: str = "10",
    seconds: float = 5,
    sound: bool = True,
) -> Maker:
    path, folder = tmp_path / "video.mp4", tmp_path / "made"
    folder.mkdir()
    heard = ("-f", "lavfi", "-i", f"sine=d={seconds}", "-c:a", "aac") if sound else ()
    picture = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={fps}:d={seconds}")
    run_ffmpeg(*picture, *heard, *X264, "-movflags", "+faststart", str(path))
    return Maker(path, prober.probe(path), folder, ffmpeg, prober, deadline_s=60)


def pieces(text: str) -> list[tuple[float, int, int]]:
    """(seconds, bytes, begin) of each piece of a media playlist."""
    found = re.findall(r"#EXTINF:([\d.]+),\n#EXT-X-BYTERANGE:(\d+)@(\d+)\nhls_\d+\.mp4\n", text)
    return [(float(seconds), int(size), int(begin)) for seconds, size, begin in found]


def frames_of(content: bytes, kind: str) -> list[Any]:
    with av.open(io.BytesIO(content)) as container:
        return list(container.decode(**{kind: 0}))


def test_each_size_is_whole_and_each_piece_begins_with_a_key_frame(
    tmp_path: Path, ffmpeg: FFmpeg, prober: Prober
) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, size="640x360")
    files = maker.make("hls")
    assert [one.name for one in files] == ["hls_360.mp4", "hls_360.m3u8", "hls_240.mp4", "hls_240.m3u8", "hls.m3u8"]
    starts = []
    for media, words in ((files[0], files[1]), (files[2], files[3])):
        content, text = media.read_bytes(), words.read_text()
        assert text.startswith("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n")
        assert text.endswith("\n#EXT-X-ENDLIST\n")
        (init,) = re.findall(rf'#EXT-X-MAP:URI="{media.name}",BYTERANGE="(\d+)@0"', text)
        found = pieces(text)
        assert [one[0] for one in found] == [2, 2, 1]
        assert found[0][2] == int(init)
        assert [begin + size for _, size, begin in found] == [*[one[2] for one in found[1:]], len(content)]
        head = content[: int(init)]
        decoded = [frames_of(head + content[begin : begin + size], "video") for _, size, begin in found]
        assert [len(one) for one in decoded] == [20, 20, 10]
        assert all(one[0].key_frame for one in decoded)
        starts.append([round(one[0].time, 3) for one in decoded])
        sound = sum(len(frames_of(head + content[begin : begin + size], "audio")) for _, size, begin in found)
        assert abs(sound * 1024 / 44100 - 5) < 0.1
    assert starts == [[0, 2, 4]] * 2, "a player may change the size at any piece"


def test_the_master_says_what_each_size_needs(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, size="640x360", seconds=2, sound=False)
    text = maker.make("hls")[-1].read_text()
    found = re.findall(
        r"#EXT-X-STREAM-INF:BANDWIDTH=(\d+),AVERAGE-BANDWIDTH=(\d+),RESOLUTION=(\d+x\d+),FRAME-RATE=10\.000,"
        r'CODECS="(avc1\.64[0-9a-f]{4})"\n(hls_\d+\.m3u8)\n',
        text,
    )
    assert [(one[2], one[4]) for one in found] == [("640x360", "hls_360.m3u8"), ("426x240", "hls_240.m3u8")]
    for peak, mean, _, _, name in found:
        size = (maker.folder / name.replace("m3u8", "mp4")).stat().st_size
        assert abs(int(mean) - size * 8 / 2) < 0.1 * int(mean)
        assert int(peak) >= int(mean)
    with av.open(str(maker.folder / "hls.m3u8")) as container:  # libav reads playlists too
        assert {stream.width for stream in container.streams.video} == {640, 426}


@pytest.mark.parametrize(("fps", "seconds", "number"), [("30000/1001", 4.0, 3), ("1", 3.0, 2), ("60", 0.05, 1)])
def test_odd_rates_and_lengths(
    tmp_path: Path, ffmpeg: FFmpeg, prober: Prober, fps: str, seconds: float, number: int
) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, size="96x54", fps=fps, seconds=seconds, sound=False)
    files = maker.make("hls")
    assert [one.name for one in files] == ["hls_54.mp4", "hls_54.m3u8", "hls.m3u8"]
    found = pieces(files[1].read_text())
    assert len(found) == number
    assert sum(one[0] for one in found) == pytest.approx(maker.info.duration_s, abs=0.01)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), [(1920, 1080), (1280, 720), (854, 480)]),
        ((3840, 2160), [(1920, 1080), (1280, 720), (854, 480)]),
        ((720, 1280), [(720, 1280), (480, 854), (360, 640)]),
        ((960, 960), [(960, 960), (720, 720), (480, 480)]),
        ((640, 360), [(640, 360), (426, 240)]),
        ((96, 54), [(96, 54)]),
    ],
)
def test_sizes(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    found = hls.rungs_of(SimpleNamespace(width_px=size[0], height_px=size[1]))  # type: ignore[arg-type]
    assert [tuple(one) for one in found] == expected
    assert len({one.media for one in found}) == len(found)


def test_what_is_not_cut_as_asked_is_refused(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober) -> None:
    info = maker_of(tmp_path, ffmpeg, prober, size="96x54", seconds=5, sound=False).info
    path, rung = tmp_path / "other.mp4", hls.Rung(96, 54)
    moves = ("-movflags", "+frag_keyframe+empty_moov")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x54:r=10:d=5", *X264, "-g", "10", *moves, str(path))
    with pytest.raises(TranscodeFailed, match="5 pieces instead of 3"):
        hls.stream_of(path, rung, info)
    path.write_bytes(b"\0" * 64)
    with pytest.raises(TranscodeFailed, match="makes no sense"):
        hls.stream_of(path, rung, info)
    path.write_bytes(b"")
    with pytest.raises(TranscodeFailed, match="0 pieces"):
        hls.stream_of(path, rung, info)
    assert Fraction(info.fps) == 10
