"""The verdict, from the outside: what clients were answered, what the simulator saw, the ledger, the files.

Each check returns breaches; none examines how the product works, only what it promised.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import requests
from django.db import connection, transaction

from bench.chaos.load import Accepted, Load
from bench.chaos.plan import PIKA_WINDOW_S, UNKNOWN

COST = 10
JUST_BEGUN_S = 1.0  # for so long a poll may be old when it is acted upon, on a busy machine


@dataclass(frozen=True)
class Breach:
    """A promise that was broken."""

    kind: str  # lost, doubled, ledger, file, wrong, leftover, slow
    text: str
    task_id: str = ""


@dataclass
class Evidence:
    """Everything that the checks need, read once after the run."""

    load: Load
    storage: Path
    slots: int
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    generations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    entries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # the simulator's, by the prompt's mark
    submits: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)

    def task_of(self, mark: str) -> str:
        """The task of a mark, for a breach; empty when there is none."""
        return next((t.task_id for t in self.load.accepted.values() if t.job.mark == mark), "")


def rows(sql: str) -> list[dict[str, Any]]:
    """A query's rows by name."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _by_task(sql: str) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in rows(sql):
        found[row["task_id"]].append(row)
    return dict(found)


def gather(load: Load, *, simulator_url: str, storage: Path, slots: int) -> Evidence:
    """Read tables and simulator. The system still runs, but nothing is going on."""
    connection.close()  # it may have been cut by a fault
    found = Evidence(load, storage, slots)
    with transaction.atomic():
        with connection.cursor() as cursor:  # jobs of cancelled tasks may still come to their ends
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found.tasks = {row["id"]: row for row in rows("SELECT * FROM video_videotask")}
        found.generations = _by_task("SELECT * FROM video_generation ORDER BY attempt")
        found.entries = _by_task("SELECT * FROM video_creditentry WHERE task_id IS NOT NULL ORDER BY id")
        found.events = _by_task("SELECT * FROM video_taskevent ORDER BY id")
        found.notes = rows("SELECT * FROM chaos_note ORDER BY at")
    with requests.Session() as session:

        def ask(path: str) -> Any:
            return session.get(f"{simulator_url}/_sim/{path}", timeout=60).json()

        jobs = defaultdict(list)
        for job in ask("jobs?limit=10000000")["jobs"]:
            jobs[job["prompt"].partition(".")[0] + "."].append(job)
        found.jobs = dict(jobs)
        found.submits, found.stats = ask("submits"), ask("stats")
    return found


def check(found: Evidence) -> list[Breach]:
    """All breaches, the gravest kind first."""
    checks = (_creates, _ends, _provider, _ledger, _files, _attempts, _leftovers, _moves)
    return [breach for one in checks for breach in one(found)]


def check_rolling(
    found: Evidence, stops: Sequence[tuple[str, float]], loads: Sequence[int], *, grace_s: float
) -> list[Breach]:
    """What a deploy may not do: fail a task, send a submit twice, or need to be killed. `loads`: the unfinished tasks
    at the begin of each restart; one without any proves nothing.
    """
    breaches = [
        Breach("wrong", f"failed: {task.status.get('errorCode')}", task.task_id)
        for task in found.load.accepted.values()
        if task.status.get("status") == "failed"
    ]
    repeated = found.submits["received"] - len(found.load.accepted)
    if repeated:
        breaches.append(Breach("doubled", f"{repeated} more submits than tasks"))
    breaches += [
        Breach("slow", f"{name} was gone only {seconds:.1f} s after SIGTERM")
        for name, seconds in stops
        if seconds > grace_s
    ]
    breaches += [Breach("wrong", f"restart {n} met no task") for n, load in enumerate(loads, start=1) if not load]
    return breaches


# --- creates and ends ----------------------------------------------------------------------------------------------


def _creates(found: Evidence) -> Iterator[Breach]:
    """Every create was accepted in the end, and one key made one task: the one in the client's answer."""
    for number, why in found.load.refused.items():
        yield Breach("lost", f"create {number} was never accepted: {why}")
    for task_id, why in found.load.doubled.items():
        yield Breach("doubled", why, task_id)
    told = {f"chaos-{number}": task.task_id for number, task in found.load.accepted.items()}
    made = Counter(row["idempotency_key"] for row in found.tasks.values())
    for key, count in made.items():
        if count != 1:
            yield Breach("doubled", f"key {key} made {count} tasks")
    for key, task_id in told.items():
        if task_id not in found.tasks:
            yield Breach("lost", f"{key}: the client was told of a task that is not there", task_id)
        elif found.tasks[task_id]["idempotency_key"] != key:
            yield Breach("wrong", f"{key}: the client was told of another key's task", task_id)
    for task_id, row in found.tasks.items():
        if row["idempotency_key"] not in told and not found.load.refused:
            yield Breach("doubled", f"nobody was told of this task ({row['idempotency_key']})", task_id)


def _ends(found: Evidence) -> Iterator[Breach]:
    """Every accepted task ended, as the API says, in a way that its script allows."""
    for task in found.load.accepted.values():
        status, script = task.status.get("status"), task.job.script
        row = found.tasks.get(task.task_id)
        if status not in {"success", "failed"}:
            stage = row and f"{row['status']} in {row['stage']}: {row['park_reason']}"
            yield Breach("lost", f"has not ended: the API says {task.status}, the row {stage}", task.task_id)
        elif row and status != {"cancelled": "failed"}.get(row["status"], row["status"]):
            yield Breach("wrong", f"the API says {status}, the row {row['status']}", task.task_id)
        elif status == "success" and not script.may_succeed:
            yield Breach("wrong", f"succeeded with {script.directives!r}", task.task_id)
        elif status == "failed" and not _may_fail(task):
            yield Breach(
                "wrong", f"failed with {task.status.get('errorCode')}: {task.status.get('error')}", task.task_id
            )


def _may_fail(task: Accepted) -> bool:
    code = task.status.get("errorCode")
    if code == "cancelled":
        return task.job.cancel_after_s is not None
    return code == UNKNOWN or code in task.job.script.may_fail


# --- the provider --------------------------------------------------------------------------------------------------


def _provider(found: Evidence) -> Iterator[Breach]:
    """Never two live jobs of one task, none after a success, no reference twice, no job that we don't know of."""
    at_risk = {task_id for task_id in found.tasks if _risked(found, task_id)}
    for mark, jobs in found.jobs.items():
        task_id = found.task_of(mark)
        if not task_id:
            yield Breach("doubled", f"{len(jobs)} jobs of {mark}, which no client was told of")
            continue
        if task_id not in at_risk:
            yield from _doubled(task_id, sorted(jobs, key=lambda job: job["createdAt"]))
        for reference, count in Counter(job["reference"] for job in jobs if job["reference"]).items():
            if count > 1:
                yield Breach("doubled", f"reference {reference} made {count} jobs", task_id)
        generations = found.generations.get(task_id, [])
        known = {generation["job_id"] for generation in generations}
        open_cases = sum(g["state"] in {"unknown", "lost"} and not g["job_id"] for g in generations)
        strangers = [job["id"] for job in jobs if job["id"] not in known]
        if len(strangers) > open_cases:
            yield Breach("doubled", f"jobs {strangers} exist, the books know of {open_cases} open cases", task_id)
    for prompt, tally in found.submits["doubled"].items():
        task_id = found.task_of(prompt.partition(".")[0] + ".")
        if task_id not in at_risk:
            yield Breach("doubled", f"the simulator counts as paid twice: {tally}", task_id)
    for lane in found.stats["lanes"]:
        if lane["maxLive"] > found.slots:
            yield Breach("doubled", f"{lane['model']} had {lane['maxLive']} live jobs, {found.slots} are allowed")


def _doubled(task_id: str, jobs: list[dict[str, Any]]) -> Iterator[Breach]:
    for job, later in pairwise(jobs):
        if later["createdAt"] < (job["endAt"] or float("inf")):
            yield Breach("doubled", f"jobs {job['id']} and {later['id']} lived at the same time", task_id)
        elif job["phase"] == "succeeded":
            yield Breach("doubled", f"job {later['id']} was made after {job['id']} had succeeded", task_id)


def _risked(found: Evidence, task_id: str) -> bool:
    """Whether its user has paid for another run though the attempt before was given up as lost: then two may live."""
    generations = found.generations.get(task_id, [])
    return any(one["state"] == "lost" and later["run"] > one["run"] for one, later in pairwise(generations))


# --- money ---------------------------------------------------------------------------------------------------------


def _ledger(found: Evidence) -> Iterator[Breach]:
    """Each run paid once, and given back once if it failed, by the rule if it was cancelled, and never otherwise."""
    from video.credits import ledger

    for user, balance, total in ledger.differences():
        yield Breach("ledger", f"user {user}: the balance is {balance}, the entries make {total}")
    for task_id, row in found.tasks.items():
        entries = Counter((entry["run"], entry["kind"], entry["amount"]) for entry in found.entries.get(task_id, []))
        for run in range(1, row["run"] + 1):
            if (paid := entries.pop((run, "debit", -COST), 0)) != 1:
                yield Breach("ledger", f"run {run} was debited {paid} times", task_id)
            refunds, allowed = entries.pop((run, "refund", COST), 0), _refunds(found, task_id, run)
            if refunds not in allowed:
                yield Breach("ledger", f"run {run}, {row['status']}: {refunds} refunds, not {allowed}", task_id)
        if entries:
            yield Breach("ledger", f"entries of no run of its: {dict(entries)}", task_id)


def _refunds(found: Evidence, task_id: str, run: int) -> set[int]:
    """How many refunds a run may have."""
    row = found.tasks[task_id]
    outcomes = [event["outcome"] for event in found.events.get(task_id, []) if event["run"] == run]
    if "failed" in outcomes:  # also if its video came late and was delivered
        return {1}
    if "cancelled" not in outcomes or (run == row["run"] and row["status"] == "success"):
        return {0}
    if run != row["run"] or row["status"] != "cancelled":
        return {0, 1}  # it went on, with or without paying again, by where it stood
    return _refunds_of_cancelled(found, task_id, run)


def _refunds_of_cancelled(found: Evidence, task_id: str, run: int) -> set[int]:
    """By the last attempt: what the provider charged is not given back, and what surely cost nothing is."""
    generations = found.generations.get(task_id, [])
    last = generations[-1] if generations else None
    cancelled_at = max(e["finished_at"] for e in found.events[task_id] if e["outcome"] == "cancelled")
    if last is None or last["run"] != run or last["state"] == "rejected":
        return {1}
    if _came_late(last):
        return {0, 1}  # given up as lost and refunded before the provider said that the job exists; or not quite yet
    if last["state"] in {"unknown", "accepted", "succeeded"}:
        return {0}
    if last["ended_at"] < cancelled_at:  # between two attempts
        return {1}
    if last["state"] == "lost":
        return {0, 1} if last["job_id"] else {1}
    mark = found.tasks[task_id]["prompt"].partition(".")[0] + "."
    job = next((job for job in found.jobs.get(mark, []) if job["id"] == last["job_id"]), None)
    if job is None or not job["cost"]:
        return {0, 1}
    # fal says no cost, so what was in its queue at the look right before the cancel counts as free.
    began_meanwhile = job["provider"] == "pika" and job["cancelled"] and job["endAt"] - job["runAt"] < JUST_BEGUN_S
    return {0, 1} if began_meanwhile else {0}


def _came_late(generation: dict[str, Any]) -> bool:
    """Whether its outcome was unknown for longer than its call-back is waited for: twice as long as any answer."""
    sent_at, accepted_at = generation["sent_at"], generation["accepted_at"]
    return accepted_at is not None and accepted_at - sent_at >= timedelta(seconds=PIKA_WINDOW_S)


# --- files ---------------------------------------------------------------------------------------------------------


def _files(found: Evidence) -> Iterator[Breach]:
    """Each success has its whole video and its thumbnail, on disk and through its link."""
    whole: dict[str, str] = {}  # by content: what is wrong with it
    for task in found.load.accepted.values():
        row = found.tasks.get(task.task_id)
        if row is None or row["status"] != "success":
            continue
        video, thumbnail = found.storage / row["output_key"], found.storage / row["thumbnail_key"]
        for path in (video, thumbnail):
            if not path.is_file():
                yield Breach("file", f"{path.name} is missing", task.task_id)
        if not video.is_file():
            continue
        content = video.read_bytes()
        if len(content) != row["video_bytes"]:
            yield Breach("file", f"{len(content)} bytes instead of {row['video_bytes']}", task.task_id)
        digest = hashlib.sha256(content).hexdigest()
        if digest not in whole:
            whole[digest] = _wrong_with(video, content)
        if whole[digest]:
            yield Breach("file", whole[digest], task.task_id)
        if thumbnail.is_file() and not thumbnail.read_bytes().startswith(b"\xff\xd8"):
            yield Breach("file", "the thumbnail is no JPEG", task.task_id)
        result = task.status.get("result") or {}
        if row["video_id"] not in result.get("videoUrl", ""):
            yield Breach("file", f"the link that the API gives is {result.get('videoUrl')}", task.task_id)
    for task in list(found.load.accepted.values())[:20]:
        if link := (task.status.get("result") or {}).get("videoUrl"):
            reply = requests.get(link, timeout=30)
            if reply.status_code != 200 or len(reply.content) != found.tasks[task.task_id]["video_bytes"]:
                yield Breach("file", f"its link answers {reply.status_code}, {len(reply.content)} bytes", task.task_id)


def _wrong_with(path: Path, content: bytes) -> str:
    """Empty for a video that can be decoded from the first frame to the last."""
    if b"moov" not in content:
        return "no moov box"
    try:
        with av.open(str(path)) as container:
            frames = sum(1 for _ in container.decode(video=0))
    except av.error.FFmpegError as err:
        return f"can't be decoded: {err}"
    return "" if frames else "has no frame"


# --- what is left --------------------------------------------------------------------------------------------------


def _attempts(found: Evidence) -> Iterator[Breach]:
    """No attempt of an ended task waits to be sent, and an open one belongs to a task that did not succeed."""
    for task_id, generations in found.generations.items():
        status = found.tasks[task_id]["status"]
        for generation in generations:
            if generation["state"] == "planned":
                yield Breach("leftover", f"attempt {generation['attempt']} is still planned", task_id)
            if status == "success" and generation["state"] in {"unknown", "accepted"}:
                yield Breach("leftover", f"attempt {generation['attempt']} is {generation['state']}", task_id)


def _leftovers(found: Evidence) -> Iterator[Breach]:
    """Nobody holds anything, and a sweep leaves no work file of a finished task and no half file."""
    from video.infra.toolkit import toolkit
    from video.processes import periodic

    for task_id, row in found.tasks.items():
        if row["lease_until"] is not None and row["finished_at"] is None:
            yield Breach("leftover", f"held by {row['claimed_by']} in {row['stage']}", task_id)
    while periodic.sweep_work_files():
        pass
    toolkit().storage.sweep_scratch(older_than_s=0, now=time.time() + 3600)
    kept = {"failed", "cancelled"}  # KEEP_FAILED_DAYS
    for path in found.storage.rglob("*"):
        if not path.is_file():
            continue
        key = path.relative_to(found.storage)
        if key.parts[0] == "work" and found.tasks.get(key.parts[1], {}).get("status") not in kept:
            yield Breach("leftover", f"work file {key}", key.parts[1])
        elif key.parts[0] == ".scratch" or path.name.endswith(".part"):
            yield Breach("leftover", f"half a file after the sweep: {key}")


def orphans(found: Evidence) -> int:
    """Videos on disk that no row names: of workers that died between the copy and the row. Litter, not a breach."""
    named = {row["output_key"] for row in found.tasks.values()}
    return sum(str(p.relative_to(found.storage)) not in named for p in found.storage.glob("*/videos/*.mp4"))


def _moves(found: Evidence) -> Iterator[Breach]:
    """Nothing was taken from a living holder, and nothing was moved by a late one."""
    for note in found.notes:
        yield Breach("wrong", note["what"], note["task_id"])
