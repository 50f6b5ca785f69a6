"""How the files of the table are made: real encoders and muxers, then bytes moved, cut and overwritten by hand.

All are of one scene: black and white bars that move, whose upper half is black and turns white at FLASH_S, when a tone
begins. So a look at the output tells where picture and sound of the source came to lie.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.media_pipeline.conftest import FFMPEG

FLASH_S = 0.5
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "64k")
#: What a copy may keep: no B-frames, a key frame each second, the index in front.
READY = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-profile:v", "high", "-g", "30")
READY = (*READY, "-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv")
FAST = ("-movflags", "+faststart")

#: Makes the file in a folder of its own, and returns it.
Recipe = Callable[[Path], Path]


def ffmpeg(*args: str | Path) -> None:
    done = subprocess.run(
        [FFMPEG, "-nostdin", "-v", "error", "-y", *map(str, args)],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def scene(*, size: str = "160x90", rate: str = "30", seconds: float = 1.0, tone: float | None = None) -> list[str]:
    """ffmpeg's inputs: the picture, and the sound for `tone` seconds (by default as long as the picture)."""
    lasts = seconds if tone is None else tone
    picture = (
        f"testsrc2=s={size}:r={rate}:d={seconds},drawbox=w=iw:h=ih/2:c=black:t=fill,"
        f"drawbox=w=iw:h=ih/2:c=white:t=fill:enable='gte(t,{FLASH_S - 0.001})'"
    )
    sound = f"aevalsrc='if(gte(t,{FLASH_S}),0.5*sin(2*PI*1000*t),0)':s=48000:d={lasts}"
    return ["-f", "lavfi", "-i", picture, *(["-f", "lavfi", "-i", sound] if lasts else [])]


def clip(
    name: str,
    *options: str,
    size: str = "160x90",
    rate: str = "30",
    seconds: float = 1.0,
    tone: float | None = None,
    before: tuple[str, ...] = (),
) -> Recipe:
    """A file of the scene, encoded and muxed by these options; `before` comes in front of the inputs."""

    def make(folder: Path) -> Path:
        path = folder / name
        ffmpeg(*before, *scene(size=size, rate=rate, seconds=seconds, tone=tone), *options, path)
        return path

    return make


def again(name: str, source: Recipe, *options: str, before: tuple[str, ...] = ()) -> Recipe:
    """Another file made of it by ffmpeg."""

    def make(folder: Path) -> Path:
        path = folder / name
        ffmpeg(*before, "-i", source(folder), *options, path)
        return path

    return make


def changed(source: Recipe, change: Callable[[bytes], bytes], name: str = "changed.mp4") -> Recipe:
    """The same file with other bytes."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(change(source(folder).read_bytes()))
        return path

    return make


def content(data: bytes, name: str = "looks_like.mp4") -> Recipe:
    """A file of these bytes."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return make


# --- bytes ------------------------------------------------------------------------------------------------------------


def box(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, whole box) of each at the top."""
    found, at = [], 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        found.append((kind, data[at : at + length]))
        at += length
    return found


def moved(data: bytes, by: int) -> bytes:
    """The chunk offsets in an MP4's index, by so many bytes."""
    out, at = bytearray(data), 0
    while (at := out.find(b"stco", at)) >= 0:
        (count,) = struct.unpack(">I", out[at + 8 : at + 12])
        for number in range(count):
            place = at + 12 + 4 * number
            (offset,) = struct.unpack(">I", out[place : place + 4])
            struct.pack_into(">I", out, place, offset + by)
        at += 4
    return bytes(out)


def in_front(extra: bytes) -> Callable[[bytes], bytes]:
    """Boxes before all others."""
    return lambda data: extra + moved(data, len(extra))


def without_ftyp(data: bytes) -> bytes:
    (_, first), *rest = boxes(data)
    return moved(b"".join(whole for _, whole in rest), -len(first))


def in_media(data: bytes, begin: float, end: float, change: Callable[[bytes], bytes]) -> bytes:
    """Other bytes from one share of the media box to another."""
    start = data.index(b"mdat") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    first, last = start + int(length * begin), start + int(length * end)
    return data[:first] + change(data[first:last]) + data[last:]


def zeroed(begin: float, end: float) -> Callable[[bytes], bytes]:
    return lambda data: in_media(data, begin, end, lambda part: bytes(len(part)))


def flipped(begin: float, end: float, each: int = 97) -> Callable[[bytes], bytes]:
    """One byte in so many turned over."""

    def turn(part: bytes) -> bytes:
        out = bytearray(part)
        for at in range(0, len(out), each):
            out[at] ^= 0xFF
        return bytes(out)

    return lambda data: in_media(data, begin, end, turn)


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def large_media(data: bytes) -> bytes:
    """The media box with a length of 64 bits."""
    parts = boxes(data)
    out = b"".join(
        struct.pack(">I4sQ", 1, kind, len(whole) + 8) + whole[8:] if kind == b"mdat" else whole for kind, whole in parts
    )
    return moved(out, 8)


def endless_media(data: bytes) -> bytes:
    """The media box comes last, and its length is "to the end"."""
    at = data.index(b"mdat") - 4
    assert boxes(data)[-1][0] == b"mdat"
    return data[:at] + bytes(4) + data[at + 4 :]


def tagged(primaries: int = 1, transfer: int = 1, matrix: int = 1) -> tuple[str, ...]:
    """Colour numbers (H.273) in the stream itself."""
    numbers = f"colour_primaries={primaries}:transfer_characteristics={transfer}:matrix_coefficients={matrix}"
    return ("-bsf:v", f"h264_metadata={numbers}")


def fragments(data: bytes, keep: int) -> bytes:
    """The first fragments alone: whole boxes, and no sign of what is missing."""
    out, seen = b"", 0
    for kind, whole in boxes(data):
        seen += kind == b"moof"
        if seen > keep or kind == b"mfra":
            break
        out += whole
    return out
