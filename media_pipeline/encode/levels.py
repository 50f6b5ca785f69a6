"""Levels of H.264: what a decoder of each must be able to do (ITU-T H.264, table A-1)."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Level(NamedTuple):
    """`number` is ten times the name; macroblocks a second and a frame; bit rate and buffer of profile High."""

    number: int
    macroblocks_per_s: int
    macroblocks: int
    bit_rate: int
    buffer_bits: int


def _level(number: int, per_s: int, macroblocks: int, kbit_per_s: int, kbit: int) -> Level:
    # cpbBrVclFactor of High is 1250, of Main and Baseline 1000 (table A-2).
    return Level(number, per_s, macroblocks, kbit_per_s * 1250, kbit * 1250)


#: Without 1b, which shares its number with 1.1 in two profiles. The last is the highest that every player of today has.
LEVELS = (
    _level(10, 1_485, 99, 64, 175),
    _level(11, 3_000, 396, 192, 500),
    _level(12, 6_000, 396, 384, 1_000),
    _level(13, 11_880, 396, 768, 2_000),
    _level(20, 11_880, 396, 2_000, 2_000),
    _level(21, 19_800, 792, 4_000, 4_000),
    _level(22, 20_250, 1_620, 4_000, 4_000),
    _level(30, 40_500, 1_620, 10_000, 10_000),
    _level(31, 108_000, 3_600, 14_000, 14_000),
    _level(32, 216_000, 5_120, 20_000, 20_000),
    _level(40, 245_760, 8_192, 20_000, 25_000),
    _level(41, 245_760, 8_192, 50_000, 62_500),
    _level(42, 522_240, 8_704, 50_000, 62_500),
    _level(50, 589_824, 22_080, 135_000, 135_000),
    _level(51, 983_040, 36_864, 240_000, 240_000),
)
HIGHEST = LEVELS[-1]
#: 29.97 and what a container makes of a rate by rounding are no reason for the next level.
_RATE_TOLERANCE = Fraction(1, 1000)


def macroblocks(width_px: int, height_px: int) -> int:
    """Blocks of 16x16 pixels that hold the picture."""
    return -(-width_px // 16) * -(-height_px // 16)


def needed(width_px: int, height_px: int, fps: Fraction, bit_rate: int = 0) -> Level | None:
    """The lowest level for a picture of that size, rate and bit rate; None when the highest is not enough."""
    blocks = macroblocks(width_px, height_px)
    # No side may be longer than the square root of eight times the frame (A.3.1).
    side = max(-(-width_px // 16), -(-height_px // 16))
    for level in LEVELS:
        fits = blocks <= level.macroblocks and side * side <= 8 * level.macroblocks
        if fits and blocks * fps <= level.macroblocks_per_s * (1 + _RATE_TOLERANCE) and bit_rate <= level.bit_rate:
            return level
    return None
