"""What follows a stage: the messages to send and the files to drop, as values.

`after` decides it from the stage's outcome alone, `send` does it: the rule is one table, which a test reads without a
database, a broker or a storage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from media_pipeline.errors import MediaError
from video.engine import dispatch
from video.engine.outcomes import Fail, Outcome, Park, Succeed, WaitForSlot
from video.models import Stage
from video.pipeline import media_stages
from video.scheduling import transcode_slots

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContinueChain:
    """The chain's next link may run now."""


@dataclass(frozen=True)
class Resume:
    """Send a task into the chain from this stage on: the chain that it came by does not lead there."""

    task_id: str
    stage: Stage


@dataclass(frozen=True)
class GrantCores:
    """Grant free cores to waiting transcodes and dispatch these; but for `chained`, whose own chain goes on then."""

    chained: str | None = None


@dataclass(frozen=True)
class RequestAdmission:
    """A slot is free, or a task waits for one again."""


@dataclass(frozen=True)
class RequestCheck:
    """The task was cancelled during its submit: a job that came of it is to be stopped."""

    generation_id: str


@dataclass(frozen=True)
class DropWorkFiles:
    """The video has its final name."""

    task_id: str


@dataclass(frozen=True)
class DropResult:
    """The task was cancelled or taken over: no row will point to the files that this outcome names."""

    outcome: Outcome


Wake = ContinueChain | Resume | GrantCores | RequestAdmission | RequestCheck | DropWorkFiles | DropResult


def after(
    stage: Stage, outcome: Outcome, *, task_id: str, held: bool, sure: bool = True, generation_id: str | None = None
) -> list[Wake]:
    """What follows when `stage` ended with `outcome`, in the order in which it is to be done.

    `held`: the move was written by this worker. `sure`: if not, another worker has the task for certain; a write whose
    answer was lost may have been made, and then nothing that it named may be dropped.
    """
    wakes: list[Wake] = []
    if not held and sure:
        wakes.append(DropResult(outcome))
        if stage is Stage.GENERATE and generation_id:
            wakes.append(RequestCheck(generation_id))
    if held and isinstance(outcome, Succeed):
        wakes.append(DropWorkFiles(task_id))
    if isinstance(outcome, Fail | WaitForSlot) or (stage is Stage.POLL and not isinstance(outcome, Park)):
        wakes.append(RequestAdmission())
    return wakes + _onward(stage, outcome.next_stage() if held else None, task_id, now=outcome.is_due_now)


def _onward(stage: Stage, to: Stage | None, task_id: str, *, now: bool) -> list[Wake]:
    """How the task goes on in `to`, and which other transcodes may begin since a core is free or wanted."""
    if to is Stage.THUMBNAIL:  # on the core that it has
        return [ContinueChain()]
    if to is Stage.TRANSCODE:  # the chain's next link after a download alone; from elsewhere the way leads back
        return [GrantCores(chained=task_id if stage is Stage.DOWNLOAD else None)]
    if stage in transcode_slots.STAGES:
        match to:
            case Stage.DOWNLOAD:  # the source is gone
                return [Resume(task_id, to), GrantCores()]
            case Stage.SAVE:
                return [GrantCores(), ContinueChain()]
            case _:
                return [GrantCores()]
    return [ContinueChain()] if to is not None and now else []


def send(wakes: Iterable[Wake]) -> bool:
    """Do all of this. Returns whether the chain goes on."""
    goes_on = False
    for wake in wakes:
        match wake:
            case ContinueChain():
                goes_on = True
            case Resume():
                dispatch.resume(wake.task_id, wake.stage)
            case GrantCores():
                goes_on |= _grant_cores(wake.chained)
            case RequestAdmission():
                dispatch.request_admission()
            case RequestCheck():
                dispatch.request_check(wake.generation_id)
            case DropWorkFiles():
                _drop(media_stages.drop_work_files, wake.task_id)
            case DropResult():
                _drop(media_stages.drop_what_was_made, wake.outcome)
    return goes_on


def _grant_cores(chained: str | None) -> bool:
    """Whether the task of this chain was among those that got a core."""
    granted = transcode_slots.grant(one_waits=chained is not None)
    dispatch.resume_all(one for one in granted if one[0] != chained)
    return any(task_id == chained for task_id, _ in granted)


def _drop(drop: Callable[[Any], None], what: Any) -> None:
    """Delete files that are no longer needed. Where the storage refuses, a sweep deletes them later."""
    try:
        drop(what)
    except MediaError as err:
        log.warning("files that are no longer needed stay for now: %s", err)
