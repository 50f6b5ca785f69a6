"""`python -m bench.peers`: status and create a second, beside LiteLLM's proxy for videos, one worker each.

Its status is asked of its provider, which answers at once; ours is read from the database. Its create is passed on;
ours is committed, paid for, and a worker is called.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from typing import Any

import requests

from bench import cpu, runs
from bench.client import Load
from bench.peers import litellm
from bench.pipeline import Client
from bench.runs import say
from bench.system import Reelworks, home, reelworks, until
from bench.tables import ms, table, verdict
from bench.web import run_load

AT_LEAST = {"status": 10.0, "create": 3.0}
OURS, PEER = "Reelworks", "LiteLLM"
#: So many times LiteLLM's, so that a round of both takes about as long.
MORE_STATUSES = 6


def rendering(product: Reelworks) -> str:
    """A task whose video renders at the simulator, for longer than any run."""
    task = Client(product).create("a bench")
    url = f"{product.url}/api/video/status?taskId={task}"
    headers = {"Authorization": f"Bearer {product.home.token}"}
    until("the task renders", lambda: requests.get(url, headers=headers, timeout=10).json()["data"]["stage"] == "poll")
    return task


def loads(product: Reelworks, port: int, task: str, flags: argparse.Namespace) -> dict[tuple[str, str], Load]:
    """What is asked, by call and side."""
    order = json.dumps({"prompt": litellm.ORDER["prompt"], "duration": 5, "aspectRatio": "16:9"})
    ours = Load(product.home.port, f"/api/video/status?taskId={task}", flags.requests, product.home.token)
    peer = replace(ours, port=port, path=f"/v1/videos/{litellm.video(port)}", token=litellm.MASTER_KEY)
    body = json.dumps(litellm.ORDER)
    return {
        ("status", PEER): peer,
        ("status", OURS): replace(ours, requests=MORE_STATUSES * flags.requests),
        ("create", PEER): replace(peer, path="/v1/videos", requests=flags.creates, body=body),
        ("create", OURS): replace(ours, path="/api/video/create", requests=flags.creates, body=order, expect=201),
    }


def measure(product: Reelworks, flags: argparse.Namespace) -> dict[str, list[dict[str, dict[str, float]]]]:
    """By call, for each round: the figures of both sides, measured in turn."""
    program = litellm.installed()
    say("starting both")
    product.start_simulator(fps=30, render_s=3600)
    product.start_own()
    task = rendering(product)
    product.stop("worker", "media", "sweeper", "simulator")  # LiteLLM has none either
    asked = loads(product, litellm.start(product, program), task, flags)
    for load in asked.values():
        run_load(replace(load, requests=50))
    found: dict[str, list[dict[str, dict[str, float]]]] = {call: [{} for _ in range(flags.rounds)] for call in AT_LEAST}
    for number in range(flags.rounds):
        say(f"round {number + 1} of {flags.rounds}")
        for (call, side), load in asked.items():
            parts = {**product.roots("web"), **product.home.servers} if side == OURS else product.roots("litellm")
            before = cpu.spent(parts)
            result = run_load(load)
            spent = sum(cpu.difference(cpu.spent(parts), before).values())
            found[call][number][side] = {**result, "cpu_s": spent / load.requests}
            product.check()
    return found


def ratios(rounds: list[dict[str, dict[str, float]]]) -> list[float]:
    """Our rate over LiteLLM's in each round."""
    return [one[OURS]["per_s"] / one[PEER]["per_s"] for one in rounds]


def are_met(found: dict[str, list[dict[str, dict[str, float]]]]) -> bool:
    """Whether each target holds in every round."""
    return all(min(ratios(found[call])) >= least for call, least in AT_LEAST.items())


def show(found: dict[str, list[dict[str, dict[str, float]]]]) -> str:
    """The table, and each target beside the worst round."""
    rows: list[list[object]] = []
    for call, rounds in found.items():
        for side in (PEER, OURS):
            middle = {key: statistics.median(one[side][key] for one in rounds) for key in ("per_s", "cpu_s", "p95_s")}
            rows.append([f"{call}, {side}", f"{middle['per_s']:.0f}", ms(middle["cpu_s"]), ms(middle["p95_s"])])
    lines = [
        f"{call}: {' '.join(f'{ratio:.2f}' for ratio in ratios(found[call]))} times LiteLLM's rate; "
        f"the least: {verdict(min(ratios(found[call])), at_least=least)}"
        for call, least in AT_LEAST.items()
    ]
    title = f"Requests a second, one worker each, median of {len(found['status'])} rounds"
    return table(title, ["", "per s", "CPU ms", "p95 ms"], rows) + "\n\n" + "\n".join(lines)


def main() -> int:
    """Run and print; 1 when a target is missed in any round or the run could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="statuses of LiteLLM in each round; ours: six times")
    parser.add_argument("--creates", type=int, default=250, help="creates of each in each round")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    with home() as place, reelworks(place) as product:
        found: dict[str, Any] = measure(product, flags)
    print(f"{show(found)}\n\n{runs.machine()}; {runs.keep(found, 'peers-')}")
    return 0 if are_met(found) else 1


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
