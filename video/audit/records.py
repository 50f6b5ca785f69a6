"""The audit's records are written here."""

from __future__ import annotations

from collections.abc import Iterable

from providers.untrusted import storable
from video.audit.actors import Actor
from video.models import AuditRecord


def record(actor: Actor, action: str, kind: str, object_id: object = "", *, reason: str = "", detail: str = "") -> None:
    """Write down one act; call it in the transaction of what it does. One statement.

    `kind` is the model's name in lower case, or "system". `reason` is the actor's, in their words; it is cut at 300
    characters. `detail` says what came of it. No prompt, key or link belongs into either.
    """
    AuditRecord.objects.create(**_columns(actor, action, kind, object_id, reason, detail))


def record_each(
    actor: Actor, action: str, kind: str, objects: Iterable[tuple[object, str]], *, reason: str = ""
) -> None:
    """The same for many: (primary key, what came of it) of each. One statement a thousand."""
    rows = [AuditRecord(**_columns(actor, action, kind, pk, reason, detail)) for pk, detail in objects]
    AuditRecord.objects.bulk_create(rows, batch_size=1000)


def _columns(actor: Actor, action: str, kind: str, object_id: object, reason: str, detail: str) -> dict[str, object]:
    return {
        "actor": storable(actor.name, 150) or "unnamed",
        "user_id": actor.user_id,
        "via": actor.via,
        "source": storable(actor.source, 200),
        "action": action,
        "kind": kind,
        "object_id": str(object_id),
        "reason": storable(reason, 300),
        "detail": storable(detail, 300),
    }
