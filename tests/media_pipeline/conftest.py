"""Tiny real clips, made once a session with the real ffmpeg, and one decoder child for all tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.probe import Prober

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")

#: name → (width x height, frames a second, options). All last one second, of a moving test picture.
RECIPES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "h264_24.mp4": ("320x192", 24, X264),
    "ready.mp4": ("854x480", 30, (*X264, "-crf", "30", "-movflags", "+faststart")),
    "ready_late_index.mp4": ("854x480", 30, (*X264, "-crf", "30", "-metadata", "comment=secret prompt")),
    "sound.mp4": ("854x480", 30, (*X264, "-crf", "30", "-c:a", "aac")),
    "sound_mp3.mp4": ("320x192", 30, (*X264, "-c:a", "libmp3lame")),
    "mpeg4.mp4": ("320x192", 25, ("-c:v", "mpeg4")),
    "hevc10.mp4": (
        "320x192",
        30,
        ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1"),
    ),
    "vp9.webm": ("320x192", 30, ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")),
    "odd.mp4": (
        "321x193",
        30,
        ("-vf", "scale=321:193", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p"),
    ),
    "portrait.mp4": ("270x480", 30, X264),
    "anamorphic.mp4": ("360x288", 30, ("-vf", "setsar=16/11", *X264)),
    "wide_range.mp4": ("320x192", 30, ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuvj420p")),
    "fragmented.mp4": ("320x192", 30, (*X264, "-g", "10", "-movflags", "+frag_keyframe+empty_moov")),
    "streams.mp4": ("64x64", 10, ("-map", "0:v", *(["-map", "0:v"] * 9), *X264)),
    "huge.mp4": ("5120x2880", 1, X264),
}


def run_ffmpeg(*args: str) -> None:
    subprocess.run([FFMPEG, "-nostdin", "-v", "error", "-y", *args], check=True, timeout=60)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`clip("odd.mp4")`: the path of a clip from RECIPES, made when first asked for. Don't write to it."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        if name == "rotated.mp4":
            run_ffmpeg("-display_rotation", "90", "-i", str(make("ready.mp4")), "-c", "copy", str(path))
        elif name == "variable.mp4":
            run_ffmpeg(
                *("-i", str(make("ready.mp4")), "-vf", "select='not(eq(mod(n,4),1))'", "-fps_mode", "vfr"),
                *(*X264, "-crf", "30", str(path)),
            )
        else:
            size, rate, options = RECIPES[name]
            sound = ("-f", "lavfi", "-i", "sine=d=1") if "sound" in name or name.endswith(".webm") else ()
            run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d=1", *sound, *options, str(path))
        return path

    return make


@pytest.fixture(scope="session")
def prober() -> Iterator[Prober]:
    shared = Prober()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def ffmpeg() -> FFmpeg:
    return FFmpeg(FFMPEG)
