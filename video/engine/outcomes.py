"""What a stage decided, as values: the policy is tested without a worker, and one place applies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from providers.contract import JobStatus
from video.models import Stage


@dataclass(frozen=True)
class Advance:
    """The stage is done; the next is due in `delay_s` seconds."""

    to: Stage
    delay_s: float = 0
    detail: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Park:
    """Not yet: look again in `delay_s` seconds. Only a park that changed something is recorded."""

    delay_s: float
    reason: str
    progress: int = 0
    hint_delay_s: float = 0
    record: bool = True
    error_code: str = ""
    look: JobStatus | None = None  # what the provider said of the job, to be noted with it


@dataclass(frozen=True)
class TryAgain:
    """Something failed that may pass; counted, with a growing delay, and in the end the task fails with these words."""

    code: str
    message: str
    detail: str
    at_least_s: float = 0
    most_tries: int = 5
    counts: bool = True  # False: our own trouble (disk, database), which uses up no try


@dataclass(frozen=True)
class WaitForSlot:
    """Back in line for another slot, model or key; `models` that may run it from now on, None: as before."""

    reason: str
    delay_s: float = 0
    models: list[str] | None = None


@dataclass(frozen=True)
class Fail:
    """The task ends, with its refund. `message` is for the user, `detail` for operators."""

    code: str
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Succeed:
    """The video is stored under its final name."""

    fields: dict[str, Any]


@dataclass(frozen=True)
class Dropped:
    """The task is no longer ours; whoever has it goes on."""


Outcome = Advance | Park | TryAgain | WaitForSlot | Fail | Succeed | Dropped
