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

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from media_pipeline.encode import sound
from media_pipeline.encode.probe import MediaInfo
from media_pipeline.errors import NotAVideo

QualityName = Literal["low", "medium", "high"]
ResolutionName = Literal["480p", "720p", "1080p", "source"]

PRESET = "veryfast"
#: Long side over short side. Beyond it a "720p" would be a ribbon of many thousand pixels.
MAX_ASPECT = 8
#: 29.97 is 30 to a viewer: not worth a generation loss.
FPS_TOLERANCE = Fraction(1, 10)

_SHORT_SIDE_PX: dict[ResolutionName, int] = {"480p": 480, "720p": 720, "1080p": 1080}


@dataclass(frozen=True)
class Quality:
    """`remux_bits_per_pixel`: a source with more bits a pixel and frame is encoded anew, to make it smaller."""

    crf: int
    remux_bits_per_pixel: float


# At 720p30 the ceilings for a remux are 4, 10 and 28 Mbit/s.
QUALITIES: dict[QualityName, Quality] = {
    "low": Quality(crf=26, remux_bits_per_pixel=0.15),
    "medium": Quality(crf=21, remux_bits_per_pixel=0.36),
    "high": Quality(crf=17, remux_bits_per_pixel=1.0),
}


@dataclass(frozen=True)
class Target:
    """What was asked for. A resolution names the *short* side; the aspect ratio is always the source's."""

    quality: QualityName
    resolution: ResolutionName
    fps: int = 30

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise ValueError(f"unknown quality {self.quality!r}")
        if self.resolution != "source" and self.resolution not in _SHORT_SIDE_PX:
            raise ValueError(f"unknown resolution {self.resolution!r}")
        if not 1 <= self.fps <= 120:
            raise ValueError("fps must be from 1 to 120")


@dataclass(frozen=True)
class Plan:
    """What will be done, and why it is not less. `output_args` are ffmpeg's codec and filter options."""

    kind: Literal["remux", "encode"]
    width_px: int
    height_px: int
    reason: str
    output_args: tuple[str, ...]


def plan(info: MediaInfo, target: Target) -> Plan:
    """The cheapest way from `info` to `target`. Raises NotAVideo for a picture of absurd shape."""
    width, height = output_size(info, target.resolution)
    reason = why_encode(info, target, width, height)
    if reason is None:
        return Plan("remux", width, height, "already as asked for", ("-c:v", "copy", *sound.kept_args(info)))
    return encode_anew(info, target, width, height, reason)


def output_size(info: MediaInfo, resolution: ResolutionName) -> tuple[int, int]:
    """Even width and height in pixels, upright and with square pixels. Raises NotAVideo."""
    width, height = info.display_width_px, info.display_height_px
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise NotAVideo(f"a picture of {width}x{height} is too narrow")
    short = min(width, height) if resolution == "source" else _SHORT_SIDE_PX[resolution]
    factor = Fraction(short, min(width, height))
    return _even(width * factor), _even(height * factor)


def _even(value: Fraction) -> int:
    # 4:2:0 needs even sides; nearest, so that the shape changes by less than a pixel.
    return max(2, 2 * round(value / 2))


def why_encode(info: MediaInfo, target: Target, width: int, height: int) -> str | None:
    """The first thing about the source that a remux cannot mend, or None if there is none."""
    bits_per_pixel = info.bit_rate / (info.width_px * info.height_px * info.fps)
    reasons = (
        (info.container != "mp4", "not an MP4"),
        (info.video_codec != "h264", f"codec {info.video_codec}"),
        (info.pix_fmt != "yuv420p", f"pixel format {info.pix_fmt}"),
        (info.interlaced, "interlaced"),
        (info.rotation != 0, f"rotated by {info.rotation}"),
        (info.sar != 1, f"pixels of {info.sar}"),
        ((info.width_px, info.height_px) != (width, height), f"size {info.width_px}x{info.height_px}"),
        (abs(info.fps - target.fps) > FPS_TOLERANCE, f"{float(info.fps):g} frames a second"),
        (not info.is_constant_fps, "variable frame rate"),
        (info.color_range == 2, "full range"),
        (info.audio_codec not in (None, "aac"), f"audio {info.audio_codec}"),
        (info.audio_channels > 2, f"{info.audio_channels} audio channels"),
        (bits_per_pixel > QUALITIES[target.quality].remux_bits_per_pixel, f"{info.bit_rate} bit/s"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def encode_anew(info: MediaInfo, target: Target, width: int, height: int, reason: str) -> Plan:
    matrix = "auto"
    if info.color_space == 2:
        # Untagged: players take large pictures for BT.709 and small ones for BT.601, so the source was seen that way.
        matrix = "bt709" if min(info.width_px, info.height_px) >= 720 else "bt601"
    scale = f"scale=w={width}:h={height}:flags=bicubic:in_color_matrix={matrix}:out_color_matrix=bt709:out_range=tv"
    rate = f"fps={target.fps}"
    filters = [
        # ffmpeg has already turned the picture upright when it gets here.
        *(["bwdif=mode=send_frame"] if info.interlaced else []),
        # Scale the fewer frames.
        *([scale, rate] if info.fps <= target.fps else [rate, scale]),
        "setsar=1",
        "format=yuv420p",
        "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709",
    ]
    args = [
        *("-vf", ",".join(filters), "-c:v", "libx264", "-preset", PRESET, "-crf", str(QUALITIES[target.quality].crf)),
        *("-pix_fmt", "yuv420p", "-profile:v", "high", "-fps_mode", "cfr"),
    ]
    return Plan("encode", width, height, reason, (*args, *sound.encoded_args(info)))
