"""`python -m bench.throughput`: transcodes a second of the whole system at full load, beside bare ffmpeg.

Both with the same command line and as many at once; in turns, so that noise of the machine hits both. Submits, polls,
downloads and the client's requests go on meanwhile: they are part of full load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Any

from bench import pipeline, runs
from bench.bare_ffmpeg import run_bare
from bench.runs import say
from bench.system import BenchError, Reelworks, home, reelworks
from bench.tables import table, verdict

AT_LEAST = 0.9


def measure(product: Reelworks, *, jobs: int, rounds: int) -> dict[str, Any]:
    """`rounds` times `jobs` jobs at once, and as many bare transcodes."""
    from django.conf import settings

    client, parallel = pipeline.Client(product), settings.MEDIA_CONCURRENCY
    dest = product.home.folder / "bare.mp4"
    argv, kind = pipeline.product_command(product.source(24), dest)
    if kind != "encode":
        raise BenchError(f"the source needs no transcode, only {kind}")
    found = []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}: {jobs} jobs, then {jobs} bare transcodes, {parallel} at once")
        seconds = pipeline.media_seconds(client.run(jobs))
        bare = run_bare(argv, dest, jobs, parallel=parallel)
        found.append({"rate": jobs / seconds, "bare_rate": jobs / bare.seconds})
    return {"jobs": jobs, "parallel": parallel, "threads": settings.FFMPEG_THREADS, "rounds": found}


def ratio(result: dict[str, Any]) -> float:
    """Ours over bare ffmpeg's, the median of the rounds."""
    return statistics.median(one["rate"] / one["bare_rate"] for one in result["rounds"])


def show(result: dict[str, Any]) -> str:
    """The table."""
    rows: list[list[object]] = [
        [number, f"{one['rate']:.3f}", f"{one['bare_rate']:.3f}", f"{one['rate'] / one['bare_rate']:.3f}"]
        for number, one in enumerate(result["rounds"], 1)
    ]
    return (
        table(
            f"Transcodes a second, {result['jobs']} jobs at once (5 s, 1280x720, 24 → 30 fps), {result['parallel']} "
            f"ffmpegs of {result['threads']} threads",
            ["round", "Reelworks", "bare ffmpeg", "ratio"],
            rows,
        )
        + f"\n\nMedian {ratio(result):.3f}, target {verdict(ratio(result), at_least=AT_LEAST)}."
    )


def main() -> int:
    """Run and print; 1 when the target is missed or the run could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--jobs", type=int, default=24, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    with home() as place, reelworks(place) as product:
        say("starting the system")
        product.start_simulator(fps=24, render_s=0)
        product.start_own()
        say("warming up")
        pipeline.Client(product).run(2 * int(os.environ["MEDIA_CONCURRENCY"]))
        result = measure(product, jobs=flags.jobs, rounds=flags.rounds)
    print(f"{show(result)}\n\n{runs.machine()}")
    return 0 if ratio(result) >= AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
