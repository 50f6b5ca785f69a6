"""A sprite sheet for scrubbing: small frames of the whole video in one JPEG, and a WebVTT track that says which part of
it belongs to which time, as players take it (`file.jpg#xywh=x,y,w,h`, Media Fragments URI 1.0, §4.2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from media_pipeline.encode.picture import fitted_into
from media_pipeline.encode.probe import MediaInfo

SHEET, TRACK = "sprites.jpg", "sprites.vtt"
#: A small frame fits into this.
WIDTH_PX, HEIGHT_PX = 160, 90
COLUMNS = 10
#: A frame each half second; of a long video as many as fit.
LEAST_STEP_S, MOST_FRAMES = 0.5, 100
#: ffmpeg's scale of JPEG quality, 2 (best) to 31.
_QUALITY = 5


@dataclass(frozen=True)
class Layout:
    """`frames` small frames of `width_px` x `height_px`, `step_s` apart, in rows of COLUMNS."""

    frames: int
    step_s: float
    width_px: int
    height_px: int

    @property
    def rows(self) -> int:
        return math.ceil(self.frames / COLUMNS)


def layout_of(info: MediaInfo) -> Layout:
    """The sheet of a video."""
    step_s = max(LEAST_STEP_S, info.duration_s / MOST_FRAMES)
    # Less a thousandth of a frame, which a length may have too much by rounding.
    frames = min(MOST_FRAMES, max(1, math.ceil(info.duration_s / step_s - 0.001)))
    return Layout(frames, step_s, *fitted_into(info.width_px, info.height_px, WIDTH_PX, HEIGHT_PX))


def sheet_args(layout: Layout) -> tuple[str, ...]:
    """ffmpeg's output options. Each small frame is from the middle of its time; the last one is repeated to the end."""
    filters = (
        f"tpad=stop_mode=clone:stop_duration={layout.step_s:.6f}",
        f"fps=1/{layout.step_s:.6f}",
        f"scale={layout.width_px}:{layout.height_px}:flags=bicubic:out_range=full",
        f"tile={COLUMNS}x{layout.rows}",
    )
    return (
        *("-map", "0:v:0", "-an", "-vf", ",".join(filters), "-frames:v", "1"),
        *("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", str(_QUALITY), "-f", "mjpeg"),
    )


def track(layout: Layout, length_s: float) -> str:
    """The WebVTT track of a video of that length."""
    lines = ["WEBVTT", ""]
    for number in range(layout.frames):
        begin_s, end_s = number * layout.step_s, min(length_s, (number + 1) * layout.step_s)
        row, column = divmod(number, COLUMNS)
        x, y = column * layout.width_px, row * layout.height_px
        lines += [
            f"{_time(begin_s)} --> {_time(end_s)}",
            f"{SHEET}#xywh={x},{y},{layout.width_px},{layout.height_px}",
            "",
        ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"
