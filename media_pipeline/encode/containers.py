"""Reads a container from outside, without any decoder: its format, and whether the file is complete.

Reads only headers of top-level elements, a few hundred bytes, so it is safe on hostile bytes and takes about 0.05
ms. The answer fixes the demuxer that later tools are forced to use: a text playlist named .mp4 never reaches a
guessing parser.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from media_pipeline.errors import NotAVideo

Container = Literal["mp4", "matroska"]

#: The name under which ffmpeg and PyAV know the one demuxer for a container.
DEMUXER: dict[Container, str] = {"mp4": "mov", "matroska": "matroska"}

#: A fragmented file has two boxes a fragment; more than this is no honest video.
MAX_TOP_LEVEL_BOXES = 20_000

_EBML_MAGIC = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = 0x18538067


@dataclass(frozen=True)
class Layout:
    """`faststart`: the index comes before the media, so that playing can start at once (always true for Matroska)."""

    container: Container
    size_bytes: int
    faststart: bool
    fragmented: bool = False


def inspect(path: Path) -> Layout:
    """Raises NotAVideo for an empty, unknown or truncated file, and for an MP4 without its index."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(16)
            if size == 0:
                raise NotAVideo("the file is empty")
            if head[4:8] == b"ftyp":
                return _inspect_mp4(file, size)
            if head[:4] == _EBML_MAGIC:
                return _inspect_matroska(file, size)
    except struct.error as err:
        raise NotAVideo("the file ends within a header") from err
    raise NotAVideo(f"neither MP4 nor WebM: {_describe(head)}")


def _describe(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith(b"#extm3u"):
        return "a playlist"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    if text.startswith((b"{", b"[")):
        return "JSON"
    return "unknown bytes"


def _inspect_mp4(file: BinaryIO, size: int) -> Layout:
    offset = 0
    moov_at: int | None = None
    mdat_at: int | None = None
    fragmented = False
    for _ in range(MAX_TOP_LEVEL_BOXES):
        if offset == size:
            break
        file.seek(offset)
        length, kind = struct.unpack(">I4s", file.read(8))
        least = 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            least = 16
        elif length == 0:
            length = size - offset
        if length < least:
            raise NotAVideo("a box is shorter than its own header")
        if offset + length > size:
            raise NotAVideo(f"truncated: the file ends {offset + length - size} bytes before its {kind!r} box does")
        if kind == b"moov" and moov_at is None:
            moov_at = offset
        elif kind == b"mdat" and mdat_at is None:
            mdat_at = offset
        fragmented = fragmented or kind == b"moof"
        offset += length
    else:
        raise NotAVideo("too many boxes")
    if moov_at is None or mdat_at is None:
        raise NotAVideo("an MP4 without its index or its media")
    return Layout("mp4", size, faststart=moov_at < mdat_at, fragmented=fragmented)


def _inspect_matroska(file: BinaryIO, size: int) -> Layout:
    file.seek(4)
    header_length = _read_vint(file)
    if header_length is None or header_length > 4096:
        raise NotAVideo("a WebM with an odd header")
    file.seek(header_length, os.SEEK_CUR)
    (segment,) = struct.unpack(">I", file.read(4))
    if segment != _EBML_SEGMENT:
        raise NotAVideo("a WebM without a segment")
    length = _read_vint(file)
    # An unknown length is legal: the file was written as a stream.
    if length is not None and file.tell() + length > size:
        raise NotAVideo(f"truncated: the file ends {file.tell() + length - size} bytes before its segment does")
    return Layout("matroska", size, faststart=True)


def _read_vint(file: BinaryIO) -> int | None:
    """An EBML variable-length size; None means "unknown". Raises struct.error at the end of the file."""
    (first,) = struct.unpack(">B", file.read(1))
    if first == 0:
        raise NotAVideo("a WebM with an odd length")
    width = 9 - first.bit_length()
    rest = file.read(width - 1)
    if len(rest) != width - 1:
        raise struct.error("short read")
    value = int.from_bytes(bytes([first & ((1 << (8 - width)) - 1)]) + rest, "big")
    return None if value == (1 << (7 * width)) - 1 else value
