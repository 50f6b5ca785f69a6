"""What the decoder child does with a picture: decode all of it, turn it upright, drop what is not the picture.

With the least loss: where only metadata has to go, its segments are left out and no pixel changes (`strip`). A picture
is encoded anew when it has to be turned, shrunk, or brought into another kind: without loss (PNG) where it came without
loss and fits, else as JPEG of quality 95, less where it would not fit, and then smaller.

Imported by the child before it gives up its rights; nothing else calls this on foreign bytes.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import warnings
from typing import Any

from PIL import AvifImagePlugin, GifImagePlugin, Image, ImageOps, MpoImagePlugin, WebPImagePlugin

from media_pipeline.pictures.strip import strip, without_texts

#: Imported so that they are loaded: a plugin that the child meets later could not be opened any more.
_PLUGINS = (AvifImagePlugin, GifImagePlugin, MpoImagePlugin, WebPImagePlugin)
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF", "image/avif": "AVIF"}
_QUALITIES = (95, 90, 85)
_LONGEST_SIDE_PX = 16_383  # WebP's; JPEG has 65,535
_ORIENTATION = 0x0112
_CHUNK_BYTES = 1 << 20
#: Of a see-through picture that came with loss: as PNG, more would take longer than a question may.
_MOST_PIXELS_OF_PNG = 16_000_000
_LEAST_SIDE_PX = 16  # a picture is never made smaller than that to fit
_BEHIND = (255, 255, 255)  # what a picture without room for transparency is laid on


class _Refused(Exception):
    """The picture can't be taken; the arguments are the reply to the parent."""


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """The reply: `type`, `width_px`, `height_px` and `data` in base64; or `problem`, a word that the parent knows.

    `type` is what the first bytes say; `types` and `max_bytes` are what is wanted; `max_pixels` is the most to decode.
    """
    data = _read(request["file"], request["size_bytes"])
    try:
        # A decompression bomb of Pillow's own judgement is an error; ours is the size in the header.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _prepare(request, data)
    except _Refused as err:
        reply: dict[str, Any] = err.args[0]
        return reply
    except MemoryError:
        return {"problem": "pixels"}
    except Exception as err:  # whatever damaged bytes make of a parser; its text may quote them
        return {"problem": "unreadable", "why": type(err).__name__}


def _read(file: int, size_bytes: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    parts, left = [], size_bytes
    while left and (part := os.read(file, min(left, _CHUNK_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _prepare(request: dict[str, Any], data: bytes) -> dict[str, Any]:
    Image.MAX_IMAGE_PIXELS = None  # the check is below
    if request["type"] == "image/png":
        data = without_texts(data)
    with Image.open(io.BytesIO(data), formats=(_FORMATS[request["type"]],)) as picture:
        width, height = picture.size
        if width * height > request["max_pixels"]:
            raise _Refused({"problem": "pixels", "width_px": width, "height_px": height})
        picture.load()
        lies = _orientation(picture) in range(2, 9)
        if request["type"] in request["types"] and not lies and picture.mode != "CMYK":
            with contextlib.suppress(ValueError):
                kept = strip(request["type"], data)
                if len(kept) <= request["max_bytes"]:
                    return _reply(request["type"], picture.size, kept)
        keeps_all = request["type"] in ("image/png", "image/gif") or data[12:16] == b"VP8L"
        upright = ImageOps.exif_transpose(picture) if lies else picture
        return _encoded(_plain(upright), request, keeps_all=keeps_all, icc=picture.info.get("icc_profile"))


def _orientation(picture: Image.Image) -> Any:
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged Exif says nothing
        return 1


def _plain(picture: Image.Image) -> Image.Image:
    """In 8 bits: L, RGB, or RGBA where something shows through."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return picture.convert("I").point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        least, _ = picture.getchannel("A").getextrema()
        return picture if least != 255 else picture.convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("L" if picture.mode == "1" else "RGB")


def _encoded(picture: Image.Image, request: dict[str, Any], *, keeps_all: bool, icc: bytes | None) -> dict[str, Any]:
    longest = max(picture.size)
    if longest > _LONGEST_SIDE_PX:
        picture = _smaller(picture, _LONGEST_SIDE_PX / longest)
    if picture.mode == "RGBA" and not keeps_all and picture.width * picture.height > _MOST_PIXELS_OF_PNG:
        picture = _smaller(picture, (_MOST_PIXELS_OF_PNG / (picture.width * picture.height)) ** 0.5)
    most, more = request["max_bytes"], {"icc_profile": icc} if icc and picture.mode != "L" else {}
    fits = not keeps_all or request["size_bytes"] <= 2 * most
    if fits and (keeps_all or picture.mode == "RGBA") and "image/png" in request["types"]:
        made = _saved(picture, "PNG", compress_level=4, **more)
        if len(made) <= most:
            return _reply("image/png", picture.size, made)
    if picture.mode == "RGBA":
        behind = Image.new("RGB", picture.size, _BEHIND)
        behind.paste(picture, mask=picture.getchannel("A"))
        picture = behind
    for quality in _QUALITIES:
        made = _saved(picture, "JPEG", quality=quality, subsampling=0 if quality == _QUALITIES[0] else 2, **more)
        if len(made) <= most:
            return _reply("image/jpeg", picture.size, made)
    while min(picture.size) > _LEAST_SIDE_PX:
        picture = _smaller(picture, min(0.9, 0.95 * (most / len(made)) ** 0.5))
        made = _saved(picture, "JPEG", quality=_QUALITIES[-1], **more)
        if len(made) <= most:
            return _reply("image/jpeg", picture.size, made)
    raise _Refused({"problem": "bytes"})


def _smaller(picture: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, int(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    bare = picture.copy() if picture.info else picture
    bare.info = {}  # else Pillow writes what it read of Exif, comments and texts into the new file
    bare.save(out, kind, **options)
    return out.getvalue()


def _reply(media_type: str, size: tuple[int, int], data: bytes) -> dict[str, Any]:
    width, height = size
    return {"type": media_type, "width_px": width, "height_px": height, "data": base64.b64encode(data).decode()}
