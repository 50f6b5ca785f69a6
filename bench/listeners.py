"""Event streams: how soon a change is told to 2,000 listeners of one process, and what they cost the API.

`python -m bench.listeners`. Beside: the rate of a status without any listener, in turns. The exit code says whether the
targets were met: change to event p95 under 500 ms, the rate not under 0.9 of that without listeners.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

from bench import runs
from bench.client import Load
from bench.pipeline import Client
from bench.runs import say
from bench.system import BenchError, Home, Reelworks, home, reelworks
from bench.tables import table
from bench.watch import own_bytes
from bench.web import run_load
from video.audit.actors import Unaudited

TOLD_WITHIN_S = 0.5
LEAST_RATE = 0.9
TASKS = 100


class Listeners:
    """Streams of one user, each of one task, held by this process."""

    def __init__(self, place: Home, task_ids: list[str], number: int) -> None:
        self._place, self._task_ids, self._number = place, task_ids, number
        self.told_at: dict[int, float] = {}  # by listener: when the last event came
        self._writers: list[asyncio.StreamWriter] = []
        self._readers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """All at once, a hundred at a time."""
        for start in range(0, self._number, 100):
            await asyncio.gather(*(self._open(each) for each in range(start, min(start + 100, self._number))))

    async def _open(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._place.port)
        path = f"/api/video/events?taskId={self._task_ids[number % len(self._task_ids)]}"
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._place.token}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"data: ")
        self._writers.append(writer)
        self._readers.append(asyncio.create_task(self._read(number, reader)))

    async def _read(self, number: int, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line.startswith(b"data: "):
                self.told_at[number] = time.perf_counter()

    async def close(self) -> None:
        """End all."""
        for reader in self._readers:
            reader.cancel()
        for writer in self._writers:
            writer.close()


async def told(place: Home, listening: Listeners, task_ids: list[str]) -> list[float]:
    """Seconds from the commit of a cancel to its event, of every listener."""
    from video.actions import cancel

    took: list[float] = []
    for task_id in task_ids:
        listening.told_at.clear()
        mine = [number for number in range(listening._number) if task_ids[number % len(task_ids)] == task_id]
        await asyncio.to_thread(partial(cancel.cancel, task_id, by=Unaudited("bench")))
        begun = time.perf_counter()
        while not all(number in listening.told_at for number in mine):
            if time.perf_counter() - begun > 10:
                raise BenchError(f"{task_id}: not all of its listeners were told within 10 s")
            await asyncio.sleep(0.01)
        took += [listening.told_at[number] - begun for number in mine]
    return took


def measure(place: Home, product: Reelworks, *, listeners: int, requests: int, rounds: int) -> dict[str, Any]:
    """Only the web server runs, so nothing changes but by us."""
    product.start_own("web")
    client = Client(product)
    task_ids = [client.create(f"listened to {number}") for number in range(TASKS)]
    load = Load(place.port, f"/api/video/status?taskId={client.create('asked for')}", requests, place.token)
    run_load(replace(load, requests=200))

    async def all_of_it() -> dict[str, Any]:
        rates: dict[str, list[float]] = {"without": [], "with": []}
        empty = own_bytes(product.roots("web")["web"])
        listening = Listeners(place, task_ids, listeners)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: without, then with {listeners} listeners")
            rates["without"].append((await asyncio.to_thread(run_load, load))["per_s"])
            listening = Listeners(place, task_ids, listeners)
            await listening.open()
            rates["with"].append((await asyncio.to_thread(run_load, load))["per_s"])
            if number + 1 < rounds:
                await listening.close()
        full = own_bytes(product.roots("web")["web"])
        say("a change of each task")
        took = sorted(await told(place, listening, task_ids))
        await listening.close()
        return {"rates": rates, "took": took, "bytes_each": (full - empty) / listeners}

    return asyncio.run(all_of_it())


def main() -> int:
    """Run, print, keep the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.listeners", description=__doc__)
    parser.add_argument("--listeners", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with home() as place, reelworks(place) as product:
        found = measure(place, product, **vars(flags))
    p50, p95 = (found["took"][int(len(found["took"]) * share)] for share in (0.5, 0.95))
    pairs = zip(found["rates"]["with"], found["rates"]["without"], strict=True)
    rate = statistics.median(with_them / without for with_them, without in pairs)
    rows: list[list[object]] = [
        ["change to event, p50 and p95", f"{p50 * 1000:.0f} ms, {p95 * 1000:.0f} ms"],
        ["status a second, with over without", f"{rate:.2f}"],
        ["memory a listener", f"{found['bytes_each'] / 1024:.0f} KiB"],
    ]
    print(table(f"{flags.listeners} listeners of one web process", ["", ""], rows))
    print(f"\n{runs.machine()}; {runs.keep(found, 'listeners-')}")
    return 0 if p95 < TOLD_WITHIN_S and rate >= LEAST_RATE else 1


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
