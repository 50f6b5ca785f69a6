"""What only a walk through a file's packets can tell: which tracks have anything, where each begins and ends, and
whether all of it can be decoded. Runs in the limited child process, and imports nothing of ours.

Headers lie about lengths, and a fragmented or streamed file has none. A walk costs little: packets are read, not
decoded (5 s of 720p: 1 ms), except those that lead to the first frame.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: A larger file is not walked through: its headers are believed. Reading this much takes about 0.1 s of CPU.
MAX_SCANNED_BYTES = 256 << 20
#: Packets of one track fed before we stop hoping for a first frame.
MAX_PACKETS_TO_FIRST_FRAME = 3000
#: How many pixels `check` decodes: a minute of 720p at 30. Of a longer video it leaves out groups of pictures evenly.
CHECKED_PIXELS = 60 * 30 * 1280 * 720
#: Matrix coefficients (H.273) that swscale takes, less "unspecified".
SCALABLE_MATRICES = frozenset({0, 1, 4, 5, 6, 7, 9})
#: libavformat's AV_DISPOSITION_ATTACHED_PIC.
_ATTACHED_PICTURE = 1 << 10
#: An animation's frames that claim less are shown for this long, as ffmpeg and browsers do.
_WEBP_LEAST_MS, _WEBP_DEFAULT_MS = 10, 100


class Refused(Exception):
    """The bytes are not acceptable; the text says why."""


@dataclass
class Track:
    """One track as its packets are seen. Times are in seconds."""

    stream: Any
    packets: int = 0
    start_s: float | None = None
    dts_s: float | None = None
    end_s: float = 0.0
    frame: Any = None
    _last_s: float = 0.0
    _tried: int = field(default=0)

    def see(self, packet: Any) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if not packet.size:
            return
        self.packets += 1
        if stamp is None or packet.is_discard:
            return
        at_s = float(stamp * packet.time_base)
        if self.dts_s is None and packet.dts is not None:
            self.dts_s = float(packet.dts * packet.time_base)
        self.start_s = at_s if self.start_s is None else min(self.start_s, at_s)
        lasts_s = float(packet.duration * packet.time_base) if packet.duration else max(0.0, at_s - self._last_s)
        self._last_s = at_s
        self.end_s = max(self.end_s, at_s + lasts_s)

    def wants(self, *, decode: bool) -> bool:
        """Whether its next packet is to be decoded."""
        return (
            decode and self.stream.type == "video" and self.frame is None and self._tried < MAX_PACKETS_TO_FIRST_FRAME
        )

    def decode(self, av: Any, packet: Any, max_pixels: int) -> None:
        self._tried += 1
        try:
            for frame in packet.decode():
                if frame.width * frame.height > max_pixels:
                    raise Refused(f"{frame.width}x{frame.height} pixels")
                if self.frame is None and not frame.is_corrupt:
                    self.frame = frame
        except (av.FFmpegError, ValueError):
            return  # the next one may do; without any the caller refuses the file


def pictures(container: Any, request: dict[str, Any]) -> list[Any]:
    """The video streams that may be the one that was asked for, `max_streams` at most. Raises Refused."""
    # Cover art counts as a video stream; it is one picture, and never what was asked for.
    streams = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not streams:
        raise Refused("no video stream")
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise Refused("no decoder for its video stream")
    sized = [s for s in known if s.codec_context.width > 0 and s.codec_context.height > 0]
    if not sized:
        raise Refused("a picture without a size")
    sized = sized[: request["max_streams"]]
    for stream in sized:
        codec = stream.codec_context
        if codec.width * codec.height > request["max_pixels"]:
            raise Refused(f"{codec.width}x{codec.height} pixels")
        # Threads would only add address space: one frame is wanted.
        codec.thread_count = 1
    return sized


def scan(av: Any, container: Any, request: dict[str, Any]) -> tuple[Track, Track | None]:
    """(picture, sound): the first track of each kind that has anything in it. Raises Refused."""
    videos = {s.index: Track(s) for s in pictures(container, request)}
    sounds = {s.index: Track(s) for s in container.streams.audio[: request["max_streams"]]}
    tracks = videos | sounds
    # Of a file that was cut off the headers tell what it had.
    whole = request["truncated"] or os.fstat(request["file"]).st_size <= MAX_SCANNED_BYTES
    for packet in packets(av, container, [track.stream for track in tracks.values()]):
        track = tracks[packet.stream_index]
        track.see(packet)
        if track.wants(decode=request["decode"]):
            track.decode(av, packet, request["max_pixels"])
        if not whole and not any(one.wants(decode=request["decode"]) for one in videos.values()):
            break
    found = [one for one in videos.values() if one.frame is not None] or [one for one in videos.values() if one.packets]
    if not found:
        raise Refused("no picture in its video stream")
    # Beside an animation a still picture of it may come first, as in AVIF.
    found = [one for one in found if one.packets > 1] or found
    heard = [one for one in sounds.values() if one.packets]
    sound = next((one for one in heard if one.stream.codec_context is not None), next(iter(heard), None))
    if not whole:
        for track in (found[0], *([sound] if sound else [])):
            _believe(track, container)
    return found[0], sound


def first_frame(av: Any, container: Any, request: dict[str, Any]) -> Track:
    """The first video track of which a frame can be decoded, with that frame. Raises Refused."""
    tracks = {s.index: Track(s) for s in pictures(container, request)}
    for packet in packets(av, container, [track.stream for track in tracks.values()]):
        track = tracks[packet.stream_index]
        if track.wants(decode=True):
            track.decode(av, packet, request["max_pixels"])
        if track.frame is not None:
            return track
        if not any(one.wants(decode=True) for one in tracks.values()):
            break
    raise Refused("no frame could be decoded")


def packets(av: Any, container: Any, streams: list[Any]) -> Iterator[Any]:
    """All packets up to the first that can't be read, which ends a file that was cut off."""
    try:
        yield from container.demux(streams)
    except av.FFmpegError:
        return


def _believe(track: Track, container: Any) -> None:
    """Take a track's end from its header."""
    stream = track.stream
    start_s = track.start_s or 0.0
    if stream.duration:
        track.end_s = start_s + float(stream.duration * stream.time_base)
    elif container.duration:
        track.end_s = container.duration / 1e6


def times(picture: Track, sound: Track | None, container: Any) -> dict[str, Any]:
    """The facts of `probe.MediaInfo` about time, and which streams they are of."""
    # The container's own word may be about what it was told to hide, or be cut off at 0.
    begin_s = _start_s(picture) if picture.start_s is None else picture.start_s
    delay_s = _lost_edit_s(picture, sound) if "mov" in container.format.name else 0.0
    has_sound = sound is not None and sound.stream.codec_context is not None
    found = {
        "video_index": picture.stream.index,
        "start_s": begin_s,
        "lost_edit_s": delay_s,
        "container_start_s": (container.start_time or 0) / 1e6,
        "duration_s": max(0.0, picture.end_s - begin_s),
        "audio_index": sound.stream.index if has_sound and sound else -1,
        "audio_start_s": 0.0,
        "audio_duration_s": 0.0,
        "sound_unreadable": sound is not None and not has_sound,
    }
    if has_sound and sound:
        starts_s = _start_s(sound)
        found |= {"audio_start_s": starts_s, "audio_duration_s": max(0.0, sound.end_s - starts_s)}
    return found


def _start_s(track: Track) -> float:
    """Where it begins to be shown or heard: the container knows of what is decoded before and not heard."""
    stream = track.stream
    if stream.start_time is not None:
        return float(stream.start_time * stream.time_base)
    return track.start_s or 0.0


def _lost_edit_s(picture: Track, sound: Track | None) -> float:
    """By how much the picture may seem late because the file has no edit list that says otherwise.

    With B-frames the first picture is shown later than it is decoded. An edit list takes that back. Fragmented files
    often have none; both tracks then begin to be decoded at the same time, the sound with what is not to be heard.
    """
    if picture.start_s is None or picture.dts_s is None or picture.dts_s < 0:
        return 0.0
    if sound is not None and (sound.dts_s is None or abs(sound.dts_s - picture.dts_s) > 0.005):
        return 0.0
    return max(0.0, picture.start_s - picture.dts_s)


def check(av: Any, container: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Decode picture and sound: how many frames came out, and how many packets or frames were lost or damaged.

    `share` is the part of the groups of pictures that was decoded. The loop filter is left out, which finds the same
    damage for less; damage between two groups that are decoded shows in the lengths of H.264's units.
    """
    container.streams[request["video_index"]].codec_context.thread_count = 1
    video, audio = request["video_index"], request["audio_index"]
    streams = [container.streams[index] for index in (video, audio) if index >= 0]
    codec = container.streams[video].codec_context
    codec.options = {"skip_loop_filter": "all"}
    every = max(1, int(request["pixels"] // CHECKED_PIXELS) + 1) if request["pixels"] > CHECKED_PIXELS else 1
    frames, lost, group = {video: 0, audio: 0}, {video: 0, audio: 0}, -1
    lengths = _nal_length_bytes(codec)
    for packet in packets(av, container, streams):
        at = packet.stream_index
        if at == video:
            group += 1 if packet.is_keyframe or group < 0 else 0
            if group % every and packet.size:
                lost[at] += 0 if _units_add_up(packet, lengths) else 1
                continue
        try:
            for frame in packet.decode():
                frames[at] += 1
                lost[at] += 1 if at == video and every == 1 and frame.is_corrupt else 0
        except (av.FFmpegError, ValueError):
            lost[at] += 1
    return {
        "frames": frames[video],
        "lost": lost[video],
        "sound_frames": frames[audio] if audio >= 0 else 0,
        "sound_lost": lost[audio] if audio >= 0 else 0,
        "share": 1 / every,
    }


def _nal_length_bytes(codec: Any) -> int:
    """How many bytes hold the length of each unit (ISO 14496-15); 0 for other codecs."""
    extra = bytes(codec.extradata or b"")
    return (extra[4] & 3) + 1 if codec.name == "h264" and len(extra) > 6 and extra[0] == 1 else 0


def _units_add_up(packet: Any, lengths: int) -> bool:
    """Whether a packet of H.264 is made of whole units, none of them empty."""
    if not lengths:
        return True
    data, at = bytes(packet), 0
    while at + lengths < len(data):
        length = int.from_bytes(data[at : at + lengths], "big")
        if not length or data[at + lengths] & 0x80:
            return False
        at += lengths + length
    return at == len(data)


def probe_webp(request: dict[str, Any]) -> dict[str, Any]:
    """An animated WebP by its chunks: PyAV can't take one apart, so its pictures are first seen by ffmpeg.

    Raises Refused, and struct.error for a file that ends within its header.
    """
    with os.fdopen(os.dup(request["file"]), "rb") as file:
        file.seek(0)
        sides = struct.unpack("<24xHBHB", file.read(30))
        width, height = (1 + low + (high << 16) for low, high in (sides[:2], sides[2:]))
        waits_ms = [ms if ms >= _WEBP_LEAST_MS else _WEBP_DEFAULT_MS for ms in _webp_frames(file)]
    if width * height > request["max_pixels"]:
        raise Refused(f"{width}x{height} pixels")
    if not waits_ms:
        raise Refused("no frame in its animation")
    duration_s = sum(waits_ms) / 1000
    return {
        "video_codec": "webp_anim",
        "pix_fmt": "yuva420p",
        "width_px": width,
        "height_px": height,
        "sar": "1",
        "fps": f"{len(waits_ms) * 1000}/{sum(waits_ms)}",
        "is_constant_fps": False,
        "duration_s": duration_s,
        "audio_codec": None,
        "audio_channels": 0,
        "bit_rate": 0,
        "streams": 1,
        "rotation": 0,
        "interlaced": False,
        "color_space": 5,
        "color_range": 1,
        "video_index": 0,
        "audio_index": -1,
        "aigc_tag": "",
        "has_c2pa": False,
        "picture": {
            "profile": "",
            "level": 0,
            "codec_tag": "",
            "transfer": 2,
            "primaries": 2,
            "bit_depth": 8,
            "is_rgb": False,
            "has_alpha": True,
            "crop": [0, 0, 0, 0],
            "start_s": 0.0,
            "keyframe_gap_s": None,
            "trimmed": False,
            "mirrored": False,
        },
    }


def _webp_frames(file: Any) -> Iterator[int]:
    """How long each frame stands, in ms (WebP container specification, ANMF)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind == b"ANMF":
            frame = file.read(16)
            if len(frame) < 16 or length < 16:
                return
            yield int.from_bytes(frame[12:15], "little")
            length -= 16
        file.seek(length + (length & 1), os.SEEK_CUR)
