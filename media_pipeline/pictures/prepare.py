"""A picture of unknown origin, made fit to be kept and handed on: checked by its bytes, upright, without metadata.

Reading and decoding it is the decoder child's work (`decode`), never that of the process that calls.

Measured on 2 cores, CPU of the child for a picture: see docs/start-images.md.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from media_pipeline.errors import MediaTimeout, PictureRefused
from media_pipeline.pictures.headers import HEAD_BYTES, KEPT, SUFFIXES, Kind, kind_of, size_of

#: The most pixels that are decoded: 8192x8192. Decoded, turned and encoded, they need 0.9 GB of the child's 2.
MAX_PIXELS = 8192 * 8192


class Decoder(Protocol):
    """Where foreign pictures are decoded: `encode.probe.Prober`, in a child process."""

    def ask_about_picture(self, path: Path, details: Mapping[str, Any]) -> dict[str, Any] | None:
        """What `decode.prepare` answers; None when the picture ended the child. Raises MediaTimeout."""


@dataclass(frozen=True)
class Picture:
    """A picture that `prepare` has made: of a kind in KEPT, whole, upright, without metadata."""

    kind: Kind
    width_px: int
    height_px: int
    data: bytes = field(repr=False)

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.kind]

    @classmethod
    def of(cls, data: bytes) -> Picture:
        """One that `prepare` made before and that was kept. Raises ValueError for other bytes."""
        width, height = size_of(data)
        return cls(kind_of(data[:HEAD_BYTES]), width, height, data)


def prepare(path: Path, *, prober: Decoder, max_bytes: int, types: Sequence[Kind] = KEPT) -> Picture:
    """The picture in `path` as one of `types`, of at most `max_bytes`, with the least loss that this takes.

    JPEG has to be among `types`: it is what anything can become. Raises PictureRefused.
    """
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
    request = {
        "type": str(kind),
        "types": [str(one) for one in types],
        "size_bytes": path.stat().st_size,
        "max_bytes": max_bytes,
        "max_pixels": MAX_PIXELS,
    }
    try:
        reply = prober.ask_about_picture(path, request)
    except MediaTimeout as err:
        raise _unreadable(str(err)) from None
    if reply is None:
        raise _unreadable("the decoder crashed on it, or took too long")
    if "data" not in reply:
        raise _refusal(reply)
    return _checked(reply, types=types, max_bytes=max_bytes)


def _checked(reply: Mapping[str, Any], *, types: Sequence[Kind], max_bytes: int) -> Picture:
    """The child's words as facts. The child has met hostile bytes: what it says is checked like any input."""
    try:
        picture = Picture.of(base64.b64decode(reply["data"], validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise _unreadable("the decoder's answer is no picture") from None
    if picture.kind not in types or len(picture.data) > max_bytes:
        raise _unreadable("the decoder's answer is not what was asked for")
    return picture


def _refusal(reply: Mapping[str, Any]) -> PictureRefused:
    match reply.get("problem"):
        case "pixels":
            width, height = reply.get("width_px"), reply.get("height_px")
            size = f"{width}x{height}" if isinstance(width, int) and isinstance(height, int) else "too many"
            return PictureRefused(
                f"{size} pixels",
                code="image_too_large",
                user_message=f"The start image has {size} pixels; at most {MAX_PIXELS / 1e6:.0f} million are read.",
            )
        case "bytes":
            return PictureRefused(
                "it can't be made small enough",
                code="image_too_large",
                user_message="The start image can't be made small enough for the video provider.",
            )
    why = reply.get("why") or reply.get("refused")
    return _unreadable(why if isinstance(why, str) and len(why) <= 100 else "it can't be decoded")


def _unreadable(why: str) -> PictureRefused:
    return PictureRefused(
        why,
        code="image_unreadable",
        user_message="The start image can't be read: it is damaged, cut off, or not what its first bytes say.",
    )
