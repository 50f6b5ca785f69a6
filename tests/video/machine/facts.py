"""Moves of an attempt: facts, which hold whoever writes them, and the two writes that need the task's fence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from providers.contract import Submitted
from tests.video.machine.model import Attempt, Model, Task
from tests.video.machine.ops import Held, Op, Stock, holds, refund_cancelled
from video.attempts import reconcile, records
from video.credits import ledger
from video.models import Generation


def job_of(task: int, number: int) -> str:
    """The id that the provider gives to this attempt's job."""
    return f"job-{task}-{number}"


def may_send(model: Model, held: Held) -> bool:
    """The fence, and a lease that still holds."""
    task = model.task(held.task)
    return holds(model, held) and task.stage == "generate" and task.held and not task.lease_over


@dataclass
class MarkSent(Op):
    """Right before the socket; `again` for the second send of a provider that refuses duplicates."""

    held: Held
    number: int
    again: bool = False

    @property
    def actor(self) -> Any:
        return self.held

    def act(self, stock: Stock) -> Any:
        generation = stock.generation(self.held.task, self.number)
        mark = records.mark_resent if self.again else records.mark_sent
        return mark(stock.claims[self.held], generation)

    def expect(self, model: Model) -> Any:
        task = model.task(self.held.task)
        attempt = task.attempts[self.number - 1]
        if not may_send(model, self.held):
            return False
        if self.again:
            if attempt.state != "unknown" or attempt.resent or task.status != "running":
                return False
            attempt.resent, attempt.lookups = True, 0
            model.beliefs.over.discard((self.held.task, self.number))
        else:
            if attempt.state != "planned":
                return False
            task.status, attempt.state = "running", "unknown"
        model.beliefs.old.discard((self.held.task, self.number))
        return True


def _ended(state: str) -> Callable[[Fact, str], Any]:
    return lambda fact, pk: records.record_ended(pk, Generation.State(state))


FACTS: dict[str, Callable[[Fact, str], Any]] = {
    "accepted": lambda fact, pk: records.record_accepted(pk, Submitted(job_of(fact.task, fact.number))),
    "rejected": lambda fact, pk: records.record_rejected(pk, code="no", message="The provider said no."),
    "busy": lambda fact, pk: records.record_rejected(pk, code="busy", message="The provider is busy."),
    "unknown": lambda fact, pk: records.record_unknown(pk),
    "put back": lambda fact, pk: records.put_back(pk),
    "not found": lambda fact, pk: records.record_not_found_by_reference(pk),
    "given up": lambda fact, pk: records.give_up_unknown(pk),
    "job lost": lambda fact, pk: records.record_lost(pk, code="job_lost"),
    "want cancel": lambda fact, pk: records.want_cancel(pk),
    "stop looking": lambda fact, pk: records.stop_checking(pk),
    "succeeded": _ended("succeeded"),
    "failed": _ended("failed"),
    "cancelled": _ended("cancelled"),
    "cancelled for nothing": lambda fact, pk: records.record_ended(pk, Generation.State.CANCELLED, took_nothing=True),
}


@dataclass
class Fact(Op):
    """One fact about an attempt."""

    task: int
    number: int
    kind: str

    def act(self, stock: Stock) -> Any:
        generation = stock.generation(self.task, self.number)
        return FACTS[self.kind](self, generation.pk)

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        attempt = task.attempts[self.number - 1]
        match self.kind:
            case "accepted":
                return self._accepted(task, attempt)
            case "rejected" | "busy":
                if attempt.state not in {"planned", "unknown"}:
                    return False
                attempt.state, attempt.code = "rejected", "no" if self.kind == "rejected" else "busy"
                attempt.watched = False
                refund_cancelled(model, self.task, attempt)
                return True
            case "unknown":
                return self._unknown(model, attempt)
            case "put back":
                return self._put_back(model, task, attempt)
            case "not found":
                if attempt.state != "unknown":
                    return 0
                attempt.lookups += 1
                return attempt.lookups
            case "given up" | "job lost":
                if attempt.state not in ({"unknown"} if self.kind == "given up" else {"unknown", "accepted"}):
                    return False
                if attempt.state == "unknown":
                    refund_cancelled(model, self.task, attempt)
                attempt.state, attempt.watched = "lost", False
                attempt.code = "outcome_unknown" if self.kind == "given up" else "job_lost"
                return True
            case "want cancel":
                if attempt.state not in {"unknown", "accepted"} or attempt.cancel_wanted:
                    return False
                attempt.cancel_wanted = True
                return True
            case "stop looking":
                if attempt.state not in {"lost", "succeeded"} or not attempt.watched:
                    return False
                attempt.watched = False
                return True
            case _:
                return self._ended(model, task, attempt)

    def _unknown(self, model: Model, attempt: Attempt) -> bool:
        at = (self.task, self.number)
        if attempt.state != "unknown" or at in model.beliefs.over:
            return False
        model.beliefs.over.add(at)
        return True

    def _accepted(self, task: Task, attempt: Attempt) -> bool:
        if attempt.state != "unknown" and not (attempt.state == "lost" and not attempt.job):
            return False
        another = task.in_line or any(other.live for other in task.attempts if other is not attempt)
        attempt.job, attempt.code = job_of(self.task, self.number), ""
        attempt.state = "lost" if another else "accepted"
        attempt.watched = another or not task.active or task.stage not in {"generate", "poll"} or attempt.cancel_wanted
        return True

    def _put_back(self, model: Model, task: Task, attempt: Attempt) -> bool:
        if attempt.state != "unknown":
            return False
        if task.active:
            attempt.state = "planned"
        else:
            attempt.state, attempt.code = "rejected", "task_ended"
            refund_cancelled(model, self.task, attempt)
        attempt.watched = False
        return True

    def _ended(self, model: Model, task: Task, attempt: Attempt) -> bool:
        if not attempt.job or attempt.state not in {"accepted", "lost"}:
            return False
        attempt.state, attempt.code = self.kind.removesuffix(" for nothing"), ""
        # A video that came too late for its task is left to reconcile.
        attempt.watched = self.kind == "succeeded" and task.status == "failed"
        if self.kind == "cancelled for nothing":
            refund_cancelled(model, self.task, attempt)
        return True


@dataclass
class Reply(Fact):
    """What came of a submit, written down by whoever sent it, however late."""

    @property
    def actor(self) -> Any:
        return self.task, self.number


@dataclass
class Deliver(Op):
    """Reconcile finds a job that ended well after its task had failed, and brings the task back."""

    task: int
    number: int

    def act(self, stock: Stock) -> Any:
        reconcile.check(stock.generation(self.task, self.number))

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        attempt = task.attempts[self.number - 1]
        attempt.watched = False
        is_last = attempt.run == task.run and len(task.attempts) == attempt.number
        if task.status == "failed" and is_last and not task.deleted:
            task.status, task.stage, task.code = "running", "download", ""
            task.ready, task.tries, task.deaths, task.fence = True, 0, 0, task.fence + 1


@dataclass
class RefundAgain(Op):
    """Whoever asks for a refund that was given already gets nothing."""

    task: int

    def act(self, stock: Stock) -> Any:
        return ledger.refund(stock.tasks[self.task], 1)

    def expect(self, model: Model) -> Any:
        return False
