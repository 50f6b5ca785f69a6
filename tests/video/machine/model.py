"""The state machine and the ledger in plain Python, without a database: what must be true after each move.

Time has two values: now, and later (an hour or so). `Task.ready` says whether its clock has been reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ACTIVE = ("pending", "running")
LIVE = ("planned", "unknown", "accepted")
COST = 10
WAY = ("generate", "poll", "download", "transcode", "thumbnail", "save")
MOVES = {
    "generate": ("generate", "poll"),
    "poll": ("generate", "download"),
    "download": ("poll", "transcode"),
    "transcode": ("download", "thumbnail"),
    "thumbnail": ("transcode", "save"),
    "save": ("transcode",),
}
MOST_ATTEMPTS = 2  # of a run, in these tests
NOT_THE_TASKS_FAULT = ("busy", "key_refused", "out_of_credits", "model_forbidden")


@dataclass
class Attempt:
    """A generation."""

    number: int
    run: int
    state: str = "planned"
    job: str = ""
    resent: bool = False
    lookups: int = 0
    cancel_wanted: bool = False
    watched: bool = False  # reconcile looks at it
    code: str = ""

    @property
    def live(self) -> bool:
        return self.state in LIVE


@dataclass
class Task:
    """A task, its clocks told as yes or no."""

    user: int
    run: int = 1
    status: str = "pending"
    stage: str = "generate"
    in_line: bool = True
    ready: bool = True
    held: bool = False
    lease_over: bool = False
    rung: bool = False
    fence: int = 0
    tries: int = 0
    deaths: int = 0
    code: str = ""
    deleted: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def live(self) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.live), None)

    @property
    def free(self) -> bool:
        """Nobody holds it, or whoever did let the lease run out."""
        return not self.held or self.lease_over

    def end(self, status: str, code: str = "") -> None:
        """A final status: no clock, no lease."""
        self.status, self.code = status, code
        self.in_line = self.ready = self.held = self.lease_over = self.rung = False


@dataclass
class World:
    """Everything that the database should hold."""

    tasks: dict[int, Task] = field(default_factory=dict)
    balances: dict[int, int] = field(default_factory=dict)
    entries: set[tuple[int, int, str]] = field(default_factory=set)  # task, run, kind
    granted: dict[int, int] = field(default_factory=dict)

    def debit(self, label: int, run: int) -> None:
        self.entries.add((label, run, "debit"))
        self.balances[self.tasks[label].user] -= COST

    def refund(self, label: int) -> None:
        """The present run's debit, once."""
        run = self.tasks[label].run
        if (label, run, "refund") not in self.entries and (label, run, "debit") in self.entries:
            self.entries.add((label, run, "refund"))
            self.balances[self.tasks[label].user] += COST


@dataclass
class Beliefs:
    """What no row says, and what decides how a later write goes."""

    keys: dict[tuple[int, str], int] = field(default_factory=dict)  # (user, idempotency key): task
    hinted: set[int] = field(default_factory=set)  # tasks with a hint newer than their claim
    over: set[tuple[int, int]] = field(default_factory=set)  # submits whose call is known to be over
    old: set[tuple[int, int]] = field(default_factory=set)  # (task, attempt) sent longer ago than any render takes


@dataclass
class Model:
    """World and beliefs together: copied to try another order."""

    world: World = field(default_factory=World)
    beliefs: Beliefs = field(default_factory=Beliefs)

    def task(self, label: int) -> Task:
        return self.world.tasks[label]
