from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from media_pipeline.encode.command import command
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.picture import Picture
from media_pipeline.encode.plan import Target, output_size, plan
from media_pipeline.encode.probe import MediaInfo, Prober
from media_pipeline.encode.provenance import Provenance
from media_pipeline.encode.transcode import transcode, what_is_wrong
from media_pipeline.errors import Cancelled, DiskFull, MediaTimeout, TranscodeFailed
from tests.media_pipeline.conftest import FFMPEG, X264, run_ffmpeg

Clip = Callable[[str], Path]

#: What most providers deliver, on paper.
READY = MediaInfo(
    container="mp4",
    video_codec="h264",
    pix_fmt="yuv420p",
    width_px=1280,
    height_px=720,
    sar=Fraction(1),
    rotation=0,
    fps=Fraction(30),
    is_constant_fps=True,
    interlaced=False,
    color_space=1,
    color_range=1,
    duration_s=5.0,
    audio_codec="aac",
    audio_channels=2,
    bit_rate=4_000_000,
    size_bytes=2_500_000,
    faststart=True,
    streams=2,
    fragmented=False,
    picture=Picture(profile="High", level=31, codec_tag="avc1", transfer=1, primaries=1, keyframe_gap_s=2.0),
    provenance=Provenance(),
)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "remux"),
        ({"audio_codec": None, "audio_channels": 0}, "remux"),
        ({"faststart": False}, "remux"),
        ({"fps": Fraction(30000, 1001)}, "remux"),  # 29.97 is 30 to a viewer
        ({"streams": 4}, "remux"),
        ({"fps": Fraction(24)}, "encode"),
        ({"is_constant_fps": False}, "encode"),
        ({"video_codec": "hevc"}, "encode"),
        ({"pix_fmt": "yuv420p10le"}, "encode"),
        ({"container": "matroska"}, "encode"),
        ({"width_px": 1280, "height_px": 768}, "encode"),
        ({"rotation": 90}, "encode"),
        ({"sar": Fraction(4, 3)}, "encode"),
        ({"interlaced": True}, "encode"),
        ({"color_range": 2}, "encode"),
        ({"audio_codec": "opus"}, "encode"),
        ({"audio_channels": 6}, "encode"),
        ({"bit_rate": 20_000_000}, "encode"),
    ],
)
def test_plan(change: dict[str, object], kind: str) -> None:
    chosen = plan(dataclasses.replace(READY, **change), Target("medium", "720p"))  # type: ignore[arg-type]
    assert chosen.kind == kind
    assert chosen.reason


def test_quality_decides_how_many_bits_may_stay() -> None:
    kinds = {quality: plan(READY, Target(quality, "720p")).kind for quality in ("low", "medium", "high")}  # type: ignore[arg-type]
    assert kinds == {"low": "remux", "medium": "remux", "high": "remux"}
    heavy = dataclasses.replace(READY, bit_rate=12_000_000)
    kinds = {quality: plan(heavy, Target(quality, "720p")).kind for quality in ("low", "medium", "high")}  # type: ignore[arg-type]
    assert kinds == {"low": "encode", "medium": "encode", "high": "remux"}


@pytest.mark.parametrize(
    ("size", "rotation", "sar", "resolution", "expected"),
    [
        ((1280, 768), 0, 1, "720p", (1200, 720)),
        ((768, 1280), 0, 1, "720p", (720, 1200)),
        ((1920, 1080), 0, 1, "480p", (854, 480)),
        ((960, 960), 0, 1, "1080p", (1080, 1080)),
        ((1280, 720), 90, 1, "720p", (720, 1280)),
        ((720, 576), 0, Fraction(16, 11), "source", (1048, 576)),
        ((321, 193), 0, 1, "source", (320, 192)),
        ((1104, 832), 0, 1, "480p", (636, 480)),
    ],
)
def test_short_side_is_what_the_name_says(
    size: tuple[int, int], rotation: int, sar: int, resolution: str, expected: tuple[int, int]
) -> None:
    info = dataclasses.replace(READY, width_px=size[0], height_px=size[1], rotation=rotation, sar=Fraction(sar))
    assert output_size(info, resolution) == expected  # type: ignore[arg-type]


def test_ribbon_is_never_enlarged() -> None:
    ribbon = dataclasses.replace(READY, width_px=4000, height_px=16)
    assert output_size(ribbon, "480p") == (4000, 16)
    assert output_size(dataclasses.replace(ribbon, height_px=480), "720p") == (4000, 480)
    assert output_size(dataclasses.replace(ribbon, height_px=480, width_px=5000), "480p") == (5000, 480)
    # No level allows so long a side.
    shrunk = plan(dataclasses.replace(ribbon, width_px=60_000), Target("low", "480p"))
    assert shrunk.width_px <= 8688


@pytest.mark.parametrize("wrong", [("ultra", "720p", 30), ("low", "4k", 30), ("low", "720p", 0)])
def test_target_refuses_what_it_does_not_know(wrong: tuple[str, str, int]) -> None:
    with pytest.raises(ValueError):
        Target(*wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "size", "sound"),
    [
        ("ready.mp4", "remux", (854, 480), False),
        ("ready_late_index.mp4", "remux", (854, 480), False),
        ("sound.mp4", "remux", (854, 480), True),
        ("h264_24.mp4", "encode", (800, 480), False),
        ("sound_mp3.mp4", "encode", (800, 480), True),
        ("mpeg4.mp4", "encode", (800, 480), False),
        ("hevc10.mp4", "encode", (800, 480), False),
        ("vp9.webm", "encode", (800, 480), True),
        ("odd.mp4", "encode", (800, 480), False),
        ("portrait.mp4", "encode", (480, 854), False),
        ("rotated.mp4", "encode", (480, 854), False),
        ("anamorphic.mp4", "encode", (874, 480), False),
        ("variable.mp4", "encode", (854, 480), False),
        ("fragmented.mp4", "encode", (800, 480), False),
    ],
)
def test_every_source_becomes_the_one_form(
    clip: Clip,
    prober: Prober,
    ffmpeg: FFmpeg,
    tmp_path: Path,
    name: str,
    kind: str,
    size: tuple[int, int],
    sound: bool,
) -> None:
    info = prober.probe(clip(name))
    seen: list[float] = []
    dest = tmp_path / "out.mp4"
    done = transcode(
        *(clip(name), dest),
        info=info,
        target=Target("high", "480p"),
        ffmpeg=ffmpeg,
        prober=prober,
        deadline_s=60,
        on_progress=seen.append,
    )
    made = prober.probe(dest)
    assert (done.plan.kind, made.width_px, made.height_px) == (kind, *size)
    assert (made.video_codec, made.pix_fmt, made.fps, made.sar, made.rotation) == ("h264", "yuv420p", 30, 1, 0)
    assert made.is_constant_fps
    assert made.faststart
    assert made.duration_s == pytest.approx(1.0, abs=0.15)
    assert made.audio_codec == ("aac" if sound else None)
    assert seen[-1] == 1.0
    assert b"secret prompt" not in dest.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    if kind == "encode":
        assert (made.color_space, made.color_range) == (1, 1)
        # What we make is what we would ask for: a second run would only copy.
        assert plan(made, Target("high", "480p")).kind == "remux"


def _start(clip: Clip, prober: Prober, ffmpeg: FFmpeg, dest: Path, **more: object) -> None:
    path = clip("h264_24.mp4")
    target = Target("high", "1080p")
    options = {"deadline_s": 60.0, **more}
    transcode(path, dest, info=prober.probe(path), target=target, ffmpeg=ffmpeg, prober=prober, **options)  # type: ignore[arg-type]


def test_nothing_is_left_after_cancel(clip: Clip, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    cancelled = threading.Event()
    with pytest.raises(Cancelled):
        _start(clip, prober, ffmpeg, tmp_path / "o.mp4", cancelled=cancelled, on_progress=lambda _: cancelled.set())
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_after_the_deadline(clip: Clip, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    with pytest.raises(MediaTimeout):
        _start(clip, prober, ffmpeg, tmp_path / "o.mp4", deadline_s=0.15)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_the_output_is_too_large(clip: Clip, prober: Prober, tmp_path: Path) -> None:
    with pytest.raises(TranscodeFailed, match="size limit"):
        _start(clip, prober, FFmpeg(FFMPEG, file_size_bytes=10_000), tmp_path / "o.mp4")
    assert not list(tmp_path.iterdir())


def test_full_disk_is_told_apart(prober: Prober, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    runner = FFmpeg(FFMPEG)
    with pytest.raises(DiskFull):
        runner.run(
            [runner.binary, *("-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=d=1"), *("-f", "nut", str(full))],
            write=[full],
            deadline_s=20,
        )


def test_remux_that_loses_something_falls_back_to_encoding(
    clip: Clip, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip("ready.mp4")
    monkeypatch.setattr(
        "media_pipeline.encode.transcode.what_is_wrong",
        lambda made, info, target, way: "a hole" if way.kind == "remux" else None,
    )
    done = transcode(
        *(path, tmp_path / "o.mp4"),
        info=prober.probe(path),
        target=Target("high", "480p"),
        ffmpeg=ffmpeg,
        prober=prober,
        deadline_s=60,
    )
    assert done.plan.kind == "encode"
    assert "a hole" in done.plan.reason


def test_damaged_pictures_do_not_become_a_video(clip: Clip, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    whole = bytearray(clip("hevc10.mp4").read_bytes())
    info = prober.probe(clip("hevc10.mp4"))
    start = whole.index(b"mdat") + 4
    for at in range(start + (len(whole) - start) // 8, len(whole) - 3000, 40):
        whole[at] ^= 0xFF
    path = tmp_path / "in.mp4"
    path.write_bytes(whole)
    with pytest.raises(TranscodeFailed):
        transcode(
            *(path, tmp_path / "o.mp4"),
            info=info,
            target=Target("high", "480p"),
            ffmpeg=ffmpeg,
            prober=prober,
            deadline_s=60,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"duration_s": 2.0}, "2.00 s of 5.00 s"),
        ({"faststart": False}, "index"),
        ({"audio_codec": None}, "sound"),
        ({"width_px": 640}, "640"),
        ({"fps": Fraction(15)}, "15 frames"),
    ],
)
def test_output_is_compared_with_the_plan(change: dict[str, object], word: str) -> None:
    target = Target("medium", "720p")
    made = dataclasses.replace(READY, **change)  # type: ignore[arg-type]
    assert word in (what_is_wrong(made, READY, target, plan(READY, target)) or "")


def test_command_forces_demuxer_and_protocol() -> None:
    argv = command(
        "/bin/ffmpeg", Path("/in/-x.mp4"), Path("/out/y.mp4"), info=READY, chosen=plan(READY, Target("low", "720p"))
    )
    before_input = argv[: argv.index("-i")]
    assert before_input[before_input.index("-protocol_whitelist") + 1] == "file"
    assert before_input[before_input.index("-f") + 1] == "mov"
    assert argv[argv.index("-i") + 1] == "file:/in/-x.mp4"
    assert argv[-1] == "file:/out/y.mp4"


@pytest.mark.parametrize(
    ("ratio", "resolution", "size", "bars"),
    [
        (Fraction(1), "source", (96, 96), {"top", "bottom"}),
        (Fraction(16, 9), "source", (96, 54), set()),
        (Fraction(21, 9), "480p", (1120, 480), {"left", "right"}),
    ],
)
def test_a_picture_is_padded_to_another_ratio(
    ffmpeg: FFmpeg, prober: Prober, tmp_path: Path, ratio: Fraction, resolution: Any, size: Any, bars: set[str]
) -> None:
    source, dest = tmp_path / "in.mp4", tmp_path / "out.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "color=white:s=96x54:r=10:d=0.5", *X264, str(source))
    target = Target("medium", resolution, 10, padded_to=ratio)
    transcode(source, dest, info=prober.probe(source), target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    with av.open(str(dest)) as container:
        frame = next(container.decode(video=0)).to_image().convert("L")
    assert frame.size == size
    width, height = size
    edges = {"left": (2, height // 2), "right": (width - 3, height // 2)}
    edges |= {"top": (width // 2, 2), "bottom": (width // 2, height - 3)}
    assert {name for name, at in edges.items() if frame.getpixel(at) < 30} == bars
    assert frame.getpixel((width // 2, height // 2)) > 220
