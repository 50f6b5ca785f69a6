"""The queues' figures, computed in one place for the API, the admin page and the command.

They are read from the tables, not from counters. Each function names the index that serves it, so finished tasks cost
nothing. The number of statements does not grow with the load. Each statement sees its own moment, so the figures of one
answer may be some milliseconds apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin

from video.attempts import failure_texts, slow, unsettled
from video.monitoring import delivered, problems, providers, stages, stuck, workers
from video.monitoring.problem import Figures, Problem
from video.monitoring.stuck import Stuck
from video.routing import availability
from video.scheduling import storage_quota
from video.scheduling.storage_quota import NOTHING, Use
from video.webhooks import deliveries

#: What lets staff see everything: who may look at all tasks and at the providers' accounts.
PERMISSIONS = ("video.view_videotask", "video.view_provideraccount")


@dataclass(frozen=True)
class System(Figures):
    """Everything, for staff: the figures, and the problems that they show."""

    stored: Use = NOTHING
    stuck: list[Stuck] = field(default_factory=list)  # the worst ones

    @cached_property
    def problems(self) -> list[Problem]:
        """What is wrong, what needs a person first."""
        return problems.find(self)

    @property
    def needs_person(self) -> bool:
        return any(one.needs_person for one in self.problems)


def read() -> System:
    """All figures; seventeen statements."""
    keys, now = providers.keys(), availability.read()
    return System(
        waiting=stages.waiting(),
        waiting_for_core=stages.waiting_for_core(),
        stages=stages.stages(),
        accounts=providers.accounts(keys, now),
        paused=now.slots.paused,
        slow_renders=slow.number(),
        keys=keys,
        circuits=providers.circuits(),
        workers=workers.workers(),
        stake=unsettled.stake(unsettled.find(with_lost=False)),
        failure_texts=failure_texts.undecided(),
        warnings=delivered.warnings_by_code(),
        webhooks_due=deliveries.due(),
        stored=storage_quota.of_all(),
        stuck=stuck.find(),
    )


def may_see_all(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a user may see the whole system: staff who may look at tasks and accounts."""
    return isinstance(user, PermissionsMixin) and bool(getattr(user, "is_staff", False)) and user.has_perms(PERMISSIONS)
