"""Asking for a job, and stopping one: for the admin and the commands. What a sweeper does is in `processes`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from psycopg.errors import UniqueViolation

from providers.untrusted import storable
from video.actions import task_filters
from video.audit import records
from video.audit.actors import Actor
from video.engine import jobs
from video.infra.errors import Refusal
from video.models import ACTIVE, AuditRecord, OperatorJob, Status, VideoTask

Kind = OperatorJob.Kind
MOST_IDS = 1000
DRY_RUN_HOLDS_S = 24 * 3600.0  # for which a look at the storage allows to delete what it has found


class JobRefused(Refusal):
    """The job can't be asked for, or it has ended; the text is for the operator."""


def ask(kind: Kind, arguments: Mapping[str, Any], *, by: Actor) -> tuple[OperatorJob, bool]:
    """Ask for a job: the row, and whether it is new. One that is open with the same arguments is answered instead.

    Write the arguments by the functions below. Adds a record to the audit in the same transaction.
    """
    job = OperatorJob(
        kind=kind,
        arguments=dict(arguments),
        same_as=_same_as(kind, arguments),
        asked_by=storable(by.name, 150) or "unnamed",
        user_id=by.user_id,
        via=by.via,
        source=storable(by.source, 200),
        reason=storable(by.reason, 300),
    )
    while True:
        try:
            with transaction.atomic():
                job.save(force_insert=True)
                records.record(by, kind.value, "operatorjob", job.pk, detail=_told(kind, arguments))
            return OperatorJob.objects.get(pk=job.pk), True
        except IntegrityError as err:
            if not isinstance(err.__cause__, UniqueViolation):
                raise
            job.pk = None  # by `job_open_once`; the other one may have ended by now, and then this one is made
            earlier = OperatorJob.objects.filter(same_as=job.same_as, state__in=OperatorJob.OPEN).first()
            if earlier is not None:
                return earlier, False


def stop(job_id: int, *, by: Actor) -> None:
    """End an open job: what it has done stays done. Raises JobRefused."""
    with transaction.atomic():
        if not jobs.stop(job_id, f"Stopped by {by.name}."):
            raise JobRefused("This job has ended already.")
        records.record(by, "stop", "operatorjob", job_id)


def actor_of(job: OperatorJob) -> Actor:
    """Who asked for it, and why: in whose name its items are done."""
    return Actor(job.asked_by, AuditRecord.Via(job.via), job.source, job.user_id, job.reason)


def forget_user(user_id: int, old_name: str, name: str) -> None:
    """Of an erased user nothing is left in jobs: those about them go, and as an operator they get another `name`."""
    OperatorJob.objects.filter(
        Q(arguments__address__user=old_name) | Q(arguments__filters__user_id=str(user_id))
    ).delete()
    OperatorJob.objects.filter(user_id=user_id).update(asked_by=name, source="", reason="")


def of_tasks(
    verb: Kind,
    filters: Mapping[str, str] | None = None,
    ids: Sequence[str] | None = None,
    *,
    free: bool = False,
    regenerate: bool = False,
) -> dict[str, Any]:
    """The arguments of a retry or cancel: of all tasks that match now, or of these. Raises InvalidSelection.

    Tasks that come to match later are left out: those that are created or end after this moment.
    """
    found: dict[str, Any] = {"until": timezone.now().isoformat()}
    if ids is not None:
        if len(ids) > MOST_IDS:
            raise task_filters.InvalidSelection(f"At most {MOST_IDS} tasks can be named.")
        found["ids"] = sorted(ids)
    else:
        found |= {"filters": task_filters.fixed(filters or {}), "address": dict(filters or {})}
    return found | ({"free": free, "regenerate": regenerate} if verb == Kind.RETRY else {})


def rows_of(kind: Kind, arguments: Mapping[str, Any]) -> task_filters.Rows:
    """The tasks that such a job is about, as they are now."""
    rows = VideoTask.objects.all()
    if "ids" in arguments:
        return rows.filter(pk__in=arguments["ids"])
    filters = arguments["filters"]
    if kind == Kind.CANCEL:
        rows = rows.filter(status__in=ACTIVE, created_at__lte=arguments["until"])
    else:
        # A cancelled task has no failure: it is retried only where the filter names its status.
        wanted = Status.CANCELLED if filters.get("status__exact") == Status.CANCELLED else Status.FAILED
        rows = rows.filter(status=wanted, finished_at__lte=arguments["until"])
    return task_filters.narrow(rows, filters)


def of_cleanup(dry_run: OperatorJob | None) -> dict[str, Any]:
    """The arguments of a clean-up: a look, or the deletion of what that look has found. Raises JobRefused."""
    if dry_run is None:
        return {"dryRun": True}
    is_look = dry_run.kind == Kind.CLEANUP_STORAGE and dry_run.arguments.get("dryRun")
    if not is_look or dry_run.state != OperatorJob.State.DONE or dry_run.ended_at is None:
        raise JobRefused("Look first: a clean-up deletes only after a look that has ended well.")
    if (timezone.now() - dry_run.ended_at).total_seconds() > DRY_RUN_HOLDS_S:
        raise JobRefused("That look is more than a day old: look again first.")
    return {"dryRun": False, "look": dry_run.pk}


def of_check_keys(provider: str = "", fingerprint: str = "", account: str = "") -> dict[str, Any]:
    """The arguments of a check of keys: all of them, or those of a provider, an account, or one key."""
    return {"provider": provider, "fingerprint": fingerprint, "account": account}


def words(kind: Kind, arguments: Mapping[str, Any]) -> str:
    """For people: what the job is about."""
    if kind in {Kind.RETRY, Kind.CANCEL}:
        about = f"{len(arguments['ids'])} named" if "ids" in arguments else task_filters.words(arguments["address"])
        extras = [word for word, name in (("free", "free"), ("generated anew", "regenerate")) if arguments.get(name)]
        return "; ".join([about, *extras])
    if kind == Kind.CLEANUP_STORAGE:
        return "only a look" if arguments.get("dryRun") else f"after the look of job {arguments.get('look')}"
    if kind == Kind.CHECK_KEYS:
        named = [f"{name} {value}" for name, value in arguments.items() if value]
        return ", ".join(named) or "all of them"
    return ""


def _told(kind: Kind, arguments: Mapping[str, Any]) -> str:
    """The same for the audit, which names no user and no prompt."""
    if "address" not in arguments:
        return words(kind, arguments)
    named = {"user", "q"} & arguments["address"].keys()
    kept = {name: value for name, value in arguments["address"].items() if name not in named}
    return words(kind, {**arguments, "address": kept}) + ("; of one user, or of a search" if named else "")


def _same_as(kind: Kind, arguments: Mapping[str, Any]) -> str:
    """Of two requests for the same: a double click, or two operators. The moment of asking makes no difference."""
    told = {name: value for name, value in arguments.items() if name not in {"until", "filters"}}
    return hashlib.sha256(json.dumps([kind.value, told], sort_keys=True).encode()).hexdigest()
