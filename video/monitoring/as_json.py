"""The figures in the API's words, for `GET /api/queues/status` and for `queue_status --json`."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from video.engine.queues import QUEUES
from video.infra.camel import camel, utc
from video.monitoring.overview import System
from video.monitoring.stages import WINDOWS_MIN, Rate, StageFigures
from video.monitoring.users import OwnFigures
from video.scheduling.storage_quota import Use

_WAITING_FOR_SLOT = "number=tasks later=notBeforeLater oldest_s=oldestWaitSeconds oldest_task"
_WAITING_FOR_CORE = "number=tasks oldest_s=oldestWaitSeconds oldest_task"
_WORKER = (
    "name kind host queues threads held draining alive seen_s=seenSecondsAgo started_at memory_bytes disk_free_bytes "
    "disk_low"
)
_ACCOUNT = (
    "provider account label model open live=slotsInUse limit=slots lowered cooldown_s closed_reason refusals "
    "retry_s balance balance_unit last_error"
)
_STUCK = "task=taskId user stage kind label reason since since_s=sinceSeconds age_s=ageSeconds next_s=nextTrySeconds"
_KEY = "provider fingerprint label account state refusals retry_s configured live=jobs gone_since checked_at last_error"


def system(figures: System) -> dict[str, Any]:
    """Everything, for staff."""
    return {
        "scope": "system",
        "at": utc(figures.at),
        "simulated": settings.SIMULATE,
        "healthy": not figures.needs_person,
        "troubles": [camel(one, "code needs_person sentence system operator") for one in figures.problems],
        "stuck": [camel(one, _STUCK) for one in figures.stuck],
        "videoQueue": {"waitingForSlot": camel(figures.waiting, _WAITING_FOR_SLOT), **queue(figures, QUEUES[0])},
        "mediaQueue": {
            "waitingForCore": camel(figures.waiting_for_core, _WAITING_FOR_CORE),
            **queue(figures, QUEUES[1]),
        },
        "stages": [_stage(one) for one in figures.stages],
        "accounts": [camel(one, _ACCOUNT) for one in figures.accounts],
        "keys": [camel(one, _KEY) for one in figures.keys],
        "pauses": [camel(one, "id kind what reason by=pausedBy since until") for one in figures.paused],
        "slowRenders": figures.slow_renders,
        "circuits": [camel(one, "model provider state faults open_s last_error") for one in figures.circuits],
        "workers": [camel(one, _WORKER) for one in figures.workers],
        "openCases": {
            "number": figures.stake.number,
            "atStakeUsd": str(figures.stake.usd),
            "simulatedUsd": str(figures.stake.simulated_usd),
            "withoutPrice": figures.stake.unpriced,
        },
        "warnings": {"last24Hours": figures.warnings},
        "storage": camel(figures.stored, "bytes=usedBytes videos"),
    }


def own(figures: OwnFigures) -> dict[str, Any]:
    """One user's own."""
    return {
        "scope": "own",
        "simulated": settings.SIMULATE,
        **camel(figures, "system active"),
        "byStatus": {name: figures.by_status.get(name, 0) for name in ("pending", "running")},
        **camel(figures, "by_stage waiting=waitingForSlot oldest_wait_s"),
        "last24Hours": {name: figures.last_day.get(name, 0) for name in ("success", "failed", "cancelled")},
        "balance": figures.balance,
        "storage": storage(figures.stored),
    }


def storage(use: Use) -> dict[str, int | None]:
    """What one user, or all of them, have stored."""
    return camel(use, "bytes=usedBytes limit=limitBytes videos")


def queue(figures: System, queue: str) -> dict[str, int]:
    """Tasks that are due, in work and parked in the stages of a queue."""
    stages = [one for one in figures.stages if one.queue == queue]
    return {
        "depth": sum(one.due for one in stages),
        "inFlight": sum(one.held for one in stages),
        "parked": sum(one.parked_number for one in stages),
    }


def _stage(one: StageFigures) -> dict[str, Any]:
    return {
        **camel(one, "stage queue due=depth held=inFlight parked_number=parked parked=parkedBy"),
        **camel(one, "oldest_s=oldestWaitSeconds oldest_task"),
        "donePerMinute": _rate(one.done),
        "failedPerMinute": _rate(one.failed),
        "durationSeconds": camel(one.through, "p50_s=p50 p95_s=p95"),
        "workSeconds": camel(one.work, "p50_s=p50 p95_s=p95"),
        "sample": one.sample,
    }


def _rate(rate: Rate) -> dict[str, float]:
    return {f"last{minutes}Min": round(value, 2) for minutes, value in zip(WINDOWS_MIN, rate.per_min, strict=True)}
