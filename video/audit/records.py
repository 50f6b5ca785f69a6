"""The audit's records are written here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.db import transaction

from providers.untrusted import storable
from video.audit.actors import Actor, Unaudited
from video.infra import database
from video.models import AuditRecord


def record(
    actor: Actor | Unaudited, action: str, kind: str, object_id: object = "", *, reason: str = "", detail: str = ""
) -> None:
    """Write down one act; call it in the transaction of what it does. One statement; none for who is no operator.

    `kind` is the model's name in lower case, or "system". `reason` is in the actor's words, without it that of the
    actor; it is cut at 300 characters. `detail` says what came of it. No prompt, key, link or name of a user belongs
    into either.
    """
    if not isinstance(actor, Actor):
        return
    AuditRecord.objects.create(**_columns(actor, action, kind, object_id, reason, detail))


def record_each(
    actor: Actor | Unaudited, action: str, kind: str, objects: Iterable[tuple[object, str]], *, reason: str = ""
) -> None:
    """The same for many: (primary key, what came of it) of each. One statement a thousand."""
    if not isinstance(actor, Actor):
        return
    rows = [AuditRecord(**_columns(actor, action, kind, pk, reason, detail)) for pk, detail in objects]
    AuditRecord.objects.bulk_create(rows, batch_size=1000)


#: What is a user's own, as the audit names it: a kind, and the primary keys of theirs.
_OWN = """
    (kind IN ('user', 'account', 'usershare', 'usererasure') AND object_id = %(user)s::text)
    OR (kind = 'videotask' AND object_id IN (SELECT id FROM video_videotask WHERE user_id = %(user)s))
    OR (kind = 'apikey' AND object_id IN (SELECT id FROM video_apikey WHERE user_id = %(user)s))
    OR (kind = 'loginsession' AND object_id IN (SELECT id FROM video_loginsession WHERE user_id = %(user)s))
    OR (kind = 'webhookendpoint' AND object_id IN (SELECT id FROM video_webhookendpoint WHERE user_id = %(user)s))
"""


def forget_reasons(user_id: int) -> int:
    """Empty the reasons of what was done to a user and to what is theirs, which may name them. Returns how many.

    The trigger lets it through in a transaction that says whom it erases, as it does `forget_name`.
    """
    with _erasing(user_id):
        return database.execute(
            f"UPDATE video_auditrecord SET reason = '' WHERE reason <> '' AND ({_OWN})",  # noqa: S608 - a constant
            {"user": user_id},
        )


def forget_name(user_id: int, name: str) -> int:
    """Of what a user did as an operator: `name` stands for theirs, and addresses and reasons go. Returns how many."""
    with _erasing(user_id):
        return database.execute(
            "UPDATE video_auditrecord SET actor = %(name)s, source = '', reason = '' WHERE user_id = %(user)s",
            {"user": user_id, "name": name},
        )


@contextmanager
def _erasing(user_id: int) -> Iterator[None]:
    with transaction.atomic():
        database.execute("SELECT set_config('reelworks.erases_user', %s, true)", [str(user_id)])
        yield
        database.execute("SELECT set_config('reelworks.erases_user', '', true)")


def _columns(actor: Actor, action: str, kind: str, object_id: object, reason: str, detail: str) -> dict[str, object]:
    return {
        "actor": storable(actor.name, 150) or "unnamed",
        "user_id": actor.user_id,
        "via": actor.via,
        "source": storable(actor.source, 200),
        "action": action,
        "kind": kind,
        "object_id": str(object_id),
        "reason": storable(reason or actor.reason, 300),
        "detail": storable(detail, 300),
    }
