"""The provider's own stream, for a source that we can't encode: a playable original is better than none.

What is promised is H.264 in an MP4, so only a source that holds such a stream comes into question, whatever its
container. It is copied into a fresh MP4; where even that fails, a whole MP4 is taken byte by byte.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

from media_pipeline.disk import complete_file
from media_pipeline.encode.command import command
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Plan
from media_pipeline.encode.probe import MediaInfo, Prober
from media_pipeline.encode.provenance import NO_LABEL, metadata_args, tag_of_output
from media_pipeline.encode.sound import kept_args
from media_pipeline.encode.timing import timing_of
from media_pipeline.encode.transcode import Transcoded, without_sound
from media_pipeline.errors import MediaTimeout, NotAVideo, TranscodeFailed

#: What browsers of today decode: 8 bit, 4:2:0.
_PIX_FMTS = frozenset({"yuv420p", "yuvj420p"})
_SOUNDS = frozenset({"aac", "mp3", "mp3float"})
#: Share of frames that may be lost in something that is still called playable.
MOST_LOST = 0.5


def deliver_as_it_came(
    src: Path,
    dest: Path,
    *,
    info: MediaInfo,
    ffmpeg: FFmpeg,
    prober: Prober,
    deadline_s: float,
    cancelled: threading.Event | None = None,
) -> Transcoded:
    """Make `dest` of the very stream in `src`, whole or not at all.

    Raises NotAVideo if that is nothing that a player of H.264 in MP4 takes, DiskFull, Cancelled.
    """
    refuse_unplayable(info)
    health = prober.check(src, info)
    if health.frames == 0 or health.lost > MOST_LOST * (health.frames + health.lost):
        raise NotAVideo(f"nothing playable: {health.damage or 'no frame can be decoded'}")
    taken = info
    if info.audio_codec is not None and (info.audio_codec not in _SOUNDS or health.is_sound_dead):
        taken = without_sound(info)
    warnings = ["delivered_as_it_came"]
    warnings += ["damaged"] if health.lost and not info.truncated else []
    warnings += ["truncated"] if info.truncated else []
    with complete_file(dest) as part:
        try:
            made = _copied(src, part, taken, ffmpeg, prober, deadline_s, cancelled)
        except (TranscodeFailed, MediaTimeout, NotAVideo):
            if info.container != "mp4" or info.truncated:
                raise NotAVideo("nothing playable: its stream can't be copied into an MP4") from None
            shutil.copyfile(src, part)
            made, taken = prober.probe(part, decode_first_frame=False), info
    warnings += ["sound_left_out"] if taken.sound_unreadable else []
    way = Plan("remux", made.width_px, made.height_px, made.fps, "delivered as it came", ())
    return Transcoded(way, made, tuple(warnings))


def refuse_unplayable(info: MediaInfo) -> None:
    """Raises NotAVideo for what no browser plays as H.264."""
    if info.video_codec != "h264" or info.pix_fmt not in _PIX_FMTS:
        raise NotAVideo(f"nothing playable: {info.video_codec} {info.pix_fmt} can't be delivered as it came")


def _copied(
    src: Path,
    part: Path,
    info: MediaInfo,
    ffmpeg: FFmpeg,
    prober: Prober,
    deadline_s: float,
    cancelled: threading.Event | None,
) -> MediaInfo:
    tag = tag_of_output(info.provenance, NO_LABEL)
    args = ("-c:v", "copy", *kept_args(info), *metadata_args(tag))
    way = Plan("remux", info.width_px, info.height_px, info.fps, "delivered as it came", args, aigc_tag=tag)
    # What can be read is copied, whatever it is worth to a decoder.
    length_s = timing_of(replace(info, damage=""), keep_long_sound=True).total_s
    argv = command(ffmpeg.binary, src, part, info=info, chosen=way, threads=1, length_s=length_s, max_error_rate=1.0)
    ffmpeg.run(argv, read=[src], write=[part], deadline_s=deadline_s, cancelled=cancelled)
    made = prober.probe(part)
    refuse_unplayable(made)
    if made.duration_s < info.duration_s / 2:
        raise TranscodeFailed(f"the copy has {made.duration_s:.2f} s of {info.duration_s:.2f} s")
    return made
