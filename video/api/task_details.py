"""One task's whole story as JSON: its timeline, its attempts with the reasons of each choice, its money.

Its owner gets what is theirs; workers, keys, accounts and the operators' own words are for staff.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import groupby
from typing import Any

from django.utils import timezone

from video import order
from video.engine.position import State, position_of
from video.models import CreditEntry, Generation, TaskEvent, VideoTask

EVENTS_SHOWN = 400
GENERATIONS_SHOWN = 50
#: The API's words for each state.
_STATES: dict[State, str] = {
    State.IN_WORK: "inWork",
    State.NOT_BEFORE: "waitsForSlot",
    State.WAITS_FOR_SLOT: "waitsForSlot",
    State.DISK_FULL: "waitsForSlot",
    State.PARKED: "parked",
    State.WAITS_FOR_CORE: "waitsForCore",
    State.WORKER_SILENT: "waitsForWorker",
    State.WAITS_FOR_WORKER: "waitsForWorker",
}
#: Words that hold nothing of the installation: the provider's name and its own status.
_PROVIDER_SAYS = re.compile(r"(runway|pika|kling): [a-z_ -]{1,40}")
_BY = re.compile(r" by [^;]*")
_OWN_WORDS = frozenset(
    {
        TaskEvent.Outcome.CREATED,
        TaskEvent.Outcome.ADMITTED,
        TaskEvent.Outcome.ADVANCED,
        TaskEvent.Outcome.SUCCEEDED,
    }
)


def find(task_id: str, *, of_user: int | None) -> VideoTask | None:
    """The task; of one user only, unless that is None. One statement."""
    rows = VideoTask.objects.select_related("user").filter(pk=task_id)
    return (rows if of_user is None else rows.filter(user_id=of_user)).first()


def details(task: VideoTask, *, staff: bool) -> dict[str, Any]:
    """Everything below the status; three statements (of `task` with its user), however long its story."""
    generations = list(
        task.generations.select_related("account").order_by("-attempt")[:GENERATIONS_SHOWN]
        if staff
        else task.generations.order_by("-attempt")[:GENERATIONS_SHOWN]
    )
    events = list(task.events.order_by("-id")[: EVENTS_SHOWN + 1])
    entries = list(task.credit_entries.order_by("run", "id"))
    return {
        **({"user": task.user.get_username()} if staff else {}),
        "run": task.run,
        "now": _now(task, timezone.now(), staff=staff),
        "request": order.as_json(task),
        "createdAt": _time(task.created_at),
        "startedAt": _time(task.started_at),
        "finishedAt": _time(task.finished_at),
        "deadlineAt": _time(task.deadline_at),
        "timeline": [_event(event, task, staff=staff) for event in reversed(events[:EVENTS_SHOWN])],
        "timelineCut": len(events) > EVENTS_SHOWN,
        "generations": [_generation(one, staff=staff) for one in reversed(generations)],
        "credits": {
            "total": sum(entry.amount for entry in entries),
            "runs": [
                {"run": run, "entries": [_entry(entry, staff=staff) for entry in group]}
                for run, group in groupby(entries, key=lambda entry: entry.run)
            ],
        },
    }


def _now(task: VideoTask, now: datetime, *, staff: bool) -> dict[str, Any] | None:
    """What it does or waits for; None when it is over."""
    position = position_of(task, now)
    if position.state is State.OVER:
        return None
    found: dict[str, Any] = {
        "state": _STATES[position.state],
        "since": _time(position.since),
        "until": _time(position.until),
    }
    if staff:
        if position.state is State.IN_WORK:
            found["worker"] = position.worker
        found |= {"reason": position.reason or None, "tries": task.tries, "lostWorkers": task.deaths}
    return found


def _event(event: TaskEvent, task: VideoTask, *, staff: bool) -> dict[str, Any]:
    found = {
        "run": event.run,
        "stage": event.stage,
        "outcome": event.outcome,
        "startedAt": _time(event.started_at),
        "finishedAt": _time(event.finished_at),
        "seconds": round(max(0.0, (event.finished_at - event.started_at).total_seconds()), 3),
        "generationId": event.generation_id,
        "detail": (event.detail if staff else _for_owner(event, task)) or None,
        "errorCode": event.error_code or None,
    }
    if staff:
        found["worker"] = event.worker
    return found


def _for_owner(event: TaskEvent, task: VideoTask) -> str:
    """An event's words without those that name keys, hosts and operators."""
    if event.worker.startswith("operator "):
        return "an operator saw to it"
    if event.outcome in {TaskEvent.Outcome.CANCELLED, TaskEvent.Outcome.RESUMED}:
        return _BY.sub("", event.detail)  # who it was is in the worker's column
    if event.outcome in _OWN_WORDS or _PROVIDER_SAYS.fullmatch(event.detail):
        return event.detail
    if event.outcome == TaskEvent.Outcome.FAILED and event.run == task.run:
        return task.error_message
    return ""


def _generation(one: Generation, *, staff: bool) -> dict[str, Any]:
    found = {
        "generationId": one.pk,
        "run": one.run,
        "attempt": one.attempt,
        "provider": one.provider,
        "model": one.model,
        "state": one.state,
        "simulated": one.simulated,
        "candidates": [_candidate(each) for each in one.candidates if isinstance(each, dict)],
        "plannedAt": _time(one.planned_at),
        "sentAt": _time(one.sent_at),
        "acceptedAt": _time(one.accepted_at),
        "endedAt": _time(one.ended_at),
        "looks": one.polls,
        "progress": one.provider_progress,
        "cost": {
            "expectedUsd": _decimal(one.expected_usd),
            "expected": _decimal(one.expected_cost),
            "reported": _decimal(one.reported_cost),
            "unit": one.cost_unit or None,
        },
        "errorCode": one.error_code or None,
        "error": one.error_message or None,
    }
    if staff:
        found |= {
            "jobId": one.job_id or None,
            "keyFingerprint": one.key_fingerprint,
            "account": one.account.account,
            "providerStatus": one.provider_status or None,
            "lastLookAt": _time(one.last_polled_at),
            "failedLooks": one.poll_errors,
            "cancelWantedAt": _time(one.cancel_wanted_at),
            "looksAgainAt": _time(one.look_at),
        }
    return found


def _candidate(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": one.get("model"),
        "provider": one.get("provider"),
        "chosen": one.get("chosen", False),
        "usable": one.get("usable"),
        "score": one.get("score"),
        "priceUsd": one.get("price_usd"),
        "renderSeconds": one.get("expected_s"),
        "reason": one.get("reason"),
    }


def _entry(entry: CreditEntry, *, staff: bool) -> dict[str, Any]:
    found = {"kind": entry.kind, "amount": entry.amount, "at": _time(entry.created_at)}
    return found | {"note": entry.note or None} if staff else found


def _decimal(amount: Any) -> str | None:
    return None if amount is None else f"{amount.normalize():f}"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
