"""The audit as it is listed: in the admin, by the command, and as CSV."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db.models import QuerySet
from django.db.models.functions import Now

from video.infra import csv_text, database
from video.models import AuditRecord

FIELDS: Final = ("id", "at", "actor", "user_id", "via", "source", "action", "kind", "object_id", "reason", "detail")
MOST_VALUES = 200


def find(
    *, since_s: float | None = None, actor: str = "", action: str = "", kind: str = "", object_id: str = ""
) -> QuerySet[AuditRecord]:
    """Records of which all that is given holds, newest first."""
    rows = AuditRecord.objects.order_by("-id")
    if since_s is not None:
        rows = rows.filter(at__gte=Now() - timedelta(seconds=since_s))
    given = {"actor": actor, "action": action, "kind": kind, "object_id": object_id}
    return rows.filter(**{name: value for name, value in given.items() if value})


def values_of(column: str) -> list[str]:
    """The first values of `actor`, `action` or `kind`, sorted: one look into the index for each, however many rows."""
    if column not in {"actor", "action", "kind"}:
        raise ValueError(column)
    rows = database.fetch(
        f"""
        WITH RECURSIVE found (value, number) AS (
            (SELECT {column}, 1 FROM video_auditrecord ORDER BY {column} LIMIT 1)
            UNION ALL
            SELECT (SELECT a.{column} FROM video_auditrecord a WHERE a.{column} > f.value ORDER BY a.{column} LIMIT 1),
                f.number + 1
            FROM found f WHERE f.value IS NOT NULL AND f.number < %s
        ) SELECT value FROM found WHERE value IS NOT NULL
        """,  # noqa: S608 - one of three names
        [MOST_VALUES],
    )
    return [value for (value,) in rows]


def as_csv(rows: QuerySet[AuditRecord]) -> str:
    """The rows as CSV, times in UTC."""
    found = rows.values_list(*FIELDS)
    return csv_text.table(FIELDS, ([one[0], f"{one[1]:%Y-%m-%dT%H:%M:%SZ}", *one[2:]] for one in found.iterator()))
