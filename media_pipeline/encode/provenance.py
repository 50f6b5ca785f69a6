"""Where a picture comes from, as files say it: China's `AIGC` tag, and C2PA's manifest; and an own label.

China's labelling rule (Measures for Labeling AI-Generated Synthetic Content, in force since 1 September 2025; GB
45438-2025, annex E) puts a JSON object under the key `AIGC` into a file's metadata, and forbids its removal. So the tag
is kept as it came by a remux and by an encode. A C2PA manifest is bound to the bytes that it was signed for
(specification 2.1, 9): neither a remux nor an encode can keep it true, so it is dropped, and that it was there is
recorded.
"""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TAG = "AIGC"
#: Characters; a tag of the standard has some hundred.
LONGEST_TAG = 4096
#: Height of the mark's text over the picture's short side; GB 45438-2025 wants 5% at least.
MARK_HEIGHT = 0.05


@dataclass(frozen=True)
class Provenance:
    """`aigc_tag`: the tag's text, empty without one. `has_c2pa`: a manifest was in the file."""

    aigc_tag: str = ""
    has_c2pa: bool = False


@dataclass(frozen=True)
class Label:
    """An own label. With a `producer`, a file without a tag gets one that names it and `produce_id`.

    With a `mark`, that text is drawn into the picture's lower right corner, in `font` (a file) or the built-in one,
    which has Latin letters.
    """

    producer: str = ""
    produce_id: str = ""
    mark: str = ""
    font: str = ""


NO_LABEL = Label()


def aigc_tag(metadata: Iterable[Mapping[str, str]]) -> str:
    """The tag in a file's metadata (of the container and its streams): under its key in any case, else under another
    one whose value is such an object. Control characters and halves of surrogate pairs are left out.
    """
    found = [(key, value) for tags in metadata for key, value in tags.items() if isinstance(value, str)]
    named = [value for key, value in found if key.rpartition(".")[2].upper() == TAG and value.strip()]
    for value in [*named, *(value for _, value in found if _is_tag(value))]:
        return "".join(char for char in value if char.isprintable())[:LONGEST_TAG]
    return ""


def _is_tag(value: str) -> bool:
    if f'"{TAG}"' not in value or len(value) > LONGEST_TAG:
        return False
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and isinstance(parsed.get(TAG), dict)


def tag_of_output(provenance: Provenance, label: Label) -> str:
    """The tag that the output gets: the file's own, else ours, else none."""
    if provenance.aigc_tag or not label.producer:
        return provenance.aigc_tag
    # GB 45438-2025, annex E: Label 1 says that it is AI-generated for certain.
    fields = {"Label": "1", "ContentProducer": label.producer, "ProduceID": label.produce_id}
    return json.dumps({TAG: fields}, ensure_ascii=False, separators=(",", ":"))


def metadata_args(tag: str) -> tuple[str, ...]:
    """ffmpeg's options that write the tag. Without `use_metadata_tags` the MP4 muxer knows only Apple's keys."""
    return ("-metadata", f"{TAG}={tag}", "-movflags", "+use_metadata_tags") if tag else ()


def marked(chain: str, label: Label, width: int, height: int) -> str:
    """A chain of filters with the mark laid over its end. The picture of the mark is in the chain itself, so that
    ffmpeg opens no other file.
    """
    short = min(width, height)
    png = base64.b64encode(_mark_png(label.mark, label.font, max(8, round(short * MARK_HEIGHT)), width)).decode()
    # Quoted for the reader of the graph; a colon would end the value for the reader of the option.
    address = rf"'data\:image/png;base64,{png}'"
    gap = max(2, short // 50)
    return (
        f"{chain}[picture];movie=filename={address}:format_name=png_pipe[mark];"
        f"[picture][mark]overlay=x=W-w-{gap}:y=H-h-{gap},format=yuv420p"
    )


@functools.lru_cache(maxsize=32)
def _mark_png(text: str, font: str, height_px: int, widest_px: int) -> bytes:
    """White letters on a dark plate that lets the picture through."""
    from PIL import Image, ImageDraw

    drawn = _font(font, height_px)
    left, top, right, bottom = drawn.getbbox(text)
    pad = max(2, height_px // 4)
    plate = Image.new("RGBA", (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad), (0, 0, 0, 128))
    ImageDraw.Draw(plate).text((pad - left, pad - top), text, font=drawn, fill=(255, 255, 255, 230))
    if plate.width > widest_px * 0.9:
        plate = plate.resize((round(widest_px * 0.9), max(1, round(plate.height * widest_px * 0.9 / plate.width))))
    out = io.BytesIO()
    plate.save(out, "PNG")
    return out.getvalue()


def _font(path: str, height_px: int):  # type: ignore[no-untyped-def]
    from PIL import ImageFont

    return ImageFont.truetype(path, height_px) if path else ImageFont.load_default(height_px)


def what_is_wrong_with_mark(label: Label) -> str:
    """Why the mark can't be drawn: its font can't be read, or has no such letter; else ""."""
    if not label.mark:
        return ""
    try:
        font = _font(label.font, 40)
    except OSError:
        return "its font can't be read"
    nothing = bytes(font.getmask("\uffff"))
    missing = [char for char in label.mark if not char.isspace() and bytes(font.getmask(char)) == nothing]
    return f"its font has no {missing[0]!r}" if missing else ""
