"""Requests a second of the API, beside a bare view on the same server with the same settings."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

from bench import client, cpu
from bench.client import Load
from bench.pipeline import Client
from bench.runs import say
from bench.system import ROOT, BenchError, Reelworks, free_port
from bench.tables import ms, table, verdict


def cost(product: Reelworks, *, requests: int, creates: int, rounds: int, done_task: str) -> dict[str, Any]:
    """Each kind in turn, so that noise hits all. Only the web server runs: nothing works on what is created."""
    bare_port = free_port()
    product.start_own("web")
    line = product.lines["web"].replace("config.front:application", "bench.bare:application")
    product.start("bare", line, {"PORT": str(bare_port)})
    product.wait_http("bare", f"http://127.0.0.1:{bare_port}/healthz")
    waiting = Client(product).create("a bench")
    get = Load(product.home.port, f"/api/video/status?taskId={waiting}", requests, product.home.token)
    body = json.dumps({"prompt": "A cat walking in a garden", "duration": 5, "aspectRatio": "16:9"})
    loads = {
        "bare view, one query": replace(get, port=bare_port, path=f"/one?taskId={waiting}"),
        "bare view, user looked up too": replace(get, port=bare_port, path=f"/two?taskId={waiting}"),
        "status, in progress": get,
        "status, done (two signed links)": replace(get, path=f"/api/video/status?taskId={done_task}"),
        "create": replace(get, path="/api/video/create", requests=creates, body=body, expect=201),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
    for load in loads.values():
        run_load(replace(load, requests=100))
    for number in range(rounds):
        say(f"requests: round {number + 1} of {rounds}")
        for name, load in loads.items():
            server = "bare" if load.port == bare_port else "web"
            roots = {"web": product.roots(server)[server], **product.home.servers}
            before = cpu.spent(roots)
            result = run_load(load)
            spent = cpu.difference(cpu.spent(roots), before)
            found[name].append({**result, **{f"{part}_s": s / load.requests for part, s in spent.items()}})
            product.check()
    product.stop("web", "bare")
    return {"rounds": found, "connections": get.connections}


def run_load(load: Load) -> dict[str, float]:
    """What the load client, in a process of its own, tells of this load. Raises BenchError."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.client", client.spec(load)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise BenchError(f"the load client failed: {ran.stderr.strip()[-800:]}")
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def show(result: dict[str, Any]) -> str:
    """The third table."""
    rounds = result["rounds"]

    def middle(name: str, key: str) -> float:
        return statistics.median(one[key] for one in rounds[name])

    base = "bare view, one query"

    def beside(name: str) -> float:
        pairs = zip(rounds[name], rounds[base], strict=True)
        return statistics.median(one["per_s"] / bare["per_s"] for one, bare in pairs)

    rows: list[list[object]] = [
        [
            name,
            f"{middle(name, 'per_s'):.0f}",
            f"{beside(name):.2f}",
            ms(middle(name, "web_s")),
            ms(middle(name, "PostgreSQL_s")),
            ms(middle(name, "Valkey_s")),
            f"{middle(base, 'web_s') / middle(name, 'web_s'):.2f}",
            ms(middle(name, "p95_s")),
        ]
        for name in rounds
    ]
    status = beside("status, in progress")
    return (
        table(
            f"Requests a second, one worker, {result['connections']} connections, median of {len(rounds[base])} rounds",
            ["", "per s", "ratio", "web CPU ms", "PG CPU ms", "Valkey CPU ms", "ratio by web CPU", "p95 ms"],
            rows,
        )
        + f"\n\nTarget for status beside the bare view with one query: {verdict(status, at_least=0.75)}."
        + "\nThe ratio by web CPU is the steadier one on a machine that does other things too."
    )
