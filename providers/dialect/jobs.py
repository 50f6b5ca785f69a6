"""A job, the account and the lane that it counts against, and how the clock alone decides its state.

Nothing runs for a job while it waits or renders: `phase(now)` compares the time with `run_at` and `end_at`. A
dialect that calls back (fal, Kling) needs moments instead of polls: the simulator keeps one heap of the `run_at` and
`end_at` of jobs that have a `callback_url`, and one timer for its head.

Each key is an account of its own, whatever the protocol; each (account, model) is a lane.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from providers.dialect.faults import NO_FAULTS, Faults

_STYLE = 1  # part of a clip's cache key: raise it when the picture changes

_order = itertools.count()


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """Everything that a clip's bytes depend on."""

    width_px: int
    height_px: int
    duration_s: int
    fps: int
    audio: bool
    text: str
    footer: str

    @property
    def key(self) -> str:
        fields = (_STYLE, self.width_px, self.height_px, self.duration_s, self.fps, self.audio, self.text, self.footer)
        return hashlib.sha256(repr(fields).encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def seed(self) -> int:
        return int(self.key[:8], 16)


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


@dataclass(frozen=True, slots=True)
class Call:
    """One call-back of a dialect. `sign` gives the headers of one try: a signature has a time in it."""

    event: str
    body: bytes
    sign: Callable[[bytes], Mapping[str, str]]


class Rules(Protocol):
    """What a job asks of the dialect that made it."""

    @property
    def name(self) -> str: ...
    @property
    def calls_back_at(self) -> frozenset[Phase]: ...
    def cost_of_failure(self, job: Job) -> float: ...
    def call_back(self, job: Job, phase: Phase) -> Call: ...
    def forge(self, job: Job) -> Call: ...


@dataclass(slots=True, eq=False)
class Job:
    """One generation at one provider. Times are seconds since the epoch on the simulator's clock."""

    id: str
    dialect: Rules
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
    watcher: Callable[[Job], None] | None = None  # called with each new plan; only with a call-back

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
    results: int = 0  # how often the result was asked for, where that is a call of its own
    downloads: int = 0
    downloaded_at: float | None = None  # for the first time

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


def fingerprint(key: str) -> str:
    """How a key may be shown: the key itself is kept nowhere."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]


class Lane:
    """The jobs of one key and model: how many live, and when the next one may start.

    All jobs have known lengths, so the start of a queued one is known when it arrives; only a cancelled or forced
    job makes the lane plan again. Without a limit nothing is kept but the heap of ends.
    """

    def __init__(self, account: Account, limit: int | None) -> None:
        self.account = account
        self.limit = limit
        self.live = 0
        self.max_live = 0
        self.created = 0
        self._ends: list[tuple[float, int, Job]] = []
        self._free_at: list[float] = []  # heap: when each slot is free; only with a limit

    def add(self, job: Job, now: float) -> None:
        """Give a new job its times."""
        self.settle(now)
        if self.limit is not None and len(self._free_at) < self.limit:
            self._free_at.extend([now] * (self.limit - len(self._free_at)))
            heapq.heapify(self._free_at)
        self.created += 1
        self.live += 1
        self.max_live = max(self.max_live, self.live)
        self._place(job, now)

    def moved(self, job: Job, now: float) -> None:
        """A job's end was changed from outside."""
        if job.counted_end is not None:
            self._count(job)
        self.replan(now)

    def set_limit(self, limit: int | None, now: float) -> None:
        self.limit = limit
        self.replan(now)

    def settle(self, now: float) -> int:
        """Forget the jobs that have ended, book what they really cost, and say how many live."""
        while self._ends and self._ends[0][0] <= now:
            end_at, _, job = heapq.heappop(self._ends)
            if job.counted_end == end_at:  # else the entry is a leftover of an older plan
                job.counted_end = None
                self.live -= 1
                self.account.spent += job.cost(now) - job.expected_cost
        return self.live

    def replan(self, now: float) -> None:
        """Lay the waiting jobs out again, first come first served."""
        self.settle(now)
        if self.limit is None and not self._free_at:
            return
        jobs = sorted(
            {id(j): j for _, _, j in self._ends if j.counted_end is not None}.values(), key=lambda j: j.created_at
        )
        running = [job for job in jobs if job.run_at <= now]
        waiting = [job for job in jobs if job.run_at > now]
        if self.limit is None:
            self._free_at = []
        else:
            ends = heapq.nlargest(self.limit, (job.end_at for job in running))
            self._free_at = ends + [now] * (self.limit - len(ends))
            heapq.heapify(self._free_at)
        for job in waiting:
            self._place(job, now)

    def _place(self, job: Job, now: float) -> None:
        """Plan a job on the slot that is free first."""
        start_at = now if self.limit is None else max(now, self._free_at[0]) if self._free_at else float("inf")
        job.plan(start_at)
        if self._free_at:
            heapq.heapreplace(self._free_at, job.end_at)
        self._count(job)

    def _count(self, job: Job) -> None:
        job.counted_end = job.end_at
        if job.watcher is not None:
            job.watcher(job)
        heapq.heappush(self._ends, (job.end_at, next(_order), job))


@dataclass(eq=False)
class Account:
    """What a provider knows of one key."""

    fingerprint: str
    disabled: bool = False
    credits: float | None = None  # its own balance at the start; None: everybody's
    spent: float = 0.0
    asked_at: float = float("-inf")  # when its costs were last asked for; Kling bounds that
    lanes: dict[str, Lane] = field(default_factory=dict)

    def settle(self, now: float) -> None:
        for lane in self.lanes.values():
            lane.settle(now)
