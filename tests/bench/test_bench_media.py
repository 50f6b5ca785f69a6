"""The measurements of media work alone, at small sizes and without targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import media
from bench.bare_ffmpeg import ffmpeg_command


def test_ours_and_bare_are_the_same_work(tmp_path: Path) -> None:
    ours = media.Transcoder(threads=1)
    try:
        options = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
        source = media.make(tmp_path / "in.mp4", "testsrc2=s=160x90:r=24:d=0.5", *options)
        argv, kind = ffmpeg_command(source, tmp_path / "bare.mp4", binary=media.FFMPEG, threads=1)
        assert kind == "encode"
        (one,) = media.beside_bare(ours, source, argv, times=1, rounds=1)
        assert min(one.values()) > 0
        made, bare = (tmp_path / "ours.mp4").read_bytes(), (tmp_path / "0-bare.mp4").read_bytes()
        assert made == bare
        assert "Reelworks" in media.show_beside("T", [one], target=media.AT_MOST)
    finally:
        ours.prober.close()


def test_peak_memory_is_that_of_the_work() -> None:
    small = media.peak_bytes(lambda: None)["own"]
    large = media.peak_bytes(lambda: bytearray(64 << 20))["own"]
    assert large - small > 50 << 20


def test_growth_is_judged() -> None:
    rows = [
        {"mb": 5.0, "remux": True, "own": 30e6, "ffmpeg": 30e6},
        {"mb": 2e3, "remux": True, "own": 90e6, "ffmpeg": 9e6},
    ]
    assert "MISSED" in media.show_memory(rows)
    assert "met" in media.show_memory([rows[0], {**rows[1], "own": 31e6}])


def test_identical_pictures_have_the_best_score(tmp_path: Path) -> None:
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p")
    source = media.make(tmp_path / "a.mkv", "testsrc2=s=192x108:r=30:d=0.2", *options)
    assert media.vmaf(source, source) == pytest.approx(97.4, abs=3)
