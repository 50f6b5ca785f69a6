"""Keys and their limits. Each key is an account of its own, whatever the protocol; each (account, model) is a lane."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from dataclasses import dataclass, field

from providers.simulator.jobs import Job

_order = itertools.count()


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
        start_at = now
        if self.limit is not None:
            if len(self._free_at) < self.limit:
                self._free_at.extend([now] * (self.limit - len(self._free_at)))
                heapq.heapify(self._free_at)
            start_at = max(now, self._free_at[0]) if self._free_at else float("inf")
        job.plan(start_at)
        if self._free_at:
            heapq.heapreplace(self._free_at, job.end_at)
        self.created += 1
        self.live += 1
        self.max_live = max(self.max_live, self.live)
        self._count(job)

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

    def lane(self, model: str, limit: int | None) -> Lane:
        found = self.lanes.get(model)
        if found is None:
            found = self.lanes[model] = Lane(self, limit)
        return found

    def settle(self, now: float) -> None:
        for lane in self.lanes.values():
            lane.settle(now)
