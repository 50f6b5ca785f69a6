"""The preview: the first seconds of a video as a small, silent, endless animation, for lists and hover.

Animated WebP plays in every browser's <img>. A GIF of the same picture has three times the bytes and 256 colours.
"""

from __future__ import annotations

from media_pipeline.encode.picture import fitted_into
from media_pipeline.encode.probe import MediaInfo

PREVIEW = "preview.webp"
LENGTH_S = 3
FPS = 10
LONG_SIDE_PX = 320
#: Of libwebp, 0 to 100.
QUALITY = 60


def preview_args(info: MediaInfo) -> tuple[str, ...]:
    """ffmpeg's output options."""
    width, height = fitted_into(info.width_px, info.height_px, LONG_SIDE_PX, LONG_SIDE_PX)
    return (
        *("-map", "0:v:0", "-an", "-t", str(LENGTH_S), "-vf", f"fps={FPS},scale={width}:{height}:flags=bicubic"),
        *("-c:v", "libwebp_anim", "-pix_fmt", "yuv420p", "-quality", str(QUALITY), "-loop", "0", "-f", "webp"),
    )
