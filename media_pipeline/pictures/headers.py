"""What kind of picture some bytes are, by the bytes alone: never by a name or a header of HTTP.

Nothing is decoded here. Sources: JPEG (ITU-T T.81, annex B), PNG (W3C PNG, third edition), WebP (RFC 9649), the
brands of HEIF and AVIF (ISO/IEC 23008-12, AV1 Image File Format 1.1).
"""

from __future__ import annotations

import re
from enum import StrEnum

from media_pipeline.errors import PictureRefused


class Kind(StrEnum):
    """A kind of picture that is read, by its media type."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    WEBP = "image/webp"
    GIF = "image/gif"  # its first frame
    AVIF = "image/avif"  # its first frame


#: Kinds that are kept and handed on; a picture of another kind becomes one of them.
KEPT = (Kind.JPEG, Kind.PNG, Kind.WEBP)
SUFFIXES = {Kind.JPEG: "jpg", Kind.PNG: "png", Kind.WEBP: "webp"}
#: Bytes that `kind_of` looks at.
HEAD_BYTES = 512

TAKEN = "JPEG, PNG, WebP, GIF and AVIF are taken"
#: What others begin with, and what they are called in the refusal.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x00\x00\x01\x00", "an icon (ICO)"),
    (b"BM", "a BMP picture"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"PK\x03\x04", "a ZIP archive"),
)
_MARKUP = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<", re.DOTALL)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def kind_of(head: bytes) -> Kind:
    """The kind of a picture, by its first HEAD_BYTES. Raises PictureRefused with the name of what it is instead."""
    if head.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Kind.GIF
    what = _other(head)
    if what is None:
        return Kind.AVIF
    raise PictureRefused(f"it is {what}", code="image_unreadable", user_message=f"The start image is {what}; {TAKEN}.")


def _other(head: bytes) -> str | None:
    """What it is instead of a picture of the first four kinds; None for AVIF."""
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4]), len(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return None
        return "a HEIC picture" if brands & {*_HEIF_BRANDS} else "a video"
    if _MARKUP.match(head):
        return "an SVG drawing" if b"<svg" in head.lower() else "a page of text (HTML or XML)"
    if not head:
        return "empty"
    return next((name for begin, name in _OTHERS if head.startswith(begin)), "not a picture")


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of a whole picture of a kind in KEPT, by its header. Raises ValueError."""
    try:
        match kind_of(data[:HEAD_BYTES]):
            case Kind.PNG:
                size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
            case Kind.WEBP:
                size = _size_of_webp(data)
            case Kind.JPEG:
                size = _size_of_jpeg(data)
            case _:
                raise ValueError("not a kept kind of picture")
    except (IndexError, PictureRefused):
        raise ValueError("the picture has no readable header") from None
    if min(size) < 1:
        raise ValueError("the picture has no size")
    return size


def _size_of_jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + length
    raise ValueError("no frame header")


def _size_of_webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise ValueError("no picture in it")
