"""A story: what the actors have done so far, in the database and in the model, and what they could do next."""

from __future__ import annotations

import copy
import threading
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction

from tests.video.machine import reading
from tests.video.machine.crash import Crash, Stranger, before_write, die
from tests.video.machine.facts import FACTS, Deliver, Fact, MarkSent, RefundAgain, Reply
from tests.video.machine.model import MOVES, WAY, Attempt, Model, World
from tests.video.machine.ops import (
    Admit,
    Beat,
    Claim,
    Create,
    Expire,
    Grant,
    Held,
    Hint,
    Move,
    Op,
    PassTime,
    Ring,
    Stock,
    holds,
)
from tests.video.machine.steer import Cancel, Delete, Retry

USERS = 2
MOST_TASKS = 4  # few tasks and long stories
KEYS = ("one", "two")
WAYS = ((False, False), (True, False), (False, True))  # of a retry: free, anew
ENDS = ("succeeded", "failed", "cancelled", "cancelled for nothing", "job lost", "want cancel")
SKIPS = (Admit, Ring)  # they leave out what somebody has locked, and do it in their next pass
COSTS = ("costday", "costtouch", "costrollup")
DEAD = object()  # what an actor that died returned


def rows_gone() -> None:
    """An empty database for the next story. The ledger's trigger lets no DELETE through, so triggers are off."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for table in ("creditentry", "taskevent", "generation", "videotask", "account", "userusage", "circuit", *COSTS):
            cursor.execute(f"DELETE FROM video_{table}")
        cursor.execute("DELETE FROM auth_user")
        cursor.execute("SET session_replication_role = DEFAULT")


class Story:
    """Begins with two users and an empty database."""

    def __init__(self, stranger: Stranger) -> None:
        rows_gone()
        self.stranger = stranger
        self.stock = Stock()
        self.model = Model()
        self.held: list[Held] = []  # claims that somebody believes to hold, stale ones too
        self.sends: list[tuple[int, int]] = []  # submits on their way: (task, attempt)
        self.sent: dict[tuple[int, int], int] = {}
        self.jobs: dict[tuple[int, int], str] = {}  # every id that was ever recorded
        self.met = False
        for number in range(USERS):
            self.stock.users.append(get_user_model().objects.create(username=f"user-{number}").pk)
            self.do(Grant(number, 25), check=False)

    def tell(self, *ops: Op) -> Any:
        """These moves, one after the other; returns what the last one returned."""
        for op in ops:
            seen = self.do(op, check=False)
            self.note(op, seen)
        return seen

    def do(self, op: Op, crash: int | None = None, *, check: bool = True) -> Any:
        """One actor's move; with `crash` it dies before that statement, if it has as many."""
        try:
            if crash is None or not op.mortal:
                seen = op.act(self.stock)
            else:
                with before_write(crash, die):
                    seen = op.act(self.stock)
        except Crash:  # all of it or nothing: it may have died after its commit
            if self.read() != self.model.world:
                op.expect(self.model)
            self.check()
            return DEAD
        seen = op.told(self.stock, seen)
        expected = op.expect(self.model)
        assert seen == expected, f"{op} returned {seen}, the model says {expected}"
        if check:
            self.check()
        return seen

    def would(self, op: Op) -> Any:
        """Do it, see that it went as the model says, and take it back: many moves from one place cost one story."""
        model, tasks, jobs = copy.deepcopy(self.model), dict(self.stock.tasks), dict(self.jobs)
        try:
            with transaction.atomic():
                seen = self.do(op)
                transaction.set_rollback(True)
            return seen
        finally:
            self.model, self.stock.tasks, self.jobs = model, tasks, jobs

    def meet(self, first: Op, second: Op, at: int) -> tuple[Any, Any]:
        """`second` acts while `first` stands before one of its statements: what comes out is one order or the other."""
        if not (first.mortal and second.mortal):
            return self.do(first), self.do(second)
        begun: list[Any] = []
        before: list[bool] = []  # whether the second was done before the first had begun

        def come_between() -> None:
            begun.append(self.stranger.begin(lambda: second.act(self.stock)))
            before.append(at == 0 and begun[0].done())

        with before_write(at, come_between):
            seen_first = first.act(self.stock)
        seen_second = begun[0].result(timeout=60) if begun else second.act(self.stock)
        self.met = bool(begun)
        return self.explain(first, seen_first, second, seen_second, second_came_first=any(before))

    def race(self, first: Op, second: Op) -> tuple[Any, Any]:
        """Both at once, as the machine pleases."""
        together = threading.Barrier(2)

        def act(op: Op) -> Any:
            together.wait(60)
            return op.act(self.stock)

        future = self.stranger.start(lambda: act(second))
        seen_first = act(first)
        return self.explain(first, seen_first, second, future.result(timeout=60))

    def explain(
        self, first: Op, seen_first: Any, second: Op, seen_second: Any, *, second_came_first: bool = False
    ) -> tuple[Any, Any]:
        """Find the order of the two that gives what they were told and what the database says; the model follows it.

        Or one of them has left out what the other had locked: then it does it when it comes again.
        """
        if isinstance(second, Create):  # a new task gets its number before anybody's answer names it
            seen_second = second.told(self.stock, seen_second)
            seen_first = first.told(self.stock, seen_first)
        else:
            seen_first = first.told(self.stock, seen_first)
            seen_second = second.told(self.stock, seen_second)
        found = self.read()
        orders = [((first, seen_first), (second, seen_second)), ((second, seen_second), (first, seen_first))]
        if second_came_first:  # a hint before or after a claim leaves the same rows, and other beliefs
            orders.reverse()
        for order in orders:
            model = copy.deepcopy(self.model)
            if all(op.expect(model) == seen for op, seen in order) and model.world == found:
                self.model = model
                self.check()
                return seen_first, seen_second
        for (op, seen), (other, seen_other) in orders:
            model = copy.deepcopy(self.model)
            if isinstance(op, SKIPS) and seen == [] and other.expect(model) == seen_other and model.world == found:
                self.model = model
                self.do(op)
                return seen_first, seen_second
        raise AssertionError(f"no order explains {first} → {seen_first} and {second} → {seen_second}: {found}")

    def read(self) -> World:
        labels = {task_id: label for label, task_id in self.stock.tasks.items()}
        return reading.world(labels, {user: number for number, user in enumerate(self.stock.users)})

    def check(self) -> None:
        """The database says what the model says; and what neither of them may ever say."""
        found = self.read()
        assert found == self.model.world, difference(found, self.model.world)
        reading.check_money(found)
        reading.check_costs()
        reading.check_attempts(found)
        reading.check_history()
        for label, task in found.tasks.items():
            for attempt in task.attempts:
                at = (label, attempt.number)
                assert self.sent.get(at, 0) <= 1 + attempt.resent, f"{at} was sent {self.sent[at]} times"
                assert attempt.job == self.jobs.setdefault(at, attempt.job), f"the job of {at} was forgotten"
                self.jobs[at] = attempt.job
                if not attempt.job:
                    del self.jobs[at]

    # --- what may be asked for ---

    def attempts(self, *wanted: str) -> list[tuple[int, int]]:
        return [
            (label, attempt.number)
            for label, task in self.model.world.tasks.items()
            for attempt in task.attempts
            if attempt.state in wanted
        ]

    def attempt(self, label: int, number: int) -> Attempt:
        return self.model.task(label).attempts[number - 1]

    def outcomes(self, held: Held) -> list[dict[str, Any]]:
        """What a stage could decide, as its code does: it moves on or back only when its attempt allows it."""
        task = self.model.task(held.task)
        found: list[dict[str, Any]] = [{"kind": kind} for kind in ("park", "again", "trouble", "fail")]
        found += [{"kind": "park", "later": True, "hint_later": hint_later} for hint_later in (False, True)]
        last = task.attempts[-1].state if task.attempts else "none"
        runs = task.status != "pending"
        for to in MOVES[held.stage]:
            if to == "generate":
                if last in {"rejected", "failed", "cancelled"}:
                    found += [{"kind": "wait", "later": later} for later in (False, True)]
            elif to == "poll":
                if runs and last == "accepted":
                    found.append({"kind": "advance", "to": to})
            elif to == "download" and held.stage == "poll":
                if last == "succeeded":
                    found.append({"kind": "advance", "to": to})
            elif runs:
                found.append({"kind": "advance", "to": to})
        if held.stage == "save" and runs:
            found.append({"kind": "succeed"})
        return found

    def possible(self) -> list[list[Op]]:
        tasks = self.model.world.tasks
        number = max(tasks, default=-1) + 1  # of the next one
        users: list[Op] = [Grant(0, 10), *(RefundAgain(of) for of, run, kind in self.refunded() if run == 1)]
        users += [
            Create(user, key, number)
            for user in range(USERS)
            for key in (None, *KEYS)
            if len(tasks) < MOST_TASKS or (user, key) in self.model.beliefs.keys
        ]
        steers: list[Op] = [Cancel(label) for label in tasks]
        steers += [Delete(label) for label, task in tasks.items() if not task.active]
        steers += [Retry(label, free, anew) for label, task in tasks.items() if not task.active for free, anew in WAYS]
        clocks: list[Op] = [PassTime(label) for label in tasks]
        claims: list[Op] = [Claim(label, task.stage) for label, task in tasks.items() if task.stage != "done"]
        moves: list[Op] = [Move(held, **outcome) for held in self.held for outcome in self.outcomes(held)]
        sends: list[Op] = [
            MarkSent(held, number) for held in self.held for of, number in self.attempts("planned") if of == held.task
        ]
        sends += [
            MarkSent(held, number, again=True)
            for held in self.held
            for of, number in self.attempts("unknown")
            if of == held.task
        ]
        ends = ("accepted", "rejected", "busy", "unknown", "put back")
        replies: list[Op] = [Reply(*at, kind) for at in self.sends for kind in ends]
        truths: list[Op] = []
        for at in self.attempts("unknown"):
            truths += [Fact(*at, kind) for kind in ("accepted", "not found", "given up", "want cancel")]
        for at in self.attempts("accepted", "lost"):
            truths += [Fact(*at, kind) for kind in ENDS]
        return [
            [Admit()],
            [Ring(), Expire(), *(Hint(label) for label in tasks), *(Beat(held) for held in self.held)],
            users,
            steers,
            clocks,
            claims,
            moves,
            sends,
            replies,
            truths,
            [Deliver(*at) for at in self.attempts("succeeded") if self.attempt(*at).watched],
        ]

    def whatever(self) -> list[Op]:
        """Everything that anybody could still try, however late: who has lost a claim, whose news is old."""
        found: list[Op] = [Admit(), Ring(), Expire()]
        for label, task in self.model.world.tasks.items():
            found += [Hint(label), Cancel(label), *(Retry(label, free, anew) for free, anew in WAYS)]
            found += [Claim(label, stage) for stage in WAY]
            for attempt in task.attempts:
                at = (label, attempt.number)
                if attempt.state == "succeeded":  # looked at until it is delivered
                    found += [Deliver(*at), *(Fact(*at, kind) for kind in FACTS if kind != "stop looking")]
                else:
                    found += [Fact(*at, kind) for kind in FACTS]
        for held in self.held:
            outcomes = self.outcomes(held)
            if not holds(self.model, held):  # it decides by what it saw long ago
                outcomes += [{"kind": "advance", "to": to} for to in MOVES[held.stage] if to != "generate"]
                outcomes += [{"kind": "wait"}] if "generate" in MOVES[held.stage] else []
            found += [Beat(held), *(Move(held, **outcome) for outcome in outcomes)]
            for attempt in self.model.task(held.task).attempts:
                found += [MarkSent(held, attempt.number, again) for again in (False, True)]
        return found

    def refunded(self) -> list[tuple[int, int, str]]:
        return sorted(entry for entry in self.model.world.entries if entry[2] == "refund")

    def note(self, op: Op, seen: Any) -> None:
        """What the actors know after a move that went through."""
        match op:
            case Claim() if seen is not None:
                self.held.append(seen)
            case Move():
                self.held.remove(op.held)
            case MarkSent() if seen:
                at = (op.held.task, op.number)
                self.sends.append(at)
                self.sent[at] = self.sent.get(at, 0) + 1
            case Reply():
                self.sends.remove((op.task, op.number))
                if op.kind == "put back":
                    self.sent[op.task, op.number] -= bool(seen)

    def note_death(self, op: Op) -> None:
        """Whoever died holds nothing any more."""
        if isinstance(op, Reply):
            self.sends.remove((op.task, op.number))
        else:
            self.held = [held for held in self.held if held != op.actor]


def difference(found: World, model: World) -> str:
    """The tasks and balances that differ, for a reader."""
    lines = []
    for label in sorted(found.tasks.keys() | model.tasks.keys()):
        have, want = found.tasks.get(label), model.tasks.get(label)
        if have != want:
            lines.append(f"task {label}: the database has {have}, the model {want}")
    if (found.balances, found.entries) != (model.balances, model.entries):
        lines.append(f"ledger: {found.balances} {sorted(found.entries)}, {model.balances} {sorted(model.entries)}")
    return "\n".join(lines) or f"granted: {found.granted}, {model.granted}"
