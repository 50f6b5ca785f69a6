"""The top-level boxes of MP4 and QuickTime: where index and media are, what is cut off, and what belongs to nothing.

Many writers and file hosts leave something behind the last box: zeros, text, the begin of a header. Players ignore it,
and so do we, once index and media are whole. What is cut within a box of media is told apart: it is a truncated file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from media_pipeline.errors import NotAVideo

#: A fragmented file has two boxes a fragment; more than this is no honest video.
MAX_TOP_LEVEL_BOXES = 20_000
#: With which a file may begin; QuickTime files have no `ftyp` (QuickTime File Format, "Overview of the file format").
_FIRST = frozenset(
    {
        *(b"ftyp", b"moov", b"mdat", b"moof", b"styp", b"sidx", b"ssix", b"prft", b"emsg", b"pdin", b"meta", b"uuid"),
        *(b"wide", b"free", b"skip", b"pnot", b"PICT", b"pict", b"junk"),
    }
)
#: A file that ends within one of these has lost something, also behind an index and media.
_MEDIA = (b"moof", b"mdat")


@dataclass(frozen=True)
class Boxes:
    """Places in bytes from the file's begin; see `containers.Layout` for the rest."""

    index_at: int
    media_at: int
    fragmented: bool
    truncated: str
    trailing_bytes: int


def begins(head: bytes) -> bool:
    """Whether a file that begins so is an MP4 or QuickTime file."""
    if len(head) < 8 or head[4:8] not in _FIRST:
        return False
    length = int.from_bytes(head[:4], "big")
    return length in (0, 1) or length >= 8


def walk(file: BinaryIO, size: int) -> Boxes:
    """Raises NotAVideo for a file without an index or media, and for boxes that make no sense before both are there."""
    at, index_at, media_at = 0, -1, -1
    fragmented, truncated, trailing = False, "", 0
    for _ in range(MAX_TOP_LEVEL_BOXES):
        if at >= size:
            break
        length, kind = _header(file, at, size)
        is_whole = index_at >= 0 and media_at >= 0
        if length is None or not _is_name(kind):
            if not is_whole:
                raise NotAVideo("a box is shorter than its own header" if length is None else "boxes without a name")
            trailing = size - at
            break
        missing = at + length - size
        if missing > 0 and is_whole and kind not in _MEDIA:
            trailing = size - at
            break
        if missing > 0:
            truncated = f"the file ends {missing} bytes before its {kind.decode('latin-1')} box does"
            # Half of the media is some. An index that comes last may lack only what is of no use to a player; whether
            # it does, its reader finds out.
            if kind == b"mdat" and media_at < 0:
                media_at = at
            elif kind == b"moov" and index_at < 0:
                index_at = at
            break
        if kind == b"moov" and index_at < 0:
            index_at = at
        elif kind == b"mdat" and media_at < 0:
            media_at = at
        fragmented = fragmented or kind == b"moof"
        at += length
    else:
        raise NotAVideo("too many boxes")
    if index_at < 0 or media_at < 0:
        raise NotAVideo(f"truncated: {truncated}" if truncated else "an MP4 without its index or its media")
    return Boxes(index_at, media_at, fragmented, truncated, trailing)


def _header(file: BinaryIO, at: int, size: int) -> tuple[int | None, bytes]:
    """(length, name) of the box there; the length is None if it is less than its header has, or that is cut off."""
    file.seek(at)
    head = file.read(16)
    if len(head) < 8:
        return None, b""
    length, kind = struct.unpack(">I4s", head[:8])
    if length == 0:
        return size - at, kind
    if length == 1:
        length = int.from_bytes(head[8:16], "big") if len(head) == 16 else 0
        return (length if length >= 16 else None), kind
    return (length if length >= 8 else None), kind


def _is_name(kind: bytes) -> bool:
    """Letters, digits, blanks, and the © of Apple's."""
    return all(32 <= letter < 127 or letter == 0xA9 for letter in kind)
