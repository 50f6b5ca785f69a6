"""The still parts of a clip's picture, drawn with Pillow.

The text is an image laid over the video, never an ffmpeg filter argument: so any character of a prompt is safe.
Pillow is imported on the first drawing, because the server must start at once.
"""

from __future__ import annotations

import bisect
import colorsys
import unicodedata
from collections.abc import Callable
from pathlib import Path

from providers.dialect.jobs import ClipSpec

MAX_DRAWN_CHARS = 1200


def palette(spec: ClipSpec) -> list[str]:
    """Four colours that go together, as 0xRRGGBB; another prompt, other colours."""
    hue = (spec.seed % 360) / 360
    colours = []
    for shift, light, saturation in ((0.0, 0.16, 0.70), (0.08, 0.34, 0.72), (0.17, 0.46, 0.66), (0.92, 0.22, 0.70)):
        red, green, blue = colorsys.hls_to_rgb((hue + shift) % 1, light, saturation)
        colours.append(f"0x{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")
    return colours


def drawable(text: str) -> str:
    """The text without what no font can draw: controls, lone surrogates, unassigned and private characters."""
    kept = (" " if char.isspace() else char for char in text if char.isspace() or unicodedata.category(char)[0] != "C")
    return " ".join("".join(kept).split())


def without_tofu(text: str, picture_of: Callable[[str], bytes]) -> str:
    """The text without characters that the font shows as an empty box, unless nothing would be left."""
    box = picture_of("\U0010ffff")
    boxed = {char for char in set(text) if not char.isspace() and picture_of(char) == box}
    return " ".join("".join(char for char in text if char not in boxed).split()) or text


def wrap(text: str, width_px: float, measure: Callable[[str], float]) -> list[str]:
    """Lines no wider than `width_px`; a word that is too long alone is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if measure(joined) <= width_px:
            line = joined
            continue
        if line:
            lines.append(line)
        while measure(word) > width_px and len(word) > 1:
            # By bisection: measuring every prefix of a thousand characters took 20 s.
            ends = range(1, len(word))
            fits = max(1, bisect.bisect_right(ends, width_px, key=lambda end: measure(word[:end])))
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines


def draw_text(spec: ClipSpec, path: Path) -> None:
    """The prompt, large and wrapped, and the footer, on a transparent picture of the clip's size."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = spec.width_px, spec.height_px
    short = min(width, height)
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    probe = ImageFont.load_default(24)
    text = without_tofu(drawable(spec.text)[:MAX_DRAWN_CHARS], lambda char: bytes(probe.getmask(char)))
    size = short // 11
    while text:
        font = ImageFont.load_default(size)
        lines = wrap(text, width * 0.84, font.getlength)
        line_px = size * 1.28
        if len(lines) * line_px <= height * 0.72 or size <= 12:
            top = (height - len(lines) * line_px) / 2
            for number, line in enumerate(lines):
                at = (width / 2, top + (number + 0.5) * line_px)
                draw.text((at[0] + size / 22, at[1] + size / 22), line, font=font, fill=(0, 0, 0, 130), anchor="mm")
                draw.text(at, line, font=font, fill=(255, 255, 255, 245), anchor="mm")
            break
        size = int(size * 0.84)
    small = max(12, short // 36)
    footer = ImageFont.load_default(small)
    draw.text((width / 2, height - small * 1.9), spec.footer, font=footer, fill=(255, 255, 255, 190), anchor="mm")
    image.save(path, compress_level=1)


def draw_glow(spec: ClipSpec, path: Path) -> None:
    """The soft disc that wanders over the picture."""
    from PIL import Image, ImageDraw

    side = min(spec.width_px, spec.height_px) * 2 // 3 & ~1
    alpha = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(alpha)
    for inset in range(0, side // 2, 2):
        draw.ellipse((inset, inset, side - inset, side - inset), fill=int(150 * (inset / (side / 2)) ** 2))
    image = Image.new("RGBA", (side, side), (255, 244, 214, 0))
    image.putalpha(alpha)
    image.save(path, compress_level=1)
