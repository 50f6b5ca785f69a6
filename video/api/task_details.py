"""One task's details as JSON: its timeline, its attempts with the reasons of each choice, its credits.

The owner sees their own part; workers, keys, accounts and operators' notes are for staff.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import groupby
from typing import Any

from django.utils import timezone

from video.engine.position import State, position_of
from video.infra.camel import camel
from video.models import CreditEntry, Generation, TaskEvent, VideoTask, order
from video.monitoring import waits
from video.routing import key_labels

EVENTS_SHOWN = 400
GENERATIONS_SHOWN = 50
#: The API's words for each state.
_STATES: dict[State, str] = {
    State.IN_WORK: "inWork",
    State.NOT_BEFORE: "waitsForSlot",
    State.WAITS_FOR_SLOT: "waitsForSlot",
    State.USER_OFF: "waitsForSlot",
    State.DISK_FULL: "waitsForSlot",
    State.PARKED: "parked",
    State.WAITS_FOR_CORE: "waitsForCore",
    State.WORKER_SILENT: "waitsForWorker",
    State.WAITS_FOR_WORKER: "waitsForWorker",
}
_ACCOUNT = "provider account model state code=reasonCode live=slotsInUse limit=slots until"
_CANDIDATE = "model provider chosen usable score price_usd expected_s=renderSeconds reason code=reasonCode"
_COST = "expected_usd expected_cost=expected reported_cost=reported cost_unit=unit"
#: The price in a reason, as older versions wrote it.
_PRICE_IN_REASON = re.compile(r"\$[0-9.]+, ", re.ASCII)


def find(task_id: str, *, of_user: int | None) -> VideoTask | None:
    """The task; of one user only, unless that is None. One statement."""
    rows = VideoTask.objects.select_related("user").filter(pk=task_id)
    return (rows if of_user is None else rows.filter(user_id=of_user)).first()


def details(task: VideoTask, *, staff: bool) -> dict[str, Any]:
    """Everything below the status; three statements (of `task` with its user), however long its timeline; for staff of
    a task in line three more."""
    attempts = key_labels.with_labels(task.generations.select_related("account")) if staff else task.generations.all()
    generations = list(attempts.order_by("-attempt")[:GENERATIONS_SHOWN])
    events = list(task.events.order_by("-id")[: EVENTS_SHOWN + 1])
    entries = list(task.credit_entries.order_by("run", "id"))
    return {
        **({"user": task.user.get_username()} if staff else {}),
        "run": task.run,
        **({"renderOf": task.render_of_id} if task.render_of_id else {}),
        "now": _now(task, timezone.now(), staff=staff),
        "request": order.as_json(task),
        "warnings": task.warnings,
        **camel(task, "created_at started_at finished_at deadline_at"),
        "timeline": [_event(event, staff=staff) for event in reversed(events[:EVENTS_SHOWN])],
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
    found = {"state": _STATES[position.state], **camel(position, "since until")}
    if staff:
        if position.state is State.IN_WORK:
            found["worker"] = position.worker
        found |= {"reason": position.reason or None, "tries": task.tries, "lostWorkers": task.deaths}
        if (wait := waits.why(task)) is not None:
            found["accounts"] = [camel(one, _ACCOUNT) for one in wait.accounts]
    return found


def _event(event: TaskEvent, *, staff: bool) -> dict[str, Any]:
    found = {
        **camel(event, "run stage outcome started_at finished_at"),
        "seconds": round(max(0.0, (event.finished_at - event.started_at).total_seconds()), 3),
        "generationId": event.generation_id,
        "detail": (event.detail if staff else event.owner_detail) or None,
        "errorCode": event.error_code or None,
    }
    if staff:
        found["worker"] = event.worker
    return found


def _generation(one: Generation, *, staff: bool) -> dict[str, Any]:
    found = {
        **camel(one, "pk=generationId run attempt provider model state simulated"),
        "candidates": [_candidate(each, staff=staff) for each in one.candidates if isinstance(each, dict)],
        **camel(one, "planned_at sent_at accepted_at ended_at polls=looks provider_progress=progress"),
        **({"cost": camel(one, _COST)} if staff else {}),
        **camel(one, "aigc_tag has_c2pa"),
        **camel(one, "error_code error_message=error"),
    }
    if staff:
        found |= camel(one, "job_id key_fingerprint") | {"keyLabel": key_labels.of_generation(one)}
        found["account"] = one.account.account
        found |= camel(one, "provider_status last_polled_at=lastLookAt poll_errors=failedLooks cancel_wanted_at")
        found |= camel(one, "look_at=looksAgainAt fetch_errors=failedFetches")
    return found


def _candidate(one: dict[str, Any], *, staff: bool) -> dict[str, Any]:
    """What the provider would charge is for staff."""
    found = camel({"chosen": False, "code": None, **one}, _CANDIDATE)
    if not staff:
        del found["priceUsd"]
        found["reason"] = _PRICE_IN_REASON.sub("", found["reason"] or "")
    return found


def _entry(entry: CreditEntry, *, staff: bool) -> dict[str, Any]:
    return camel(entry, "kind amount created_at=at note" if staff else "kind amount created_at=at")
