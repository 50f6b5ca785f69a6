"""What the limited child process (`_av_child`) finds out about a picture for `picture.Picture`: asked of libav, of the
index, and of the bytes of key frames.
"""

from __future__ import annotations

import itertools
import os
import struct
from typing import Any

from media_pipeline.encode import boxes

#: Index entries read: 27 minutes at 60 frames a second. A file with more is not remuxed.
MAX_INDEX_ENTRIES = 100_000
#: NAL units looked at before the first slice of a sample: parameter sets and SEI messages are a handful.
_MAX_UNITS = 32
_SLICE, _IDR_SLICE, _SPS = (1, 2, 3, 4), 5, 7


def facts(stream: Any, frame: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The fields of `picture.Picture`. Without a decoded `frame` the headers are believed."""
    codec, fd = stream.codec_context, request["file"]
    shown = codec if frame is None else frame
    pixels = codec.format if frame is None else frame.format
    is_mp4 = request["demuxer"] == "mov"
    crop_of = {"mov": boxes.mp4_crop, "matroska": boxes.matroska_crop}.get(request["demuxer"])
    crop = crop_of(fd, stream.index, codec.width, codec.height) if crop_of else boxes.NO_CROP
    indexed = _index(fd, stream) if is_mp4 and codec.name == "h264" else {"keyframe_gap_s": None, "trimmed": False}
    return {
        "profile": codec.profile or "",
        "level": max(0, codec.level or 0),
        "codec_tag": codec.codec_tag,
        "transfer": int(shown.color_trc),
        "primaries": int(shown.color_primaries),
        "bit_depth": max(component.bits for component in pixels.components) if pixels else 8,
        "is_rgb": bool(pixels) and (pixels.is_rgb or pixels.has_palette),
        # A palette may hold transparent colours; Matroska keeps alpha beside the stream (RFC 9559, AlphaMode).
        "has_alpha": _has_alpha(pixels) or stream.metadata.get("alpha_mode") == "1",
        "crop": list(crop),
        "mirrored": frame is not None and _is_mirrored(frame),
        "start_s": float(stream.start_time * stream.time_base) if stream.start_time else 0.0,
        **indexed,
    }


def _is_mirrored(frame: Any) -> bool:
    """Whether its display matrix turns left into right, or above into below (ISO/IEC 14496-12, 8.3.2)."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
            return bool(a * d < b * c)
    return False


def _has_alpha(pixels: Any) -> bool:
    return bool(pixels) and (pixels.has_palette or any(component.is_alpha for component in pixels.components))


def _index(fd: int, stream: Any) -> dict[str, Any]:
    """`keyframe_gap_s`, or None where it can't be told, and whether frames are hidden by an edit list.

    Only an IDR picture counts as a key frame: pictures after an open group's first one refer to what a player that
    jumped there never saw. New parameter sets in the middle are not told apart from damage: None.
    """
    entries, extradata = stream.index_entries, stream.codec_context.extradata or b""
    if not 0 < len(entries) <= MAX_INDEX_ENTRIES or len(extradata) < 7 or extradata[0] != 1:
        return {"keyframe_gap_s": None, "trimmed": False}
    length_bytes = (extradata[4] & 3) + 1
    keys, trimmed, last = [], False, entries[0].timestamp
    for entry in entries:
        trimmed, last = trimmed or entry.is_discard, max(last, entry.timestamp)
        if entry.is_keyframe:
            kind = _first_slice(fd, entry.pos, entry.size, length_bytes, extradata)
            if kind is None:
                return {"keyframe_gap_s": None, "trimmed": trimmed}
            if kind == _IDR_SLICE:
                keys.append(entry.timestamp)
    if not keys or keys[0] != entries[0].timestamp:
        return {"keyframe_gap_s": None, "trimmed": trimmed}
    longest = max(after - before for before, after in itertools.pairwise([*keys, last]))
    return {"keyframe_gap_s": float(longest * stream.time_base), "trimmed": trimmed}


def _first_slice(fd: int, pos: int, size: int, length_bytes: int, extradata: bytes) -> int | None:
    """The NAL unit type of a sample's first slice (H.264 table 7-1); None for nonsense, and for parameter sets that are
    not those of the sample entry.
    """
    at = 0
    for _ in range(_MAX_UNITS):
        head = os.pread(fd, length_bytes + 1, pos + at)
        if at + len(head) > size or len(head) != length_bytes + 1:
            return None
        length, kind = int.from_bytes(head[:-1]), head[-1] & 31
        if kind == _IDR_SLICE or kind in _SLICE:
            return kind
        if kind == _SPS and os.pread(fd, min(length, 4096), pos + at + length_bytes) not in extradata:
            return None
        at += length_bytes + length
    return None
