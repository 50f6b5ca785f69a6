"""`python -m bench.inflight`: thousands of jobs live at the provider, everything on this machine.

Two shapes of load. `--spread` (10,000 jobs of 2,400 s): all are made at once, with what is left of a render spread
evenly, and as many are added as end, so that the run begins in the middle of a long day. Copied into flight
(`--copy`), they are as old as what is left of their renders says. Without it (1,000 jobs of
300 s): they come at a steady rate, renders vary by a tenth, and what is measured are jobs that came when the model's
times were known.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from typing import Any

import aiohttp

from bench import cpu, fill, prefill, runs, watch
from bench.runs import say
from bench.system import BenchError, Home, Reelworks, home, reelworks
from bench.tables import ms, table, verdict

VARIES = 0.1  # renders of the steady shape, up and down
CREATES_AT_ONCE = 8
MODELS = ("gen4.5", "pika-2.2", "kling-2.5-turbo")
CALLING_BACK = MODELS[1:]
LIVE_S = 900.0  # until all jobs are at the provider
COPIES_PER_S = 300  # at least
MOST_BY_API = 10_000  # beyond, jobs are copied into flight: their creates alone would take longer than the measuring


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(prog="python -m bench.inflight", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="live together")
    parser.add_argument("--minutes", type=float, default=10.0, help="measured, after they all live")
    parser.add_argument("--render", type=float, default=2400.0, help="seconds of a render")
    parser.add_argument(
        "--spread", action=argparse.BooleanOptionalAction, default=None, help="default: from 2,000 jobs"
    )
    parser.add_argument("--warm", type=float, default=None, help="seconds before measuring; default: --render x 2.3")
    parser.add_argument("--interval", type=float, default=5.0, help="least seconds between two polls of a job")
    parser.add_argument("--webhook", action="store_true", help="providers call back")
    parser.add_argument("--probe", type=float, default=10.0, help="status requests a second meanwhile")
    parser.add_argument(
        "--copy",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="fill by copies; default: beyond 10,000",
    )
    parser.add_argument("--report", action="store_true", help="no targets: exit 0 whatever comes out")
    flags = parser.parse_args(argv)
    if flags.spread is None:
        flags.spread = flags.jobs >= 2000
    if flags.copy is None:
        flags.copy = flags.jobs > MOST_BY_API
    if flags.warm is None:
        # A render until times are known, half a minute until they are measured, and the whole life of jobs made then.
        flags.warm = 0.0 if flags.spread else flags.render * 2.3
    return flags


# --- load ----------------------------------------------------------------------------------------------------------


class Load:
    """Creates jobs through the API, at once or one after the other."""

    def __init__(self, product: Reelworks, flags: argparse.Namespace) -> None:
        self.product, self.flags = product, flags
        self.made: list[str] = []
        self._numbers = 0
        self._random = random.Random(20261125)
        self._models = CALLING_BACK if flags.webhook else MODELS

    async def create(self, session: aiohttp.ClientSession, render_s: float) -> str:
        """One job; tried again when the server says that too many wait. Returns the task's id."""
        self._numbers += 1
        body = {
            "prompt": f"Job {self._numbers} in flight [[sim render={render_s:.1f}]]",
            "model": self._models[self._numbers % len(self._models)],
            "duration": 5,
        }
        while True:
            async with session.post(f"{self.product.url}/api/video/create", json=body) as reply:
                answer = await reply.json()
                if reply.status == 201:
                    self.made.append(answer["data"]["taskId"])
                    return self.made[-1]
                if reply.status not in {429, 503}:
                    raise BenchError(f"create answered {reply.status}: {answer}")
            await asyncio.sleep(1)

    async def fill(self, session: aiohttp.ClientSession) -> None:
        """All at once, each somewhere in its render."""
        left = [self.flags.render * (n + 0.5) / self.flags.jobs for n in range(self.flags.jobs)]
        self._random.shuffle(left)
        if self.flags.copy:
            await self._copy(session, left)
            return

        async def some() -> None:
            while left:
                await self.create(session, left.pop())

        await asyncio.gather(*(some() for _ in range(CREATES_AT_ONCE)))

    async def _copy(self, session: aiohttp.ClientSession, left: list[float]) -> None:
        """The first ones by the system, the others while it is stopped: renders go on meanwhile, and it would be
        busy with those that end."""
        originals = [await self.create(session, self.flags.render) for _ in self._models]
        while await self.live(session) < len(originals) or await asyncio.to_thread(_unsent):
            await asyncio.sleep(0.5)
        await asyncio.to_thread(self.product.stop, *self.product.OWN)
        begin_at = time.monotonic() + self.flags.jobs / COPIES_PER_S
        async with aiohttp.ClientSession(timeout=session.timeout) as provider_session:
            self.made += await prefill.clone(provider_session, originals, left, self.flags.render, begin_at)
        await asyncio.to_thread(fill.settle)
        say(f"{len(self.made)} are in flight; starting the system again")
        await asyncio.to_thread(self.product.start_own)
        await asyncio.sleep(max(0.0, begin_at - time.monotonic()))

    async def keep_up(self, session: aiohttp.ClientSession) -> None:
        """As many as end, until cancelled."""
        every_s, next_at = self.flags.render / self.flags.jobs, time.monotonic()
        pending = set[asyncio.Task[str]]()
        try:
            while True:
                spread = 1.0 if self.flags.spread else 1 + VARIES * (2 * self._random.random() - 1)
                one = asyncio.create_task(self.create(session, self.flags.render * spread))
                pending.add(one)
                one.add_done_callback(pending.discard)
                next_at += every_s
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        finally:
            await asyncio.gather(*pending, return_exceptions=True)

    async def live(self, session: aiohttp.ClientSession) -> int:
        """Jobs that live at the simulator."""
        url = f"http://127.0.0.1:{self.product.home.simulator_port}/_sim/stats"
        async with session.get(url) as reply:
            return int((await reply.json())["live"])


def _unsent() -> int:
    """Tasks that have not been seen as accepted by their providers."""
    return int(sql("SELECT count(*) FROM video_videotask WHERE stage = 'generate'")[0][0])


# --- what is noted while it runs -----------------------------------------------------------------------------------

#: Every claim of a poll notes when it was due, how late it was, and how long the wait was to be. In this database only.
_NOTE_LOOKS = """
CREATE UNLOGGED TABLE bench_look (at timestamptz, late_s real, interval_s real);
CREATE FUNCTION bench_note_look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO bench_look VALUES (NEW.claimed_at, extract(epoch FROM NEW.claimed_at - OLD.next_run_at),
        extract(epoch FROM OLD.next_run_at - OLD.claimed_at));
    RETURN NULL;
END $$;
CREATE TRIGGER bench_note_look AFTER UPDATE OF fence ON video_videotask FOR EACH ROW
    WHEN (OLD.stage = 'poll' AND NEW.stage = 'poll' AND NEW.fence > OLD.fence) EXECUTE FUNCTION bench_note_look();
"""


def sql(text: str, params: list[Any] | None = None) -> list[tuple[Any, ...]]:
    """Ask the database, on a connection that is not kept."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(text, params)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


async def run(product: Reelworks, flags: argparse.Namespace) -> dict[str, Any]:
    """Fill, warm up, measure."""
    load, found = Load(product, flags), dict[str, Any]()
    headers = {"Authorization": f"Bearer {product.home.token}"}
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        started = time.monotonic()
        filling = asyncio.create_task(load.fill(session)) if flags.spread else None
        keeping: asyncio.Task[None] | None = None
        if filling is not None:
            say(f"creating {flags.jobs} jobs")
            await filling
            say(f"created in {time.monotonic() - started:.0f} s")
        keeping = asyncio.create_task(load.keep_up(session))
        try:
            while await load.live(session) < 0.97 * flags.jobs:
                _check(product, keeping)
                if time.monotonic() - started > LIVE_S + flags.warm:
                    raise BenchError(f"only {await load.live(session)} of {flags.jobs} jobs live at the provider")
                await asyncio.sleep(1)
            found["fill_s"] = time.monotonic() - started
            say(f"{await load.live(session)} live after {found['fill_s']:.0f} s")
            while time.monotonic() - started < flags.warm:
                _check(product, keeping)
                await asyncio.sleep(1)
            found |= await _measure(product, flags, load, session, keeping)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    return found


def _check(product: Reelworks, keeping: asyncio.Task[None]) -> None:
    product.check()
    if keeping.done():
        keeping.result()


async def _measure(
    product: Reelworks,
    flags: argparse.Namespace,
    load: Load,
    session: aiohttp.ClientSession,
    keeping: asyncio.Task[None],
) -> dict[str, Any]:
    say(f"measuring for {flags.minutes:g} min")
    parts = product.roots(*product.OWN) | product.home.servers | product.roots("simulator")
    memory: dict[str, watch.Memory] = {}
    took, failed, live = list[float](), list[str](), list[int]()
    begun = (await asyncio.to_thread(sql, "SELECT statement_timestamp(), pg_current_wal_lsn()"))[0]
    before, since = cpu.spent(parts), time.monotonic()
    probes = [
        asyncio.create_task(watch.sample_memory(parts, memory)),
        asyncio.create_task(watch.probe_status(product.url, product.home.token, load.made, flags.probe, took, failed)),
    ]
    try:
        while time.monotonic() - since < flags.minutes * 60:
            await asyncio.sleep(5)
            _check(product, keeping)
            live.append(await load.live(session))
    finally:
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
    seconds = time.monotonic() - since
    spent = cpu.difference(cpu.spent(parts), before)
    return {
        "seconds": seconds,
        "live": [min(live), max(live)],
        "cpu": {name: used / seconds for name, used in spent.items()},
        "memory": {
            name: {"middle": one.middle, "growth": one.growth(), "flat": watch.is_flat(one)}
            for name, one in memory.items()
        },
        "status": {"asked": len(took), "failed": failed[:10], **_quantiles(took)},
        **await asyncio.to_thread(_from_rows, product, flags, *begun),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    return {f"p{int(share * 100)}": watch.quantile(values, share) for share in (0.5, 0.95, 0.99)}


def _from_rows(product: Reelworks, flags: argparse.Namespace, begun: Any, wal: str) -> dict[str, Any]:
    """Polls and ends since `begun`, as the database and the simulator have them."""
    import requests

    looks = sql(
        """
        SELECT count(*), count(*) FILTER (WHERE late_s <= greatest(interval_s, %s)),
            percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY late_s), percentile_cont(0.5) WITHIN GROUP
            (ORDER BY interval_s), pg_wal_lsn_diff(pg_current_wal_lsn(), %s)
        FROM bench_look WHERE at >= %s
        """,
        [flags.interval, wal, begun],
    )[0]
    ends = sql(
        """
        SELECT g.job_id, extract(epoch FROM g.ended_at)::float8, extract(epoch FROM t.finished_at)::float8, g.polls
        FROM video_generation g JOIN video_videotask t ON t.id = g.task_id
        WHERE g.state = 'succeeded' AND g.ended_at >= %s
        """,
        [begun],
    )
    reply = requests.get(
        f"http://127.0.0.1:{product.home.simulator_port}/_sim/jobs",
        params={"phase": "succeeded", "limit": "1000000"},
        timeout=120,
    )
    done_at = {job["id"]: job["endAt"] for job in reply.json()["jobs"]}
    seen = [seen_at - done_at[job] for job, seen_at, _, _ in ends if job in done_at]
    visible = [shown_at - done_at[job] for job, _, shown_at, _ in ends if job in done_at and shown_at is not None]
    failed = sql("SELECT error_code, count(*) FROM video_videotask WHERE status = 'failed' GROUP BY 1")
    sizes = sql(
        """
        SELECT relname, pg_relation_size(oid) FROM pg_class
        WHERE relname IN ('video_videotask', 'video_generation', 'task_due', 'video_taskevent')
        """
    )
    return {
        "looks": {
            "count": looks[0],
            "in_time": looks[1] / looks[0] if looks[0] else 0.0,
            "late_p50": looks[2][0],
            "late_p95": looks[2][1],
            "late_p99": looks[2][2],
            "interval_p50": looks[3],
        },
        "wal_bytes": float(looks[4]),
        "sizes": {name: int(size) for name, size in sizes},
        "ends": {
            "count": len(ends),
            "polls": sum(polls for *_, polls in ends) / len(ends) if ends else 0.0,
            "seen": _quantiles(seen),
            "visible": _quantiles(visible),
            "unfinished": sum(shown_at is None for _, _, shown_at, _ in ends),
        },
        "failed": dict(failed),
    }


# --- what came out -------------------------------------------------------------------------------------------------


def targets(found: dict[str, Any], flags: argparse.Namespace) -> list[tuple[str, str, str]]:
    """(figure, value, verdict) for all that has a target."""
    looks, ends, status = found["looks"], found["ends"], found["status"]
    rows = [
        (
            "looks within one interval of their time",
            f"{100 * looks['in_time']:.2f}%",
            verdict(looks["in_time"], at_least=0.99),
        ),
        ("status p95", f"{ms(status['p95'])} ms", verdict(status["p95"], at_most=0.1)),
        ("status requests that failed", str(len(status["failed"])), verdict(len(status["failed"]), at_most=0)),
        ("tasks that failed", str(sum(found["failed"].values())), verdict(sum(found["failed"].values()), at_most=0)),
    ]
    rows += [
        (f"memory of {name}", f"{one['growth'] / 2**20:+.1f} MB", "met (flat)" if one["flat"] else "MISSED (flat)")
        for name, one in found["memory"].items()
        if name != "simulator"
    ]
    if not flags.spread:
        at_most = 2.0 if flags.webhook else 10.0
        p95 = ends["visible"]["p95"]
        rows.append(("provider done → visible, p95", f"{p95:.2f} s", verdict(p95, at_most=at_most)))
        rows.append(("polls a job", f"{ends['polls']:.1f}", verdict(ends["polls"], at_most=12)))
    return rows


def show(found: dict[str, Any], flags: argparse.Namespace) -> str:
    """The tables."""
    looks, ends, seconds = found["looks"], found["ends"], found["seconds"]
    how = "call-backs" if flags.webhook else "polls only"
    title = f"{flags.jobs} jobs of {flags.render:g} s in flight for {seconds / 60:.1f} min, {how}"
    rows: list[tuple[object, ...]] = [
        ("live at the provider, least and most", *found["live"]),
        ("polls a second; interval p50, s", f"{looks['count'] / seconds:.0f}", f"{looks['interval_p50'] or 0:.1f}"),
        ("lateness of a poll p50, p99, s", f"{looks['late_p50'] or 0:.2f}", f"{looks['late_p99'] or 0:.2f}"),
        ("jobs that ended; a second", ends["count"], f"{ends['count'] / seconds:.1f}"),
        ("provider done → seen p50, p95, s", f"{ends['seen']['p50']:.2f}", f"{ends['seen']['p95']:.2f}"),
        ("provider done → visible p50, p95, s", f"{ends['visible']['p50']:.2f}", f"{ends['visible']['p95']:.2f}"),
        ("status p50, p95, ms", ms(found["status"]["p50"]), ms(found["status"]["p95"])),
        ("WAL a second, KB; task table, MB", f"{found['wal_bytes'] / seconds / 1024:.0f}",
         f"{found['sizes']['video_videotask'] / 2**20:.0f}"),
    ]  # fmt: skip
    parts = [
        (name, f"{100 * used:.1f}%", f"{found['memory'][name]['middle'] / 2**20:.0f}",
         f"{found['memory'][name]['growth'] / 2**20:+.1f}")
        for name, used in found["cpu"].items() if name in found["memory"]
    ]  # fmt: skip
    total = sum(used for name, used in found["cpu"].items() if name != "simulator")
    parts.append(("all but the simulator", f"{100 * total:.1f}%", "", ""))
    return "\n".join(
        [
            table(title, ["", "", ""], rows),
            table("By part", ["", "CPU of one core", "own memory, MB", "grew by, MB"], parts),
            table("Targets", ["", "", ""], targets(found, flags)),
        ]
    )


def measure(place: Home, flags: argparse.Namespace) -> dict[str, Any]:
    """The whole run on a home of its own."""
    os.environ.update(
        SLOTS_PER_KEY=str(10 * flags.jobs),
        POLL_INTERVAL_SECONDS=f"{flags.interval:g}",
        MAX_WAITING=str(10 * flags.jobs),
        MAX_WAITING_PER_USER=str(10 * flags.jobs),
        TASK_DEADLINE_SECONDS=f"{max(3600, 2 * flags.render):.0f}",
    )
    if flags.webhook:
        os.environ.update(PUBLIC_BASE_URL=f"http://127.0.0.1:{place.port}", COOKIE_SECURE="0")
    sql(_NOTE_LOOKS)
    with reelworks(place) as product:
        say("starting the system")
        product.start_simulator(fps=30, render_s=flags.render, keep_ended=1_000_000)
        product.start_own()
        return asyncio.run(run(product, flags))


def main() -> int:
    """Run, print, keep the raw figures. Exit code 1: a target was missed, or the run could not be made."""
    flags = parse()
    load = os.getloadavg()[0]
    with home() as place:
        found = measure(place, flags)
    found |= {"flags": vars(flags), "machine": {"cores": os.cpu_count(), "load_before": load}}
    kept = runs.keep(found, "inflight-")
    print(f"{show(found, flags)}\n\n{runs.machine()}, {load:.1f} before; {kept}")
    missed = any("MISSED" in verdict for *_, verdict in targets(found, flags))
    return 1 if missed and not flags.report else 0


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
