"""Amounts that a provider told beyond all bounds: the bound was written instead, and operators are warned of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from video.engine.claims import WORKER
from video.models import Generation, TaskEvent

log = logging.getLogger(__name__)

CODE = "amount_clamped"


def warn(generation: Generation, names: Sequence[str]) -> None:
    """Warn in the log and in the task's timeline, where its owner does not see it. Once for each attempt and name.

    `names` are our own words, as in `Submitted.clamped`; what the provider told is in neither. Two statements a name.
    """
    for name in names:
        detail = f"{generation.provider} told a {name} beyond all bounds: the largest that is kept was noted instead"
        if TaskEvent.objects.filter(task=generation.task_id, generation=generation, detail=detail).exists():
            continue
        log.warning("%s: %s", generation.pk, detail)
        TaskEvent.objects.create(
            task=generation.task,
            run=generation.run,
            generation=generation,
            stage=generation.task.stage,
            outcome=TaskEvent.Outcome.PARKED,
            fence=generation.task.fence,
            worker=str(WORKER),
            detail=detail,
            error_code=CODE,
        )
