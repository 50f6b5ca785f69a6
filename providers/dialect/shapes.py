"""How large a clip is: from a ratio, or from the start image where it came along as bytes. URLs are never fetched."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

WIDEST = 2.5  # and 1:2.5 is the tallest that Kling takes; others are rendered no narrower


def fit(width: float, height: float, short_px: int) -> tuple[int, int]:
    """Width and height of this shape, even, with this short side."""
    ratio = min(max(width / height, 1 / WIDEST), WIDEST)
    if ratio >= 1:
        return round(short_px * ratio / 2) * 2, short_px
    return short_px, round(short_px / ratio / 2) * 2


def parse_ratio(text: str) -> tuple[int, int]:
    width, _, height = text.partition(":")
    return int(width), int(height)


def from_base64(text: str) -> bytes | None:
    """The bytes, or None when it is not base64."""
    try:
        return base64.b64decode(text, validate=True) or None
    except ValueError:
        return None


def image_size(data: bytes, *kinds: str) -> tuple[int, int] | None:
    """Width and height of a picture of these kinds (JPEG, PNG, WEBP) that is whole; None when it is none."""
    from PIL import Image  # late: few jobs bring bytes

    try:
        with Image.open(io.BytesIO(data), formats=kinds) as image:
            image.load()
            return image.size
    except Exception:  # whatever a broken file makes of the parser, it is no picture
        return None


def sent_image(text: object) -> dict[str, Any] | None:
    """What came along as a start image, for the control interface; None for an address, and for no picture.

    `orientation` is Exif's: no provider is known to turn a picture by it.
    """
    if not isinstance(text, str):
        return None
    data = from_base64(text.partition(",")[2] if text.startswith("data:") else text)
    if data is None:
        return None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            exif = image.getexif()
            return {
                "type": image.get_format_mimetype(),
                "width": image.width,
                "height": image.height,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "orientation": exif.get(0x0112, 1),
                "exif": len(exif),
            }
    except Exception:
        return None
