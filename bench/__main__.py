"""`python -m bench`: all measurements in one run, as tables; raw figures go to bench/results/."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from bench import choice, pipeline, runs, statements, web
from bench.runs import say
from bench.system import Home, home, reelworks

PARTS = ("transcode", "own", "requests", "choice")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags; each number also by environment, BENCH_JOBS=50."""

    def number(name: str, default: float) -> float:
        return type(default)(os.environ.get(f"BENCH_{name}", default))

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=number("JOBS", 20), help="jobs with a transcode")
    parser.add_argument("--quick-jobs", type=int, default=number("QUICK_JOBS", 20), help="jobs that need only a remux")
    parser.add_argument("--requests", type=int, default=number("REQUESTS", 1000), help="GETs of a kind in each round")
    parser.add_argument("--creates", type=int, default=number("CREATES", 250), help="POSTs in each round")
    parser.add_argument("--rounds", type=int, default=number("ROUNDS", 2), help="jobs are split into so many rounds")
    parser.add_argument("--web-rounds", type=int, default=number("WEB_ROUNDS", 3))
    parser.add_argument("--idle-seconds", type=float, default=number("IDLE_SECONDS", 10.0))
    parser.add_argument("--render-seconds", type=float, default=number("RENDER_SECONDS", 2.0), help="of the simulator")
    parser.add_argument("--only", choices=PARTS, action="append", help="leave the others out; may be repeated")
    parser.add_argument("--show-statements", action="store_true", help="print every statement of one job")
    return parser.parse_args(argv)


def run(place: Home, flags: argparse.Namespace) -> dict[str, Any]:
    """All parts; prints each table as soon as it is known."""
    parts = flags.only or PARTS
    found: dict[str, Any] = {}
    done_task = ""
    with reelworks(place) as product:
        if {"transcode", "own"} & set(parts):
            say("starting the system")
            product.start_simulator(fps=24, render_s=flags.render_seconds)
            product.start_own()
            say("warming up")
            warm = pipeline.Client(product)
            warm.run(2 * int(os.environ["MEDIA_CONCURRENCY"]))
            say(f"idle for {flags.idle_seconds:g} s")
            idle = pipeline.idle_span(product, flags.idle_seconds)
            found["idle"] = {"seconds": idle.seconds, "cpu": idle.cpu}
            print(pipeline.show_idle(idle), flush=True)
        if "transcode" in parts:
            cost = pipeline.transcode_cost(product, jobs=flags.jobs, rounds=flags.rounds, idle=idle)
            found["transcode"] = cost
            print(pipeline.show_transcode(cost), flush=True)
        if "own" in parts:
            product.stop("simulator")
            product.start_simulator(fps=30, render_s=flags.render_seconds)
            (done_task, *_) = warm.run(4)
            remux = pipeline.remux_cost(product, jobs=flags.quick_jobs, rounds=flags.rounds, idle=idle)
            say("one job alone")
            alone = pipeline.one_job(product, 3)
            product.stop(*product.OWN)
            say("six no-op Celery tasks")
            from bench import noop

            celery = noop.cost(product, jobs=50)
            found |= {"remux": remux, "celery": celery, "alone": alone}
            print(pipeline.show_remux(remux, celery), flush=True)
            say("statements by stage")
            counted = statements.by_stage(verbose=flags.show_statements)
            found["statements"] = counted
            print(pipeline.show_one_job(alone, counted, flags.render_seconds), flush=True)
        product.stop()
        if "requests" in parts:
            if not done_task:
                product.start_simulator(fps=30, render_s=0)
                product.start_own()
                (done_task,) = pipeline.Client(product).run(1)
                product.stop()
            found["requests"] = web.cost(
                product,
                requests=flags.requests,
                creates=flags.creates,
                rounds=flags.web_rounds,
                done_task=done_task,
            )
            print(web.show(found["requests"]), flush=True)
    if "choice" in parts:
        say("choosing a model")
        found["choice"] = choice.cost()
        print(choice.show(found["choice"]), flush=True)
    return found


def main() -> int:
    """Run, print, keep the raw figures."""
    flags = parse()
    load = os.getloadavg()[0]
    with home() as place:
        found = run(place, flags)
    found["flags"] = vars(flags)
    found["machine"] = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]}
    print(f"\n{runs.machine()}, {load:.1f} before; {time.monotonic() - runs.STARTED:.0f} s; {runs.keep(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
