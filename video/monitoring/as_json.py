"""The figures in the API's words, for `GET /api/queues/status` and for `queue_status --json`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings

from video.monitoring.overview import System
from video.monitoring.problems import Problem
from video.monitoring.providers import AccountFigures, CircuitFigures, KeyFigures
from video.monitoring.stages import QUEUES, WINDOWS_MIN, Rate, Spread, StageFigures, Waiting
from video.monitoring.users import OwnFigures
from video.monitoring.workers import Worker


def system(figures: System) -> dict[str, Any]:
    """Everything, for staff."""
    cores = figures.waiting_for_core
    return {
        "scope": "system",
        "at": _time(figures.at),
        "simulated": settings.SIMULATE,
        "healthy": not figures.needs_person,
        "troubles": [_trouble(one) for one in figures.troubles],
        "videoQueue": {"waitingForSlot": _waiting(figures.waiting), **_queue(figures, QUEUES[0])},
        "mediaQueue": {
            "waitingForCore": {
                "tasks": cores.number,
                "oldestWaitSeconds": _seconds(cores.oldest_s),
                "oldestTask": cores.oldest_task or None,
            },
            **_queue(figures, QUEUES[1]),
        },
        "stages": [_stage(one) for one in figures.stages],
        "accounts": [_account(one) for one in figures.accounts],
        "keys": [_key(one) for one in figures.keys],
        "circuits": [_circuit(one) for one in figures.circuits],
        "workers": [_worker(one) for one in figures.workers],
        "openCases": {
            "number": figures.stake.number,
            "atStakeUsd": str(figures.stake.usd),
            "simulatedUsd": str(figures.stake.simulated_usd),
            "withoutPrice": figures.stake.unpriced,
        },
    }


def own(figures: OwnFigures) -> dict[str, Any]:
    """One user's own."""
    return {
        "scope": "own",
        "simulated": settings.SIMULATE,
        "system": figures.system,
        "active": figures.active,
        "byStatus": {name: figures.by_status.get(name, 0) for name in ("pending", "running")},
        "byStage": figures.by_stage,
        "waitingForSlot": figures.waiting,
        "oldestWaitSeconds": _seconds(figures.oldest_wait_s),
        "last24Hours": {name: figures.last_day.get(name, 0) for name in ("success", "failed", "cancelled")},
        "balance": figures.balance,
    }


def _queue(figures: System, queue: str) -> dict[str, int]:
    stages = [one for one in figures.stages if one.queue == queue]
    return {
        "depth": sum(one.due for one in stages),
        "inFlight": sum(one.held for one in stages),
        "parked": sum(one.parked_number for one in stages),
    }


def _waiting(line: Waiting) -> dict[str, Any]:
    return {
        "tasks": line.number,
        "notBeforeLater": line.later,
        "oldestWaitSeconds": _seconds(line.oldest_s),
        "oldestTask": line.oldest_task or None,
    }


def _stage(one: StageFigures) -> dict[str, Any]:
    return {
        "stage": one.stage.value,
        "queue": one.queue,
        "depth": one.due,
        "inFlight": one.held,
        "parked": one.parked_number,
        "parkedBy": one.parked,
        "oldestWaitSeconds": _seconds(one.oldest_s),
        "oldestTask": one.oldest_task or None,
        "donePerMinute": _rate(one.done),
        "failedPerMinute": _rate(one.failed),
        "durationSeconds": _spread(one.through),
        "workSeconds": _spread(one.work),
        "sample": one.sample,
    }


def _rate(rate: Rate) -> dict[str, float]:
    return {f"last{minutes}Min": round(value, 2) for minutes, value in zip(WINDOWS_MIN, rate.per_min, strict=True)}


def _spread(spread: Spread) -> dict[str, float | None]:
    return {"p50": _seconds(spread.p50_s), "p95": _seconds(spread.p95_s)}


def _account(one: AccountFigures) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "account": one.account,
        "model": one.model,
        "open": one.open,
        "slotsInUse": one.live,
        "slots": one.limit,
        "lowered": one.lowered,
        "cooldownSeconds": _seconds(one.cooldown_s),
        "closedReason": one.closed_reason or None,
        "balance": None if one.balance is None else f"{one.balance.normalize():f}",
        "balanceUnit": one.balance_unit or None,
        "lastError": one.last_error or None,
    }


def _key(one: KeyFigures) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "fingerprint": one.fingerprint,
        "account": one.account,
        "state": one.state,
        "configured": one.configured,
        "jobs": one.live,
        "goneSince": _time(one.gone_since),
        "checkedAt": _time(one.checked_at),
        "lastError": one.last_error or None,
    }


def _circuit(one: CircuitFigures) -> dict[str, Any]:
    return {
        "model": one.model,
        "provider": one.provider,
        "state": one.state,
        "faults": one.faults,
        "openSeconds": _seconds(one.open_s),
        "lastError": one.last_error or None,
    }


def _worker(one: Worker) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "host": one.host,
        "queues": list(one.queues),
        "threads": one.threads,
        "held": one.held,
        "draining": one.draining,
        "alive": one.alive,
        "seenSecondsAgo": _seconds(one.seen_s),
        "startedAt": _time(one.started_at),
        "memoryBytes": one.memory_bytes,
        "diskFreeBytes": one.disk_free_bytes,
        "diskLow": one.disk_low,
    }


def _trouble(one: Problem) -> dict[str, Any]:
    return {
        "code": one.code,
        "needsPerson": one.needs_person,
        "sentence": one.sentence,
        "system": one.system,
        "operator": one.operator,
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(max(0.0, value), 2)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
