"""What may be repacked, and that all else is encoded and comes out as every player plays it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from media_pipeline.encode import levels
from media_pipeline.encode.boxes import Crop
from media_pipeline.encode.conformance import what_is_wrong_with_picture
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Target, plan
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.transcode import transcode
from tests.media_pipeline.conftest import run_ffmpeg
from tests.media_pipeline.encode.plays_everywhere import check, with_clean_aperture
from tests.media_pipeline.encode.test_transcode import READY

_X264 = ("-c:v", "libx264", "-preset", "ultrafast")
_PLAIN = (*_X264, "-pix_fmt", "yuv420p", "-g", "30")


def _vui(fields: str) -> tuple[str, str]:
    """The bitstream says so; the frames are what they were."""
    return "-bsf:v", f"h264_metadata={fields}"


#: name → seconds, ffmpeg's options, what the plan says. All are 320x180 at 30 frames a second.
RECIPES: dict[str, tuple[float, tuple[str, ...], str]] = {
    "good": (1, _PLAIN, "already"),
    "good_main": (1, (*_PLAIN, "-profile:v", "main", "-preset", "veryfast"), "already"),
    "good_tags": (
        1,
        (*_PLAIN, *_vui("colour_primaries=1:transfer_characteristics=1:matrix_coefficients=1")),
        "already",
    ),
    "good_29.97": (1, (*_PLAIN, "-r", "30000/1001"), "already"),
    "high10": (1, (*_X264, "-pix_fmt", "yuv420p10le"), "pixel format"),
    "422": (1, (*_X264, "-pix_fmt", "yuv422p"), "pixel format"),
    "rgb": (1, ("-c:v", "libx264rgb", "-preset", "ultrafast", "-pix_fmt", "rgb24"), "pixel format"),
    "lossless": (1, (*_PLAIN, "-qp", "0", "-vf", "drawbox=t=fill"), "profile High 4:4:4"),
    "level_6.2": (1, (*_PLAIN, "-bsf:v", "h264_metadata=level=6.2"), "level 6.2"),
    "level_1": (1, (*_PLAIN, "-bsf:v", "h264_metadata=level=1"), "level 1.0"),
    "avc3": (1, (*_PLAIN, "-tag:v", "avc3"), "sample entry avc3"),
    "long_group": (5, (*_X264, "-pix_fmt", "yuv420p", "-g", "300", "-sc_threshold", "0"), "without a key frame"),
    "open_group": (
        5,
        (*_X264, "-pix_fmt", "yuv420p", "-preset", "veryfast", "-x264-params", "open-gop=1:keyint=30:scenecut=0"),
        "without a key frame",
    ),
    "pq_tag": (1, (*_PLAIN, *_vui("transfer_characteristics=16")), "transfer characteristics 16"),
    "p3_tag": (1, (*_PLAIN, *_vui("colour_primaries=12")), "colour primaries 12"),
    "ycgco": (1, (*_PLAIN, *_vui("matrix_coefficients=8")), "colour matrix 8"),
    "full_range": (1, (*_PLAIN, "-color_range", "pc"), "pixel format yuvj420p"),
    "fragmented": (1, (*_PLAIN, "-movflags", "+frag_keyframe+empty_moov"), "fragmented"),
    "interlaced": (1, (*_PLAIN, "-preset", "veryfast", "-flags", "+ilme+ildct", "-x264opts", "tff=1"), "interlaced"),
    "29.9": (1, (*_PLAIN, "-r", "29.9"), "29.9 frames"),
}


def made(name: str, folder: Path) -> Path:
    """The file of that recipe."""
    seconds, options, _ = RECIPES[name]
    path = folder / f"{name}.mp4"
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=320x180:r=30:d={seconds}", *options, str(path))
    return path


def _deliver(source: Path, prober: Prober, ffmpeg: FFmpeg) -> tuple[str, Path, float]:
    """The kind and reason of the plan, the output, and the source's length in seconds."""
    info = prober.probe(source)
    dest = source.with_name("out.mp4")
    target = Target("high", "source")
    done = transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    again = plan(prober.probe(dest), target)
    assert (again.kind, again.reason) == ("remux", "already as asked for")
    return f"{done.plan.kind}: {done.plan.reason}", dest, info.duration_s


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    said, dest, seconds = _deliver(made(name, tmp_path), prober, ffmpeg)
    assert RECIPES[name][2] in said
    assert said.startswith("remux" if name.startswith("good") else "encode")
    check(dest, size=(320, 180), fps=30, seconds=seconds)


def test_frames_hidden_by_an_edit_list_are_not_repacked(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    run_ffmpeg("-ss", "0.4", "-i", str(made("good", tmp_path)), "-c", "copy", str(tmp_path / "cut.mp4"))
    said, dest, seconds = _deliver(tmp_path / "cut.mp4", prober, ffmpeg)
    assert "edit list" in said
    assert seconds == pytest.approx(0.6, abs=0.05)
    check(dest, size=(320, 180), fps=30, seconds=seconds)


def test_parameters_that_change_are_not_repacked(prober: Prober, tmp_path: Path) -> None:
    """Two files joined as a stream: the second's parameter sets are not those of the sample entry."""
    parts = []
    for number, size in enumerate(("320x180", "352x198")):
        part = tmp_path / f"{number}.h264"
        run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r=30:d=0.5", *_PLAIN, str(part))
        parts.append(part.read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    run_ffmpeg("-r", "30", "-i", str(tmp_path / "both.h264"), "-c", "copy", str(tmp_path / "both.mp4"))
    chosen = plan(prober.probe(tmp_path / "both.mp4"), Target("high", "source"))
    assert (chosen.kind, chosen.reason) == ("encode", "key frames that can't be told")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"profile": "Baseline"}, "profile Baseline"),
        ({"profile": "Constrained Baseline"}, "already as asked for"),
        ({"profile": "Main"}, "already as asked for"),
        ({"profile": "Stereo High"}, "profile Stereo High"),
        ({"level": 32}, "level 3.2"),
        ({"level": 0}, "level 0.0"),
        ({"start_s": 0.04}, "a start at 0.040 s"),
        ({"crop": Crop(0, 8, 0, 8)}, "size 1280x720"),
        ({"keyframe_gap_s": None}, "key frames that can't be told"),
        ({"keyframe_gap_s": 2.1}, "2.1 s without a key frame"),
        ({"transfer": 18}, "transfer characteristics 18"),
        ({"primaries": 9}, "colour primaries 9"),
        ({"trimmed": True}, "frames hidden by an edit list"),
    ],
)
def test_one_odd_thing_is_enough(change: dict[str, object], reason: str) -> None:
    picture = dataclasses.replace(READY.picture, **change)  # type: ignore[arg-type]
    chosen = plan(dataclasses.replace(READY, picture=picture), Target("medium", "source"))
    assert chosen.reason == reason


def test_bits_may_need_a_higher_level() -> None:
    picture = dataclasses.replace(READY.picture, level=32)
    heavy = dataclasses.replace(READY, bit_rate=18_000_000, picture=picture)
    assert plan(heavy, Target("high", "source")).kind == "remux"


@pytest.mark.parametrize(
    ("size", "fps", "number"),
    [
        ((1280, 720), 30, 31),
        ((1280, 720), Fraction(30000, 1001), 31),
        ((1280, 768), 24, 32),
        ((1280, 720), 60, 32),
        ((1920, 1080), 30, 40),
        ((1920, 1080), 60, 42),
        ((3840, 2160), 30, 51),
        ((854, 480), 30, 31),
        ((640, 360), 30, 30),
        ((320, 180), 30, 13),
        ((128, 96), 30, 10),
        ((16, 4096), 24, 40),
    ],
)
def test_level_needed(size: tuple[int, int], fps: Fraction, number: int) -> None:
    level = levels.needed(*size, Fraction(fps))
    assert level is not None
    assert level.number == number


def test_more_than_the_highest_level_has_none() -> None:
    assert levels.needed(3840, 2160, Fraction(60)) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"fps": Fraction(15)}, "15 frames"),
        ({"is_constant_fps": False}, "variable"),
        ({"fragmented": True}, "fragments"),
        ({"picture": dataclasses.replace(READY.picture, keyframe_gap_s=9.0)}, "9.0 s without"),
        ({"picture": dataclasses.replace(READY.picture, level=52)}, "level 5.2"),
    ],
)
def test_an_output_is_held_to_the_same_rules(change: dict[str, object], word: str) -> None:
    output = dataclasses.replace(READY, **change)  # type: ignore[arg-type]
    assert word in (what_is_wrong_with_picture(output, fps=Fraction(30)) or "")
    assert what_is_wrong_with_picture(READY, fps=Fraction(30)) is None


Clip = Callable[[str], Path]


@pytest.mark.parametrize(("size", "offset"), [((300, 160), (0, 0)), ((240, 180), (-40, 0))])
def test_clean_aperture_is_what_is_shown(
    prober: Prober, tmp_path: Path, size: tuple[int, int], offset: tuple[int, int]
) -> None:
    with_clean_aperture(made("good", tmp_path), tmp_path / "clap.mp4", size=size, offset=offset)
    info = prober.probe(tmp_path / "clap.mp4")
    assert (info.display_width_px, info.display_height_px) == size
    assert info.picture.crop.left == (320 - size[0]) // 2 + offset[0]
    run_ffmpeg("-i", str(tmp_path / "clap.mp4"), "-c", "copy", str(tmp_path / "clap.mkv"))
    assert prober.probe(tmp_path / "clap.mkv").picture.crop == info.picture.crop
