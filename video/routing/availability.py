"""Whether a job may start on a model now, and if not, why: one answer for admission, quotes, `GET /api/models`, the
expected wait and the admin.

What it knows: models that have no key here or that an operator switched off, what is paused, open circuits (of
everybody or of one user), keys that are drained, refused or in quarantine, accounts that are closed, cool down, have a
lowered limit or one of 0, and slots that are taken. What an order asks for (its length, sound, a start image) is
`providers.models.can`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from providers import catalogue, ranking
from providers.contract import Reason, ReasonCode
from providers.models import Model
from providers.ranking import UNMEASURED, ModelHealth, Override
from video.infra import database
from video.routing import health, pauses, slots
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
        seen, reasons, free = self.health.seen_by(user_id), self.reasons(user_id), slots.free(self.slots)
        return {model.id: self._state(model, seen, reasons, free) for model in catalogue.MODELS}

    def _state(
        self, model: Model, seen: dict[str, ModelHealth], reasons: dict[str, Reason | None], free: dict[str, int]
    ) -> ModelState:
        decided = self.health.overrides.get(model.id, _AS_IN_CATALOGUE)
        reason = ranking.why_closed(model, decided, seen.get(model.id, UNMEASURED), reasons)
        if reason is not None and reason.code is not ReasonCode.FULL:
            return ModelState(reason, 0, 0)
        return ModelState(reason, free.get(model.id, 0), self.slots.usable(model.id))

    def reasons(self, user_id: int = ANOTHER_USER) -> dict[str, Reason | None]:
        """Of each model that has a key here: None where a job of this user finds a slot free, else why none.
        `ranking.rank` takes it."""
        found = slots.availability(self.slots, full=ranking.FULL)
        pause = pauses.of_user(self.slots.paused, user_id)
        if pause is None:
            return found
        return {model: why if why and why.code in ranking.DECIDED else pause.why for model, why in found.items()}

    def waits_for(self, models: Iterable[str], user_id: int) -> Reason | None:
        """Why no job of this user starts on any of these models now; None where one may. The words of every page and
        answer on a task in line: FULL where it waits for a free slot, else what must end or be switched on first."""
        states = self.of_all(user_id)
        reasons = [states[model].reason for model in models if model in states]
        if not reasons:
            return None
        return min(reasons, key=_hope)

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
        """Jobs of these models that may be live at once, by user: those who are paused or for whom a circuit stands
        otherwise than for everybody else, and ANOTHER_USER."""
        paused = {one.user_id for one in self.slots.paused if one.user_id is not None}
        users = {ANOTHER_USER, *paused}.union(*(circuit.named() for circuit in self.health.circuits.values()))
        of_user = {user_id: self.of_all(user_id) for user_id in users}
        return {
            user_id: sum(found[model].usable_slots for model in models if model in found)
            for user_id, found in of_user.items()
        }


def _hope(reason: Reason | None) -> int:
    """0 where a job may start; the higher, the less a wait alone helps."""
    return 0 if reason is None else 1 + _LESS_AND_LESS_HOPE.index(reason.code)


# A pause comes before a circuit or a cool-down: somebody decided it, and whoever waits is to be told of it.
_LESS_AND_LESS_HOPE = (
    ReasonCode.FULL,
    ReasonCode.PAUSED,
    ReasonCode.CIRCUIT_OPEN,
    ReasonCode.CLOSED,
    ReasonCode.SWITCHED_OFF,
    ReasonCode.NO_KEY,
)


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


CACHE_S = 1.0
_recent: tuple[float, Availability] | None = None


def recent() -> Availability:
    """As it was a second ago at most, for pages that explain many tasks; one statement a second in each process.

    Nothing that decides may read from it.
    """
    global _recent
    known = _recent
    if known is None or time.monotonic() - known[0] > CACHE_S:
        known = _recent = (time.monotonic(), read())
    return known[1]


def forget_recent() -> None:
    """Something was switched, paused or resumed in this process: its next page shows that."""
    global _recent
    _recent = None
