"""What the run found, as tables and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench import runs
from bench.chaos.checker import Breach, Evidence, orphans
from bench.chaos.faults import Done
from bench.chaos.monitor import Recovery
from bench.chaos.plan import UNKNOWN
from bench.tables import table

RESULTS = runs.RESULTS
KINDS = ("lost", "doubled", "ledger", "file", "wrong", "leftover", "slow")
MOST_TIMELINES = 8


def figures(
    found: Evidence, done: Sequence[Done], recovery: Recovery, breaches: Sequence[Breach], **more: Any
) -> dict[str, Any]:
    """The run in numbers."""
    ended = Counter(
        (t.status.get("status") or "?") + (f" {code}" if (code := t.status.get("errorCode")) else "")
        for t in found.load.accepted.values()
    )
    stood = [seconds for seconds, _ in recovery.stood.values()]
    return {
        **more,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "accepted": len(found.load.accepted),
        "ended": dict(ended.most_common()),
        "faults": dict(Counter(one.fault.kind for one in done if not one.detail.startswith("left out"))),
        "create_repeats": found.load.repeats,
        "longest_create_s": round(found.load.longest_wait_s, 1),
        "cancels": dict(Counter(t.cancel for t in found.load.accepted.values() if t.cancel)),
        "retries": dict(Counter(t.retry for t in found.load.accepted.values() if t.retry)),
        "unknown_by_kill": sum(
            t.status.get("errorCode") == UNKNOWN and UNKNOWN not in t.job.script.may_fail
            for t in found.load.accepted.values()
        ),
        "submits": found.submits["received"],
        "provider_jobs": found.submits["created"],
        "open_after_last_fault": len(stood),
        "stood_p50_s": round(statistics.median(stood), 1) if stood else 0.0,
        "stood_max_s": round(max(stood), 1) if stood else 0.0,
        "stood_max_by_stage_s": {
            stage: round(max(seconds for seconds, one in recovery.stood.values() if one == stage), 1)
            for stage in sorted({one for _, one in recovery.stood.values()})
        },
        "stood_max_in": max(recovery.stood.values(), default=(0.0, ""))[1],
        "nobody_stood_after_s": round(recovery.last_s, 1),
        "last_to_end": _last_to_end(found),
        "orphan_files": orphans(found),
        "breaches": {kind: sum(breach.kind == kind for breach in breaches) for kind in KINDS},
    }


def _last_to_end(found: Evidence) -> list[dict[str, Any]]:
    """The three that ended last, and what they had to get through: they are why the run took as long as it did."""
    ended = [task for task in found.load.accepted.values() if found.tasks[task.task_id]["finished_at"]]
    ended.sort(key=lambda task: found.tasks[task.task_id]["finished_at"], reverse=True)
    return [
        {
            "task": task.task_id,
            "script": task.job.script.directives,
            "took_s": round(found.tasks[task.task_id]["finished_at"].timestamp() - task.at, 1),
            "events": [f"{e['stage']} {e['outcome']} {e['detail']}" for e in found.events[task.task_id]][-6:],
        }
        for task in ended[:3]
    ]


def show(result: dict[str, Any]) -> str:
    """Two tables."""
    ends = [[name, count] for name, count in result["ended"].items()]
    counts: list[list[object]] = [
        ["jobs offered", result["jobs"]],
        ["accepted", result["accepted"]],
        *[[f"ended: {name}", count] for name, count in ends],
        ["unknown though the provider did nothing wrong", result["unknown_by_kill"]],
        *[[f"cancel: {answer}", count] for answer, count in result["cancels"].items()],
        *[[f"retry: {answer}", count] for answer, count in result["retries"].items()],
        ["submits received by the simulator", result["submits"]],
        ["jobs made there", result["provider_jobs"]],
        ["creates that had to be repeated", result["create_repeats"]],
        ["longest wait for a create, s", result["longest_create_s"]],
        *[[f"fault: {kind}", count] for kind, count in sorted(result["faults"].items())],
        *[[f"longest stop of {name}, s", seconds] for name, seconds in sorted(result["stops"].items())],
        ["open after the last fault", result["open_after_last_fault"]],
        ["stood still after it, p50, s", result["stood_p50_s"]],
        [f"stood still after it, longest (in {result['stood_max_in']}), s", result["stood_max_s"]],
        ["nobody stood still any more after, s", result["nobody_stood_after_s"]],
        ["files that no row names", result["orphan_files"]],
        *[[f"ended last: {last['script'] or 'no script'}, s", last["took_s"]] for last in result["last_to_end"]],
        ["seconds in all", result["seconds"]],
    ]
    verdicts: list[list[object]] = [[kind, count or "none"] for kind, count in result["breaches"].items()]
    return (
        table(f"Chaos, {result['mode']}, seed {result['seed']}", ["what", "how many"], counts)
        + "\n"
        + table("Breaches", ["kind", "how many"], verdicts)
    )


def timelines(found: Evidence, breaches: Sequence[Breach], done: Sequence[Done]) -> str:
    """Every breach, and the timelines of the first tasks among them."""
    lines = [f"BREACH {b.kind}: {b.task_id or '-'}: {b.text}" for b in breaches]
    for task_id in list(dict.fromkeys(b.task_id for b in breaches if b.task_id))[:MOST_TIMELINES]:
        lines += ["", *_timeline(found, task_id, done)]
    return "\n".join(lines)


def _timeline(found: Evidence, task_id: str, done: Sequence[Done]) -> list[str]:
    """All that happened to a task, and around it, in the order of time."""
    row = found.tasks.get(task_id)
    if row is None:
        return [f"{task_id}: there is no such row"]
    mark = row["prompt"].partition(".")[0] + "."
    lines: list[tuple[float, str]] = [
        (
            event["finished_at"].timestamp(),
            f"{event['stage']} {event['outcome']} ({event['worker']}, token {event['fence']}) {event['detail']}",
        )
        for event in found.events.get(task_id, [])
    ]
    lines += [
        (generation[column].timestamp(), f"  attempt {generation['attempt']} {generation['model']} {column}")
        for generation in found.generations.get(task_id, [])
        for column in ("planned_at", "sent_at", "accepted_at", "ended_at")
        if generation[column]
    ]
    lines += [
        (entry["created_at"].timestamp(), f"  {entry['kind']} {entry['amount']} (run {entry['run']})")
        for entry in found.entries.get(task_id, [])
    ]
    for job in found.jobs.get(mark, []):
        lines.append((job["createdAt"], f"  simulator: job {job['id']} made"))
        if job["endAt"] is not None:
            lines.append((job["endAt"], f"  simulator: job {job['id']} {job['phase']} {job['failure'] or ''}"))
    lines += [(one.began, f"    --- {one.fault.kind} {one.detail}") for one in done]
    begin = row["created_at"].timestamp()
    end = row["finished_at"].timestamp() if row["finished_at"] else float("inf")
    return [
        f"{task_id}: {row['status']} in {row['stage']}, token {row['fence']}, {row['prompt']!r}",
        *(f"  {at - begin:8.2f} s  {text}" for at, text in sorted(lines) if begin - 1 <= at <= end + 60),
    ]


def keep(result: dict[str, Any], breaches: Sequence[Breach], done: Sequence[Done]) -> str:
    """Write the raw figures to bench/results/; where they are."""
    log = [
        {"kind": d.fault.kind, "after_jobs": d.fault.after_jobs, "began": d.began, "ended": d.ended, "detail": d.detail}
        for d in done
    ]
    found = {**result, "fault_log": log, "breach_log": [vars(b) for b in breaches]}
    return runs.keep(found, f"chaos-seed{result['seed']}-")
