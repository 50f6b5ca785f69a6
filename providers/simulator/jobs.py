"""A job, and how the clock alone decides its state.

Nothing runs for a job while it waits or renders: `phase(now)` compares the time with `run_at` and `end_at`. A
dialect that calls back (fal, Kling) needs moments instead of looks: `callbacks.py` keeps one heap of the `run_at` and
`end_at` of jobs that have a `callback_url`, and one timer for its head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from providers.simulator.faults import NO_FAULTS, Faults
from providers.simulator.picture import ClipSpec

if TYPE_CHECKING:
    from providers.simulator.accounts import Account
    from providers.simulator.dialect import Dialect


class Phase(Enum):
    PENDING = auto()  # accepted, about to start
    THROTTLED = auto()  # accepted, waits for a slot of its key and model
    RUNNING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()

    @property
    def is_live(self) -> bool:
        return self in (Phase.PENDING, Phase.THROTTLED, Phase.RUNNING)


@dataclass(slots=True, eq=False)
class Job:
    """One generation at one provider. Times are seconds since the epoch on the simulator's clock."""

    id: str
    dialect: Dialect
    account: Account  # of the key that submitted it
    model: str
    prompt: str  # as sent, with its directives
    reference: str  # the client's own, where the protocol carries one
    clip: ClipSpec
    created_at: float
    created_text: str  # ISO 8601 with milliseconds, made once: polls are hot
    expected_cost: float
    faults: Faults = NO_FAULTS
    callback_url: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # what a dialect must echo
    lane: str = ""  # whose limit it counts against
    origin: str = ""  # our address as the submit saw it, for links in call-backs
    watcher: Callable[[Job], None] | None = None  # hears of each new plan; only with a call-back

    pending_s: float = 0.0
    running_s: float = 0.0
    run_at: float = 0.0
    end_at: float = 0.0
    throttled: bool = False
    failure: str | None = None  # the provider's failure code, once it has ended
    cancelled: bool = False
    cancel_cost: float = 0.0
    deleted: bool = False  # the provider does not know it any more
    counted_end: float | None = None  # its place in the lane's heap; None when it no longer counts as live
    polls: int = 0
    results: int = 0  # looks at the result, where that is a call of its own
    downloads: int = 0

    def phase(self, now: float) -> Phase:
        if self.cancelled:
            return Phase.CANCELLED
        if now >= self.end_at:
            return Phase.SUCCEEDED if self.failure is None else Phase.FAILED
        if now >= self.run_at:
            return Phase.RUNNING
        return Phase.THROTTLED if self.throttled else Phase.PENDING

    def progress(self, now: float) -> float:
        """0..1 while it runs."""
        span = self.end_at - self.run_at
        return min(max((now - self.run_at) / span, 0.0), 1.0) if span > 0 else 1.0

    def plan(self, start_at: float) -> None:
        """Lay out its time when it may start at `start_at`; later than it would like to means throttled."""
        ready_at = self.created_at + self.pending_s
        wanted_at = self.created_at + (self.faults.throttled or 0.0)
        self.throttled = max(start_at, wanted_at) > ready_at
        self.run_at = max(start_at, wanted_at, ready_at)
        self.end_at = self.run_at + self.running_s

    def cost(self, now: float) -> float:
        """The final charge, or the most it can be while it lives."""
        phase = self.phase(now)
        if phase is Phase.CANCELLED:
            return self.cancel_cost
        if phase is Phase.FAILED:
            return self.dialect.cost_of_failure(self)
        return self.expected_cost
