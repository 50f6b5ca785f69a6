"""Carries out a plan, and trusts neither ffmpeg's exit code nor a remux: what was made is probed and compared.

Damage is looked for where it would be delivered or is suspected: before a copy, which would hand it on, and where
ffmpeg complained or failed. What decodes without a complaint is not decoded twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from media_pipeline.disk import complete_file
from media_pipeline.encode.command import MAX_ERROR_RATE, command
from media_pipeline.encode.conformance import what_is_wrong_with_picture
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Plan, Target, encode_anew, plan
from media_pipeline.encode.probe import Health, MediaInfo, Prober
from media_pipeline.encode.timing import SAME_S, timing_of
from media_pipeline.errors import DamagedMedia, MediaTimeout, NotAVideo, TranscodeFailed


@dataclass(frozen=True)
class Transcoded:
    """`warnings` are codes of `media_pipeline.warnings`."""

    plan: Plan
    info: MediaInfo
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """All that does not change from one attempt at a file to the next."""

    src: Path
    target: Target
    ffmpeg: FFmpeg
    prober: Prober
    deadline_s: float
    threads: int
    on_progress: Callable[[float], None] | None
    cancelled: threading.Event | None

    def run(self, way: Plan, info: MediaInfo, part: Path) -> tuple[MediaInfo, str]:
        """Make `part`; (what it is, what ffmpeg said). Raises TranscodeFailed and what FFmpeg.run raises."""
        timing = timing_of(info, keep_long_sound=self.target.keep_long_sound)
        is_whole = not (info.damage or info.truncated)
        argv = command(
            *(self.ffmpeg.binary, self.src, part),
            info=info,
            chosen=way,
            threads=self.threads,
            length_s=timing.total_s,
            max_error_rate=MAX_ERROR_RATE if is_whole else 1.0,
        )
        said = self.ffmpeg.run(
            argv,
            read=[self.src],
            write=[part],
            deadline_s=self.deadline_s,
            duration_s=timing.total_s,
            on_progress=self.on_progress,
            cancelled=self.cancelled,
        )
        try:
            made = self.prober.probe(part, decode_first_frame=False)
        except NotAVideo as err:
            raise TranscodeFailed(f"the output is {err.message}", stderr_tail=said) from err
        if wrong := what_is_wrong(made, info, self.target, way):
            raise TranscodeFailed(f"the output has {wrong}", stderr_tail=said)
        return made, said

    def health(self, info: MediaInfo) -> Health | None:
        """What comes out when the source is decoded; None if the decoder crashes or takes too long."""
        try:
            return self.prober.check(self.src, info)
        except (NotAVideo, MediaTimeout):
            return None


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
    accept_damage: bool = False,
) -> Transcoded:
    """Make `dest` from `src`, whose facts are `info`. It appears only when it has been checked, else nothing is left.

    `deadline_s` bounds one run of ffmpeg, in seconds of wall clock. `on_progress` gets fractions from 0 to 1.
    `accept_damage`: what can be decoded of a damaged or truncated file is made; else such a file is DamagedMedia.
    Raises TranscodeFailed, DamagedMedia, MediaTimeout, DiskFull, Cancelled.
    """
    work = Work(src, target, ffmpeg, prober, deadline_s, threads, on_progress, cancelled)
    if info.truncated and not accept_damage:
        raise DamagedMedia(info.truncated)
    with complete_file(dest) as part:
        return _make(work, info, part, accept_damage=accept_damage)


def _make(work: Work, info: MediaInfo, part: Path, *, accept_damage: bool) -> Transcoded:
    if info.audio_codec and timing_of(info, keep_long_sound=work.target.keep_long_sound).is_silent:
        info = without_sound(info)
    chosen = plan(info, work.target)
    if chosen.kind == "remux":
        health = work.health(info)
        if health is not None and health.damage:
            return _make_of_damaged(work, info, health, part, accept_damage=accept_damage)
        try:
            if health is None:
                raise TranscodeFailed("whether it is whole can't be told")
            made, _ = work.run(chosen, info, part)
        except TranscodeFailed as err:
            reason = f"remux failed: {err.message}"
            chosen = encode_anew(info, work.target, chosen.width_px, chosen.height_px, reason)
        else:
            return Transcoded(chosen, made, _warnings(info, work.target))
    if info.truncated:
        return _make_of_damaged(work, info, work.health(info), part, accept_damage=accept_damage)
    try:
        made, said = work.run(chosen, info, part)
    except TranscodeFailed:
        health = work.health(info)
        if health is None or not health.damage:
            raise
        return _make_of_damaged(work, info, health, part, accept_damage=accept_damage)
    if said:
        health = work.health(info)
        if health is not None and health.damage:
            return _make_of_damaged(work, info, health, part, accept_damage=accept_damage)
    return Transcoded(chosen, made, _warnings(info, work.target))


def _make_of_damaged(
    work: Work, info: MediaInfo, health: Health | None, part: Path, *, accept_damage: bool
) -> Transcoded:
    """What can be decoded, the nearest frame in place of each that can't; without sound if that is the dead part."""
    damage = health.damage if health is not None else ""
    if not accept_damage:
        raise DamagedMedia(damage or info.truncated)
    info = replace(info, damage=damage)
    if health is not None and health.is_sound_dead:
        info = replace(without_sound(info), damage="" if not health.lost else damage)
    chosen = plan(info, work.target)
    if chosen.kind == "remux" and info.damage:
        chosen = encode_anew(info, work.target, chosen.width_px, chosen.height_px, info.damage)
    made, _ = work.run(chosen, info, part)
    return Transcoded(chosen, made, _warnings(info, work.target))


def without_sound(info: MediaInfo) -> MediaInfo:
    """The same file as one whose sound can't be used."""
    return replace(info, audio_codec=None, audio_channels=0, audio_index=-1, sound_unreadable=True)


def _warnings(info: MediaInfo, target: Target) -> tuple[str, ...]:
    timing = timing_of(info, keep_long_sound=target.keep_long_sound)
    found = (
        (bool(info.damage) and not info.truncated, "damaged"),
        (bool(info.truncated), "truncated"),
        (info.sound_unreadable, "sound_left_out"),
        (timing.hold_s > 0, "last_frame_held"),
        (timing.is_cut, "sound_cut"),
    )
    return tuple(code for applies, code in found if applies)


def what_is_wrong(made: MediaInfo, source: MediaInfo, target: Target, chosen: Plan) -> str | None:
    """ffmpeg may end with success after losing half a file: compare what was made with what was planned."""
    timing = timing_of(source, keep_long_sound=target.keep_long_sound)
    # The picture of a copy ends where it does; where frames are missing, the last may stand for less than they did.
    slack_s = max(0.5, timing.total_s * 0.05, float(1 / chosen.fps))
    checks = (
        (made.video_codec != "h264" or made.pix_fmt != "yuv420p", f"codec {made.video_codec} {made.pix_fmt}"),
        (
            (made.width_px, made.height_px) != (chosen.width_px, chosen.height_px),
            f"size {made.width_px}x{made.height_px}",
        ),
        (made.sar != 1, f"pixels of {made.sar}"),
        (not made.faststart, "its index at the end"),
        (abs(made.duration_s - timing.total_s) > slack_s, f"{made.duration_s:.2f} s of {timing.total_s:.2f} s"),
        (abs(made.start_s - made.container_start_s) > SAME_S, f"a picture that begins at {made.start_s:.2f} s"),
        ((made.audio_codec is None) != (source.audio_codec is None), "lost or gained sound"),
    )
    return next((wrong for applies, wrong in checks if applies), None) or what_is_wrong_with_picture(
        made, fps=chosen.fps, aigc_tag=chosen.aigc_tag
    )
