"""Makes what stands beside a video, from the finished MP4. The files of each kind (`extra_kinds`) have fixed names, by
which they refer to each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from media_pipeline.encode import hls
from media_pipeline.encode.command import MAX_ALLOC_BYTES
from media_pipeline.encode.cover import FIRST_FRAME, Cover
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.preview import PREVIEW, preview_args
from media_pipeline.encode.probe import MediaInfo, Prober
from media_pipeline.encode.rates import QualityName, most_threads
from media_pipeline.encode.sprites import SHEET, TRACK, layout_of, sheet_args, track
from media_pipeline.errors import TranscodeFailed, disk_full_as_media_error

STILL = "still.jpg"
#: Of JPEG, as libjpeg counts: for print and further work, unlike that of the cover.
STILL_QUALITY = 95


@dataclass(frozen=True)
class Maker:
    """Makes the extras of one video. `deadline_s` bounds one run of ffmpeg, in seconds of wall clock."""

    video: Path
    info: MediaInfo
    folder: Path
    ffmpeg: FFmpeg
    prober: Prober
    deadline_s: float
    threads: int = 2
    quality: QualityName = "medium"
    cover: Cover = FIRST_FRAME
    cancelled: threading.Event | None = None

    def make(self, kind: str) -> list[Path]:
        """The files of this kind, in `folder`. Raises TranscodeFailed, MediaTimeout, DiskFull, Cancelled, NotAVideo."""
        return _MAKES[kind](self)

    def run(self, name: str, *output: str) -> Path:
        """One run of ffmpeg from the video to a file of that name."""
        dest = self.folder / name
        threads = str(min(self.threads, most_threads(self.info.width_px * self.info.height_px)))
        argv = [
            *(self.ffmpeg.binary, "-nostdin", "-hide_banner", "-v", "error", "-y", "-progress", "pipe:1"),
            *("-max_alloc", str(MAX_ALLOC_BYTES), "-filter_threads", "1", "-threads", threads),
            *("-protocol_whitelist", "file", "-format_whitelist", "mov", "-f", "mov"),
            *("-i", f"file:{self.video.absolute()}"),
            *("-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", *output),
            *("-threads", threads, f"file:{dest.absolute()}"),
        ]
        self.ffmpeg.run(
            argv,
            read=[self.video],
            write=[dest],
            deadline_s=self.deadline_s,
            duration_s=self.info.duration_s,
            cancelled=self.cancelled,
        )
        if not dest.stat().st_size:
            raise TranscodeFailed(f"ffmpeg made an empty {name}")
        return dest


def _still(maker: Maker) -> list[Path]:
    """The frame of the cover in the video's own size."""
    size = {"width_px": maker.info.display_width_px, "height_px": maker.info.display_height_px}
    path = maker.folder / STILL
    with disk_full_as_media_error():
        path.write_bytes(maker.prober.cover_jpeg(maker.video, maker.cover, **size, quality=STILL_QUALITY))
    return [path]


def _preview(maker: Maker) -> list[Path]:
    return [maker.run(PREVIEW, *preview_args(maker.info))]


def _sprites(maker: Maker) -> list[Path]:
    layout = layout_of(maker.info)
    sheet = maker.run(SHEET, *sheet_args(layout))
    words = maker.folder / TRACK
    words.write_text(track(layout, maker.info.duration_s))
    return [sheet, words]


def _hls(maker: Maker) -> list[Path]:
    """The master playlist comes last: it refers to all others."""
    files, streams = [], []
    for rung in hls.rungs_of(maker.info):
        media = maker.run(rung.media, *hls.rung_args(maker.info, rung, maker.quality))
        made = maker.prober.probe(media, decode_first_frame=False)
        if (made.width_px, made.height_px) != rung or abs(made.duration_s - maker.info.duration_s) > 0.2:
            raise TranscodeFailed(f"{rung.media} has {made.width_px}x{made.height_px}, {made.duration_s:.2f} s")
        stream = hls.stream_of(media, rung, maker.info)
        words = maker.folder / rung.playlist
        words.write_text(hls.playlist(stream))
        files += [media, words]
        streams.append(stream)
    words = maker.folder / hls.MASTER
    words.write_text(hls.master(streams, maker.info))
    return [*files, words]


_MAKES: dict[str, Callable[[Maker], list[Path]]] = {
    "still": _still,
    "preview": _preview,
    "sprites": _sprites,
    "hls": _hls,
}
