"""The state machine and the ledger against a model in plain Python, with crashes and meetings at every statement.

Hypothesis writes stories: several users, workers, sweepers and providers' answers in any order, each with a chance to
die before any of its statements or commits, or to meet a second actor there. After each step the database must say
exactly what the model says. MACHINE_EXAMPLES=2000 for a long night; the default is the same stories every time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.video.machine import reading
from tests.video.machine.crash import MOST_STATEMENTS, Crash, Stranger, before_write, die
from tests.video.machine.facts import Deliver, Fact, MarkSent, RefundAgain, Reply
from tests.video.machine.model import MOVES, Attempt, Model, World
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
)
from video import admission

NIGHT = "MACHINE_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "15"))
STEPS = int(os.environ.get("MACHINE_STEPS", "40"))
# By day a failure is told as it is found; by night it is also made short, which takes minutes.
PHASES = (Phase.explicit, Phase.generate, *((Phase.shrink,) if NIGHT else ()))
USERS = 2
MOST_TASKS = 4  # few tasks and long stories
KEYS = ("one", "two")

pytestmark = pytest.mark.django_db(transaction=True)


def rows_gone() -> None:
    """An empty database for the next story. The ledger's trigger lets no DELETE through, so triggers are off."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for table in ("creditentry", "taskevent", "generation", "videotask", "account", "circuit"):
            cursor.execute(f"DELETE FROM video_{table}")
        cursor.execute("DELETE FROM auth_user")
        cursor.execute("SET session_replication_role = DEFAULT")


class Machine(RuleBasedStateMachine):
    """One story."""

    stranger: Stranger

    def __init__(self) -> None:
        super().__init__()
        rows_gone()
        self.stock = Stock()
        self.model = Model()
        self.held: list[Held] = []  # claims that somebody believes to hold, stale ones too
        self.sends: list[tuple[int, int]] = []  # submits on their way: (task, attempt)
        self.sent: dict[tuple[int, int], int] = {}
        self.jobs: dict[tuple[int, int], str] = {}  # every id that was ever recorded
        for number in range(USERS):
            self.stock.users.append(get_user_model().objects.create(username=f"user-{number}").pk)
            self.do(Grant(number, 25))

    def do(self, op: Op, crash: int | None = None) -> Any:
        """One actor's move; with `crash` it dies before that statement, if it has as many."""
        before = copy.deepcopy(self.model)
        try:
            if crash is None or not op.mortal:
                seen = op.act(self.stock)
            else:
                with before_write(crash, die):
                    seen = op.act(self.stock)
        except Crash:
            self.model = before
            self.check()
            return None
        seen = op.told(self.stock, seen)
        expected = op.expect(self.model)
        assert seen == expected, f"{op} returned {seen}, the model says {expected}"
        self.check()
        return seen

    def meet(self, first: Op, second: Op, at: int) -> tuple[Any, Any]:
        """`second` acts while `first` stands before one of its statements: what comes out is one order or the other."""
        if not (first.mortal and second.mortal):
            return self.do(first), self.do(second)
        begun: list[Any] = []
        with before_write(at, lambda: begun.append(self.stranger.begin(lambda: second.act(self.stock)))):
            seen_first = first.act(self.stock)
        seen_second = begun[0].result(timeout=60) if begun else second.act(self.stock)
        if isinstance(second, Create):  # a new task gets its number before anybody's answer names it
            seen_second = second.told(self.stock, seen_second)
            seen_first = first.told(self.stock, seen_first)
        else:
            seen_first = first.told(self.stock, seen_first)
            seen_second = second.told(self.stock, seen_second)
        found = self.read()
        for order in (((first, seen_first), (second, seen_second)), ((second, seen_second), (first, seen_first))):
            model = copy.deepcopy(self.model)
            if all(op.expect(model) == seen for op, seen in order) and model.world == found:
                self.model = model
                self.check()
                return seen_first, seen_second
        raise AssertionError(f"no order explains {first} → {seen_first} and {second} → {seen_second}: {found}")

    def read(self) -> World:
        labels = {task_id: label for label, task_id in self.stock.tasks.items()}
        return reading.world(labels, {user: number for number, user in enumerate(self.stock.users)})

    # --- what may be asked for ---

    def tasks(self, check: Any = lambda task: True) -> list[int]:
        return [label for label, task in self.model.world.tasks.items() if check(task)]

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
        last = task.attempts[-1].state if task.attempts else "none"
        runs = task.status != "pending"
        for to in MOVES[held.stage]:
            if to == "generate":
                if last in {"rejected", "failed", "cancelled"}:
                    found.append({"kind": "wait"})
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

    def draw_op(self, data: st.DataObject) -> Op:
        """Any move that some actor could make now: first who acts, so that many tasks don't drown the rest."""
        groups = [group for group in self.possible() if group]
        return data.draw(st.sampled_from(groups[data.draw(st.integers(0, len(groups) - 1))]), label="op")

    def possible(self) -> list[list[Op]]:
        tasks = self.model.world.tasks
        users: list[Op] = [Grant(0, 10), *(RefundAgain(of) for of, run, kind in self.refunded() if run == 1)]
        users += [
            Create(user, key, len(tasks))
            for user in range(USERS)
            for key in (None, *KEYS)
            if len(tasks) < MOST_TASKS or (user, key) in self.model.beliefs.keys
        ]
        clocks: list[Op] = [PassTime(label) for label in tasks]
        claims: list[Op] = [Claim(label, task.stage) for label, task in tasks.items() if task.stage != "done"]
        moves: list[Op] = [Move(held, **outcome) for held in self.held for outcome in self.outcomes(held)]
        sends = [
            MarkSent(held, number) for held in self.held for of, number in self.attempts("planned") if of == held.task
        ]
        ends = ("accepted", "rejected", "busy", "unknown", "put back")
        replies = [Reply(*at, kind) for at in self.sends for kind in ends]
        truths: list[Op] = []
        for at in self.attempts("unknown"):
            truths += [Fact(*at, kind) for kind in ("accepted", "not found", "given up", "want cancel")]
        for at in self.attempts("accepted", "lost"):
            truths += [Fact(*at, kind) for kind in ("succeeded", "failed", "cancelled", "job lost", "want cancel")]
        return [
            [Admit()],
            [Ring(), Expire(), *(Hint(label) for label in tasks), *(Beat(held) for held in self.held)],
            users,
            clocks,
            claims,
            moves,
            [*sends],
            [*replies],
            truths,
            [Deliver(*at) for at in self.attempts("succeeded") if self.attempt(*at).watched],
        ]

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

    # --- rules ---

    @rule(data=st.data(), crash=st.none() | st.integers(0, MOST_STATEMENTS))
    def somebody_acts(self, data: st.DataObject, crash: int | None) -> None:
        op = self.draw_op(data)
        seen = self.do(op, crash)
        if seen is None and crash is not None:  # whoever held it is dead
            self.held = [held for held in self.held if held != getattr(op, "held", None)]
            return
        self.note(op, seen)

    @rule(data=st.data(), at=st.integers(0, MOST_STATEMENTS))
    def two_meet(self, data: st.DataObject, at: int) -> None:
        first, second = self.draw_op(data), self.draw_op(data)
        if first == second or (first.actor and first.actor == second.actor):  # nobody does two things at once
            return
        if isinstance(first, Create) and isinstance(second, Create):
            second.label = first.label + 1
        for op, seen in zip((first, second), self.meet(first, second, at), strict=True):
            self.note(op, seen)

    # --- what holds whatever happens ---

    def check(self) -> None:
        """The database says what the model says; and what neither of them may ever say."""
        found = self.read()
        assert found == self.model.world, difference(found, self.model.world)
        reading.check_money(found)
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


@pytest.fixture
def _stranger(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    settings.STAGE_LEASE_SECONDS = reading.RECENTLY_S
    monkeypatch.setattr(admission, "MAX_ATTEMPTS", 2)
    Machine.stranger = Stranger()
    yield
    Machine.stranger.close()


@pytest.mark.usefixtures("_stranger")
def test_every_story_ends_as_the_model_says() -> None:
    run_state_machine_as_test(
        Machine,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not NIGHT,
            phases=PHASES,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
