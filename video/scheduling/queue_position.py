"""How many tasks get a slot before a given one, estimated by the rules of `fair_share.py` from a few figures a user."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class UserBacklog:
    """What one user has waiting for any of some models."""

    user_id: int
    fresh: int
    reruns: int
    oldest_at: datetime  # when the oldest of them was made
    used: float  # as `fair_share.py` counts it
    weight: int


def tasks_before(
    lines: Iterable[UserBacklog], *, user_id: int, own: int, rerun: bool = False, created_at: datetime | None = None
) -> int:
    """How many of the waiting tasks have their turn before a task with `own` of its user's in front of it.

    `created_at`: None for a task that is only about to be made. An estimate: running jobs count as they are.
    """
    lines = list(lines)
    mine = next((line for line in lines if line.user_id == user_id), None)
    level = ((mine.used if mine else 0.0) + own) / (mine.weight if mine else 1)
    return own + sum(_of_other(line, level, rerun, created_at) for line in lines if line.user_id != user_id)


def _of_other(line: UserBacklog, level: float, rerun: bool, created_at: datetime | None) -> int:
    """How many of another user's tasks are below this level, or at it and older."""
    first = level * line.weight - line.used  # this user's next task is at used / weight
    number = max(0, math.ceil(first))
    if first >= 0 and number == first and (created_at is None or line.oldest_at < created_at):
        number += 1
    if not rerun:
        return min(number, line.fresh)
    return line.fresh + min(max(0, number - line.fresh), line.reruns)
