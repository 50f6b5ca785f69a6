"""What `GET /metrics` tells Prometheus: the whole system as the tables say it, and what each process has measured.

One scrape costs the statements of the overview and one more, and what the tables said is told again for a few seconds,
so that several scrapers cost no more than one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db import connection
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from video.engine.claims import WORKER
from video.engine.queues import QUEUES, WEBHOOK_QUEUE
from video.infra import metrics, outage
from video.infra.metrics import word
from video.models import ProviderKey
from video.monitoring import overview, process_figures, workers
from video.monitoring.overview import System
from video.monitoring.process_figures import Samples

FRESH_S = 5.0

#: name → (what it means, labels). All are gauges: the tables' state at this moment.
SYSTEM: dict[str, tuple[str, tuple[str, ...]]] = {
    "database_up": ("Whether the tables could be read for this answer: 1 or 0. At 0 only this process is told of.", ()),
    "tasks": ("Tasks in a stage: due and not begun, held by a worker, or parked until a time.", ("stage", "state")),
    "tasks_parked": ("Parked tasks by the cause of their wait.", ("stage", "cause")),
    "tasks_overdue": ("Parked tasks whose deadline has passed.", ("stage",)),
    "oldest_due_task_seconds": ("For how long the oldest due task has waited for a worker.", ("stage",)),
    "tasks_waiting": ("Tasks that wait for a slot at a provider, or for a core.", ("resource",)),
    "oldest_waiting_task_seconds": ("For how long the first of them has waited.", ("resource",)),
    "slots_used": ("Jobs that are open at a provider's account.", ("provider", "account", "model")),
    "slots_limit": ("Jobs that may be open there at once.", ("provider", "account", "model")),
    "account_open": (
        "Whether jobs may start there, though its slots may be full: 1 or 0.",
        ("provider", "account", "model"),
    ),
    "circuit_open": ("Whether a model gets no new jobs, or only a probe, after faults: 1 or 0.", ("provider", "model")),
    "circuit_faults": ("Faults of a model in a row.", ("provider", "model")),
    "key_state": (
        "1 for the state that a provider's key is in, else 0. A key is told by its fingerprint.",
        ("provider", "key", "state"),
    ),
    "key_jobs": ("Jobs that are open with a key.", ("provider", "key")),
    "workers_alive": ("Workers that take work from a queue; the queue `sweeper` are sweepers.", ("queue",)),
    "worker_threads": ("Threads of these workers.", ("queue",)),
    "disk_free_bytes": ("Room on the disk of a host's workers.", ("host",)),
    "problem": ("How often this is wrong now; 0 when it was and is over.", ("code", "needs_person")),
    "open_cases": ("Attempts of unknown outcome, which may cost money.", ()),
    "open_cases_usd": ("What they may cost.", ()),
    "credits_balance": ("Credits of all users together.", ()),
    "stored_bytes": ("What all stored files come to.", ()),
    "stored_videos": ("Videos that are stored.", ()),
    "webhooks_due": ("Webhooks that are due and that no worker has taken.", ()),
    "warned_videos": ("Videos of the last 24 hours that were delivered with a warning.", ("code",)),
}
#: Labels of what a process has measured: its host and process id, and `web`, `sweeper` or its queues.
OF_PROCESS = ("process", "role")
Values = Iterator[tuple[str, tuple[object, ...], float]]


@dataclass(frozen=True)
class _Told:
    """What the tables said, and when."""

    at: float
    system: list[Metric]
    others: list[tuple[str, str, Samples]]


_lock = threading.Lock()
_kept = _Told(float("-inf"), [], [])
_problems_seen: set[tuple[str, str]] = set()


def declared() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Name → (type, what it means, labels) of every metric. Those of processes have `process` and `role` besides."""
    of_system = {f"reelworks_{name}": ("gauge", told, labels) for name, (told, labels) in SYSTEM.items()}
    of_processes = {
        name: (kind, told, (*labels, *OF_PROCESS)) for name, (kind, told, labels) in metrics.declared().items()
    }
    return of_system | of_processes


def text(role: str = "web") -> bytes:
    """The answer, in Prometheus's text format 0.0.4, of a process of this role. Raises for no outage."""
    registry = CollectorRegistry()
    registry.register(_Whole(role))
    return generate_latest(registry)


class _Whole(Collector):
    def __init__(self, role: str) -> None:
        self._role = role

    def collect(self) -> Iterable[Metric]:
        told = _Told(0, _gauges([("database_up", (), 0)]), [])
        if outage.gate.lets_through():  # else it is known to be away, and not waited for again
            try:
                told = _told()
            except outage.ERRORS as err:
                connection.close()
                if outage.is_outage(err):
                    outage.gate.close(err)
        return [*told.system, *_of_processes([(str(WORKER), self._role, _own()), *told.others])]


def _told() -> _Told:
    """Of the tables, as of a few seconds ago at most. One thread asks, the others wait for its answer."""
    global _kept
    with _lock:
        if time.monotonic() - _kept.at > FRESH_S:
            figures = overview.read()
            credits, others = process_figures.of_others()
            _kept = _Told(time.monotonic(), _gauges(_values(figures, credits)), others)
        return _kept


def _own() -> Samples:
    return [
        (one.name, [(sample.name, dict(sample.labels), sample.value) for sample in one.samples])
        for one in metrics.REGISTRY.collect()
    ]


def _of_processes(found: Iterable[tuple[str, str, Samples]]) -> list[Metric]:
    """One metric each, with every process's samples; which one is in the labels `process` and `role`."""
    families = metrics.families()
    for process, role, samples in found:
        for name, values in samples:
            if (family := families.get(name)) is None:
                continue
            for sample, labels, value in values:
                family.add_sample(sample, {**labels, **dict(zip(OF_PROCESS, (process, role), strict=True))}, value)
    return list(families.values())


def _gauges(values: Iterable[tuple[str, tuple[object, ...], float]]) -> list[Metric]:
    found = {name: Metric(f"reelworks_{name}", told, "gauge") for name, (told, _) in SYSTEM.items()}
    for name, labels, value in values:
        named = dict(zip(SYSTEM[name][1], map(str, labels), strict=True))
        found[name].add_sample(f"reelworks_{name}", named, value)
    return [one for one in found.values() if one.samples]


def _values(figures: System, credits: int) -> Values:
    yield "database_up", (), 1
    yield from _of_stages(figures)
    yield from _of_providers(figures)
    yield from _of_workers(figures)
    now = Counter((one.code, "yes" if one.needs_person else "no") for one in figures.problems)
    _problems_seen.update(now)
    for code, needs_person in sorted(_problems_seen):
        yield "problem", (code, needs_person), now[code, needs_person]
    yield "open_cases", (), figures.stake.number
    yield "open_cases_usd", (), float(figures.stake.usd)
    yield "credits_balance", (), credits
    yield "stored_bytes", (), figures.stored.bytes
    yield "stored_videos", (), figures.stored.videos
    yield "webhooks_due", (), figures.webhooks_due
    for code, number in figures.warnings.items():
        yield "warned_videos", (code,), number


def _of_stages(figures: System) -> Values:
    for one in figures.stages:
        stage = one.stage.value
        for state, number in (("due", one.due), ("held", one.held), ("parked", one.parked_number)):
            yield "tasks", (stage, state), number
        for cause, number in one.parked.items():
            yield "tasks_parked", (stage, word(cause)), number
        yield "tasks_overdue", (stage,), one.overdue
        yield "oldest_due_task_seconds", (stage,), one.oldest_s or 0
    for resource, waiting in (("slot", figures.waiting), ("core", figures.waiting_for_core)):
        yield "tasks_waiting", (resource,), waiting.number
        yield "oldest_waiting_task_seconds", (resource,), waiting.oldest_s or 0


def _of_providers(figures: System) -> Values:
    for account in figures.accounts:
        place = (account.provider, account.account, account.model)
        yield "slots_used", place, account.live
        yield "slots_limit", place, account.limit
        yield "account_open", place, account.open
    for circuit in figures.circuits:
        yield "circuit_open", (circuit.provider, circuit.model), circuit.state in ("open", "probing", "half_open")
        yield "circuit_faults", (circuit.provider, circuit.model), circuit.faults
    for key in figures.keys:
        for state in ProviderKey.State.values:
            yield "key_state", (key.provider, key.fingerprint, state), key.state == state
        yield "key_jobs", (key.provider, key.fingerprint), key.live


def _of_workers(figures: System) -> Values:
    for queue in (*QUEUES, WEBHOOK_QUEUE):
        there = workers.listening(figures.workers, queue)
        yield "workers_alive", (queue,), len(there)
        yield "worker_threads", (queue,), sum(one.threads for one in there)
    yield "workers_alive", ("sweeper",), len(workers.sweeping(figures.workers))
    free = {one.host: one.disk_free_bytes for one in figures.workers if one.alive and one.kind == "worker"}
    for host, number in free.items():
        yield "disk_free_bytes", (host,), number
