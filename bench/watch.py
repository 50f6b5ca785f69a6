"""What a running system costs and how it answers, sampled for minutes: memory by part, CPU, waits for a status."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench import cpu

MEMORY_EVERY_S = 5.0


def own_bytes(root: int) -> int:
    """Memory of a tree that no other process shares: what growing would mean. Shared buffers and code are left out."""
    total = 0
    for pid in cpu.tree(cpu.all_processes(), [root]):
        with contextlib.suppress(OSError):  # it ended while we looked
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Private_"):
                    total += int(line.split()[1]) * 1024
    return total


@dataclass
class Memory:
    """Samples of one part: (seconds, bytes)."""

    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def middle(self) -> float:
        return statistics.median(size for _, size in self.samples)

    def growth(self) -> float:
        """Bytes from begin to end, by the straight line through all samples but the first fifth (caches fill)."""
        late = self.samples[len(self.samples) // 5 :]
        if len(late) < 3:
            return 0.0
        times, sizes = [at for at, _ in late], [size for _, size in late]
        return statistics.linear_regression(times, sizes).slope * (self.samples[-1][0] - self.samples[0][0])


def is_flat(memory: Memory) -> bool:
    """Whether it grew by no more than a tenth, or 16 MB where it is small."""
    return memory.growth() <= max(0.1 * memory.middle, 16 * 1024**2)


async def sample_memory(roots: Mapping[str, int], found: dict[str, Memory]) -> None:
    """Sample each part until cancelled."""
    while True:
        for name, root in roots.items():
            size = await asyncio.to_thread(own_bytes, root)
            found.setdefault(name, Memory()).samples.append((time.monotonic(), size))
        await asyncio.sleep(MEMORY_EVERY_S)


async def probe_status(
    url: str, token: str, task_ids: Sequence[str], per_s: float, took: list[float], failed: list[str]
) -> None:
    """Ask for the status of random tasks at a steady rate, however long an answer takes, until cancelled."""
    chosen, asked = random.Random(1), set[asyncio.Task[None]]()
    headers = {"Authorization": f"Bearer {token}"}

    async def ask(session: aiohttp.ClientSession) -> None:
        started = time.perf_counter()
        try:
            async with session.get(
                f"{url}/api/video/status", params={"taskId": chosen.choice(task_ids)}, headers=headers
            ) as reply:
                await reply.read()
                if reply.status != 200:
                    failed.append(f"HTTP {reply.status}")
        except (aiohttp.ClientError, TimeoutError) as err:
            failed.append(type(err).__name__)
        took.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        try:
            while True:
                task = asyncio.create_task(ask(session))
                asked.add(task)
                task.add_done_callback(asked.discard)
                await asyncio.sleep(1 / per_s)
        finally:
            await asyncio.gather(*asked, return_exceptions=True)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all are at most; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
