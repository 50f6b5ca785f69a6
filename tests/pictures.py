"""Pictures for tests, made by recipe: good, turned, and hostile ones."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import Any

from PIL import Image

from providers.contract import StartImage

ORIENTATION, CAMERA, PLACE = 0x0112, 0x010F, 0x8825
SECRET = b"SECRETCAMERA"


def picture(width: int = 640, height: int = 360, kind: str = "PNG", **options: Any) -> bytes:
    """Its left half is red, its right half blue."""
    image = Image.new(options.pop("mode", "RGB"), (width, height), options.pop("color", "blue"))
    if image.mode == "RGB":
        image.paste("red", (0, 0, width // 2, height))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int = 1, *, more: int = 0) -> bytes:
    """Exif with a camera's name, a place, and `more` bytes that nobody needs."""
    made = Image.Exif()
    made[ORIENTATION] = orientation
    made[CAMERA] = SECRET.decode()
    made[PLACE] = {1: "N", 2: (52.0, 31.0, 12.0)}
    if more:
        made[0x9286] = b"x" * more
    return made.tobytes()


def turned(kind: str = "JPEG", orientation: int = 6, width: int = 640, height: int = 360, **options: Any) -> bytes:
    """As a phone held upright writes it: 640x360 in the file, 360x640 to the viewer."""
    return picture(width, height, kind, exif=exif(orientation), **options)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@functools.cache
def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: a thousandth of its size in memory."""
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(b"\x00" * (1 + width // 8)) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def start_image(width: int = 640, height: int = 360) -> StartImage:
    """As an adapter gets it."""
    return StartImage("image/png", picture(width, height))
