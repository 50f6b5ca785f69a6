"""CPU time of process trees, also of children that have long ended.

A live process shows its own time in /proc/<pid>/stat (utime, stime) and that of all children it has waited for
(cutime, cstime, which hold their children's in turn). So the sum of all four over a tree of live processes counts
everything that ever ran in it, however short it lived: an ffmpeg of two seconds, a PostgreSQL backend that is gone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK_S = 1 / os.sysconf("SC_CLK_TCK")

#: CPU seconds by the name of a part of the system
Spent = dict[str, float]


@dataclass(frozen=True)
class Stat:
    """One line of /proc/<pid>/stat: process, parent, and ticks of its own and of its reaped children."""

    pid: int
    parent: int
    ticks: int


def parse_stat(line: str) -> Stat:
    """The line "pid (any name) state ppid …"; the name may hold spaces and brackets."""
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    return Stat(int(head.split("(", 1)[0]), int(fields[1]), sum(int(field) for field in fields[11:15]))


def all_processes() -> list[Stat]:
    """Every process of this machine that can be read."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                found.append(parse_stat((entry / "stat").read_text()))
    return found


def tree(processes: Iterable[Stat], roots: Iterable[int]) -> dict[int, Stat]:
    """These roots and everything below them, by process id."""
    by_pid = {process.pid: process for process in processes}
    children: dict[int, list[int]] = {}
    for process in by_pid.values():
        children.setdefault(process.parent, []).append(process.pid)
    pending, found = list(roots), dict[int, Stat]()
    while pending:
        pid = pending.pop()
        if pid in by_pid and pid not in found:
            found[pid] = by_pid[pid]
            pending += children.get(pid, [])
    return found


def tree_seconds(processes: Iterable[Stat], roots: Iterable[int]) -> float:
    """CPU seconds of these roots and everything below them."""
    return sum(process.ticks for process in tree(processes, roots).values()) * TICK_S


def spent(roots: Mapping[str, int]) -> Spent:
    """CPU seconds since its start of each named tree."""
    processes = all_processes()
    return {name: tree_seconds(processes, [pid]) for name, pid in roots.items()}


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> Spent:
    """What was spent between two readings."""
    return {name: after[name] - before.get(name, 0.0) for name in after}


def less_idle(busy: Mapping[str, float], busy_s: float, idle: Mapping[str, float], idle_s: float) -> Spent:
    """What the work cost: the busy span's CPU without what an idle span of the same length costs."""
    return {name: busy[name] - idle.get(name, 0.0) * busy_s / idle_s for name in busy}


def parent_of(pid: int) -> int:
    """The parent's process id."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text()).parent


@dataclass
class Span:
    """A measured stretch of time."""

    seconds: float
    cpu: Spent

    @property
    def total(self) -> float:
        """CPU seconds of all parts."""
        return sum(self.cpu.values())


def measure(roots: Mapping[str, int], work: Callable[[], Any]) -> Span:
    """Run `work`, and say what these trees spent meanwhile."""
    before, started = spent(roots), time.monotonic()
    work()
    return Span(time.monotonic() - started, difference(spent(roots), before))
