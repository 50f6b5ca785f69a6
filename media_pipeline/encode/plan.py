"""Turns whatever a provider delivers into the one form that we serve: H.264 MP4, yuv420p, BT.709, constant rate,
faststart.

Two ways, chosen by `plan`:

- **remux** when the picture already is what was asked for: no quality lost, 0.02 s CPU. A plain hard link would
  cost nothing, but serve foreign bytes as they came; a remux drops foreign metadata and extra tracks, puts the
  index in front, and reads every packet, so a damaged file shows. What a remux cannot get right falls back to
- **encode** with x264.

Why preset `veryfast` (5 s, 1280x768 at 24 → 720p at 30, 2 cores, threads 2; easy picture / heavy noise; VMAF on a
third clip):

    preset     crf   CPU s         wall s        bytes   VMAF
    veryfast   21    1.9 / 3.9     1.0 / 2.1     1.67 M  88.2
    faster     23    2.7 / 5.6     1.6 / 3.1     1.38 M  88.0
    fast       23    3.0 / 7.0     1.7 / 3.8     1.55 M  88.4
    medium     23    3.6 / 7.8     2.1 / 4.3

At two CRF steps lower, `veryfast` shows the same picture as `fast` at 0.6 of its CPU and 7% more bytes. Disk is
cheaper here than the time a user waits. One thread instead of two saves no CPU, only adds wall time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from media_pipeline.encode import colour, levels, sound
from media_pipeline.encode.conformance import why_not_remuxed
from media_pipeline.encode.probe import MediaInfo
from media_pipeline.encode.provenance import NO_LABEL, Label, marked, metadata_args, tag_of_output
from media_pipeline.encode.rates import (
    MAX_FPS,
    QUALITIES,
    FpsChoice,
    QualityName,
    encoder_args,
    most_bit_rate,
    output_fps,
)
from media_pipeline.encode.timing import in_time, timing_of, why_not_copied

ResolutionName = Literal["480p", "720p", "1080p", "source"]

PRESET = "veryfast"
#: Long side over short side. Beyond it a "720p" would be a ribbon of many thousand pixels: it is never enlarged.
MAX_ASPECT = 8

_SHORT_SIDE_PX: dict[ResolutionName, int] = {"480p": 480, "720p": 720, "1080p": 1080}


@dataclass(frozen=True)
class Target:
    """What was asked for. A resolution names the *short* side. The aspect ratio is the source's, unless `padded_to` is
    another one: the picture then stands whole on black.
    """

    quality: QualityName
    resolution: ResolutionName
    fps: FpsChoice = 30
    keep_long_sound: bool = True
    label: Label = NO_LABEL
    padded_to: Fraction | None = None

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise ValueError(f"unknown quality {self.quality!r}")
        if self.resolution != "source" and self.resolution not in _SHORT_SIDE_PX:
            raise ValueError(f"unknown resolution {self.resolution!r}")
        if self.fps != "source" and not 1 <= self.fps <= MAX_FPS:
            raise ValueError(f"fps must be from 1 to {MAX_FPS}, or source")


@dataclass(frozen=True)
class Plan:
    """What will be done, and why it is not less. `output_args` are ffmpeg's codec and filter options, `input_args`
    those of its input, `aigc_tag` what the output says about its origin.
    """

    kind: Literal["remux", "encode"]
    width_px: int
    height_px: int
    fps: Fraction
    reason: str
    output_args: tuple[str, ...]
    input_args: tuple[str, ...] = ()
    aigc_tag: str = ""


def plan(info: MediaInfo, target: Target) -> Plan:
    """The cheapest way from `info` to `target`."""
    fps = output_fps(info.fps, target.fps)
    width, height = fitted(*output_size(info, target.resolution, target.padded_to), fps)
    most = most_bit_rate(target.quality, width, height, fps)
    timing = timing_of(info, keep_long_sound=target.keep_long_sound)
    reason = why_not_remuxed(info, width=width, height=height, fps=fps, most_bit_rate=most)
    reason = reason or why_not_copied(info, timing)
    if reason is None and target.label.mark:
        reason = "gets a visible mark"
    if reason is None:
        tag = tag_of_output(info.provenance, target.label)
        args = ("-c:v", "copy", *sound.kept_args(info), *metadata_args(tag))
        return Plan("remux", width, height, fps, "already as asked for", args, aigc_tag=tag)
    return encode_anew(info, target, width, height, reason)


def output_size(info: MediaInfo, resolution: ResolutionName, ratio: Fraction | None = None) -> tuple[int, int]:
    """Even width and height in pixels, upright and with square pixels; with the bars that `ratio` needs."""
    width, height = Fraction(info.display_width_px), Fraction(info.display_height_px)
    if ratio is not None:
        width, height = max(width, height * ratio), max(height, width / ratio)
    short = min(width, height) if resolution == "source" else Fraction(_SHORT_SIDE_PX[resolution])
    if max(width, height) > MAX_ASPECT * min(width, height):
        short = min(short, width, height)
    factor = short / min(width, height)
    return _even(width * factor), _even(height * factor)


def fitted(width: int, height: int, fps: Fraction) -> tuple[int, int]:
    """The size, made smaller where the highest level that every player has allows no such frames at that rate."""
    most = min(Fraction(levels.HIGHEST.macroblocks), levels.HIGHEST.macroblocks_per_s / fps)
    factor = Fraction(1)
    while levels.needed(_even(width * factor), _even(height * factor), fps) is None:
        blocks = levels.macroblocks(_even(width * factor), _even(height * factor))
        # A hundredth less than the square root, since blocks at the edges count as whole ones.
        factor *= min(Fraction(99, 100), Fraction(math.sqrt(most / blocks)).limit_denominator(10_000))
    return (width, height) if factor == 1 else (_even(width * factor), _even(height * factor))


def _inside(info: MediaInfo, width: int, height: int) -> tuple[int, int]:
    """The size of the whole picture on a canvas of that size. One that is missed by rounding alone is filled."""
    shape = Fraction(info.display_width_px, info.display_height_px)
    inner = (width, _even(width / shape)) if width < height * shape else (_even(height * shape), height)
    return inner if max(width - inner[0], height - inner[1]) > 2 else (width, height)


def _even(value: Fraction) -> int:
    # 4:2:0 needs even sides; nearest, so that the shape changes by less than a pixel.
    return max(2, 2 * round(value / 2))


def encode_anew(info: MediaInfo, target: Target, width: int, height: int, reason: str) -> Plan:
    """The plan of an encode to that size. The remux that failed is one reason for it."""
    fps = output_fps(info.fps, target.fps)
    # Scale the fewer frames.
    timing = timing_of(info, keep_long_sound=target.keep_long_sound)
    inner = (width, height) if target.padded_to is None else _inside(info, width, height)
    filters = colour.filters(info, *inner, f"fps={fps}", rate_first=info.fps > fps)
    if inner != (width, height):
        filters.append(f"pad={width}:{height}:-1:-1:black")
    chain = ",".join(in_time(filters, timing, fps, mends=bool(info.damage or info.truncated)))
    tag = tag_of_output(info.provenance, target.label)
    output_args = (
        *("-vf", marked(chain, target.label, width, height) if target.label.mark else chain),
        *("-c:v", "libx264", "-preset", PRESET, *encoder_args(target.quality, width, height, fps)),
        *("-pix_fmt", "yuv420p", "-fps_mode", "cfr"),
        *sound.encoded_args(info, timing),
        *metadata_args(tag),
    )
    return Plan("encode", width, height, fps, reason, output_args, colour.input_args(info), tag)
