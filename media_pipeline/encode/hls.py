"""HLS of a finished video: the same picture in two or three sizes, of which a player takes what its line allows.

Each size is one fragmented MP4, whose pieces are byte ranges of it (RFC 8216, §4.3.2.2 and §4.3.2.5), so that a video
has few files, and few links. All sizes have their key frames at the same frames, each piece begins with one, and so a
player may change the size at any piece. The sound is copied into each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from media_pipeline.encode.probe import MediaInfo
from media_pipeline.encode.rates import KEYFRAME_EVERY_S, QualityName, encoder_args
from media_pipeline.errors import TranscodeFailed

MASTER = "hls.m3u8"
#: Short sides in pixels. The largest size is the video's own, up to the first of them; smaller ones follow, the next
#: one at most STEP of it.
LADDER_PX = (1080, 720, 480, 360, 240)
STEP = Fraction(3, 4)
MOST_RUNGS = 3
PRESET = "veryfast"
_AAC_LC = "mp4a.40.2"


class Rung(NamedTuple):
    """One size; its files are named by its short side."""

    width_px: int
    height_px: int

    @property
    def media(self) -> str:
        return f"hls_{min(self)}.mp4"

    @property
    def playlist(self) -> str:
        return f"hls_{min(self)}.m3u8"


class Piece(NamedTuple):
    """A part of a rung's file: where it is in bytes, and how long it lasts."""

    begin: int
    size: int
    duration_s: float


@dataclass(frozen=True)
class Stream:
    """A rung that was made: `init_bytes` of the file's begin tell how to decode the pieces."""

    rung: Rung
    init_bytes: int
    pieces: Sequence[Piece]
    codecs: str


def rungs_of(info: MediaInfo) -> list[Rung]:
    """The sizes for a video, the largest first; only its own if it is too small for another."""
    short = min(info.width_px, info.height_px)
    top = min(short, LADDER_PX[0])
    lower = [side for side in LADDER_PX if side <= top * STEP]
    return [_scaled(info, Fraction(side, short)) for side in (top, *lower[: MOST_RUNGS - 1])]


def _scaled(info: MediaInfo, factor: Fraction) -> Rung:
    return Rung(2 * round(info.width_px * factor / 2), 2 * round(info.height_px * factor / 2))


def rung_args(info: MediaInfo, rung: Rung, quality: QualityName) -> tuple[str, ...]:
    """ffmpeg's output options."""
    scaled = (
        ()
        if rung == (info.width_px, info.height_px)
        else ("-vf", f"scale={rung.width_px}:{rung.height_px}:flags=bicubic,setsar=1")
    )
    sound = ("-map", "0:a:0", "-c:a", "copy") if info.audio_codec else ()
    return (
        *("-map", "0:v:0", *sound, *scaled, "-c:v", "libx264", "-preset", PRESET, "-pix_fmt", "yuv420p"),
        # Key frames by number alone, the same in each size.
        *(*encoder_args(quality, *rung, info.fps), "-sc_threshold", "0", "-fps_mode", "passthrough"),
        *("-movflags", "+frag_keyframe+delay_moov+default_base_moof+skip_trailer", "-f", "mp4"),
    )


def stream_of(path: Path, rung: Rung, info: MediaInfo) -> Stream:
    """What `rung_args` has made at `path` of the video whose facts are `info`. Raises TranscodeFailed."""
    parts = _parts(path)
    group_s = max(1, int(KEYFRAME_EVERY_S * info.fps)) / float(info.fps)
    expected = max(1, math.ceil(info.duration_s / group_s - 0.01))
    if len(parts) != expected or not parts[0][0]:
        raise TranscodeFailed(f"{rung.media} has {len(parts)} pieces instead of {expected}")
    last_s = max(0.001, info.duration_s - (expected - 1) * group_s)
    lengths = [*[group_s] * (expected - 1), last_s]
    pieces = [Piece(*part, length_s) for part, length_s in zip(parts, lengths, strict=True)]
    with path.open("rb") as file:
        init = file.read(pieces[0].begin)
    at = init.find(b"avcC")
    if at < 0:
        raise TranscodeFailed(f"{rung.media} does not say how to decode it")
    # ISO/IEC 14496-15, 5.3.3.1: version, profile, compatibility, level. RFC 6381, 3.3.
    codecs = f"avc1.{init[at + 5 : at + 8].hex()}" + (f",{_AAC_LC}" if info.audio_codec else "")
    return Stream(rung, pieces[0].begin, pieces, codecs)


def _parts(path: Path) -> list[tuple[int, int]]:
    """(begin, bytes) of each `moof` box with what follows it, up to the next one."""
    begins, at, size = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4])
            length = int.from_bytes(head[8:16]) if length == 1 else length
            if len(head) < 8 or length < 8:
                raise TranscodeFailed("a box of a fragmented file makes no sense")
            if head[4:8] == b"moof":
                begins.append(at)
            at += length
    return [(begin, end - begin) for begin, end in zip(begins, [*begins[1:], size], strict=True)] if begins else []


def playlist(stream: Stream) -> str:
    """The media playlist of one size."""
    longest_s = max(piece.duration_s for piece in stream.pieces)
    name = stream.rung.media
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(1, round(longest_s))}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{name}",BYTERANGE="{stream.init_bytes}@0"',
    ]
    for piece in stream.pieces:
        lines += [f"#EXTINF:{piece.duration_s:.6f},", f"#EXT-X-BYTERANGE:{piece.size}@{piece.begin}", name]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def master(streams: Sequence[Stream], info: MediaInfo) -> str:
    """The playlist of all sizes."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for stream in streams:
        mean = sum(piece.size for piece in stream.pieces) * 8 / info.duration_s
        # A rest of a few frames has a key frame too, and says nothing of the line that is needed.
        peak = max((one.size * 8 / one.duration_s for one in stream.pieces if one.duration_s >= 0.5), default=mean)
        lines += [
            f"#EXT-X-STREAM-INF:BANDWIDTH={math.ceil(max(peak, mean))},AVERAGE-BANDWIDTH={math.ceil(mean)},"
            f"RESOLUTION={stream.rung.width_px}x{stream.rung.height_px},FRAME-RATE={float(info.fps):.3f},"
            f'CODECS="{stream.codecs}"',
            stream.rung.playlist,
        ]
    return "\n".join([*lines, ""])
