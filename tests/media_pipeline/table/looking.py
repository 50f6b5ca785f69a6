"""An independent look at an output: PyAV and the bytes themselves, nothing of ours."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from tests.media_pipeline.table.recipes import boxes


@dataclass
class Seen:
    """Times in seconds, as a player takes them from the container."""

    codec: str
    profile: str
    level: int
    tag: str
    pix_fmt: str
    size: tuple[int, int]
    sar: Fraction
    rate: Fraction
    colours: tuple[int, int, int, int]
    order: list[str]
    start_s: float = 0.0
    end_s: float = 0.0
    stamps: list[float] = field(default_factory=list)
    keys: list[float] = field(default_factory=list)
    flash_s: float | None = None
    sound: str | None = None
    sound_start_s: float = 0.0
    sound_end_s: float = 0.0
    tone_s: float | None = None
    lost: int = 0


def look(path: Path) -> Seen:
    """Decode it from the first to the last frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        sound = container.streams.audio[0] if container.streams.audio else None
        seen = Seen(
            codec=codec.name,
            profile=str(codec.profile),
            level=codec.level or 0,
            tag=codec.codec_tag,
            pix_fmt=str(codec.pix_fmt),
            size=(codec.width, codec.height),
            sar=Fraction(stream.sample_aspect_ratio or 1),
            rate=Fraction(stream.average_rate or 0),
            colours=(codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range),
            order=[kind.decode("latin-1") for kind, _ in boxes(path.read_bytes())],
            sound=sound.codec_context.name if sound else None,
        )
        mono = av.AudioResampler(format="s16", layout="mono", rate=48000)
        for packet in container.demux([stream, *([sound] if sound else [])]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                seen.lost += 1
                continue
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    _see(seen, frame)
                elif isinstance(frame, av.AudioFrame):
                    _hear(seen, frame, mono)
    seen.start_s = min(seen.stamps)
    step = float(1 / seen.rate) if seen.rate else 0.0
    seen.end_s = max(seen.stamps) + step
    return seen


def _see(seen: Seen, frame: av.VideoFrame) -> None:
    at_s = float(frame.time or 0)
    seen.stamps.append(at_s)
    seen.lost += frame.is_corrupt
    if frame.key_frame:
        seen.keys.append(at_s)
    if seen.flash_s is None:
        plane, (width, height) = frame.planes[0], (frame.width, frame.height)
        data = bytes(plane)
        # The middle of the upper half: the picture may stand between black bars.
        rows, columns = range(height // 6, height * 2 // 5, 2), range(width * 2 // 5, width * 3 // 5, 3)
        middle = sorted(data[row * plane.line_size + column] for row in rows for column in columns)
        if middle[len(middle) // 2] > 140:
            seen.flash_s = at_s


def _hear(seen: Seen, frame: av.AudioFrame, mono: av.AudioResampler) -> None:
    at_s = float(frame.time or 0)
    if not seen.sound_end_s:
        seen.sound_start_s = at_s
    seen.sound_end_s = max(seen.sound_end_s, at_s + frame.samples / frame.sample_rate)
    if seen.tone_s is not None:
        return
    heard_s = at_s
    for plain in mono.resample(frame):
        samples = array("h", bytes(plain.planes[0])[: 2 * plain.samples])
        loud = next((number for number, value in enumerate(samples) if abs(value) > 5000), None)
        if loud is not None:
            seen.tone_s = heard_s + loud / 48000
            return
        heard_s += len(samples) / 48000
