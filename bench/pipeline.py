"""What a job costs: with a transcode, beside bare ffmpeg; without one, beside bare Celery; and where its time goes."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import requests

from bench import cpu
from bench.bare_ffmpeg import ffmpeg_command, run_bare
from bench.cpu import Span, measure
from bench.runs import say
from bench.system import BenchError, Reelworks
from bench.tables import ms, table, verdict

JOB_DEADLINE_S = 300.0
#: How often the client of a job asks for its status.
ASK_EVERY_S = 2.0
STAGES = ("generate", "poll", "download", "transcode", "thumbnail", "save")


class Client:
    """A client of the API, as slow and patient as a person's browser."""

    def __init__(self, product: Reelworks) -> None:
        self._product = product
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {product.home.token}"
        self.asked = 0

    def run(self, count: int) -> list[str]:
        """Create `count` jobs at once and wait until all are done. Raises BenchError when one fails."""
        ids = [self.create(f"a bench, number {number}") for number in range(count)]
        waiting, deadline = set(ids), time.monotonic() + JOB_DEADLINE_S
        while waiting:
            time.sleep(ASK_EVERY_S)
            self._product.check()
            for task_id in sorted(waiting):
                found = self.status(task_id)
                if found["status"] == "success":
                    waiting.discard(task_id)
                elif found["status"] == "failed":
                    raise BenchError(f"job {task_id} failed: {found}")
            if waiting and time.monotonic() > deadline:
                raise BenchError(f"{len(waiting)} of {count} jobs were not done within {JOB_DEADLINE_S:g} s")
        return ids

    def create(self, prompt: str) -> str:
        reply = self._session.post(
            f"{self._product.url}/api/video/create",
            json={"prompt": prompt, "duration": 5, "aspectRatio": "16:9"},
            timeout=30,
        )
        if reply.status_code != 201:
            raise BenchError(f"create answered {reply.status_code}: {reply.text[:500]}")
        return str(reply.json()["data"]["taskId"])

    def status(self, task_id: str) -> dict[str, Any]:
        self.asked += 1
        reply = self._session.get(f"{self._product.url}/api/video/status", params={"taskId": task_id}, timeout=30)
        found: dict[str, Any] = reply.json()["data"]
        return found


def roots_of(product: Reelworks) -> dict[str, int]:
    """All that counts as the system; the simulator and we ourselves do not."""
    return {**product.roots(*product.OWN), **product.home.servers}


def idle_span(product: Reelworks, seconds: float) -> Span:
    """The system with nothing to do."""
    return measure(roots_of(product), lambda: time.sleep(seconds))


def product_command(source: Path, dest: Path) -> tuple[list[str], str]:
    """What the transcode stage of the system that is measured runs, and "encode" or "remux"."""
    from django.conf import settings

    from media_pipeline.encode.ffmpeg import FFmpeg
    from video.infra.toolkit import ffmpeg_binary

    return ffmpeg_command(source, dest, binary=FFmpeg(ffmpeg_binary()).binary, threads=settings.FFMPEG_THREADS)


def transcode_cost(product: Reelworks, *, jobs: int, rounds: int, idle: Span) -> dict[str, Any]:
    """Jobs with a real transcode, beside the same ffmpeg run bare; both in turns, so that noise hits both."""
    client, parallel = Client(product), int(os.environ["MEDIA_CONCURRENCY"])
    dest = product.home.folder / "bare.mp4"
    argv, kind = product_command(product.source(24), dest)
    if kind != "encode":
        raise BenchError(f"the source needs no transcode, only {kind}")
    share = max(1, jobs // rounds)
    found = []
    for number in range(rounds):
        say(f"transcode: round {number + 1} of {rounds}, {share} jobs, then {share} bare transcodes")
        done: list[str] = []
        busy = measure(roots_of(product), lambda done=done: done.extend(client.run(share)))  # type: ignore[misc]
        net = cpu.less_idle(busy.cpu, busy.seconds, idle.cpu, idle.seconds)
        bare = run_bare(argv, dest, share, parallel=parallel)
        found.append(
            {
                "net": net,
                "bare_s": bare.total,
                "ratio": sum(net.values()) / bare.total,
                "busy_s": busy.seconds,
                "rate": share / media_seconds(done),
                "bare_rate": share / bare.seconds,
            }
        )
    return {"kind": "transcode", "jobs": share * rounds, "share": share, "rounds": found, "parallel": parallel}


def media_seconds(task_ids: list[str]) -> float:
    """From the first transcode's start to the last one's end."""
    from django.db import connection
    from django.db.models import Max, Min

    from video.models import TaskEvent

    span = TaskEvent.objects.filter(task_id__in=task_ids, stage="transcode", outcome="advanced").aggregate(
        begin=Min("started_at"), end=Max("finished_at")
    )
    connection.close()
    return float((span["end"] - span["begin"]).total_seconds())


def show_transcode(result: dict[str, Any]) -> str:
    """The first table."""
    rounds, share = result["rounds"], result["share"]
    middle = statistics.median(one["ratio"] for one in rounds)
    rows: list[list[object]] = []
    for name in rounds[0]["net"]:
        each = statistics.median(one["net"][name] / share for one in rounds)
        rows.append([name + (" (with ffmpeg)" if name == "media" else ""), ms(each), "", ""])
    total = statistics.median(sum(one["net"].values()) / share for one in rounds)
    bare = statistics.median(one["bare_s"] / share for one in rounds)
    spread = " ".join(f"{one['ratio']:.3f}" for one in rounds)
    rows.append(["whole system", ms(total), ms(bare), f"{middle:.3f}"])
    rate = statistics.median(one["rate"] / one["bare_rate"] for one in rounds)
    return (
        table(
            f"Pipeline cost, {result['jobs']} jobs with a transcode (5 s, 1280x720, 24 → 30 fps)",
            ["CPU ms a job, idle taken off", "Reelworks", "bare ffmpeg", "ratio"],
            rows,
        )
        + f"\n\nTarget {verdict(middle, at_most=1.10)}; rounds: {spread}."
        + f"\nTranscodes a second, {result['parallel']} at once: "
        + f"{statistics.median(one['rate'] for one in rounds):.2f} beside "
        + f"{statistics.median(one['bare_rate'] for one in rounds):.2f} bare, ratio {rate:.2f}, "
        + f"target {verdict(rate, at_least=0.9)}."
    )


def remux_cost(product: Reelworks, *, jobs: int, rounds: int, idle: Span) -> dict[str, Any]:
    """Jobs without a transcode: what is left after the media work is our own cost."""
    client = Client(product)
    dest = product.home.folder / "bare.mp4"
    argv, kind = product_command(product.source(30), dest)
    if kind != "remux":
        raise BenchError(f"the source needs a {kind}, not a remux")
    share = max(1, jobs // rounds)
    found = []
    for number in range(rounds):
        say(f"remux: round {number + 1} of {rounds}, {share} jobs, then the media work alone")
        asked = client.asked
        busy = measure(roots_of(product), lambda: client.run(share))
        net = cpu.less_idle(busy.cpu, busy.seconds, idle.cpu, idle.seconds)
        found.append(
            {
                "net": net,
                "rate": share / busy.seconds,
                "remux_s": run_bare(argv, dest, share, parallel=1).total,
                "decoder_s": _decoder_s(product.source(30), share),
                "asked": (client.asked - asked) / share,
            }
        )
    return {"jobs": share * rounds, "share": share, "rounds": found}


def _decoder_s(source: Path, times: int) -> float:
    """CPU of what a job asks the decoder child: three probes and a thumbnail."""
    from media_pipeline.encode.cover import Cover
    from media_pipeline.encode.probe import Prober

    def ask(prober: Prober) -> None:
        prober.probe(source)  # download
        prober.probe(source)  # transcode
        prober.probe(source, decode_first_frame=False)  # what transcode made
        prober.cover_jpeg(source, Cover(), width_px=1280, height_px=720, quality=85)

    prober = Prober(workers=1)
    try:
        before = {process.pid for process in cpu.all_processes()}
        ask(prober)  # its start is not part of a job
        children = [p.pid for p in cpu.all_processes() if p.parent == os.getpid() and p.pid not in before]
        roots = {str(pid): pid for pid in children}
        return measure(roots, lambda: [ask(prober) for _ in range(times)]).total
    finally:
        prober.close()


def own_cost(result: dict[str, Any]) -> float:
    """Own CPU seconds a job, the median of the rounds."""
    share = result["share"]
    return statistics.median(
        (sum(one["net"].values()) - one["remux_s"] - one["decoder_s"]) / share for one in result["rounds"]
    )


def show_remux(result: dict[str, Any], celery: dict[str, float]) -> str:
    """The second table. `celery` holds CPU seconds of six no-op tasks, "drained" and "chained"."""
    rounds, share = result["rounds"], result["share"]
    rows: list[list[object]] = [
        [name, ms(statistics.median(one["net"][name] / share for one in rounds))] for name in rounds[0]["net"]
    ]
    total = statistics.median(sum(one["net"].values()) / share for one in rounds)
    remux = statistics.median(one["remux_s"] / share for one in rounds)
    decoder = statistics.median(one["decoder_s"] / share for one in rounds)
    own = own_cost(result)
    rows += [
        ["whole system", ms(total)],
        ["− bare ffmpeg remux", ms(remux)],
        ["− 3 probes and thumbnail in the decoder child", ms(decoder)],
        ["**own cost**", ms(own)],
        ["six no-op Celery tasks, drained", ms(celery["drained"])],
        ["six no-op Celery tasks, one chain", ms(celery["chained"])],
        ["own cost / six drained", f"{own / celery['drained']:.1f}"],
        ["own cost / one chain of six", f"{own / celery['chained']:.1f}"],
    ]
    asked = statistics.median(one["asked"] for one in rounds)
    return (
        table(f"Own cost without media work, {result['jobs']} jobs that need only a remux", ["CPU a job", "ms"], rows)
        + f"\n\nEach job: 1 create, {asked:.1f} status requests; rounds: "
        + " ".join(f"{(sum(o['net'].values()) - o['remux_s'] - o['decoder_s']) / share * 1000:.0f}" for o in rounds)
        + " ms."
        + f"\nJobs a second, {share} created at once: {statistics.median(one['rate'] for one in rounds):.2f}. "
        + f"No-op tasks a second: {celery['drained_per_s']:.0f} drained, {celery['chained_per_s']:.0f} in chains."
    )


def show_idle(idle: Span) -> str:
    """What the system costs with nothing to do."""
    rows = [[name, ms(seconds / idle.seconds)] for name, seconds in idle.cpu.items()]
    rows.append(["whole system", ms(idle.total / idle.seconds)])
    return table(f"Idle, over {idle.seconds:.0f} s", ["CPU ms a second", "ms"], rows)


def one_job(product: Reelworks, repeats: int) -> dict[str, Any]:
    """Jobs one after another on a system with nothing else to do: where the time of one goes, by its timeline."""
    from django.db import connection

    from video.models import TaskEvent, VideoTask

    client = Client(product)
    ends: list[dict[str, float]] = []
    totals = []
    for _ in range(repeats):
        (task_id,) = client.run(1)
        task = VideoTask.objects.get(pk=task_id)
        assert task.finished_at is not None
        totals.append((task.finished_at - task.created_at).total_seconds())
        stages: dict[str, float] = {}
        work: dict[str, float] = {}
        last = task.created_at
        for event in TaskEvent.objects.filter(task_id=task_id).order_by("id"):
            if event.finished_at is None or event.outcome == "created":
                continue
            name = "admit" if event.outcome == "admitted" else event.stage
            stages[name] = stages.get(name, 0.0) + (event.finished_at - last).total_seconds()
            if event.outcome in {"advanced", "succeeded"} and event.started_at is not None:
                work[name] = (event.finished_at - event.started_at).total_seconds()
            last = event.finished_at
        ends.append(
            {**{f"to {name}": s for name, s in stages.items()}, **{f"in {name}": s for name, s in work.items()}}
        )
    connection.close()
    names = ["admit", *STAGES]
    return {
        "total_s": statistics.median(totals),
        "stages": {
            name: (
                statistics.median([one.get(f"to {name}", 0.0) for one in ends]),
                statistics.median([one.get(f"in {name}", 0.0) for one in ends]),
            )
            for name in names
        },
        "repeats": repeats,
    }


def show_one_job(result: dict[str, Any], statements: dict[str, dict[str, float]], render_s: float) -> str:
    """The table of one job's stages."""
    rows: list[list[object]] = []
    for name, (whole, last) in {"create": (0.0, 0.0), **result["stages"]}.items():
        counted = statements.get(name, {})
        rows.append(
            [
                name,
                ms(whole) if whole else "",
                ms(last) if last else "",
                f"{counted.get('statements', 0):.0f}" if counted else "",
                f"{counted.get('transactions', 0):.0f}" if counted else "",
                ms(counted.get("db_s", 0.0)) if counted else "",
            ]
        )
    sums = [sum(one.get(key, 0) for one in statements.values()) for key in ("statements", "transactions", "db_s")]
    rows.append(["all", ms(result["total_s"]), "", f"{sums[0]:.0f}", f"{sums[1]:.0f}", ms(sums[2])])
    return (
        table(
            f"One job alone, remux only, render {render_s:g} s, median of {result['repeats']}",
            ["stage", "wall ms", "of it last claim", "statements", "BEGIN blocks", "in the database ms"],
            rows,
        )
        + "\n\nWall time of a stage runs from the end of the one before, so it holds the message's way and every wait;"
        + "\nstatements are those of one claim of each stage (poll: the one that finds the job done), in process."
    )
