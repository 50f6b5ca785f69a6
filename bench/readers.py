"""People who stop reading their video, and one who watches: how long the latter waits on our own server.

`python -m bench.readers`. Twelve are two galleries of six players; half of all take nothing after the first bytes, half
a kilobyte now and then. Beside: the same viewer alone. The exit code says whether the target was met: the viewer has a
whole video of 20 MB within 3 s, however many others do not read theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import runs
from bench.runs import say
from bench.system import BenchError, Home, Reelworks, home, reelworks
from bench.tables import ms, table
from bench.watch import own_bytes

SIZE = 20_000_000
KEY = "1/videos/vid_bench.mp4"
HAS_IT_WITHIN_S = 3.0


@dataclass(frozen=True)
class Watched:
    """Seconds of one viewer."""

    first_byte: float
    whole: float


async def _asked(port: int, link: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # The reader's own buffer is small, so that what is not read stays with the server.
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2048)
    head = f"GET {link} HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=0-\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    if not (await reader.readline()).startswith(b"HTTP/1.1 206 "):
        raise BenchError("the video was not sent")
    return reader, writer


async def watched(port: int, link: str) -> Watched:
    """One viewer, who reads all."""
    begun = time.perf_counter()
    reader, writer = await _asked(port, link)
    await reader.readuntil(b"\r\n\r\n")
    got = len(await reader.read(1024))
    first = time.perf_counter() - begun
    while chunk := await reader.read(1 << 20):
        got += len(chunk)
    writer.close()
    if got != SIZE:
        raise BenchError(f"{got} bytes of {SIZE} came")
    return Watched(first, time.perf_counter() - begun)


@contextlib.asynccontextmanager
async def idlers(port: int, link: str, number: int) -> AsyncIterator[None]:
    """Some who do not read, and as many who hardly do, until the block ends."""
    opened = [await _asked(port, link) for _ in range(number)]

    async def sip() -> None:
        while True:
            for reader, _ in opened[::2]:
                await reader.read(1000)
            await asyncio.sleep(0.1)

    sipping = asyncio.create_task(sip())
    try:
        yield
    finally:
        sipping.cancel()
        for _, writer in opened:
            writer.transport.abort()


def unsent_bytes(port: int) -> int:
    """What the kernel holds of answers of this port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}"))


async def measure(place: Home, product: Reelworks, numbers: list[int], rounds: int) -> list[dict[str, Any]]:
    """One row for each number of readers."""
    from django.conf import settings

    from video.web import media

    path = Path(settings.STORAGE_LOCAL_PATH) / KEY
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(SIZE)
    product.start_own("web")
    link = media.signed_path(KEY)
    await watched(place.port, link)
    empty, rows = own_bytes(product.roots("web")["web"]), []
    for number in numbers:
        say(f"{number} readers")
        async with idlers(place.port, link, number):
            await asyncio.sleep(1)
            seen = [await watched(place.port, link) for _ in range(rounds)]
            rows.append(
                {
                    "readers": number,
                    "first_byte": statistics.median(one.first_byte for one in seen),
                    "whole": statistics.median(one.whole for one in seen),
                    "slowest": max(one.whole for one in seen),
                    "kernel_each": unsent_bytes(place.port) / max(1, number),
                    "own_each": max(0, own_bytes(product.roots("web")["web"]) - empty) / max(1, number),
                }
            )
    return rows


def main() -> int:
    """Run, print, keep the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.readers", description=__doc__)
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 12, 64, 512])
    parser.add_argument("--rounds", type=int, default=10)
    flags = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with home() as place, reelworks(place) as product:
        found = asyncio.run(measure(place, product, flags.readers, flags.rounds))
    rows = [
        [
            row["readers"],
            ms(row["first_byte"]),
            ms(row["whole"]),
            ms(row["slowest"]),
            f"{row['kernel_each'] / 1024:.0f} KiB" if row["readers"] else "",
            f"{row['own_each'] / 1024:.0f} KiB" if row["readers"] else "",
        ]
        for row in found
    ]
    head = ["readers", "first byte, ms", "whole, ms", "slowest, ms", "kernel's memory each", "server's memory each"]
    print(table("A video of 20 MB, beside readers who stopped reading", head, rows))
    print(f"\n{runs.machine()}; {runs.keep({'rows': found}, 'readers-')}")
    return 0 if all(row["slowest"] < HAS_IT_WITHIN_S for row in found) else 1


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
