"""Facts about a picture beyond its size and rate: what decides whether it may be remuxed, and how it is converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from media_pipeline.encode.boxes import NO_CROP, Crop


@dataclass(frozen=True)
class Picture:
    """Numbers of colour are those of ITU-T H.273: `transfer` 1 is BT.709, 16 PQ, 18 HLG; `primaries` 9 is BT.2020; 2 is
    unspecified in both.

    `level` is ten times the level's name (31: 3.1), 0 when not known. `keyframe_gap_s` is the longest time without an
    IDR picture, None when it is not known (not H.264 in MP4, or an index that makes no sense). `trimmed`: an edit list
    hides frames. `mirrored`: the container wants it shown so. `crop` is the container's; the codec's own has been
    applied already.
    """

    profile: str = ""
    level: int = 0
    codec_tag: str = ""
    transfer: int = 2
    primaries: int = 2
    bit_depth: int = 8
    is_rgb: bool = False
    has_alpha: bool = False
    crop: Crop = NO_CROP
    start_s: float = 0.0
    keyframe_gap_s: float | None = None
    trimmed: bool = False
    mirrored: bool = False


def picture_of(found: Mapping[str, Any]) -> Picture:
    """The child's words as facts. Raises KeyError, TypeError or ValueError for what makes no sense."""
    gap = found["keyframe_gap_s"]
    return Picture(
        profile=str(found["profile"]),
        level=int(found["level"]),
        codec_tag=str(found["codec_tag"]),
        transfer=int(found["transfer"]),
        primaries=int(found["primaries"]),
        bit_depth=int(found["bit_depth"]),
        is_rgb=bool(found["is_rgb"]),
        has_alpha=bool(found["has_alpha"]),
        crop=Crop(*(int(side) for side in found["crop"])),
        start_s=float(found["start_s"]),
        keyframe_gap_s=None if gap is None else float(gap),
        trimmed=bool(found["trimmed"]),
        mirrored=bool(found["mirrored"]),
    )


def fitted_into(width: int, height: int, most_width: int, most_height: int) -> tuple[int, int]:
    """The size of a picture that is made smaller until it fits, its shape kept; even sides. Never enlarged."""
    factor = min(1, most_width / width, most_height / height)
    return max(2, 2 * round(width * factor / 2)), max(2, 2 * round(height * factor / 2))
