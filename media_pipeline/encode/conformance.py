"""The one form that every player plays, as rules: what a source may be repacked for, and what our output must be.

H.264 of an old profile in MP4 with one set of parameters, 8 bit 4:2:0, no HDR, square pixels, a constant rate, and a
key frame each two seconds, so that a player can jump about. Levels: browsers and televisions choose a decoder by the
level that is declared, and refuse what is declared too high, though the stream itself may be easy.
"""

from __future__ import annotations

from fractions import Fraction

from media_pipeline.encode import levels
from media_pipeline.encode.boxes import NO_CROP
from media_pipeline.encode.picture import Picture
from media_pipeline.encode.probe import MediaInfo
from media_pipeline.encode.rates import KEYFRAME_EVERY_S

#: Constrained Baseline is what players call Baseline; the whole of it has tools that no browser decodes.
PROFILES = frozenset({"Constrained Baseline", "Main", "High", "Constrained High", "Progressive High"})
#: 29.97 for 30 is not worth a generation loss; a tenth of a percent is where sound and picture begin to drift.
RATE_TOLERANCE = Fraction(1, 1000)
#: What a container's clock makes of a time by rounding, in seconds.
CLOCK_TOLERANCE_S = 0.002

# H.273: BT.709, unspecified, BT.601 of 625 and of 525 lines. Players know these, and guess right for the second.
_SDR_MATRICES = frozenset({1, 2, 5, 6})
_SDR_TRANSFERS = frozenset({1, 2, 6})
_SDR_PRIMARIES = frozenset({1, 2})


def why_not_remuxed(info: MediaInfo, *, width: int, height: int, fps: Fraction, most_bit_rate: float) -> str | None:
    """The first thing about the source that a remux cannot mend, or None if there is none.

    `width`, `height`, `fps` are those asked for; `most_bit_rate` is what the quality allows, in bit/s.
    """
    picture = info.picture
    reasons = (
        (info.container != "mp4", "not an MP4"),
        (info.fragmented, "fragmented"),
        (info.video_codec != "h264", f"codec {info.video_codec}"),
        (info.pix_fmt != "yuv420p", f"pixel format {info.pix_fmt}"),
        (info.interlaced, "interlaced"),
        (info.rotation != 0, f"rotated by {info.rotation}"),
        (info.sar != 1, f"pixels of {info.sar}"),
        ((info.width_px, info.height_px) != (width, height), f"size {info.width_px}x{info.height_px}"),
        (not is_rate(info.fps, fps), f"{float(info.fps):g} frames a second"),
        (not info.is_constant_fps, "variable frame rate"),
        (info.color_range == 2, "full range"),
        (info.color_space not in _SDR_MATRICES, f"colour matrix {info.color_space}"),
        (info.audio_codec not in (None, "aac"), f"audio {info.audio_codec}"),
        (info.audio_channels > 2, f"{info.audio_channels} audio channels"),
        (info.bit_rate > most_bit_rate, f"{info.bit_rate} bit/s"),
    )
    return _first(reasons) or _stream_trouble(picture) or _level_trouble(info)


def _stream_trouble(picture: Picture) -> str | None:
    gap = picture.keyframe_gap_s
    return _first(
        (
            (picture.profile not in PROFILES, f"profile {picture.profile or 'unknown'}"),
            (picture.codec_tag != "avc1", f"sample entry {picture.codec_tag}"),
            (picture.transfer not in _SDR_TRANSFERS, f"transfer characteristics {picture.transfer}"),
            (picture.primaries not in _SDR_PRIMARIES, f"colour primaries {picture.primaries}"),
            (picture.crop != NO_CROP, "cropped by its container"),
            (picture.mirrored, "mirrored by its container"),
            (picture.trimmed, "frames hidden by an edit list"),
            (abs(picture.start_s) > CLOCK_TOLERANCE_S, f"a start at {picture.start_s:.3f} s"),
            (gap is None, "key frames that can't be told"),
            ((gap or 0) > KEYFRAME_EVERY_S + CLOCK_TOLERANCE_S, f"{gap or 0:.1f} s without a key frame"),
        )
    )


def _level_trouble(info: MediaInfo) -> str | None:
    """A level above what size, rate and bit rate need, or below what size and rate do."""
    declared, size = info.picture.level, (info.width_px, info.height_px)
    least, needed = levels.needed(*size, info.fps), levels.needed(*size, info.fps, info.bit_rate)
    if least is None or needed is None or not least.number <= declared <= needed.number:
        return f"level {declared / 10:.1f}"
    return None


def what_is_wrong_with_picture(made: MediaInfo, *, fps: Fraction, aigc_tag: str = "") -> str | None:
    """What our output must be beyond its codec and size. `made` was probed without a decoded frame."""
    trouble = (
        (not is_rate(made.fps, fps), f"{float(made.fps):g} frames a second instead of {float(fps):g}"),
        (not made.is_constant_fps, "a variable frame rate"),
        (made.fragmented, "fragments"),
        (made.provenance.aigc_tag != aigc_tag, "another AIGC tag"),
    )
    return _first(trouble) or _stream_trouble(made.picture) or _level_trouble(made)


def is_rate(fps: Fraction, wanted: Fraction) -> bool:
    """Whether these are one rate to a viewer."""
    return abs(fps - wanted) <= wanted * RATE_TOLERANCE


def _first(reasons: tuple[tuple[bool, str], ...]) -> str | None:
    return next((reason for applies, reason in reasons if applies), None)
