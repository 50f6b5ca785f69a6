"""Whether a job may start on a model now, and if not, why: one answer for admission, quotes, `GET /api/models`, the
expected wait and the admin.

What it knows: models that have no key here or that an operator switched off, open circuits (of everybody or of one
user), keys that are drained, refused or in quarantine, accounts that are closed, cool down, have a lowered limit or one
of 0, and slots that are taken. What an order asks for (its length, sound, a start image) is `providers.models.can`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from providers import catalogue, ranking
from providers.contract import Reason, ReasonCode
from providers.models import Model
from providers.ranking import UNMEASURED, ModelHealth, Override
from video.infra import database
from video.routing import health, slots
from video.routing.health import ANOTHER_USER, Health
from video.routing.slots import Slots

#: One column of a SELECT for `snapshot_of`.
SNAPSHOT = f"json_build_array({slots.SNAPSHOT}, {health.SNAPSHOT})::text"
_AS_IN_CATALOGUE = Override()


@dataclass(frozen=True)
class ModelState:
    """How a model stands for one user."""

    reason: Reason | None  # why no job may start now, FULL where each slot is taken; None when one may
    free_slots: int  # jobs that may start now
    usable_slots: int  # jobs that may be live at once as things stand, of all users; 0 where none may start

    @property
    def takes_jobs(self) -> bool:
        """Whether a job may start now, or as soon as a slot is free."""
        return self.reason is None or self.reason.code is ReasonCode.FULL


@dataclass
class Availability:
    """The slots and the health of the models at one moment. Admission takes the slots, so its answers change."""

    slots: Slots
    health: Health

    def of_all(self, user_id: int = ANOTHER_USER) -> dict[str, ModelState]:
        """Every model of the catalogue, by id, for the jobs of this user."""
        seen, reasons, free = self.health.seen_by(user_id), self.reasons(), slots.free(self.slots)
        return {model.id: self._state(model, seen, reasons, free) for model in catalogue.MODELS}

    def _state(
        self, model: Model, seen: dict[str, ModelHealth], reasons: dict[str, Reason | None], free: dict[str, int]
    ) -> ModelState:
        decided = self.health.overrides.get(model.id, _AS_IN_CATALOGUE)
        reason = ranking.why_closed(model, decided, seen.get(model.id, UNMEASURED), reasons)
        if reason is not None and reason.code is not ReasonCode.FULL:
            return ModelState(reason, 0, 0)
        return ModelState(reason, free.get(model.id, 0), self.slots.usable(model.id))

    def reasons(self) -> dict[str, Reason | None]:
        """Of each model that has a key here: None where a slot is free, else why none is. `ranking.rank` takes it."""
        return slots.availability(self.slots, full=ranking.FULL)

    def is_switched_off(self, model: str) -> bool:
        """Whether an operator has switched the model off."""
        return not self.health.overrides.get(model, _AS_IN_CATALOGUE).enabled

    def serving(self, user_id: int = ANOTHER_USER) -> set[str]:
        """Models that take jobs at all now, though their slots may be full."""
        return {model for model, state in self.of_all(user_id).items() if state.takes_jobs}

    def free(self) -> dict[str, int]:
        """The models that a job of anybody could start on now, each with its free slots."""
        return {model: state.free_slots for model, state in self.of_all().items() if state.free_slots}

    def usable_slots(self, models: Iterable[str]) -> dict[int, int]:
        """Jobs of these models that may be live at once, by user: those for whom a circuit stands otherwise than for
        everybody else, and ANOTHER_USER."""
        users = {ANOTHER_USER}.union(*(circuit.named() for circuit in self.health.circuits.values()))
        of_user = {user_id: self.of_all(user_id) for user_id in users}
        return {
            user_id: sum(found[model].usable_slots for model in models if model in found)
            for user_id, found in of_user.items()
        }


def read() -> Availability:
    """As it is now, without what was measured of the models; one statement."""
    return snapshot_of(database.value(f"SELECT {SNAPSHOT}"))


def read_measured() -> Availability:
    """The same with what was measured; two statements."""
    return Availability(slots.read(), health.read())


def snapshot_of(text: str) -> Availability:
    """What `SNAPSHOT` has read, in this or a larger statement."""
    of_slots, of_health = json.loads(text)
    return Availability(slots.snapshot_of(of_slots), health.snapshot_of(of_health))
