"""What every output must be, asked of PyAV, not of our own prober; and files that no muxer writes."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame

#: Ten times the level's name → macroblocks a second and a frame (H.264, table A-1), typed in anew.
LEVEL_LIMITS = {
    10: (1485, 99),
    11: (3000, 396),
    12: (6000, 396),
    13: (11880, 396),
    20: (11880, 396),
    21: (19800, 792),
    22: (20250, 1620),
    30: (40500, 1620),
    31: (108000, 3600),
    32: (216000, 5120),
    40: (245760, 8192),
    41: (245760, 8192),
    42: (522240, 8704),
    50: (589824, 22080),
    51: (983040, 36864),
}


def frames_of(path: Path) -> list[VideoFrame]:
    """All frames, decoded."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def check(path: Path, *, size: tuple[int, int], fps: Fraction | int, seconds: float) -> list[VideoFrame]:
    """The frames of an output that any player of today plays."""
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        keys = sorted(float(packet.pts * packet.time_base) for packet in packets if packet.is_keyframe)
        assert (codec.name, codec.codec_tag, codec.pix_fmt) == ("h264", "avc1", "yuv420p")
        assert codec.profile in {"Constrained Baseline", "Main", "High"}
        per_second, per_frame = LEVEL_LIMITS[codec.level]
        blocks = -(-size[0] // 16) * -(-size[1] // 16)
        assert blocks <= per_frame
        assert blocks * fps <= per_second * 1.002
        assert (codec.width, codec.height) == size
        assert stream.sample_aspect_ratio in (None, 0, 1)
        assert abs(stream.average_rate / Fraction(fps) - 1) <= Fraction(1, 1000)
        assert container.start_time == 0
        assert stream.start_time in (None, 0)
        assert abs(float(stream.duration * stream.time_base) - seconds) <= float(1 / Fraction(fps)) + 0.001
        gaps = [after - before for before, after in zip(keys, [*keys[1:], seconds], strict=True)]
        assert keys[0] == 0
        assert max(gaps) <= 2.002
    frames = frames_of(path)
    assert len(frames) == len(packets)
    return frames


def with_clean_aperture(source: Path, dest: Path, *, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> None:
    """`source`, an H.264 MP4 whose index comes last, with a `clap` box; the offset is that of the centre, in pixels."""
    data = bytearray(source.read_bytes())
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", size[0], 1, size[1], 1, offset[0], 1, offset[1], 1)
    at = data.index(b"avc1", data.rindex(b"moov")) + 4 + 78
    data[at:at] = clap
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = data.index(name, data.rindex(b"moov")) - 4
        (length,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, length + len(clap))
    dest.write_bytes(data)
