"""What a provider's protocol adds to the common machinery: its paths, its words, its prices, its refusals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from providers.simulator.jobs import Job
from providers.simulator.wire import Answer, Reply, Request

if TYPE_CHECKING:
    from providers.simulator.app import Simulator


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that gets no. `kind` lets a dialect find its own words and codes; `message` is for "directive" only."""

    status: int
    kind: str  # "status" (by script), "credits", "moderation", "daily_limit", "busy", "directive"
    message: str = ""
    retry_after: str | None = None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("retry-after", self.retry_after),) if self.retry_after is not None else ()


@dataclass(slots=True)
class Draft:
    """A valid submit, in common words."""

    model: str
    prompt: str
    content: str  # canonical text of the body without the client's reference: what must not be made twice
    width_px: int
    height_px: int
    duration_s: int
    audio: bool
    cost: float
    reference: str = ""
    callback_url: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Dialect(ABC):
    """One protocol. Instances hold no state of jobs: that is the simulator's."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]  # the longest match among all dialects gets the request
    queues_over_limit: ClassVar[bool] = True  # False: over the limit is refused ("busy") instead of held back

    def __init__(self, simulator: Simulator) -> None:
        self.sim = simulator

    @abstractmethod
    def handle(self, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        """Answer a request whose path is one of ours."""

    @abstractmethod
    def accept(self, job: Job, request: Request) -> Reply:
        """The answer to a submit that made this job."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> Reply:
        """The answer to a call that gets no."""

    @abstractmethod
    def cost_of_failure(self, job: Job) -> float:
        """What a failed job costs in the end: 0 where the provider refunds this failure."""

    def cost_of_cancel(self, job: Job, now: float) -> float:
        """What a job costs that is cancelled now."""
        return 0.0
