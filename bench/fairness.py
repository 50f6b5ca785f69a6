"""`python -m bench.fairness`: how long twenty users with one job each wait for a slot beside one user with 5,000.

Few slots, real processes, the simulator as provider. First the twenty alone, on an empty system with the same slots;
then again behind the long line. Waits are from the timeline: from the task's creation to its admission. The second
p95 may be longer by one render, since the slots are all taken when the twenty come.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

from bench import runs
from bench.runs import say
from bench.system import BenchError, Reelworks, home, reelworks, until
from bench.tables import table, verdict
from bench.watch import quantile

MODEL = "gen4.5"


@dataclass
class Waits:
    """Seconds from creation to a slot, of each task; and for how long a job held its slot."""

    seconds: list[float]
    held_s: list[float]

    def at(self, share: float) -> float:
        """The wait that this share of them did not exceed."""
        return quantile(self.seconds, share)


def make_users(number: int, credit: int) -> list[int]:
    """Their ids; each with so many credits."""
    from django.contrib.auth import get_user_model

    from video.credits import ledger

    found = []
    for _ in range(number):
        user = get_user_model().objects.create_user(f"bench-{time.monotonic_ns()}", password=None)
        ledger.grant(user.pk, credit, note="bench")
        found.append(user.pk)
    return found


def create(user_id: int, number: int) -> list[str]:
    """So many tasks of one user, by the product's own way."""
    from video.actions import create as creation
    from video.models.order import Order

    order = Order(prompt="a bench", duration_s=5, aspect_ratio="16:9", model_requested=MODEL, fallback=False)
    return [creation.create(user_id, order)[0].pk for _ in range(number)]


def set_slots(number: int) -> None:
    """So many slots on the only account of the model."""
    from video.attempts import configured_keys
    from video.models import ProviderAccount

    configured_keys.sync()
    ProviderAccount.objects.filter(model=MODEL).update(slots_override=number)


def round_of(product: Reelworks, users: list[int], *, seconds: float) -> Waits:
    """Each of these users asks for one job at the same time; returns when all have ended."""
    from video.models import Generation, TaskEvent, VideoTask

    ids = [create(user_id, 1)[0] for user_id in users]

    def ended() -> bool:
        product.check()
        return not VideoTask.objects.filter(pk__in=ids, finished_at__isnull=True).exists()

    until(f"{len(ids)} jobs end", ended, seconds=seconds, every_s=0.5)
    if VideoTask.objects.filter(pk__in=ids).exclude(status="success").exists():
        raise BenchError("a job of the few failed")
    at: dict[str, dict[str, Any]] = {}
    for task_id, outcome, moment in TaskEvent.objects.filter(
        task_id__in=ids, outcome__in=["created", "admitted"]
    ).values_list("task_id", "outcome", "finished_at"):
        at.setdefault(task_id, {})[outcome] = moment
    held = Generation.objects.filter(task_id__in=ids).values_list("planned_at", "ended_at")
    return Waits(
        [(one["admitted"] - one["created"]).total_seconds() for one in at.values()],
        [(end - begin).total_seconds() for begin, end in held],
    )


def cost(product: Reelworks, flags: argparse.Namespace) -> dict[str, Waits]:
    """Both rounds."""
    from django.db import connection

    from video.models import VideoTask

    set_slots(flags.slots)
    few = make_users(flags.users, 1000)
    (long,) = make_users(1, 10 * flags.line + 1000)
    limit_s = 60 + 10 * flags.render_seconds * (flags.users / flags.slots + 2)
    say(f"{flags.users} users with one job each, alone")
    alone = round_of(product, few, seconds=limit_s)
    say(f"one user makes {flags.line} jobs")
    ids = create(long, flags.line)
    until("the long line moves", lambda: VideoTask.objects.filter(pk__in=ids[:50], started_at__isnull=False).exists())
    say(f"{flags.users} users with one job each, beside them")
    beside = round_of(product, few, seconds=limit_s)
    say(f"{VideoTask.objects.filter(user_id=long, admit_at__isnull=False).count()} of the long line still wait")
    connection.close()
    return {"alone": alone, "beside": beside}


def most(found: dict[str, Waits]) -> float:
    """What the p95 beside the long line may be: that of the empty system and one render, slot taken to slot free."""
    return found["alone"].at(0.95) + statistics.median(found["alone"].held_s)


def show(found: dict[str, Waits], flags: argparse.Namespace) -> str:
    """The table."""
    rows: list[list[object]] = [
        [name, *(f"{waits.at(share):.1f}" for share in (0.5, 0.95, 1.0)), f"{statistics.median(waits.held_s):.1f}"]
        for name, waits in (
            ("alone", found["alone"]),
            (f"beside one with {flags.line}", found["beside"]),
        )
    ]
    return (
        table(
            f"Wait for a slot of {flags.users} users with one job each, {flags.slots} slots, render "
            f"{flags.render_seconds:g} s",
            ["", "p50 s", "p95 s", "longest s", "a job holds its slot s"],
            rows,
        )
        + f"\n\np95 beside the line {found['beside'].at(0.95):.1f} s, target "
        + f"{verdict(found['beside'].at(0.95), at_most=round(most(found), 1))}."
    )


def main() -> int:
    """Run and print; 1 when the target is missed or the run could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--line", type=int, default=5000, help="jobs of the one")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--render-seconds", type=float, default=5.0)
    flags = parser.parse_args()
    with home() as place, reelworks(place) as product:
        say("starting the system")
        product.start_simulator(fps=30, render_s=flags.render_seconds)
        product.start_own("worker", "media", "sweeper")
        found = cost(product, flags)
    print(f"{show(found, flags)}\n\n{runs.machine()}")
    return 0 if found["beside"].at(0.95) <= most(found) else 1


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
