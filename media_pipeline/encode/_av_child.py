"""The limited child process in which foreign bytes meet a decoder. Run by path, by `probe.Prober`; of our code it
imports only `isolation`, and what `prepare` names.

One JSON object a line in, by a socket; one a line out, by a pipe. The first line in is the parent's `sys.path`, and
what this process gives up once it has all its libraries (`isolation.Isolation`). With each further line comes the open
file that it is about, so that under Landlock nothing but libraries can be opened here. Ends at end of file on stdin
(the parent is gone), after `idle_s` without work, and at the latest when a request's own alarm or CPU limit strikes.
It can create no file that has any bytes in it (RLIMIT_FSIZE 0): results leave through the pipe.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import itertools
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Bytes of address space. A 4K H.264 stream needs about 500 MiB of it here, imports included.
ADDRESS_SPACE_BYTES = 2 << 30
#: Index entries read to tell constant from variable frame rate: 11 minutes at 30 fps.
MAX_INDEX_ENTRIES = 20_000
#: A header that claims more tells the clock of its time stamps, not a rate.
MAX_FPS = 1000

#: Our module of that name, loaded with the libraries: see `prepare`.
_av_scan: Any = None


def limit_self() -> None:
    for name, value in (("CORE", 0), ("FSIZE", 0), ("NOFILE", 32), ("AS", ADDRESS_SPACE_BYTES)):
        # macOS knows some of these but refuses to set them.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def limit_request(timeout_s: float) -> None:
    """From now on: `timeout_s` of wall clock and as much CPU. Both end the process by signal."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(ValueError, OSError):
        soft = int(used.ru_utime + used.ru_stime + timeout_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, timeout_s + 1)


def open_container(av: Any, request: dict[str, Any]) -> Any:
    os.lseek(request["file"], 0, os.SEEK_SET)
    # `fd` reads the open file; it is all that a container may lead to.
    options = {"fd": str(request["file"]), "protocol_whitelist": "fd", "format_whitelist": request["demuxer"]}
    if request["demuxer"] == "mov":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    return av.open("fd:", format=request["demuxer"], options=options)


def is_constant_rate(stream: Any) -> bool:
    """Equal steps between all samples where the container has an index of them (MP4), else what its header claims."""
    entries = stream.index_entries
    count = min(len(entries), MAX_INDEX_ENTRIES)
    if count > 2 and count >= min(stream.frames or 1, MAX_INDEX_ENTRIES):
        stamps = [entries[i].timestamp for i in range(count)]
        steps = [after - before for before, after in itertools.pairwise(stamps)]
        # One tick of rounding: 30 fps in milliseconds is 33, 33, 34.
        return bool(max(steps) - min(steps) <= (1 if min(steps) >= 20 else 0))
    return bool(stream.average_rate and stream.average_rate == stream.base_rate)


def probe(av: Any, request: dict[str, Any]) -> dict[str, Any]:
    if request["demuxer"] == "webp_anim":
        return _av_scan.probe_webp(request)
    with open_container(av, request) as container:
        picture, sound = _av_scan.scan(av, container, request)
        stream = picture.stream
        codec = stream.codec_context
        audio = sound.stream if sound else None
        times = _av_scan.times(picture, sound, container)
        rate = stream.average_rate or stream.base_rate or stream.guessed_rate
        if not times["duration_s"]:
            times["duration_s"] = float(picture.packets / (rate or 25))  # one picture may have no length of its own
        if not rate or not 0 < rate <= MAX_FPS:
            # Nor a rate; some headers tell nonsense.
            rate = min(MAX_FPS, max(0.001, round(picture.packets / times["duration_s"], 3)))
        sar = stream.sample_aspect_ratio or codec.sample_aspect_ratio
        found: dict[str, Any] = {
            "video_codec": codec.name,
            "pix_fmt": codec.pix_fmt,
            "width_px": codec.width,
            "height_px": codec.height,
            "sar": str(sar) if sar and sar > 0 else "1",
            "fps": str(rate) if rate else "0",
            "is_constant_fps": is_constant_rate(stream),
            **times,
            "audio_codec": audio.codec_context.name if audio and audio.codec_context else None,
            "audio_channels": audio.codec_context.channels if audio and audio.codec_context else 0,
            "bit_rate": container.bit_rate or 0,
            "streams": len(container.streams),
            "rotation": 0,
            "interlaced": False,
            "color_space": 2,
            "color_range": 0,
        }
        frame = picture.frame
        if request["decode"] and frame is None:
            raise _av_scan.Refused("no frame could be decoded")
        if frame is not None:
            found |= {
                "pix_fmt": frame.format.name,
                "width_px": frame.width,
                "height_px": frame.height,
                "rotation": round(frame.rotation) % 360,
                "interlaced": bool(frame.interlaced_frame),
                "color_space": int(frame.colorspace),
                "color_range": int(frame.color_range),
            }
        found["picture"] = picture_facts(stream, frame, request)
        return found | provenance_facts(container, request)


def picture_facts(stream: Any, frame: Any, request: dict[str, Any]) -> dict[str, Any]:
    # Our own package is on the path only since `prepare`.
    from media_pipeline.encode import _av_picture

    return _av_picture.facts(stream, frame, request)


def provenance_facts(container: Any, request: dict[str, Any]) -> dict[str, Any]:
    from media_pipeline.encode import boxes, provenance

    tags = [container.metadata, *(stream.metadata for stream in container.streams)]
    has_c2pa = request["demuxer"] == "mov" and boxes.has_c2pa(request["file"])
    return {"aigc_tag": provenance.aigc_tag(tags), "has_c2pa": has_c2pa}


def thumbnail(av: Any, request: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image

    from media_pipeline.encode import _av_cover

    box_width, box_height = request["width_px"], request["height_px"]
    with open_container(av, request) as container:
        picture = _av_cover.cover_frame(av, container, request)
        stream, frame = picture.stream, picture.frame
        sar = stream.sample_aspect_ratio or 1
        quarter_turns = round(frame.rotation / 90) % 4
        shown_width, shown_height = float(frame.width * sar), float(frame.height)
        if quarter_turns % 2:
            shown_width, shown_height = shown_height, shown_width
        factor = min(box_width / shown_width, box_height / shown_height)
        width, height = max(1, round(shown_width * factor)), max(1, round(shown_height * factor))
        # swscale before the turn: it is about twice as fast as Pillow's resize, and works on fewer bytes.
        before_turn = (height, width) if quarter_turns % 2 else (width, height)
        space = int(frame.colorspace)
        if space not in _av_scan.SCALABLE_MATRICES:
            # Untagged, or what swscale refuses: players take large pictures for BT.709 and small ones for BT.601.
            space = 1 if min(frame.width, frame.height) >= 720 else 5
        scaled = frame.reformat(
            width=before_turn[0],
            height=before_turn[1],
            format="rgb24",
            src_colorspace=space,
            interpolation="BICUBIC",
        )
        # As `to_image` does, which copies line by line: 1.4 ms of CPU instead of 13.
        (plane,) = scaled.planes
        picture = Image.frombytes("RGB", before_turn, bytes(plane), "raw", "RGB", plane.line_size, 1)
    turns = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
    if quarter_turns:
        picture = picture.transpose(turns[quarter_turns])
    if picture.size != (box_width, box_height):
        cover = Image.new("RGB", (box_width, box_height))
        cover.paste(picture, ((box_width - width) // 2, (box_height - height) // 2))
        picture = cover
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=request["quality"])
    return {"jpeg": base64.b64encode(out.getvalue()).decode()}


def check(av: Any, request: dict[str, Any]) -> dict[str, Any]:
    if request["demuxer"] == "webp_anim":
        raise _av_scan.Refused("an animated WebP is decoded by ffmpeg only")
    with open_container(av, request) as container:
        return _av_scan.check(av, container, request)


#: What may be asked, with `av` and the request. Pictures are added when their module is loaded.
OPERATIONS: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    "probe": probe,
    "thumbnail": thumbnail,
    "check": check,
}


def messages(idle_s: float) -> Iterator[dict[str, Any]]:
    """Each message from stdin, with the number of the file that came along as `file`; the file is closed after it."""
    requests = socket.socket(fileno=0)
    buffer, files = b"", []
    while select.select([requests], [], [], idle_s)[0]:
        data, came, _, _ = socket.recv_fds(requests, 65536, 1)
        if not data:
            return
        files += came
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "sys_path" in message:
                yield message
                continue
            file = files.pop(0)
            yield {**message, "file": file}
            os.close(file)


def prepare(message: dict[str, Any]) -> Any:
    """Load all that is needed, then give up the rest. Returns the module `av`."""
    global _av_scan
    sys.path[:] = message["sys_path"]
    import av
    import PIL
    from PIL import Image

    from media_pipeline.encode import _av_scan, isolation
    from media_pipeline.pictures import decode

    # Loaded now, since their files can't be read later.
    for module in ("_av_cover", "_av_picture", "boxes", "provenance"):
        importlib.import_module(f"media_pipeline.encode.{module}")
    av.logging.set_level(av.logging.PANIC)
    Image.preinit()
    OPERATIONS["picture"] = lambda _, request: decode.prepare(request)
    limit_self()
    # Some modules are imported only when first needed.
    libraries = {str(Path(str(module.__file__)).parent) for module in (av, PIL, os)}
    isolation.give_up(isolation.Isolation(**message["isolation"]), read=libraries)
    return av


def main() -> None:
    # Nothing a library prints may get between our lines.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    av: Any = None
    for message in messages(float(sys.argv[1])):
        if av is None:
            av = prepare(message)
            continue
        limit_request(message["timeout_s"])
        try:
            reply = OPERATIONS[message["op"]](av, message)
        except _av_scan.Refused as err:
            reply = {"refused": str(err)}
        except (
            av.FFmpegError,
            struct.error,
            ValueError,
            MemoryError,
            OverflowError,
            ZeroDivisionError,
            OSError,
        ) as err:
            # Type and FFmpeg's own word for it, never the text: it may have a path in it.
            reply = {"refused": f"{type(err).__name__} {getattr(err, 'strerror', '') or ''}".strip()}
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
