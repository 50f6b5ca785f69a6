"""Where a task is now and what it waits for. The API, the admin, `generate` and the figures all read it from here.

`position_of` reads one row in Python; `SQL` has the same conditions for statements over many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from video.engine.sql import UNHELD, USER_IS_OFF
from video.models import Stage, VideoTask

#: Seconds after which the message that dispatched a transcode counts as lost: the task waits for a core again.
RESEND_S = 10.0


class State(StrEnum):
    """What a task does or waits for. Each task is in exactly one state."""

    OVER = "over"
    IN_WORK = "in_work"  # a worker holds the lease
    NOT_BEFORE = "not_before"  # waits for a slot, from a time on that is still to come
    WAITS_FOR_SLOT = "waits_for_slot"
    USER_OFF = "user_off"  # waits for a slot, and none is given to a user who is switched off
    DISK_FULL = "disk_full"  # waits for a slot, and none is given while no worker has room on its disk
    PARKED = "parked"  # its stage is due at a time that is still to come
    WAITS_FOR_CORE = "waits_for_core"  # a transcode that is due and was given no core yet
    WORKER_SILENT = "worker_silent"  # due again: the lease of its worker ended
    WAITS_FOR_WORKER = "waits_for_worker"  # due


@dataclass(frozen=True)
class Position:
    """A task's state, with the times and names that explain it."""

    state: State
    since: datetime | None = None  # since when it is in work or waits; None where it waits for a time
    until: datetime | None = None  # the time that it waits for
    reason: str = ""  # the stage's own words on why the task waits
    worker: str = ""  # the worker that holds the lease, or whose lease ended


def position_of(task: VideoTask, now: datetime, *, is_disk_full: Callable[[], bool] = lambda: False) -> Position:
    """The position of a task at `now`. Its user is read, and `is_disk_full` called, only if it waits for a slot."""
    if not task.is_active:
        return Position(State.OVER)
    reason = task.park_reason
    lease_until, due_at = task.lease_until, task.next_run_at
    if lease_until is not None and lease_until >= now:
        return Position(State.IN_WORK, since=task.claimed_at, reason=reason, worker=task.claimed_by)
    if task.admit_at is not None:
        if task.admit_at > now:
            return Position(State.NOT_BEFORE, until=task.admit_at, reason=reason)
        if not task.user.is_active:
            return Position(State.USER_OFF, since=task.admit_at, reason=reason)
        state = State.DISK_FULL if is_disk_full() else State.WAITS_FOR_SLOT
        return Position(state, since=task.admit_at, reason=reason)
    if due_at is not None and due_at > now:
        return Position(State.PARKED, until=due_at, reason=reason)
    silent = "" if lease_until is None else task.claimed_by
    dispatched = task.rung_at is not None and task.rung_at >= now - timedelta(seconds=RESEND_S)
    if task.stage == Stage.TRANSCODE and not dispatched:
        state = State.WAITS_FOR_CORE
    else:
        state = State.WAITS_FOR_WORKER if lease_until is None else State.WORKER_SILENT
    return Position(state, since=due_at, reason=reason, worker=silent)


_DUE = "video_videotask.next_run_at IS NOT NULL AND video_videotask.next_run_at <= statement_timestamp()"
_NEEDS_CORE = f"""(video_videotask.stage = '{Stage.TRANSCODE}' AND (video_videotask.rung_at IS NULL
    OR video_videotask.rung_at < statement_timestamp() - interval '{RESEND_S} seconds'))"""

_COULD_BE_ADMITTED = f"video_videotask.admit_at <= statement_timestamp() AND NOT {USER_IS_OFF}"

#: The condition of each state, over columns of `video_videotask` (without an alias). Whether the disk is full is no
#: column, so DISK_FULL is WAITS_FOR_SLOT here.
SQL: dict[State, str] = {
    State.OVER: "video_videotask.finished_at IS NOT NULL",
    State.IN_WORK: f"video_videotask.next_run_at IS NOT NULL AND NOT {UNHELD}",
    State.NOT_BEFORE: "video_videotask.admit_at > statement_timestamp()",
    State.WAITS_FOR_SLOT: _COULD_BE_ADMITTED,
    State.USER_OFF: f"video_videotask.admit_at <= statement_timestamp() AND {USER_IS_OFF}",
    State.DISK_FULL: _COULD_BE_ADMITTED,
    State.PARKED: f"video_videotask.next_run_at > statement_timestamp() AND {UNHELD}",
    State.WAITS_FOR_CORE: f"{_DUE} AND {UNHELD} AND {_NEEDS_CORE}",
    State.WORKER_SILENT: f"{_DUE} AND video_videotask.lease_until < statement_timestamp() AND NOT {_NEEDS_CORE}",
    State.WAITS_FOR_WORKER: f"{_DUE} AND video_videotask.lease_until IS NULL AND NOT {_NEEDS_CORE}",
}
