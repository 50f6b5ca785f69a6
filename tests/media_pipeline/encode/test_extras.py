"""Previews and sprite sheets, of real clips; read again by other programs than the one that made them."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from media_pipeline.encode.cover import Cover
from media_pipeline.encode.extra_kinds import KINDS, kind_of, spelled
from media_pipeline.encode.extras import Maker
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.probe import Prober
from media_pipeline.errors import Cancelled, NotAVideo, TranscodeFailed
from tests.media_pipeline.conftest import X264, run_ffmpeg


def maker_of(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober, *scenes: str, size: str = "96x54", fps: int = 10) -> Maker:
    """Of a video with these colours, a second each."""
    path = tmp_path / "video.mp4"
    inputs = [
        part for colour in scenes for part in ("-f", "lavfi", "-t", "1", "-i", f"color={colour}:s={size}:r={fps}")
    ]
    joined = f"{''.join(f'[{at}]' for at in range(len(scenes)))}concat=n={len(scenes)}"
    run_ffmpeg(*inputs, "-filter_complex", joined, *X264, str(path))
    folder = tmp_path / "made"
    folder.mkdir()
    return Maker(path, prober.probe(path), folder, ffmpeg, prober, deadline_s=60)


def test_a_still_is_the_frame_of_the_cover_in_full_size(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, "red", "blue", size="640x360")
    object.__setattr__(maker, "cover", Cover(at_s=1.5))
    (path,) = maker.make("still")
    with Image.open(path) as picture:
        assert (path.name, picture.format, picture.size) == ("still.jpg", "JPEG", (640, 360))
        mean = ImageStat.Stat(picture).mean
    assert mean[2] > 200 > mean[0]


def test_a_preview_is_a_silent_endless_animation(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, "red", "blue", "lime", "white", size="640x360")
    (path,) = maker.make("preview")
    assert path.name == "preview.webp"
    with Image.open(path) as picture:
        assert (picture.format, picture.size, picture.info["loop"]) == ("WEBP", (320, 180), 0)
        stamps, colours = 0, []
        for at in range(picture.n_frames):
            picture.seek(at)
            picture.load()
            stamps = max(stamps, picture.info["timestamp"] + picture.info["duration"])
            colours.append(ImageStat.Stat(picture.convert("RGB")).mean)
    assert 2900 <= stamps <= 3100, "3 of the 4 seconds"
    assert colours[0][0] > 200 > colours[0][2]
    assert colours[-1][1] > 200 > colours[-1][0]


def cues(text: str) -> list[tuple[float, float, tuple[int, ...]]]:
    """(begin, end, x y width height) of each cue of a track."""
    clock = r"(\d\d):(\d\d):(\d\d\.\d\d\d)"
    found = re.findall(rf"{clock} --> {clock}\nsprites\.jpg#xywh=(\d+),(\d+),(\d+),(\d+)\n", text)
    return [
        (
            int(one[0]) * 3600 + int(one[1]) * 60 + float(one[2]),
            int(one[3]) * 3600 + int(one[4]) * 60 + float(one[5]),
            tuple(int(number) for number in one[6:]),
        )
        for one in found
    ]


def test_a_sprite_sheet_shows_at_each_time_what_the_video_shows(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober) -> None:
    colours = ("red", "blue", "lime", "white", "black", "red")
    sheet, track = maker_of(tmp_path, ffmpeg, prober, *colours).make("sprites")
    assert (sheet.name, track.name) == ("sprites.jpg", "sprites.vtt")
    text = track.read_text()
    assert text.startswith("WEBVTT\n\n")
    found = cues(text)
    assert [begin for begin, _, _ in found] == [number / 2 for number in range(12)]
    assert [end for _, end, _ in found] == [(number + 1) / 2 for number in range(12)]
    names = {"red": (255, 0, 0), "blue": (0, 0, 255), "lime": (0, 255, 0), "white": (255,) * 3, "black": (0,) * 3}
    with Image.open(sheet) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (960, 108)
        for begin, _, (x, y, width, height) in found:
            mean = ImageStat.Stat(picture.crop((x, y, x + width, y + height))).mean
            expected = names[colours[int(begin)]]
            assert all(abs(a - b) < 24 for a, b in zip(mean, expected, strict=True)), (begin, mean)


def test_a_long_video_has_a_hundred_frames_and_a_short_one_its_only_one(
    tmp_path: Path, ffmpeg: FFmpeg, prober: Prober
) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, *["red"] * 2, size="54x96", fps=5)
    long = Maker(maker.video, prober.probe(maker.video), maker.folder, ffmpeg, prober, deadline_s=60)
    object.__setattr__(long.info, "duration_s", 600.0)
    _, track = long.make("sprites")
    found = cues(track.read_text())
    assert (len(found), found[-1][:2]) == (100, (594.0, 600.0))
    assert {one[2][2:] for one in found} == {(50, 90)}
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=96x54:r=10:d=0.1", *X264, str(maker.video))
    short = Maker(maker.video, prober.probe(maker.video), maker.folder, ffmpeg, prober, deadline_s=60)
    sheet, track = short.make("sprites")
    assert [one[1] for one in cues(track.read_text())] == [0.1]
    with Image.open(sheet) as picture:
        assert picture.getpixel((48, 27))[0] > 200  # type: ignore[index]
    assert short.make("preview")[0].stat().st_size > 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_video_ends_as_an_error_of_ours(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober, kind: str) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, "red")
    maker.video.write_bytes(b"#EXTM3U\nfile:///etc/passwd")
    with pytest.raises((TranscodeFailed, NotAVideo)):
        maker.make(kind)


def test_it_stops_when_its_claim_is_lost(tmp_path: Path, ffmpeg: FFmpeg, prober: Prober) -> None:
    maker = maker_of(tmp_path, ffmpeg, prober, "red")
    lost = threading.Event()
    lost.set()
    object.__setattr__(maker, "cancelled", lost)
    with pytest.raises(Cancelled):
        maker.make("preview")


def test_kinds_have_one_order_and_their_files_say_which_they_are() -> None:
    assert spelled(["sprites", "preview", "sprites"]) == ["preview", "sprites"]
    assert spelled([]) == []
    with pytest.raises(ValueError, match="gif"):
        spelled(["preview", "gif"])
    assert [kind_of(name) for name in ("preview.webp", "sprites.vtt", "sprites.jpg")] == [
        "preview",
        "sprites",
        "sprites",
    ]
