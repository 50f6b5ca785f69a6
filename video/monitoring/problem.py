"""One thing that is wrong, and the figures in which it is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from video.attempts.failure_texts import Undecided
from video.attempts.unsettled import Exposure
from video.monitoring.providers import AccountFigures, CircuitFigures, KeyFigures
from video.monitoring.remedies import Remedy
from video.monitoring.stages import StageFigures, Waiting
from video.monitoring.workers import Worker
from video.routing.pauses import Paused


@dataclass(frozen=True)
class Figures:
    """What the tables say at one moment, of the whole installation."""

    waiting: Waiting  # for a slot
    waiting_for_core: Waiting
    stages: list[StageFigures]
    accounts: list[AccountFigures]
    keys: list[KeyFigures]
    circuits: list[CircuitFigures]
    workers: list[Worker]
    stake: Exposure
    failure_texts: dict[str, Undecided] = field(default_factory=dict)  # not understood, by provider
    warnings: dict[str, int] = field(default_factory=dict)  # of the last day's videos, by code
    webhooks_due: int = 0  # that no worker has taken
    paused: Sequence[Paused] = ()
    slow_renders: int = 0  # jobs at a provider for longer than nearly all of their model
    at: datetime = field(default_factory=timezone.now)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `needs_person`: it does not pass by itself."""

    code: str
    needs_person: bool
    sentence: str
    system: str  # what the system does about it
    operator: str  # what a person can do
    about: str = ""  # which one, where several may have the same code: a queue, a host, a key, an account, a provider
    remedies: tuple[Remedy, ...] = ()  # what of it a button does
