"""Which frame of a video becomes its cover, as clients and operators write it: `first`, `auto`, or a second."""

from __future__ import annotations

import re
from dataclasses import dataclass

FIRST, AUTO = "first", "auto"
#: No video is longer, in seconds.
LATEST_S = 600
WHAT_IT_MAY_BE = f'"{FIRST}", "{AUTO}", or a second of the video from 0 to {LATEST_S}, such as 2.5'

_SECONDS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True)
class Cover:
    """`at_s`: the second that is shown, None for the first frame. `is_auto`: the best of some frames; `unlike_first`:
    none that looks like the first one, as long as there is another.
    """

    at_s: float | None = None
    is_auto: bool = False
    unlike_first: bool = False


FIRST_FRAME = Cover()


def spelled(value: str | float) -> str:
    """The one spelling of a choice: words as they are, seconds to the millisecond. Raises ValueError for no choice."""
    if isinstance(value, str):
        if value in (FIRST, AUTO):
            return value
        if not _SECONDS.fullmatch(value):
            raise ValueError(value)
        value = float(value)
    if not 0 <= value <= LATEST_S:
        raise ValueError(str(value))
    return f"{value:.3f}".rstrip("0").rstrip(".")


def cover_from(choice: str, *, begins_with_picture: bool) -> Cover:
    """What `spelled` has spelled. `begins_with_picture`: the video began with a picture of its user's, which its first
    frame therefore shows.
    """
    if choice == AUTO:
        return Cover(is_auto=True, unlike_first=begins_with_picture)
    return FIRST_FRAME if choice == FIRST else Cover(at_s=float(choice))
