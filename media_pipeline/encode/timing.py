"""How picture and sound of a source are laid on the one timeline of the output, which starts at 0.

The source's sync is kept to within one frame. A picture that begins late: its first frame stands until then. Sound that
begins late: silence stands before it. Sound that is longer than the picture: the last frame stands to its end, or the
sound is cut where the picture ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from media_pipeline.encode.probe import MediaInfo, ProbeLimits

#: Sound that is longer by less is an encoder's padding: it is cut with the picture, and nobody is told.
PADDING_S = 0.1
#: A frame of a slow source is no measure of sync.
LONGEST_FRAME_S = 0.1
#: Starts that differ by less are the same: less than an AAC frame by far.
SAME_S = 0.005
#: Sound may begin this much after the picture in a copy. Players take it from the container; beyond, silence is put in.
LATE_IN_COPY_S = 0.025


@dataclass(frozen=True)
class Timing:
    """All in seconds. Shifts are subtracted from the times that ffmpeg gives to each, which begin at the container's.

    `lead_s` and `hold_s`: how long the first and the last frame stand beyond their own time. `is_cut`: sound is lost.
    """

    total_s: float
    picture_shift_s: float
    sound_shift_s: float
    lead_s: float = 0.0
    hold_s: float = 0.0
    is_cut: bool = False
    sound_late_s: float = 0.0
    sound_end_s: float = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether all of the sound lies before the begin."""
        return self.sound_end_s <= SAME_S


def timing_of(info: MediaInfo, *, keep_long_sound: bool) -> Timing:
    """The timeline of the output. An output that would be longer than we accept ends with the picture."""
    picture_s = info.start_s
    picture_shift_s = picture_s - info.container_start_s
    if info.audio_codec is None:
        return Timing(info.duration_s, picture_shift_s, 0.0)
    most_s = ProbeLimits().max_duration_s
    late_s = picture_s - info.audio_start_s
    # Within a frame, or by what a lost edit list would take back, nothing is to be seen there: the sound begins later.
    least_s = max(min(float(1 / info.fps), LONGEST_FRAME_S), info.lost_edit_s) + SAME_S
    lead_s = late_s if least_s < late_s <= most_s - info.duration_s else 0.0
    begin_s = picture_s - lead_s
    picture_end_s = lead_s + info.duration_s
    sound_end_s = info.audio_start_s - begin_s + info.audio_duration_s
    longer_s = sound_end_s - picture_end_s
    hold_s = longer_s if keep_long_sound and longer_s > PADDING_S and sound_end_s <= most_s else 0.0
    return Timing(
        total_s=picture_end_s + hold_s,
        picture_shift_s=picture_shift_s,
        sound_shift_s=begin_s - info.container_start_s,
        lead_s=lead_s,
        hold_s=hold_s,
        is_cut=longer_s > PADDING_S and not hold_s,
        sound_late_s=info.audio_start_s - begin_s,
        sound_end_s=sound_end_s,
    )


def why_not_copied(info: MediaInfo, timing: Timing) -> str | None:
    """What about its times a copy can't mend, or None."""
    reasons = (
        (bool(info.truncated), "the file ends too early"),
        (timing.lead_s > 0, f"the picture begins {timing.lead_s:.2f} s after the sound"),
        (timing.hold_s > 0, f"the sound is {timing.hold_s:.2f} s longer than the picture"),
        (abs(timing.picture_shift_s) > SAME_S, "the picture does not begin at 0"),
        (abs(timing.sound_shift_s) > SAME_S, "picture and sound begin apart"),
        (timing.sound_late_s > LATE_IN_COPY_S, f"the sound begins {timing.sound_late_s:.2f} s late"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def in_time(filters: list[str], timing: Timing, fps: Fraction, *, mends: bool = False) -> list[str]:
    """These filters of the picture, which turn it into its final form at the constant rate `fps`, between those that
    put it in its place. `mends`: frames may be missing at both ends; the nearest stand for them.
    """
    # Without a start, frames that are missing at the begin would shift all others. An end that is rounded to the
    # nearest frame leaves none of a video that is shorter than half of one.
    options = ":start_time=0" + (":eof_action=pass" if timing.total_s * fps < 1 else "")
    placed = [f"{one}{options}" if one.startswith("fps=") else one for one in filters]
    pads = []
    if timing.lead_s:
        pads.append(f"start_mode=clone:start_duration={timing.lead_s:.6f}")
    if mends:
        pads.append("stop_mode=clone:stop=-1")  # ended by -t
    elif timing.hold_s:
        pads.append(f"stop_mode=clone:stop_duration={timing.hold_s:.6f}")
    shift = [f"setpts=PTS-{timing.picture_shift_s:.6f}/TB"] if timing.picture_shift_s else []
    return [*shift, *placed, *([f"tpad={':'.join(pads)}"] if pads else [])]


def sound_filter(timing: Timing) -> str:
    """The filter that puts the sound in its place: silence before it and in its gaps, nothing before 0."""
    shift = f"asetpts=PTS-{timing.sound_shift_s:.6f}/TB," if timing.sound_shift_s else ""
    return f"{shift}aresample=async=1:first_pts=0"
