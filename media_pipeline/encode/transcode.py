"""Carries out a plan, and trusts neither ffmpeg's exit code nor a remux: what was made is probed and compared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from media_pipeline.disk import complete_file
from media_pipeline.encode.command import command
from media_pipeline.encode.conformance import what_is_wrong_with_picture
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Plan, Target, encode_anew, plan
from media_pipeline.encode.probe import MediaInfo, Prober
from media_pipeline.errors import NotAVideo, TranscodeFailed


@dataclass(frozen=True)
class Transcoded:
    plan: Plan
    info: MediaInfo


def transcode(
    src: Path,
    dest: Path,
    *,
    info: MediaInfo,
    target: Target,
    ffmpeg: FFmpeg,
    prober: Prober,
    deadline_s: float,
    threads: int = 2,
    on_progress: Callable[[float], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Transcoded:
    """Make `dest` from `src`, whose facts are `info`. It appears only when it has been checked, else nothing is left.

    `deadline_s` bounds one run of ffmpeg, in seconds of wall clock. `on_progress` gets fractions from 0 to 1.
    Raises TranscodeFailed, NotAVideo (an absurd shape), MediaTimeout, DiskFull, Cancelled.
    """
    chosen = plan(info, target)

    def attempt(way: Plan, part: Path) -> Transcoded:
        # One second more than the source: -t must never be what ends a good file.
        limit_s = info.duration_s + 1
        argv = command(ffmpeg.binary, src, part, info=info, chosen=way, threads=threads, max_duration_s=limit_s)
        stderr_tail = ffmpeg.run(
            argv,
            read=[src],
            write=[part],
            deadline_s=deadline_s,
            duration_s=info.duration_s,
            on_progress=on_progress,
            cancelled=cancelled,
        )
        try:
            made = prober.probe(part, decode_first_frame=False)
        except NotAVideo as err:
            raise TranscodeFailed(f"the output is {err.message}", stderr_tail=stderr_tail) from err
        if wrong := what_is_wrong(made, info, target, way):
            raise TranscodeFailed(f"the output has {wrong}", stderr_tail=stderr_tail)
        return Transcoded(way, made)

    with complete_file(dest) as part:
        try:
            return attempt(chosen, part)
        except TranscodeFailed as err:
            if chosen.kind == "encode":
                raise
            reason = f"remux failed: {err.message}"
            return attempt(encode_anew(info, target, chosen.width_px, chosen.height_px, reason), part)


def what_is_wrong(made: MediaInfo, source: MediaInfo, target: Target, chosen: Plan) -> str | None:
    """ffmpeg may end with success after losing half a file: compare what was made with what was planned."""
    # Matroska keeps no length of the video by itself: audio may have set it.
    slack_s = max(0.5, source.duration_s * 0.05) if source.container == "mp4" else max(1.0, source.duration_s * 0.1)
    checks = (
        (made.video_codec != "h264" or made.pix_fmt != "yuv420p", f"codec {made.video_codec} {made.pix_fmt}"),
        (
            (made.width_px, made.height_px) != (chosen.width_px, chosen.height_px),
            f"size {made.width_px}x{made.height_px}",
        ),
        (made.sar != 1, f"pixels of {made.sar}"),
        (not made.faststart, "its index at the end"),
        (abs(made.duration_s - source.duration_s) > slack_s, f"{made.duration_s:.2f} s of {source.duration_s:.2f} s"),
        ((made.audio_codec is None) != (source.audio_codec is None), "lost or gained sound"),
    )
    return next((wrong for applies, wrong in checks if applies), None) or what_is_wrong_with_picture(
        made, fps=chosen.fps
    )
