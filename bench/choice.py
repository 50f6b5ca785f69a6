"""What a choice costs: ranking all models of the catalogue for one request, beside only asking each whether it can.

Pure Python on one core, no database. `python -m bench.choice` runs it alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.tables import ms, table, verdict
from providers import catalogue, ranking
from providers.contract import GenerationRequest
from providers.models import can
from providers.ranking import ModelHealth, Policy

MOST_S = 0.001
LOOPS = 200  # of one sample; the median sample counts, so that a busy neighbour does not


def cost(*, rounds: int = 25) -> dict[str, float]:
    """Seconds for one request: `rank_s` over all policies, `can_s` for the floor, `rows_s` for the row's JSON."""
    request = GenerationRequest(model="", prompt="A cat walking in a garden", duration_s=5, aspect_ratio="16:9")
    health = {
        model.id: ModelHealth(
            success_rate=0.96, render_p50_s=60.0 + place, samples=50, circuit_open=False, recent_faults=0
        )
        for place, model in enumerate(catalogue.MODELS)
    }
    available = dict.fromkeys(catalogue.BY_ID, None)

    def ranked(policy: Policy) -> list[ranking.Candidate]:
        return ranking.rank(
            request, policy=policy, models=catalogue.MODELS, overrides={}, health=health, available=available
        )

    candidates = ranked(Policy.BALANCED)
    by_policy = [_seconds(lambda policy=policy: ranked(policy), rounds) for policy in Policy]  # type: ignore[misc]
    return {
        "models": len(catalogue.MODELS),
        "usable": sum(candidate.usable for candidate in candidates),
        "rank_s": max(by_policy),
        "can_s": _seconds(lambda: [can(model, request) for model in catalogue.MODELS], rounds),
        "rows_s": _seconds(lambda: [candidate.as_json() for candidate in candidates], rounds),
    }


def show(found: dict[str, float]) -> str:
    """The table."""
    ratio = found["rank_s"] / found["can_s"]
    return table(
        f"Choosing among {found['models']:.0f} models, {found['usable']:.0f} of them usable",
        ["for one request", "ms", "over the floor", "target"],
        [
            ["asking each whether it can (the floor)", ms(found["can_s"]), "1.0", ""],
            ["ranking all, with reasons (the slowest policy)", ms(found["rank_s"]), f"{ratio:.1f}", _verdict(found)],
            ["the candidates as JSON for the row", ms(found["rows_s"]), f"{found['rows_s'] / found['can_s']:.1f}", ""],
        ],
    )


def _verdict(found: dict[str, float]) -> str:
    return verdict(found["rank_s"] * 1000, at_most=MOST_S * 1000)


def _seconds(call: Callable[[], Any], rounds: int) -> float:
    """Of one call, in the median of the rounds."""
    call()
    samples = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(LOOPS):
            call()
        samples.append((time.perf_counter() - started) / LOOPS)
    return statistics.median(samples)


if __name__ == "__main__":
    print(show(cost()))
