"""What becomes of the sound of a video: ffmpeg's options for it."""

from __future__ import annotations

from media_pipeline.encode.probe import MediaInfo
from media_pipeline.encode.timing import LATE_IN_COPY_S, SAME_S, Timing, sound_filter

AUDIO_BIT_RATE = "128k"


def kept_args(info: MediaInfo) -> tuple[str, ...]:
    """For a remux: the sound as it came, or none."""
    return ("-c:a", "copy") if info.audio_codec else ("-an",)


def encoded_args(info: MediaInfo, timing: Timing) -> tuple[str, ...]:
    """For an encode: AAC in at most two channels; sound that is that already and in its place stays as it came."""
    if info.audio_codec is None:
        return ("-an",)
    in_place = abs(timing.sound_shift_s) <= SAME_S and -SAME_S <= timing.sound_late_s <= LATE_IN_COPY_S
    is_aac = info.audio_codec == "aac" and info.audio_channels <= 2 and info.container == "mp4"
    if is_aac and in_place and not info.damage and not info.truncated:
        return ("-c:a", "copy")
    channels = str(min(2, max(1, info.audio_channels)))
    return ("-af", sound_filter(timing), "-c:a", "aac", "-b:a", AUDIO_BIT_RATE, "-ac", channels)
