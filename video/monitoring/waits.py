"""Why a task in line has no slot yet, in full: its place, and each account that could run one of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from providers.contract import Reason, ReasonCode
from video.infra import database
from video.models import VideoTask
from video.routing import availability, pauses
from video.routing.availability import Availability
from video.routing.slots import AccountState
from video.scheduling import estimates
from video.scheduling.estimates import OWN_BEFORE, OWN_COUNTED

_OWN_BEFORE = f"SELECT {OWN_BEFORE} FROM video_videotask t WHERE t.id = %(task)s"  # noqa: S608 - a constant
FREE_SLOT = "a free slot"
_OF_SLOTS = frozenset({ReasonCode.FULL, ReasonCode.NO_KEY})


@dataclass(frozen=True)
class AccountWait:
    """How one account stands for one of a task's models."""

    provider: str
    account: str
    model: str
    state: str  # in words
    code: str | None  # a ReasonCode; None where a job may start
    live: int  # jobs
    limit: int  # jobs that may be live at once
    until: Any = None  # a datetime: when it opens by itself, where that is known


@dataclass(frozen=True)
class Wait:
    """What is known of a task that waits for a slot."""

    words: str
    code: str | None  # a ReasonCode; None where a job may start now
    position: int
    expected_wait_s: int | None
    accounts: Sequence[AccountWait]


def why(task: VideoTask) -> Wait | None:
    """None for a task that does not wait for a slot. Three statements at most."""
    if task.admit_at is None:
        return None
    own = database.value(_OWN_BEFORE, {"task": task.pk, "most": OWN_COUNTED})
    place = estimates.place(
        task.eligible_models, user_id=task.user_id, own=own or 0, rerun=task.rerun, created_at=task.created_at
    )
    now = availability.read()
    reason = now.waits_for(task.eligible_models, task.user_id)
    return Wait(
        waits_for(task, now),
        None if reason is None else reason.code.value,
        place.position,
        place.expected_wait_s if task.user.is_active else None,
        _accounts(task, now),
    )


def waits_for(task: VideoTask, now: Availability | None = None) -> str:
    """What a task in line waits for, in a few words: a free slot, or the end of what keeps its models from starting.

    Without `now` it is what was known a second ago at most.
    """
    now = now or availability.recent()
    if not task.user.is_active:
        return f"its user ({task.user.get_username()}), who is switched off"
    models = " or ".join(task.eligible_models)
    reason = now.waits_for(task.eligible_models, task.user_id)
    if reason is None or reason.code in _OF_SLOTS:
        return f"{FREE_SLOT} of {models}" if models else FREE_SLOT
    return f"{models}: {reason.text}"


def _accounts(task: VideoTask, now: Availability) -> list[AccountWait]:
    states, own_pause = now.of_all(task.user_id), pauses.of_user(now.slots.paused, task.user_id)
    found = []
    for one in sorted(now.slots.accounts, key=lambda one: (one.row.model, one.row.account)):
        if one.row.model not in task.eligible_models:
            continue
        model = states.get(one.row.model)
        reason = one.reason
        if one.is_open and model is not None and not model.takes_jobs:  # what closes the model closes it here too
            reason = model.reason
        pause = own_pause or pauses.of_account(now.slots.paused, one.row.provider, one.row.model, one.row.account)
        is_paused = reason is not None and reason.code is ReasonCode.PAUSED
        found.append(
            AccountWait(
                one.row.provider,
                one.row.account,
                one.row.model,
                _state(reason, one),
                None if reason is None else reason.code.value,
                one.live,
                one.limit,
                pause.until if is_paused and pause is not None else _opens_at(one),
            )
        )
    return found


def _state(reason: Reason | None, one: AccountState) -> str:
    if reason is None:
        return "a slot is free" if one.free == 1 else f"{one.free} slots are free"
    return reason.text


def _opens_at(one: AccountState) -> Any:
    """When a cool-down or the pause after a refusal is over."""
    row: Any = one.row
    left_s = max(
        (seconds for seconds in (row.cooldown_s, row.retry_s) if seconds is not None and seconds > 0), default=0
    )
    return timezone.now() + timedelta(seconds=left_s) if left_s else None
