"""What a stage decided, as values: the policy is tested without a worker, and `pipeline.runner` alone applies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from providers.contract import JobStatus
from video.models import Stage

#: The longest time in seconds for which a stage may leave its task: no wait of ours is about more than a week.
LONGEST_WAIT_S = 7 * 86_400.0


def bounded_s(seconds: float, most_s: float = LONGEST_WAIT_S) -> float:
    """Any number as a wait: from 0 to `most_s` seconds. What is no number (NaN) is the least wait."""
    return float(min(max(seconds, 0.0), most_s)) if seconds == seconds else 0.0


class _Outcome:
    """What all outcomes answer. Their waits are bounded, wherever the number came from."""

    _waits: ClassVar[tuple[str, ...]] = ()  # fields in seconds

    def __post_init__(self) -> None:
        for name in self._waits:
            object.__setattr__(self, name, bounded_s(getattr(self, name)))

    def next_stage(self) -> Stage | None:
        """The stage that the task goes on in; None when it stays, waits or ends."""
        return None

    @property
    def is_due_now(self) -> bool:
        """Whether that stage may run at once."""
        return False


@dataclass(frozen=True)
class Advance(_Outcome):
    """The stage is done; the next is due in `delay_s` seconds."""

    _waits = ("delay_s",)

    to: Stage
    delay_s: float = 0
    detail: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def next_stage(self) -> Stage:
        return self.to

    @property
    def is_due_now(self) -> bool:
        return self.delay_s == 0


@dataclass(frozen=True)
class Park(_Outcome):
    """Not yet: due again in `delay_s` seconds. `record`: as an event, where the park changed something.

    `code` names the cause of a wait that may repeat itself: parks with the code of the last one are one wait, which is
    recorded once.

    A wait that begins before the task's deadline ends at it.
    """

    _waits = ("delay_s", "hint_delay_s")

    delay_s: float
    reason: str
    progress: int = 0
    hint_delay_s: float = 0
    record: bool = True
    code: str = ""
    error_code: str = ""
    counts_as_try: bool = False
    owner_detail: str = ""  # what the task's owner may read of the event; nothing, unless a stage says so
    look: JobStatus | None = None  # the provider's answer to the poll, to be recorded with the park


@dataclass(frozen=True)
class TryAgain(_Outcome):
    """A failure that may pass: counted, with a growing delay. After `most_tries` the task fails with this message."""

    _waits = ("at_least_s",)

    code: str
    message: str
    detail: str
    at_least_s: float = 0
    most_tries: int = 5
    counts: bool = True  # False: trouble of this installation (disk, storage), which uses up no try


@dataclass(frozen=True)
class WaitForSlot(_Outcome):
    """Wait for another slot, model or key. `models` may run the task from now on; None: those that may now."""

    _waits = ("delay_s",)

    reason: str
    delay_s: float = 0
    models: list[str] | None = None


@dataclass(frozen=True)
class Fail(_Outcome):
    """The task ends, with its refund. `message` is for the user, `detail` for operators."""

    code: str
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Succeed(_Outcome):
    """The video is stored under its final name."""

    fields: dict[str, Any]


@dataclass(frozen=True)
class Dropped(_Outcome):
    """The claim no longer holds; another worker goes on, or the task has ended."""


Outcome = Advance | Park | TryAgain | WaitForSlot | Fail | Succeed | Dropped
