"""Cancel, retry and delete, by a user or an operator at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.video.machine.model import COST, Attempt, Model, Task
from tests.video.machine.ops import Op, Stock
from video.actions import cancel, delete, retry
from video.actions.task_rows import ActionRefused
from video.audit.actors import Unaudited
from video.credits import ledger

OPEN = ("unknown", "accepted")


@dataclass
class Cancel(Op):
    """Wherever the task stands."""

    task: int

    def act(self, stock: Stock) -> Any:
        try:
            done = cancel.cancel(stock.tasks[self.task], by=Unaudited("somebody"))
        except ActionRefused as err:
            return err.code
        return done.changed, done.refund.value

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        last = task.attempts[-1] if task.attempts else None
        if task.deleted:
            return "task_deleted"
        if not task.active:
            if task.status != "cancelled":
                return "not_cancellable"
            if (self.task, task.run, "refund") in model.world.entries:
                return False, "refunded"
            return False, "pending" if last and last.run == task.run and last.state in OPEN else "none"
        owed = last is None or last.run != task.run or last.state not in {*OPEN, "succeeded"}
        pending = not owed and last is not None and last.state in OPEN
        paid_back = (self.task, task.run, "refund") in model.world.entries
        if last is not None and last.state == "planned":
            last.state, last.code = "rejected", "task_ended"
        elif last is not None and last.state in OPEN:
            last.watched = last.cancel_wanted = True
        task.end("cancelled")
        task.fence += 1
        if owed:
            model.world.refund(self.task)
        return True, "pending" if pending else "refunded" if owed and not paid_back else "none"


@dataclass
class Delete(Op):
    """An ended task loses all that its user wrote, and nothing else happens to it any more."""

    task: int

    def act(self, stock: Stock) -> Any:
        try:
            return delete.delete(stock.tasks[self.task]).changed
        except ActionRefused as err:
            return err.code

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        if task.active:
            return "task_active"
        if task.deleted:
            return False
        task.deleted = True
        task.fence += 1
        keys = model.beliefs.keys  # the task's own is free again
        model.beliefs.keys = {key: label for key, label in keys.items() if label != self.task}
        return True


@dataclass
class Retry(Op):
    """An ended task goes on where it stopped, or with a new attempt, which is paid for again."""

    task: int
    free: bool = False
    anew: bool = False

    def act(self, stock: Stock) -> Any:
        try:
            done = retry.retry(stock.tasks[self.task], by=Unaudited("somebody"), free=self.free, regenerate=self.anew)
        except ledger.InsufficientCredits:
            return "short"
        except ActionRefused as err:
            return err.code
        return done.run, done.stage.value, done.debited, done.granted

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        last = task.attempts[-1] if task.attempts else None
        if task.deleted:
            return "task_deleted"
        if task.status not in {"failed", "cancelled"}:
            return "not_retryable"
        stage = "generate" if self.anew else self._goes_on_at(last)
        if stage == "generate" and last is not None and last.state in OPEN:
            return "attempt_unsettled"
        pays = stage == "generate" or (self.task, task.run, "refund") in model.world.entries
        world, granted = model.world, COST if self.free and pays else 0
        if pays and not granted and world.balances[task.user] < COST:
            return "short"
        if granted:
            world.balances[task.user] += COST
            world.granted[task.user] += COST
        self._resume(model, task, last, stage, pays=pays)
        return task.run, stage, COST if pays else 0, granted

    def _goes_on_at(self, last: Attempt | None) -> str:
        if last is None:
            return "generate"
        if last.state == "accepted":  # Runway can stop a job, so one that is to be stopped is waited for
            return "generate" if last.cancel_wanted else "poll"
        return "download" if last.state == "succeeded" else "generate"

    def _resume(self, model: Model, task: Task, last: Attempt | None, stage: str, *, pays: bool) -> None:
        task.status, task.stage, task.code = "running", stage, ""
        task.ready, task.tries, task.deaths, task.fence = True, 0, 0, task.fence + 1
        task.in_line = stage == "generate"
        task.rung = not task.in_line
        model.beliefs.hinted.discard(self.task)
        if pays:
            task.run += 1
            model.world.debit(self.task, task.run)
        if stage != "generate" and last is not None:
            last.run, last.watched = task.run, False
            last.cancel_wanted = last.cancel_wanted and last.state != "accepted"
