"""A picture without its metadata, and with not one pixel changed: only whole segments are left out.

What stays is what a decoder needs for the pixels and their colours. What goes: Exif with the place and the camera, XMP,
IPTC, comments, thumbnails, further frames and pictures, and whatever follows the end (a second file in the same bytes).

Runs in the decoder child on pictures that have been decoded; ValueError means that the picture is to be encoded anew.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable

#: The end of entropy-coded data: a marker that is neither a stuffed byte nor a restart marker.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
#: Beside the frame headers (SOF) and Huffman tables (DHT): SOS, DQT, DNL, DRI. Others are for applications.
_OF_DECODERS = (0xDA, 0xDB, 0xDC, 0xDD)
_EOI, _SOS, _APP0, _APP2, _APP14 = 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
_OF_PNG = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs")
)
_TEXTS_OF_PNG = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_OF_WEBP = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"))
_ANIMATED = frozenset((b"ANIM", b"ANMF"))
_WEBP_ICC_AND_ALPHA = 0x30


def strip(media_type: str, data: bytes) -> bytes:
    """The same picture without metadata. Raises ValueError where that needs a new encoding."""
    try:
        return {"image/jpeg": _jpeg, "image/png": _png, "image/webp": _webp}[media_type](data)
    except (IndexError, KeyError):
        raise ValueError("it is not built as it should be") from None


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts, else as it is. Programs write megabytes into them, which Pillow takes for an attack."""
    try:
        return _png(data, keep=lambda name: name not in _TEXTS_OF_PNG)
    except (IndexError, ValueError):
        return data


def _jpeg(data: bytes) -> bytes:
    out, at = bytearray(b"\xff\xd8"), 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker where one has to be")
        while data[at] == 0xFF:
            at += 1
        marker, length = data[at], int.from_bytes(data[at + 1 : at + 3])
        if marker == _EOI:
            return bytes(out + b"\xff\xd9")
        segment = data[at + 1 : at + 1 + length]
        if length < 2 or len(segment) < length:
            raise ValueError("a segment is cut off")
        out += _kept(marker, segment)
        at += 1 + length
        if marker == _SOS:
            end = _MARKER.search(data, at)
            if end is None:
                raise ValueError("it has no end")
            out += data[at : end.start()]
            at = end.start()


def _kept(marker: int, segment: bytes) -> bytes:
    """What stays of a segment, whose length is its first two bytes."""
    whole = bytes((0xFF, marker)) + segment
    body = segment[2:]
    if marker == _APP0 and body.startswith(b"JFIF\x00") and len(body) >= 14:
        return b"\xff\xe0\x00\x10" + body[:12] + b"\x00\x00"  # without its thumbnail
    if marker == _APP2 and body.startswith(b"ICC_PROFILE\x00"):
        return whole
    if marker == _APP14 and body.startswith(b"Adobe"):  # says how the colours were coded
        return whole
    return whole if 0xC0 <= marker <= 0xCF or marker in _OF_DECODERS else b""


def _png(data: bytes, keep: Callable[[bytes], bool] = _OF_PNG.__contains__) -> bytes:
    out, at = bytearray(data[:8]), 8
    while True:
        length, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise ValueError("a chunk is cut off")
        if keep(name):
            out += chunk
        elif name[:1].isupper():
            raise ValueError("a critical chunk that is not known")
        if name == b"IEND":
            return bytes(out)
        at += len(chunk)


def _webp(data: bytes) -> bytes:
    body, at, end = bytearray(), 12, 8 + int.from_bytes(data[4:8], "little")
    while at < end:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + length]
        if len(chunk) < 8 + length or name in _ANIMATED:
            raise ValueError("a chunk is cut off, or it moves")
        if name == b"VP8X":
            chunk = chunk[:8] + bytes((chunk[8] & _WEBP_ICC_AND_ALPHA,)) + chunk[9:]
        if name in _OF_WEBP:
            body += chunk + b"\x00" * (length % 2)
        at += 8 + length + length % 2
    if not body:
        raise ValueError("no picture in it")
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + bytes(body)
