"""A filter of the list of tasks by what each does now; the states are those of `engine/position.py`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest

from video.engine.position import SQL, State
from video.models import VideoTask

#: The rows of the filter: value in the address, title, states.
ROWS: dict[str, tuple[str, tuple[State, ...]]] = {
    "waiting": ("waits for a slot", (State.WAITS_FOR_SLOT,)),
    "later": ("waits for a slot later", (State.NOT_BEFORE,)),
    "core": ("waits for a core", (State.WAITS_FOR_CORE,)),
    "due": ("due, nobody has it", (State.WAITS_FOR_WORKER, State.WORKER_SILENT)),
    "held": ("in work", (State.IN_WORK,)),
    "parked": ("parked", (State.PARKED,)),
}


class StateFilter(admin.SimpleListFilter):
    """Each active task is in exactly one row."""

    title = "what it does now"
    parameter_name = "stands"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, title) for name, (title, _) in ROWS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[VideoTask]) -> QuerySet[VideoTask]:
        row = ROWS.get(self.value() or "")
        if row is None:
            return queryset
        condition = " OR ".join(f"({SQL[state]})" for state in row[1])
        return queryset.filter(RawSQL(condition, (), output_field=BooleanField()))  # noqa: S611 - constants
