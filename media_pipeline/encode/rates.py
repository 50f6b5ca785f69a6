"""How many bits, frames, key frames and threads an encode gets.

A quality is a constant rate factor, with a ceiling for pictures that would take any number of bits (noise, confetti,
water): what a player must load in a second stays bounded. The ceiling is that of a remux too, so what we make is what
we would keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from media_pipeline.encode import levels

QualityName = Literal["low", "medium", "high"]
#: Frames a second: a number, or those of the source.
FpsChoice = int | Literal["source"]

MAX_FPS = 60
#: Of each, decoder and encoder. x264 gains nothing from more at our sizes, and loses quality.
MAX_THREADS = 16
#: Measured with 10-bit HEVC and AV1 made from HDR, in GiB of address space (the limit is 4, `ffmpeg.py`): 1080p with 16
#: threads 2.3, with 32 3.0, with 64 it fails; 2160p with 4 threads 2.4, with 8 3.2, with 16 it fails.
FRAME_PIXELS_OF_ALL_THREADS = 40_000_000
#: Of any ceiling, bit/s: small pictures need more bits a pixel.
LEAST_BIT_RATE = 300_000
#: A key frame at least so often, in seconds.
KEYFRAME_EVERY_S = 2


@dataclass(frozen=True)
class Quality:
    """`bits_per_pixel`: the ceiling, of each pixel of each frame, for an encode and for what may be remuxed."""

    crf: int
    bits_per_pixel: float


# At 720p30 the ceilings are 4, 10 and 28 Mbit/s.
QUALITIES: dict[QualityName, Quality] = {
    "low": Quality(crf=26, bits_per_pixel=0.15),
    "medium": Quality(crf=21, bits_per_pixel=0.36),
    "high": Quality(crf=17, bits_per_pixel=1.0),
}


def output_fps(source: Fraction, asked: FpsChoice) -> Fraction:
    """The constant rate of the output. `source` as it is, at most MAX_FPS; rounded to thousandths if it is an average
    that no clock has.
    """
    if asked != "source":
        return Fraction(asked)
    rate = min(max(source, Fraction(1)), Fraction(MAX_FPS))
    return rate if rate.denominator <= 1001 else rate.limit_denominator(1001)


def most_bit_rate(quality: QualityName, width: int, height: int, fps: Fraction) -> int:
    """The ceiling in bit/s."""
    return max(LEAST_BIT_RATE, round(QUALITIES[quality].bits_per_pixel * width * height * fps))


def most_threads(*pixels: int) -> int:
    """Threads that decoder and encoder may have each, for frames of so many pixels: every thread holds frames of its
    own, and all must fit into ffmpeg's address space on hosts with any number of cores.
    """
    return max(1, min(MAX_THREADS, FRAME_PIXELS_OF_ALL_THREADS // max(pixels)))


def encoder_args(quality: QualityName, width: int, height: int, fps: Fraction) -> tuple[str, ...]:
    """x264's options for rate, level and key frames. A second of the ceiling may be loaded ahead, as players do."""
    level = levels.needed(width, height, fps) or levels.HIGHEST
    most = min(level.bit_rate, most_bit_rate(quality, width, height, fps))
    return (
        *("-crf", str(QUALITIES[quality].crf), "-maxrate", str(most), "-bufsize", str(min(most, level.buffer_bits))),
        *("-profile:v", "high", "-level:v", f"{level.number / 10:.1f}"),
        # Closed groups: a player that jumps to a key frame can show all that follows.
        *("-g", str(max(1, int(KEYFRAME_EVERY_S * fps))), "-flags", "+cgop"),
    )
