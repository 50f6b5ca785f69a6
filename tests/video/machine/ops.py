"""The actors' moves: each is done to the database by the product's own code, and foretold by the model.

`act` returns something plain; `expect` moves the model and says what `act` should have returned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.factories import age, claim_one, give_core
from tests.video.machine.model import COST, MOST_ATTEMPTS, NOT_THE_TASKS_FAULT, Attempt, Model, Task
from tests.video.machine.reading import RECENTLY_S
from video.actions import create
from video.attempts import records
from video.credits import ledger
from video.engine import claims, due
from video.engine.outcomes import Advance, Fail, Park, Succeed, TryAgain, WaitForSlot
from video.models import Generation, Stage
from video.models.order import Order
from video.pipeline import runner
from video.scheduling import admission

LATER_S = 3600.0
PASSED_S = 3 * LATER_S


@dataclass(frozen=True)
class Held:
    """A claim that some worker believes to hold."""

    task: int
    stage: str
    fence: int


@dataclass
class Stock:
    """The real things behind the model's numbers."""

    users: list[int] = field(default_factory=list)
    tasks: dict[int, str] = field(default_factory=dict)
    claims: dict[Held, claims.Claim] = field(default_factory=dict)

    def label(self, task_id: str) -> int:
        return next(label for label, known in self.tasks.items() if known == task_id)

    def generation(self, task: int, number: int) -> Generation:
        return Generation.objects.select_related("account", "task").get(task_id=self.tasks[task], attempt=number)


class Op:
    """One move."""

    mortal: ClassVar[bool] = True  # False: not an actor's, and never cut short

    @property
    def actor(self) -> Any:
        """Who does it, where that is one thread that does one thing after the other."""
        return None

    def act(self, stock: Stock) -> Any:
        """Do it; in the thread and on the connection of whoever does."""
        raise NotImplementedError

    def told(self, stock: Stock, seen: Any) -> Any:
        """What `act` returned, in the model's words."""
        return seen

    def expect(self, model: Model) -> Any:
        """Move the model; what `told` should say."""
        raise NotImplementedError


# --- users ---------------------------------------------------------------------------------------------------------


@dataclass
class Grant(Op):
    user: int
    amount: int

    def act(self, stock: Stock) -> Any:
        ledger.grant(stock.users[self.user], self.amount)

    def expect(self, model: Model) -> Any:
        world = model.world
        world.balances[self.user] = world.balances.get(self.user, 0) + self.amount
        world.granted[self.user] = world.granted.get(self.user, 0) + self.amount


ORDER = Order(prompt="A cat", duration_s=5, aspect_ratio="16:9", model_requested="gen4.5", fallback=False)


@dataclass
class Create(Op):
    user: int
    key: str | None
    label: int

    def act(self, stock: Stock) -> Any:
        try:
            task, new = create.create(stock.users[self.user], ORDER, idempotency_key=self.key)
        except ledger.InsufficientCredits:
            return None
        return task.pk, new

    def told(self, stock: Stock, seen: Any) -> Any:
        if seen is None:
            return "short"
        task_id, new = seen
        if new:
            stock.tasks[self.label] = task_id
            return "made"
        return next(label for label, known in stock.tasks.items() if known == task_id)

    def expect(self, model: Model) -> Any:
        if self.key is not None and (self.user, self.key) in model.beliefs.keys:
            return model.beliefs.keys[self.user, self.key]
        if model.world.balances.get(self.user, 0) < COST:
            return "short"
        model.world.tasks[self.label] = Task(self.user)
        model.world.debit(self.label, 1)
        if self.key is not None:
            model.beliefs.keys[self.user, self.key] = self.label
        return "made"


# --- the sweeper ---------------------------------------------------------------------------------------------------


@dataclass
class Admit(Op):
    def act(self, stock: Stock) -> Any:
        return admission.admit()

    def told(self, stock: Stock, seen: Any) -> Any:
        return sorted(stock.label(task_id) for task_id, _ in seen)

    def expect(self, model: Model) -> Any:
        found = []
        for label, task in model.world.tasks.items():
            if not (task.in_line and task.ready and task.live is None):
                continue
            of_run = [a for a in task.attempts if a.run == task.run and a.code not in NOT_THE_TASKS_FAULT]
            if len(of_run) >= MOST_ATTEMPTS:
                task.end("failed", task.attempts[-1].code or "no_attempt_left")
                task.fence += 1
                model.world.refund(label)
                continue
            task.attempts.append(Attempt(len(task.attempts) + 1, task.run))
            task.in_line, task.tries, task.rung = False, 0, True
            found.append(label)
        return sorted(found)


@dataclass
class Ring(Op):
    def act(self, stock: Stock) -> Any:
        return due.enqueue_due(100, again_after_s=RECENTLY_S)

    def told(self, stock: Stock, seen: Any) -> Any:
        return sorted((stock.label(task_id), stage.value) for stage, task_ids in seen for task_id in task_ids)

    def expect(self, model: Model) -> Any:
        due = {
            label: task
            for label, task in model.world.tasks.items()
            if task.active
            and not task.in_line
            and task.ready
            and task.free
            and not task.rung
            and task.stage != "transcode"
        }
        for task in due.values():
            task.rung = True
        return sorted((label, task.stage) for label, task in due.items())


@dataclass
class PassTime(Op):
    """Hours pass for one task: its clock is reached, its lease is over, its last bell is long ago."""

    mortal: ClassVar[bool] = False
    task: int

    def act(self, stock: Stock) -> Any:
        age(stock.tasks[self.task], PASSED_S)

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        task.ready, task.lease_over, task.rung = task.active, task.held, False
        for attempt in task.attempts:
            if attempt.state not in {"planned", "rejected"}:
                model.beliefs.old.add((self.task, attempt.number))


@dataclass
class Expire(Op):
    """Unknown attempts of ended tasks are given up after the longest render time."""

    def act(self, stock: Stock) -> Any:
        return records.expire_unknown({"runway": LATER_S})

    def expect(self, model: Model) -> Any:
        number = 0
        for label, task in model.world.tasks.items():
            for attempt in task.attempts:
                if attempt.state == "unknown" and not task.active and (label, attempt.number) in model.beliefs.old:
                    attempt.state, attempt.code, attempt.watched = "lost", "outcome_unknown", False
                    refund_cancelled(model, label, attempt)
                    number += 1
        return number


@dataclass
class Hint(Op):
    task: int

    def act(self, stock: Stock) -> Any:
        return due.hint(stock.tasks[self.task])

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        if not task.active or task.in_line:
            return False
        if task.free:
            task.ready = True
        model.beliefs.hinted.add(self.task)
        return True


# --- workers: the task ---------------------------------------------------------------------------------------------


@dataclass
class Claim(Op):
    task: int
    stage: str

    def act(self, stock: Stock) -> Any:
        if self.stage == Stage.TRANSCODE:
            give_core(stock.tasks[self.task])
        claim = claim_one(stock.tasks[self.task], Stage(self.stage))
        if claim is None:
            return None
        held = Held(self.task, self.stage, claim.fence)
        stock.claims[held] = claim
        return held

    def expect(self, model: Model) -> Any:
        task = model.task(self.task)
        if not (task.active and not task.in_line and task.stage == self.stage and task.ready and task.free):
            return None
        task.fence += 1
        task.deaths += 1
        task.held, task.lease_over, task.rung = True, False, False
        model.beliefs.hinted.discard(self.task)
        return Held(self.task, self.stage, task.fence)


def holds(model: Model, held: Held) -> bool:
    """Whether a write under this claim finds the task as it believes it to be."""
    task = model.task(held.task)
    return task.active and not task.in_line and task.fence == held.fence and task.stage == held.stage


@dataclass
class Beat(Op):
    held: Held

    def act(self, stock: Stock) -> Any:
        return bool(claims.renew_leases([stock.claims[self.held]]))

    def expect(self, model: Model) -> Any:
        task = model.task(self.held.task)
        if task.fence != self.held.fence or not task.held:
            return False
        task.lease_over = False
        return True


@dataclass
class Move(Op):
    """A stage's outcome, through `pipeline.apply`."""

    held: Held
    kind: str
    to: str = ""
    later: bool = False
    hint_later: bool = False

    @property
    def actor(self) -> Any:
        return self.held

    def act(self, stock: Stock) -> Any:
        claim = stock.claims[self.held]
        delay_s = LATER_S if self.later else 0
        match self.kind:
            case "advance":
                fields = {"has_work_files": True} if self.to == "download" else {}
                outcome: Any = Advance(Stage(self.to), delay_s=delay_s, fields=fields)
            case "park":
                outcome = Park(delay_s, "waits", hint_delay_s=LATER_S if self.hint_later else 0)
            case "again":
                outcome = TryAgain("shaky", "It was shaky.", "shaky", at_least_s=LATER_S, most_tries=2)
            case "trouble":
                outcome = TryAgain("full", "The disk is full.", "full", at_least_s=LATER_S, most_tries=2, counts=False)
            case "wait":
                outcome = WaitForSlot("again", delay_s=delay_s)
            case "fail":
                outcome = Fail("broken", "It broke.")
            case "succeed":
                outcome = Succeed({"video_id": f"vid_{self.held.task}_{self.held.fence}"})
        return runner.apply(claim, outcome)

    def expect(self, model: Model) -> Any:
        task = model.task(self.held.task)
        if not holds(model, self.held):
            return False
        kind = self.kind
        if kind == "again" and task.tries + 1 >= 2:
            kind = "fail"
        if kind == "fail":
            task.deaths = 0
            task.end("failed", "shaky" if self.kind == "again" else "broken")
            leave_attempts(task)
            model.world.refund(self.held.task)
            return True
        task.held, task.lease_over, task.deaths = False, False, 0
        match kind:
            case "advance":
                task.stage, task.tries, task.ready = self.to, 0, not self.later
                task.rung = not self.later and self.to != "transcode"  # which waits for a core
            case "park":
                hinted = self.held.task in model.beliefs.hinted
                task.ready = not self.later or (hinted and not self.hint_later)
                task.rung = False
            case "again" | "trouble":
                task.tries += kind == "again"
                task.ready = self.held.task in model.beliefs.hinted
                task.rung = False
            case "wait":
                task.stage, task.in_line, task.tries, task.ready = "generate", True, 0, not self.later
                task.rung = False
            case "succeed":
                task.end("success")
                task.stage, task.tries = "done", 0
        return True


def refund_cancelled(model: Model, label: int, attempt: Attempt) -> None:
    """The end of an attempt that cost nothing gives a cancelled task's credits back."""
    task = model.task(label)
    if task.status == "cancelled" and len(task.attempts) == attempt.number:
        model.world.refund(label)


def leave_attempts(task: Task) -> None:
    """What becomes of the attempts of a task that ends."""
    for attempt in task.attempts:
        if attempt.state == "planned":
            attempt.state, attempt.code = "rejected", "task_ended"
        elif attempt.state in {"unknown", "accepted"} or (
            attempt.state == "succeeded" and task.stage in {"generate", "poll"}
        ):
            attempt.watched = True
