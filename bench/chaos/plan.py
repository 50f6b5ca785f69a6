"""What a run will do, from its seed alone: the jobs with their scripted misbehaviour, and when what is killed.

A fault's place is a number of accepted jobs, not a time, so that a slow machine gets the same run, only later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# --- jobs ----------------------------------------------------------------------------------------------------------

PIKA_WINDOW_S = 10.0  # after which a submit of unknown outcome is given up as lost, and its task refunded
UNKNOWN = "outcome_unknown"  # may be the end of any submit whose worker died with the answer on its way


@dataclass(frozen=True)
class Script:
    """A misbehaviour of the provider, how often it comes, and how a job with it may end."""

    directives: str
    weight: int
    may_fail: frozenset[str] = frozenset()
    may_succeed: bool = True

    @property
    def settles_after_s(self) -> float:
        """How long after its create an end may still turn: a late call-back brings a job that was given up."""
        late = re.search(r"callback=late:(\d+)", self.directives)
        return int(late[1]) + 60.0 if late else 0.0  # and the poll that follows, and what that finds


def _script(directives: str, weight: int, *codes: str, may_succeed: bool = True) -> Script:
    return Script(directives, weight, frozenset(codes), may_succeed)


BAD_FILE = ("not_a_video", "transcode_failed")
SCRIPTS = (
    _script("", 110),
    # the submit, before a job exists
    _script("status=429x1 retry_after=1", 8),
    _script("status=503x1", 4, UNKNOWN),
    _script("reset=1", 4, UNKNOWN),
    _script("moderation", 2, "moderation", may_succeed=False),
    # the submit, after the job was made
    _script("lost_reply=1", 5, UNKNOWN),
    _script("lost_reply_reset=1", 4, UNKNOWN),
    _script("status_after=500x1", 4, UNKNOWN),
    _script("garbage=1", 4, UNKNOWN),
    _script("hang=3", 4, UNKNOWN),
    _script("hang=8", 3, UNKNOWN),
    # the job
    _script("fail=INTERNAL first=1", 8, "generation_failed"),
    _script("fail=INTERNAL", 2, "generation_failed", may_succeed=False),
    _script("fail=SAFETY.OUTPUT.VIDEO", 2, "moderation", "generation_failed"),
    _script("throttled=3", 4),
    _script("render=12", 4),
    # polls of it
    _script("poll_status=503x2", 5),
    _script("poll_status=429x1 retry_after=1", 4),
    _script("poll_reset=2", 4),
    _script("poll_garbage=1", 4),
    _script("unknown_status=3", 4),
    _script("not_found=1", 3),
    _script("poll_hang=2", 4),
    # call-backs
    _script("callback=duplicate:3,forged", 3),
    _script("lost_reply=1 callback=never", 2, UNKNOWN),
    _script("lost_reply=1 callback=late:15", 2, UNKNOWN),
    _script("lost_reply=1 callback=late:15 file=corrupt", 2, UNKNOWN, *BAD_FILE, may_succeed=False),
    # the file
    _script("link_expired=1", 4),
    _script("file_status=503x2", 4),
    _script("file=truncatedx1", 4),
    _script("file=dripx1", 2),
    _script("file=corrupt", 2, *BAD_FILE, may_succeed=False),
    _script("file=emptyx2", 1),
    _script("file=htmlx2", 1),
    _script("file=cut", 2),
)
# Named, so that every provider gets its part; the choice by itself would take the same few models again and again.
MODELS: tuple[str | None, ...] = (
    *("gen4.5", "gen4.5", "pika-2.2", "pika-2.1", "pika-turbo"),
    *("kling-2.6", "kling-2.5-turbo", "kling-3.0", "kling-3.0-turbo"),
    *(None, None, None),
)
POLICIES = ("balanced", "cost", "quality", "speed")


@dataclass(frozen=True)
class Job:
    """One create, and what its client does beside waiting."""

    number: int
    script: Script
    body: dict[str, Any]
    user: int
    twice: bool  # its create is sent by two connections at once, with the same key
    cancel_after_s: float | None = None  # its user changes their mind
    retries: bool = False  # its user tries it once more should it fail

    @property
    def mark(self) -> str:
        """What tells its submits and jobs from all others at the simulator."""
        return mark(self.number)


def mark(number: int) -> str:
    """The part of the prompt that belongs to one job alone."""
    return f"chaos {number:06d}."


def make_jobs(
    count: int,
    rng: random.Random,
    *,
    users: int,
    scripts: Sequence[Script] = SCRIPTS,
    model: str | None = None,
    steering: bool = True,
) -> list[Job]:
    """`count` jobs; the same for the same state of `rng`. `model`: for all of them; `steering`: cancels and retries."""
    weights = [script.weight for script in scripts]
    jobs = []
    for number in range(count):
        script = rng.choices(scripts, weights)[0]
        directives = f" [[sim {script.directives}]]" if script.directives else ""
        body: dict[str, Any] = {"prompt": f"{mark(number)} A cat{directives}", "duration": 5, "aspectRatio": "16:9"}
        chosen = rng.choice(MODELS) if model is None else model
        if chosen is None:
            body["policy"] = rng.choice(POLICIES)
        else:
            body["model"] = chosen
            body["fallback"] = rng.random() < 0.7
        user, twice = rng.randrange(users), rng.random() < 0.05
        cancel_after_s = rng.uniform(0, 12) if rng.random() < 0.06 and steering else None
        retries = rng.random() < 0.3 and steering
        jobs.append(Job(number, script, body, user, twice, cancel_after_s, retries))
    return jobs


# --- faults --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Done once so many jobs were accepted."""

    after_jobs: int
    kind: str
    target: str = ""
    seconds: float = 0.0  # how long it lasts, where it lasts
    number: int = field(default=0, compare=False)


WORKERS, MEDIA, SWEEPERS = ("worker1", "worker2"), ("media1", "media2"), ("sweeper1", "sweeper2")
RESTART_S = 18.0  # for one rolling restart in the middle of the load; they come one after the other
# It stops these together, and waits until they are back before it goes on.
RESTART_GROUPS = (("web",), ("worker1", "media1", "sweeper1"), ("worker2", "media2", "sweeper2"))
# kind → (its share, whom it may hit, shortest and longest)
KINDS: dict[str, tuple[int, tuple[str, ...], tuple[float, float]]] = {
    "kill worker": (5, WORKERS, (0, 0)),
    "kill media": (3, MEDIA, (0, 0)),
    "kill sweeper": (2, SWEEPERS, (0, 0)),
    "kill web": (2, ("web",), (0, 0)),
    "empty broker": (2, (), (0, 0)),
    "kill broker": (2, (), (0.2, 5)),
    "kill database": (1, (), (0.2, 4)),
    "restart database": (1, (), (0.2, 4)),
    "cut connections": (1, (), (0, 0)),
    "freeze worker": (2, WORKERS, (2, 6)),  # beyond its lease
    "freeze media": (1, MEDIA, (2, 6)),
    "fill disk": (1, (), (2, 6)),
    "echo": (2, (), (0, 0)),
}


def make_faults(
    jobs: int, count: int, rng: random.Random, *, lease_s: float, kinds: Sequence[str] = tuple(KINDS)
) -> list[Fault]:
    """`count` faults spread over the run, each kind at least once if there are enough; the same for the same `rng`."""
    drawn = rng.sample(list(kinds), len(kinds))[:count]
    drawn += rng.choices(list(kinds), [KINDS[kind][0] for kind in kinds], k=count - len(drawn))
    rng.shuffle(drawn)
    first, last = 0.08 * jobs, 0.9 * jobs
    faults = []
    for number, kind in enumerate(drawn):
        _, targets, (shortest, longest) = KINDS[kind]
        seconds = rng.uniform(shortest, longest) + (lease_s if kind.startswith("freeze") else 0)
        place = first + (last - first) * (number + rng.random()) / count
        faults.append(Fault(round(place), kind, rng.choice(targets) if targets else "", round(seconds, 1), number))
    return faults


def make_restarts(jobs: int, count: int) -> list[Fault]:
    """Rolling restarts, spread over the run."""
    return [Fault(round(jobs * (0.05 + 0.9 * n / count)), "rolling restart", number=n) for n in range(count)]


def default_faults(jobs: int) -> int:
    """One for about 16 jobs, and each kind at least once."""
    return max(len(KINDS), jobs // 16)
