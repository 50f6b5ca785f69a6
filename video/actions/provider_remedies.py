"""What an operator does to keys, accounts and circuits: each row locked, changed if it fits, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from video.audit import records
from video.audit.actors import Actor
from video.engine import dispatch
from video.infra.after_commit import after_commit
from video.infra.durations import count
from video.models import Circuit, ProviderAccount, ProviderKey
from video.routing import health, refusals


def drain(keys: QuerySet[ProviderKey], *, by: Actor) -> int:
    """No new job starts with them; those under way are still looked at. Returns how many were changed."""
    draining = ProviderKey.State.DRAINING
    return _change(
        keys,
        lambda key: bool(key.state != draining or key.refusals),
        "drain",
        by,
        state=draining,
        last_error="",
        **refusals.NOTHING_KNOWN,
    )


@dataclass(frozen=True)
class Activated:
    """How many keys jobs may start with again, and how many of them were refused before."""

    changed: int
    tried: int

    @property
    def words(self) -> str:
        """For operators; empty if nothing was changed."""
        if not self.changed:
            return ""
        done = f"Jobs may start with {count(self.changed, 'key')} again."
        if not self.tried:
            return done
        return (
            f"{done} {count(self.tried, 'key')} of these {'was' if self.tried == 1 else 'were'} refused before: within "
            "seconds the provider is asked about it, or one job tries it, and the others follow when that goes well."
        )


def activate(keys: QuerySet[ProviderKey], *, by: Actor) -> Activated:
    """Jobs may start with them again, though they were refused or drained. One that was refused is asked about, or
    tried by one job, before others follow.
    """
    active = ProviderKey.State.ACTIVE
    with transaction.atomic():
        tried = _change(
            keys,
            lambda key: bool(key.refusals or key.state == ProviderKey.State.QUARANTINED),
            "activate",
            by,
            state=active,
            **refusals.TO_BE_TRIED,
        )
        return Activated(tried + _change(keys, lambda key: key.state != active, "activate", by, state=active), tried)


def open_again(accounts: QuerySet[ProviderAccount], *, by: Actor) -> int:
    """Take back a closing, a cool-down or a lowered limit. Returns how many were changed."""
    return _change(
        accounts,
        lambda one: bool(one.closed_reason or one.cooldown_until or one.lowered_until or one.refusals),
        "open",
        by,
        **refusals.NOTHING_KNOWN,
        closed_reason="",
        cooldown_until=None,
        busies=0,
        lowered_slots=None,
        lowered_until=None,
    )


def close(circuits: QuerySet[Circuit], *, by: Actor) -> int:
    """Let jobs through again, and forget the faults. Returns how many were changed."""
    return _change(
        circuits, lambda one: bool(one.faults or one.open_until or one.probing_since), "close", by, **health.CLOSED
    )


def _change(chosen: QuerySet[Any], where: Callable[[Any], bool], action: str, by: Actor, **columns: Any) -> int:
    """Set the columns of the rows that fit. What waits may start now: an admission is asked for."""
    rows = chosen.model._default_manager
    with transaction.atomic():
        locked = rows.filter(pk__in=chosen.order_by().values("pk")).order_by("pk").select_for_update()
        changed = [(row.pk, "") for row in locked if where(row) and rows.filter(pk=row.pk).update(**columns)]
        records.record_each(by, action, str(chosen.model._meta.model_name), changed)
        after_commit(dispatch.request_admission)
    return len(changed)
