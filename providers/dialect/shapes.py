"""How large a clip is: from a ratio, or from the start image where it came along as bytes. URLs are never fetched."""

from __future__ import annotations

import base64
import io

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
    """Width and height of a picture of these kinds (JPEG, PNG, WEBP) by its header; None when it is none."""
    from PIL import Image  # late: few jobs bring bytes

    try:
        with Image.open(io.BytesIO(data), formats=kinds) as image:
            return image.size
    except Exception:  # whatever a broken file makes of the parser, it is no picture
        return None
