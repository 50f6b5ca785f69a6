"""What becomes of the sound of a video: ffmpeg's options for it."""

from __future__ import annotations

from media_pipeline.encode.probe import MediaInfo

AUDIO_BIT_RATE = "128k"


def kept_args(info: MediaInfo) -> tuple[str, ...]:
    """For a remux: the sound as it came, or none."""
    return ("-c:a", "copy") if info.audio_codec else ("-an",)


def encoded_args(info: MediaInfo) -> tuple[str, ...]:
    """For an encode: AAC in at most two channels; sound that is that already stays as it came."""
    if info.audio_codec is None:
        return ("-an",)
    if info.audio_codec == "aac" and info.audio_channels <= 2 and info.container == "mp4":
        return ("-c:a", "copy")
    return ("-c:a", "aac", "-b:a", AUDIO_BIT_RATE, "-ac", str(min(2, max(1, info.audio_channels))))
