"""The command line of ffmpeg that carries out a plan: limits, one input, one output."""

from __future__ import annotations

from pathlib import Path

from media_pipeline.encode.containers import DEMUXER
from media_pipeline.encode.plan import Plan
from media_pipeline.encode.probe import MediaInfo, ProbeLimits
from media_pipeline.encode.rates import most_threads

#: One allocation inside ffmpeg, bytes; a hostile header may ask for any number.
MAX_ALLOC_BYTES = 1 << 30
#: Share of frames that may fail to decode before ffmpeg gives up (its default is two thirds).
MAX_ERROR_RATE = 0.05


def command(
    binary: str,
    src: Path,
    dest: Path,
    *,
    info: MediaInfo,
    chosen: Plan,
    threads: int = 2,
    length_s: float = 600.0,
    max_error_rate: float = MAX_ERROR_RATE,
) -> list[str]:
    """The very argv that is run; a benchmark may run it bare. Paths are made absolute, `threads` are those that the
    picture allows at most. `length_s` is the output's, in seconds: what would go on beyond it ends there.
    """
    threads = min(threads, most_threads(info.width_px * info.height_px, chosen.width_px * chosen.height_px))
    max_pixels = max(ProbeLimits().max_pixels, info.width_px * info.height_px)
    return [
        *(binary, "-nostdin", "-hide_banner", "-v", "error", "-y"),
        *("-progress", "pipe:1", "-stats_period", "0.5"),
        *("-max_alloc", str(MAX_ALLOC_BYTES), "-max_error_rate", f"{max_error_rate:g}", "-filter_threads", "1"),
        # The demuxer is ours to choose, and files are all it may open: a playlist in disguise leads nowhere.
        *("-protocol_whitelist", "file", "-format_whitelist", DEMUXER[info.container]),
        *("-threads", str(threads), "-max_pixels", str(max_pixels), "-f", DEMUXER[info.container]),
        # `file:` and an absolute path make a leading dash or a colon mean nothing.
        *chosen.input_args,
        *("-i", f"file:{src.absolute()}"),
        *("-map", f"0:{info.video_index}", *(("-map", f"0:{info.audio_index}") if info.audio_codec else ())),
        *("-dn", "-sn", "-map_metadata", "-1", "-map_chapters", "-1"),
        *chosen.output_args,
        *("-threads", str(threads), "-t", f"{length_s:.6f}", "-fflags", "+bitexact", "-movflags", "+faststart"),
        *("-f", "mp4", f"file:{dest.absolute()}"),
    ]
