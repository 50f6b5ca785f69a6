"""Finds the frame of a video that becomes its cover, in the limited child process (`_av_child`).

`auto` looks at a few frames over the whole length, each 320 pixels wide. The best one is sharp (many edges), has
contrast, and is neither dark nor washed out. Black and blank ones (titles, fades) are taken only where there is no
other. Measured for 5 s of 1280x720: 0.3 s of CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from media_pipeline.encode import _av_scan

#: Frames that `auto` looks at, evenly over the length.
_LOOKS = 10
#: Between two of them that lie closer, in seconds, all frames are decoded; else the nearest key frame is looked up.
_NEAR_S = 2.0
_WIDTH_PX = 320
#: Mean and standard deviation of grey (0 to 255) below which a frame is black or blank.
_BLACK, _BLANK = 20, 6
#: Means of grey between which a frame is well exposed.
_BRIGHT, _WASHED_OUT = 72, 208
#: Mean difference of grey, on 16x16 blocks, below which a frame is a near copy of another.
_ALIKE = 8


def cover_frame(av: Any, container: Any, request: dict[str, Any]) -> Any:
    """The track, with the frame that was asked for as its `frame`. Raises `_av_scan.Refused`."""
    track = _av_scan.first_frame(av, container, request)
    wanted = request["cover"]
    if wanted["is_auto"]:
        track.frame = _best(av, container, track, request["max_pixels"], unlike_first=wanted["unlike_first"])
    elif wanted["at_s"] is not None:
        track.frame = _shown_at(av, container, track, wanted["at_s"], request["max_pixels"])
    return track


def _shown_at(av: Any, container: Any, track: Any, at_s: float, max_pixels: int) -> Any:
    """The frame that is on the screen at that second; the last one, if the video is shorter."""
    found = track.frame
    for frame in _frames(av, container, track.stream, at_s, max_pixels):
        if frame.time > at_s + 1e-6:
            break
        found = frame
    return found


def _best(av: Any, container: Any, track: Any, max_pixels: int, *, unlike_first: bool) -> Any:
    grey = _grey(track.frame)
    unlike = grey if unlike_first else None
    best, best_rank = track.frame, _rank(grey, unlike)
    for frame in _looks(av, container, track.stream, max_pixels):
        rank = _rank(_grey(frame), unlike)
        if rank > best_rank:
            best, best_rank = frame, rank
    return best


def _looks(av: Any, container: Any, stream: Any, max_pixels: int) -> Iterator[Any]:
    """Some frames, evenly over the length."""
    length_s = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
    step_s = length_s / _LOOKS
    frames: Iterator[Any] | None = None
    for number in range(_LOOKS):
        at_s = (number + 0.5) * step_s
        if frames is None or step_s > _NEAR_S:
            frames = _frames(av, container, stream, at_s, max_pixels)
        found = next((frame for frame in frames if frame.time >= at_s), None)
        if found is None:
            return
        yield found


def _frames(av: Any, container: Any, stream: Any, from_s: float, max_pixels: int) -> Iterator[Any]:
    """What can be decoded, from the key frame before that second on."""
    container.seek(max(0, int(from_s / stream.time_base)), stream=stream)
    for packet in _av_scan.packets(av, container, [stream]):
        try:
            decoded = packet.decode()
        except (av.FFmpegError, ValueError):
            continue
        for frame in decoded:
            if frame.width * frame.height <= max_pixels and not frame.is_corrupt and frame.time is not None:
                yield frame


def _grey(frame: Any) -> Any:
    """The frame as a small picture of Pillow's, without its colours."""
    from PIL import Image

    width = min(_WIDTH_PX, frame.width)
    height = max(1, round(frame.height * width / frame.width))
    (plane,) = frame.reformat(width=width, height=height, format="gray").planes
    return Image.frombytes("L", (width, height), bytes(plane), "raw", "L", plane.line_size, 1)


def _rank(grey: Any, unlike: Any) -> tuple[int, float]:
    """The higher, the better: whether it is of use, then how good it is. `unlike`: what it should not look like."""
    from PIL import ImageFilter, ImageStat

    about = ImageStat.Stat(grey)
    (mean,), (contrast,) = about.mean, about.stddev
    (edges,) = ImageStat.Stat(grey.filter(ImageFilter.FIND_EDGES)).stddev
    is_shown = mean >= _BLACK and contrast >= _BLANK
    is_new = unlike is None or _difference(grey, unlike) >= _ALIKE
    exposure = min(1.0, mean / _BRIGHT, (255 - mean) / (255 - _WASHED_OUT))
    return 2 * is_shown + is_new, edges * exposure * min(1.0, contrast / 48)


def _difference(grey: Any, other: Any) -> float:
    from PIL import ImageChops, ImageStat

    blocks = (picture.resize((16, 16)) for picture in (grey, other))
    (mean,) = ImageStat.Stat(ImageChops.difference(*blocks)).mean
    return float(mean)
