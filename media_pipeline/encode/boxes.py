"""Reads single facts from a container that libav keeps to itself: crops of the picture, and C2PA manifests.

Works on an open file by `os.pread`, reads only headers and the few fields that it is after, and is bounded in steps,
so it is safe and quick on hostile bytes. What makes no sense counts as not there: libav has judged the file already.

ISO/IEC 14496-12 (boxes, `clap`), RFC 8794 and RFC 9559 (EBML, Matroska), and the C2PA specification 2.1, 11.1 (the
`uuid` box of a manifest).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

#: Headers read in one file at most.
MAX_STEPS = 20_000
C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")

_SEGMENT, _TRACKS, _TRACK_ENTRY, _VIDEO, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675
_PIXEL_CROPS = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
#: Bytes of a visual sample entry before its own boxes.
_VISUAL_SAMPLE_ENTRY_BYTES = 78


class Crop(NamedTuple):
    """Pixels that the container cuts off a decoded frame, before any turn of it."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


NO_CROP = Crop()


class Part(NamedTuple):
    """A box or an element: its name, and where its content begins and ends."""

    name: bytes | int
    begin: int
    end: int


def mp4_crop(fd: int, track: int, width: int, height: int) -> Crop:
    """The clean aperture (`clap`) of that track, counted from 0, of a picture so wide and high in pixels."""
    steps = iter(range(MAX_STEPS))
    tracks = [part for moov in _boxes(fd, _whole(fd), b"moov", steps) for part in _boxes(fd, moov, b"trak", steps)]
    if track >= len(tracks):
        return NO_CROP
    parts = [tracks[track]]
    for name in (b"mdia", b"minf", b"stbl", b"stsd"):
        parts = [inner for part in parts for inner in _boxes(fd, part, name, steps)]
    for stsd in parts:
        # Version, flags and a count come before the entries.
        for entry in _boxes(fd, stsd._replace(begin=stsd.begin + 8), None, steps):
            inside = entry._replace(begin=entry.begin + _VISUAL_SAMPLE_ENTRY_BYTES)
            for clap in _boxes(fd, inside, b"clap", steps):
                return _clean_aperture(os.pread(fd, 32, clap.begin), width, height)
    return NO_CROP


def _clean_aperture(field: bytes, width: int, height: int) -> Crop:
    """14496-12, 12.1.4: size and offset of the centre as fractions. What is not inside the frame is no crop."""
    if len(field) != 32:
        return NO_CROP
    numbers = struct.unpack(">IIIIiIiI", field)
    if not all(numbers[1::2]):
        return NO_CROP
    wide, high, right_by, down_by = (Fraction(*numbers[at : at + 2]) for at in (0, 2, 4, 6))
    left, top = int((width - wide) / 2 + right_by), int((height - high) / 2 + down_by)
    return _sensible(Crop(left, top, width - left - int(wide), height - top - int(high)), width, height)


def matroska_crop(fd: int, track: int, width: int, height: int) -> Crop:
    """The `PixelCrop…` elements of that track, counted from 0, of a picture so wide and high in pixels."""
    steps = iter(range(MAX_STEPS))
    parts = [_whole(fd)]
    for name in (_SEGMENT, _TRACKS, _TRACK_ENTRY):
        parts = [inner for part in parts for inner in _elements(fd, part, name, steps)]
    if track >= len(parts):
        return NO_CROP
    found: dict[str, int] = {}
    for video in _elements(fd, parts[track], _VIDEO, steps):
        for field in _elements(fd, video, None, steps):
            if field.name in _PIXEL_CROPS and field.end - field.begin <= 8:
                value = int.from_bytes(os.pread(fd, field.end - field.begin, field.begin))
                found[_PIXEL_CROPS[int(field.name)]] = value
    return _sensible(Crop(**found), width, height)


def _sensible(crop: Crop, width: int, height: int) -> Crop:
    inside = min(crop) >= 0 and crop.left + crop.right < width and crop.top + crop.bottom < height
    return crop if inside else NO_CROP


def has_c2pa(fd: int) -> bool:
    """Whether an MP4 carries a C2PA manifest: a top-level `uuid` box of C2PA, or a JUMBF box."""
    for box in _boxes(fd, _whole(fd), None, iter(range(MAX_STEPS))):
        if box.name == b"jumb" or (box.name == b"uuid" and os.pread(fd, 16, box.begin) == C2PA_UUID):
            return True
    return False


def _whole(fd: int) -> Part:
    return Part(b"", 0, os.fstat(fd).st_size)


def _boxes(fd: int, inside: Part, name: bytes | None, steps: Iterator[int]) -> Iterator[Part]:
    """The boxes of that name (None: all) in the content of another."""
    at = inside.begin
    while at + 8 <= inside.end and next(steps, None) is not None:
        header = os.pread(fd, 16, at)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header[:8])
        content = at + 8
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
            content = at + 16
        elif length == 0:
            length = inside.end - at
        end = at + length
        if end < content or end > inside.end:
            return
        if name in (None, kind):
            yield Part(kind, content, end)
        at = end


def _elements(fd: int, inside: Part, name: int | None, steps: Iterator[int]) -> Iterator[Part]:
    """The elements of that id (None: all) in the content of another; ends at the first cluster of media."""
    at = inside.begin
    while at < inside.end and next(steps, None) is not None:
        header = os.pread(fd, 12, at)
        identifier = _vint(header, 0, keep_marker=True)
        size = _vint(header, identifier[1], keep_marker=False) if identifier else None
        if identifier is None or size is None or identifier[0] == _CLUSTER:
            return
        content = at + size[1]
        # All ones: an unknown length, which only a segment or a cluster may have.
        unknown = size[0] == (1 << 7 * (size[1] - identifier[1])) - 1
        end = inside.end if unknown else content + size[0]
        if end > inside.end:
            return
        if name in (None, identifier[0]):
            yield Part(identifier[0], content, end)
        at = end


def _vint(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """A variable-length number and the place after it (RFC 8794, 4); None where there is none."""
    if at >= len(data) or data[at] == 0:
        return None
    width = 9 - data[at].bit_length()
    if at + width > len(data):
        return None
    value = int.from_bytes(data[at : at + width])
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), at + width
