"""What is in a video file? Safe on hostile bytes, and cheap.

First `containers` reads the top-level headers, then PyAV works in a child process with limits that lives on from
probe to probe. Measured on 2 cores, 5 s of H.264 1280x768 at 24 fps, milliseconds of CPU a probe (wall is the same
within 1 ms):

    PyAV in the child, header and index only     3 (easy picture) to 14 (noise at 18 Mbit/s)
    PyAV in the child, first frame decoded too   10 to 47
    ffmpeg -i, header only                       18 to 29, and its text output would have to be parsed

The child costs 120 ms CPU once (import) and 45 to 75 MB while it lives; it ends by itself when idle, and another
takes its place after some hundred answers. Decoding the first frame is worth its 7 ms on a file that we did not make:
headers lie about size, pixel format and interlacing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from media_pipeline.encode.containers import DEMUXER, Container, Layout, inspect
from media_pipeline.encode.cover import Cover
from media_pipeline.encode.ffmpeg import CHILD_ENVIRONMENT
from media_pipeline.encode.isolation import Isolation, of_this_kernel
from media_pipeline.encode.picture import Picture, picture_of
from media_pipeline.encode.provenance import LONGEST_TAG, Provenance
from media_pipeline.errors import MediaTimeout, NotAVideo

_CHILD = Path(__file__).with_name("_av_child.py")
#: Longest line a child may answer with, bytes. A 1280x720 JPEG is about 0.1 MB, a third more in base64; a start image
#: may have 20 MiB.
_MAX_REPLY_BYTES = 28 << 20
#: For one check, in seconds: a minute of 4K takes about 30.
CHECK_TIMEOUT_S = 90.0
#: Answers after which a child is replaced. Frames leave holes in its heap that are never given back: measured (glibc
#: 2.36) nothing within 300 answers, then faster and faster, 170 MB after 1,200. A start for 200 costs 0.6 ms for each.
_ANSWERS_OF_A_CHILD = 200


@dataclass(frozen=True)
class MediaInfo:
    """Facts about a file. Sizes are as decoded: see `display_width_px` for what a viewer sees.

    `rotation` (0, 90, 180, 270), `interlaced` and the colour fields are known only if the first frame was decoded.
    Colour fields are FFmpeg's numbers (H.273): space 1 is BT.709, 2 unspecified; range 1 is limited, 2 full, 0
    unspecified. `duration_s` and `fps` are the video stream's, as measured; audio may be longer. `fragmented` files
    have no index.
    """

    container: Container
    video_codec: str
    pix_fmt: str
    width_px: int
    height_px: int
    sar: Fraction
    rotation: int
    fps: Fraction
    is_constant_fps: bool
    interlaced: bool
    color_space: int
    color_range: int
    duration_s: float
    audio_codec: str | None
    audio_channels: int
    bit_rate: int
    size_bytes: int
    faststart: bool
    streams: int
    fragmented: bool
    picture: Picture
    provenance: Provenance
    #: Which streams of the file these facts are of; -1: there is no sound.
    video_index: int = 0
    audio_index: int = 1
    #: Where picture, sound and the whole begin in the file's own time, in seconds.
    start_s: float = 0.0
    audio_start_s: float = 0.0
    container_start_s: float = 0.0
    #: By how much the picture may only seem late: see `_av_scan`.
    lost_edit_s: float = 0.0
    audio_duration_s: float = 0.0
    #: There is sound, and no decoder for it.
    sound_unreadable: bool = False
    #: Where the file ends too early, and what of it can't be decoded (after `Prober.check`); empty if nothing is known.
    truncated: str = ""
    damage: str = ""

    @property
    def display_width_px(self) -> int:
        return self._display()[0]

    @property
    def display_height_px(self) -> int:
        return self._display()[1]

    def _display(self) -> tuple[int, int]:
        crop = self.picture.crop
        width = max(1, round((self.width_px - crop.left - crop.right) * self.sar))
        height = self.height_px - crop.top - crop.bottom
        return (height, width) if self.rotation % 180 == 90 else (width, height)


@dataclass(frozen=True)
class ProbeLimits:
    """What we are willing to work on. Beyond any of these a file is NotAVideo."""

    max_pixels: int = 4096 * 2304
    max_duration_s: float = 600.0
    max_streams: int = 8


@dataclass(frozen=True)
class Health:
    """What came out when a file was decoded: frames of picture and sound, and packets or frames that were lost."""

    frames: int
    lost: int
    sound_frames: int = 0
    sound_lost: int = 0

    @property
    def damage(self) -> str:
        """What can't be decoded, in words; empty if all can."""
        parts = [("picture", self.lost, self.frames), ("sound", self.sound_lost, self.sound_frames)]
        return " and ".join(f"{lost} of {lost + good} {name} frames are damaged" for name, lost, good in parts if lost)

    @property
    def is_sound_dead(self) -> bool:
        """Whether most of the sound is lost."""
        return self.sound_lost > self.sound_frames


class Prober:
    """Asks questions about files, in at most `workers` child processes, which are started when first needed.

    Safe to share between threads. `timeout_s` bounds one question; a child that hangs or crashes is replaced.
    `isolation` is what each child gives up, by default all that can be had here.
    """

    def __init__(
        self,
        *,
        limits: ProbeLimits = ProbeLimits(),
        timeout_s: float = 20.0,
        workers: int = 2,
        idle_s: float = 300.0,
        isolation: Isolation | None = None,
    ) -> None:
        self.limits = limits
        self._timeout_s = timeout_s
        # Last in, first out: a second child is started only if two threads ask at once.
        self._children: queue.LifoQueue[_Child] = queue.LifoQueue()
        for _ in range(workers):
            self._children.put(_Child(idle_s, of_this_kernel() if isolation is None else isolation))

    def probe(self, path: Path, *, decode_first_frame: bool = True) -> MediaInfo:
        """The facts. `decode_first_frame=False` is for files that we have just made ourselves.

        Raises NotAVideo, MediaTimeout.
        """
        layout = inspect(path)
        found = self._ask("probe", path, layout, decode=decode_first_frame)
        info = _media_info(found, layout)
        if not 0 < info.duration_s <= self.limits.max_duration_s:
            raise NotAVideo(f"it lasts {info.duration_s:.1f} s; at most {self.limits.max_duration_s:g} s are accepted")
        if not 0 < info.fps <= 1000:
            raise NotAVideo("no sensible frame rate")
        return info

    def check(self, path: Path, info: MediaInfo) -> Health:
        """Decode picture and sound, whose facts are `info`, and count what is lost. Raises NotAVideo, MediaTimeout.

        Costs as much as playing the file does: 0.2 s of CPU for 5 s of 720p, bounded by `_av_scan.CHECKED_PIXELS`.
        """
        found = self._ask(
            *("check", path, inspect(path)),
            timeout_s=CHECK_TIMEOUT_S,
            video_index=info.video_index,
            audio_index=info.audio_index if info.audio_codec else -1,
            pixels=info.width_px * info.height_px * float(info.fps) * info.duration_s,
        )
        try:
            return Health(*(int(found[name]) for name in ("frames", "lost", "sound_frames", "sound_lost")))
        except (KeyError, ValueError, TypeError) as err:
            raise NotAVideo("the decoder's answer makes no sense") from err

    def cover_jpeg(self, path: Path, cover: Cover, *, width_px: int, height_px: int, quality: int) -> bytes:
        """The chosen frame, fitted into the given box on black, as JPEG. Raises NotAVideo, MediaTimeout."""
        reply = self._ask(
            *("thumbnail", path, inspect(path)),
            timeout_s=CHECK_TIMEOUT_S if cover.is_auto else None,
            cover=asdict(cover),
            width_px=width_px,
            height_px=height_px,
            quality=quality,
        )
        return base64.b64decode(reply["jpeg"])

    def ask_about_picture(self, path: Path, details: Mapping[str, Any]) -> dict[str, Any] | None:
        """The child's answer about a picture, as `pictures.decode.prepare` gives it; None when it crashed on it, twice.

        Raises MediaTimeout.
        """
        return self._put({"op": "picture", "timeout_s": self._timeout_s, **details}, path, self._timeout_s)

    def close(self) -> None:
        """End the children. A later question starts new ones."""
        idle: list[_Child] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._children.get_nowait())
        for child in idle:
            child.stop()
            self._children.put(child)

    def _ask(
        self, op: str, path: Path, layout: Layout, *, timeout_s: float | None = None, **details: Any
    ) -> dict[str, Any]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        request = {
            "op": op,
            "demuxer": DEMUXER[layout.container],
            "timeout_s": timeout_s,
            "max_pixels": self.limits.max_pixels,
            "max_streams": self.limits.max_streams,
            "truncated": bool(layout.truncated),
            **details,
        }
        reply = self._put(request, path, timeout_s)
        if reply is None:
            raise NotAVideo("the decoder crashed on it, twice")
        if "refused" in reply:
            raise NotAVideo(f"refused: {reply['refused']}")
        return reply

    def _put(self, request: Mapping[str, Any], path: Path, timeout_s: float) -> dict[str, Any] | None:
        """A child's answer; None when the file ended two of them."""
        child = self._children.get()
        try:
            with path.open("rb") as file:
                ask = partial(child.ask, request, file.fileno(), timeout_s)
                began = time.monotonic()
                reply = ask()
                # Twice, because a child may have been ended from outside (idle, OOM killer): the file is not at fault.
                # Not after half of its time: it is then.
                return ask() if reply is None and time.monotonic() - began < timeout_s / 2 else reply
        finally:
            self._children.put(child)


def _media_info(found: Mapping[str, Any], layout: Layout) -> MediaInfo:
    """The child's words as facts. The child has met hostile bytes: what it says is checked like any input."""
    try:
        duration_s = float(found["duration_s"])
        bit_rate = int(found["bit_rate"]) or (int(layout.size_bytes * 8 / duration_s) if duration_s > 0 else 0)
        sar = Fraction(found["sar"])
        # A ratio beyond this is a damaged header, not an anamorphic picture.
        if not Fraction(1, 8) <= sar <= 8:
            sar = Fraction(1)
        return MediaInfo(
            container=layout.container,
            video_codec=str(found["video_codec"]),
            pix_fmt=str(found["pix_fmt"]),
            width_px=int(found["width_px"]),
            height_px=int(found["height_px"]),
            sar=sar,
            rotation=int(found["rotation"]),
            fps=Fraction(found["fps"]),
            is_constant_fps=bool(found["is_constant_fps"]) and not layout.fragmented,
            interlaced=bool(found["interlaced"]),
            color_space=int(found["color_space"]),
            color_range=int(found["color_range"]),
            duration_s=duration_s,
            audio_codec=str(found["audio_codec"]) if found["audio_codec"] else None,
            audio_channels=int(found["audio_channels"]),
            bit_rate=bit_rate,
            size_bytes=layout.size_bytes,
            faststart=layout.faststart,
            streams=int(found["streams"]),
            fragmented=layout.fragmented,
            picture=picture_of(found["picture"]),
            video_index=int(found["video_index"]),
            audio_index=int(found["audio_index"]),
            start_s=_time_s(found.get("start_s", 0.0)),
            audio_start_s=_time_s(found.get("audio_start_s", 0.0)),
            container_start_s=_time_s(found.get("container_start_s", 0.0)),
            lost_edit_s=_time_s(found.get("lost_edit_s", 0.0)),
            audio_duration_s=_time_s(found.get("audio_duration_s", 0.0)),
            sound_unreadable=bool(found.get("sound_unreadable")),
            truncated=layout.truncated,
            provenance=Provenance(str(found["aigc_tag"])[:LONGEST_TAG], bool(found["has_c2pa"])),
        )
    except (KeyError, ValueError, TypeError, ZeroDivisionError) as err:
        raise NotAVideo("its headers make no sense") from err


def _time_s(value: Any) -> float:
    """A time in seconds, of any sign. Raises ValueError for what is no number of them."""
    seconds = float(value)
    if not abs(seconds) < 1e9:
        raise ValueError("no time")
    return seconds


class _Child:
    """One decoder process, the socket to it and the pipe from it. Used by one thread at a time."""

    def __init__(self, idle_s: float, isolation: Isolation) -> None:
        self._idle_s = idle_s
        self._isolation = isolation
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0
        self._answers = 0
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any], file: int, timeout_s: float) -> dict[str, Any] | None:
        """The reply about that open file, or None if the child ended instead. Raises MediaTimeout after killing a
        child that hangs.
        """
        with self._lock:
            process = self._running()
            assert self._requests is not None
            try:
                self._send(request, file)
                # Start-up is paid by the first question: half a second of import, more on a busy machine.
                reply = json.loads(self._read_line(process, time.monotonic() + timeout_s + 10))
            except MediaTimeout:
                self._kill()
                raise
            except (OSError, ValueError):  # it ended, or wrote no JSON
                self._kill()
                return None
            self._answers += 1
            return reply if isinstance(reply, dict) else None

    def stop(self) -> None:
        with self._lock:
            self._kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner_pid != os.getpid():
            # After a fork the pipes are shared with the parent: leave the child to it.
            self._process = None
        if self._process is None or self._process.poll() is not None or self._answers >= _ANSWERS_OF_A_CHILD:
            self._kill()
            self._answers = 0
            # A socket, since an open file can be sent along only by one.
            self._requests, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    # Isolated: no PYTHON* variables, no user site, no current folder on the path.
                    [sys.executable, "-I", str(_CHILD), str(self._idle_s)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=CHILD_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            self._owner_pid = os.getpid()
            hello = {
                "sys_path": [*(str(Path(entry).absolute()) for entry in sys.path if entry), str(_CHILD.parents[2])],
                "isolation": asdict(self._isolation),
            }
            with contextlib.suppress(OSError):
                self._send(hello)
        return self._process

    def _send(self, message: Mapping[str, Any], *files: int) -> None:
        """In one piece: a message has some hundred bytes, a buffer has room for thousands."""
        assert self._requests is not None
        socket.send_fds(self._requests, [json.dumps(message).encode() + b"\n"], files)

    def _read_line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise MediaTimeout("probing the file took too long")
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data or len(line) > _MAX_REPLY_BYTES:
                return b""
            line += data
        return bytes(line)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for end in (self._requests, process.stdout):
            if end is not None:
                end.close()
