"""Bits, frames, key frames and threads of an encode."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import pytest

from media_pipeline.encode import levels
from media_pipeline.encode.command import command
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import FpsChoice, Target, fitted, plan
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.rates import QUALITIES, QualityName, encoder_args, most_bit_rate, most_threads, output_fps
from media_pipeline.encode.transcode import transcode
from media_pipeline.errors import TranscodeFailed
from tests.media_pipeline.conftest import run_ffmpeg
from tests.media_pipeline.encode.plays_everywhere import check
from tests.media_pipeline.encode.test_transcode import READY


@pytest.mark.parametrize(
    ("source", "asked", "made"),
    [
        (Fraction(24), 30, Fraction(30)),
        (Fraction(24), "source", Fraction(24)),
        (Fraction(24000, 1001), "source", Fraction(24000, 1001)),
        (Fraction(120), "source", Fraction(60)),
        (Fraction(1, 2), "source", Fraction(1)),
        (Fraction(123457, 5003), "source", Fraction(123457, 5003).limit_denominator(1001)),
    ],
)
def test_output_rate(source: Fraction, asked: FpsChoice, made: Fraction) -> None:
    assert output_fps(source, asked) == made


@pytest.mark.parametrize(
    ("rate", "asked", "made"),
    [
        ("24000/1001", "source", Fraction(24000, 1001)),
        ("12.5", "source", Fraction(25, 2)),
        ("100", "source", Fraction(60)),
        ("25", 1, Fraction(1)),
        ("8", 60, Fraction(60)),
    ],
)
def test_rate_is_exact(
    rate: str, asked: FpsChoice, made: Fraction, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    source, dest = tmp_path / "in.mp4", tmp_path / "out.mp4"
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=160x90:r={rate}:d=4", *encoder, "-g", "500", str(source))
    target, info = Target("low", "source", asked), prober.probe(source)
    done = transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    assert (done.plan.kind, done.plan.fps) == ("encode", made)
    check(dest, size=(160, 90), fps=made, seconds=info.duration_s)
    assert plan(prober.probe(dest), target).kind == "remux"


@pytest.mark.parametrize("rate", [10, 60])
def test_video_shorter_than_half_a_frame_of_the_output_has_one(
    rate: int, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    source, dest = tmp_path / "in.mp4", tmp_path / "out.mp4"
    encoder = ("-frames:v", "4", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=160x90:r={rate}:d=4", *encoder, str(source))
    info = prober.probe(source)
    transcode(source, dest, info=info, target=Target("low", "source", 1), ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    check(dest, size=(160, 90), fps=Fraction(1), seconds=1)


def test_variable_rate_is_made_constant_at_its_average(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    source, dest = tmp_path / "in.mp4", tmp_path / "out.mp4"
    drop = ("-vf", "select='not(eq(mod(n,4),1))'", "-fps_mode", "vfr", "-c:v", "libx264", "-preset", "ultrafast")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x90:r=30:d=4", *drop, str(source))
    info = prober.probe(source)
    target = Target("low", "source", "source")
    done = transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    assert abs(done.plan.fps - info.fps) < Fraction(1, 100)
    check(dest, size=(160, 90), fps=done.plan.fps, seconds=info.duration_s)


@pytest.mark.parametrize("quality", QUALITIES)
def test_noise_stays_below_the_ceiling(quality: QualityName, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """What would take any number of bits takes those of the quality, in each second."""
    source, dest = tmp_path / "in.mkv", tmp_path / "out.mp4"
    noise = "color=gray:s=480x270:r=30:d=3,noise=alls=100:allf=t"
    run_ffmpeg("-f", "lavfi", "-i", noise, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", str(source))
    target, info = Target(quality, "source"), prober.probe(source)
    transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    most = most_bit_rate(quality, 480, 270, Fraction(30))
    with av.open(str(dest)) as container:
        seconds = [0.0] * 4
        for packet in container.demux(video=0):
            if packet.pts is not None:
                seconds[int(packet.pts * packet.time_base)] += packet.size * 8
    # A buffer of one second: no window of a second may have more than twice its worth.
    assert max(seconds) <= 2 * most
    assert sum(seconds) <= most * 3 + most
    assert sum(seconds) > most  # it did want more


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("size", [(160, 90), (854, 480), (1280, 720), (1080, 1920), (3840, 2160)])
@pytest.mark.parametrize("fps", [1, 24, 30, 60])
def test_rate_and_buffer_are_within_the_level(quality: QualityName, size: tuple[int, int], fps: int) -> None:
    width, height = fitted(*size, Fraction(fps))
    args = encoder_args(quality, width, height, Fraction(fps))
    given = dict(zip(args[::2], args[1::2], strict=True))
    (level,) = [one for one in levels.LEVELS if f"{one.number / 10:.1f}" == given["-level:v"]]
    assert 0 < int(given["-maxrate"]) <= level.bit_rate
    assert 0 < int(given["-bufsize"]) <= level.buffer_bits
    assert int(given["-g"]) == 2 * fps
    assert levels.macroblocks(width, height) * fps <= level.macroblocks_per_s


def test_more_than_the_highest_level_is_made_smaller_and_not_slower() -> None:
    assert fitted(3840, 2160, Fraction(30)) == (3840, 2160)
    width, height = fitted(3840, 2160, Fraction(60))
    assert levels.needed(width, height, Fraction(60)) == levels.HIGHEST
    assert width / height == pytest.approx(16 / 9, abs=0.01)
    assert width > 2600
    info = dataclasses.replace(READY, width_px=4096, height_px=2304)
    assert plan(info, Target("high", "source")).width_px < 4096


def test_threads_are_those_that_the_picture_allows() -> None:
    assert most_threads(1280 * 720) == 16
    assert most_threads(1920 * 1080, 1280 * 720) == 16
    assert most_threads(1280 * 720, 3840 * 2160) == 4
    assert most_threads(16) == 16
    argv = command("f", Path("a"), Path("b"), info=READY, chosen=plan(READY, Target("low", "480p")), threads=64)
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "-threads"] == ["16", "16"]


def test_host_with_many_cores_has_room_in_the_address_space(
    prober: Prober, ffmpeg: FFmpeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the bound, 64 threads for 2160p find no memory; with it they are as many as have room."""
    source, dest = tmp_path / "in.mp4", tmp_path / "out.mp4"
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv422p")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=3840x2160:r=30:d=0.1", *encoder, str(source))
    info, target = prober.probe(source), Target("low", "source")

    def deliver() -> None:
        transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=120, threads=64)

    deliver()
    check(dest, size=(3840, 2160), fps=30, seconds=0.1)
    monkeypatch.setattr("media_pipeline.encode.command.most_threads", lambda *pixels: 64)
    with pytest.raises(TranscodeFailed):
        deliver()
