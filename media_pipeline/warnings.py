"""What may be odd about a video that is delivered all the same: a closed list of codes, each with its words.

A warning never fails a task. A finished job is paid for, so what a player of today can play is delivered, and the
warning says what is not as it was ordered. Codes are stable: clients and figures count by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Step = Literal["transcode", "thumbnail"]


@dataclass(frozen=True)
class Kind:
    """One code of the list. `step` finds it anew each time that it is done; `message` is a sentence for the user."""

    code: str
    step: Step
    message: str


KINDS: dict[str, Kind] = {
    kind.code: kind
    for kind in (
        Kind(
            "damaged",
            "transcode",
            "The provider's file is damaged, also after it was fetched again. What can be decoded is delivered.",
        ),
        Kind(
            "truncated",
            "transcode",
            "The provider's file ends too early, also after it was fetched again. What is there is delivered.",
        ),
        Kind(
            "shorter_than_ordered",
            "transcode",
            "The video has less than 90% of the ordered length. It was fetched again, and is delivered as it is.",
        ),
        Kind(
            "much_shorter_than_ordered",
            "transcode",
            "The video has less than half of the ordered length. It was fetched again, and is delivered as it is.",
        ),
        Kind(
            "sound_left_out",
            "transcode",
            "The sound could not be decoded, or lies apart from the picture. The video is delivered without it.",
        ),
        Kind(
            "last_frame_held",
            "transcode",
            "The sound is longer than the picture. The last frame stands until the sound ends.",
        ),
        Kind(
            "sound_cut",
            "transcode",
            "The sound is longer than the picture. It was cut where the picture ends.",
        ),
        Kind(
            "delivered_as_it_came",
            "transcode",
            "The video could not be converted. It is delivered as the provider made it, so its quality, size and frame "
            "rate may differ from what was ordered.",
        ),
        Kind(
            "cover_is_first_frame",
            "thumbnail",
            "The frame that was chosen for the cover picture could not be had. The thumbnail shows the first one.",
        ),
        Kind(
            "cover_is_black",
            "thumbnail",
            "No frame could be made into a cover picture. The thumbnail is black.",
        ),
        Kind(
            "still_left_out",
            "thumbnail",
            "The still picture could not be made. The video is delivered without it.",
        ),
        Kind(
            "preview_left_out",
            "thumbnail",
            "The preview could not be made. The video is delivered without it.",
        ),
        Kind(
            "sprites_left_out",
            "thumbnail",
            "The sprite sheet could not be made. The video is delivered without it.",
        ),
        Kind(
            "hls_left_out",
            "thumbnail",
            "The HLS stream could not be made. The video is delivered without it.",
        ),
    )
}


def as_rows(codes: Iterable[str]) -> list[dict[str, str]]:
    """These codes, each once, as a task keeps them: `{"code", "message"}`. Raises KeyError for one not in the list."""
    return [{"code": KINDS[code].code, "message": KINDS[code].message} for code in dict.fromkeys(codes)]


def after(step: Step, before: Iterable[Mapping[str, str]], found: Iterable[str]) -> list[dict[str, str]]:
    """A task's warnings once `step` has been done and found these: what it and later steps found before is dropped."""
    order: tuple[Step, ...] = ("transcode", "thumbnail")
    earlier = order[: order.index(step)]
    kept = [one["code"] for one in before if one.get("code") in KINDS and KINDS[one["code"]].step in earlier]
    return as_rows([*kept, *found])
