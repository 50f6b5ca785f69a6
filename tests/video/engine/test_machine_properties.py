"""The state machine and the ledger against a model in plain Python, with crashes and meetings at every statement.

Hypothesis writes stories: several users, workers, sweepers and providers' answers in any order, each with a chance to
die before any of its statements or commits, or to meet a second actor there. After each step the database must say
exactly what the model says. MACHINE_EXAMPLES=2000 for a long night; the default is the same stories every time.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.video.machine.crash import MOST_STATEMENTS, Stranger
from tests.video.machine.ops import Create, Op
from tests.video.machine.story import DEAD, Story

NIGHT = "MACHINE_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "10"))
STEPS = int(os.environ.get("MACHINE_STEPS", "40"))
# By day a failure is told as it is found; by night it is also made short, which takes minutes.
PHASES = (Phase.explicit, Phase.generate, *((Phase.shrink,) if NIGHT else ()))
WHEN = st.integers(0, 3) | st.integers(0, MOST_STATEMENTS)  # most moves have few statements, an admission many

pytestmark = pytest.mark.django_db(transaction=True)


class Machine(RuleBasedStateMachine):
    """Writes one story."""

    stranger: Stranger

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(self.stranger)

    def draw(self, data: st.DataObject) -> Op:
        """Any move that some actor could make now: first who acts, so that many tasks don't drown the rest."""
        groups = [group for group in self.story.possible() if group]
        return data.draw(st.sampled_from(groups[data.draw(st.integers(0, len(groups) - 1))]), label="op")

    @rule(data=st.data(), crash=st.none() | WHEN)
    def somebody_acts(self, data: st.DataObject, crash: int | None) -> None:
        op = self.draw(data)
        seen = self.story.do(op, crash)
        if seen is DEAD:
            self.story.note_death(op)
        else:
            self.story.note(op, seen)

    @rule(data=st.data(), at=WHEN)
    def two_meet(self, data: st.DataObject, at: int) -> None:
        first, second = self.draw(data), self.draw(data)
        if first == second or (first.actor and first.actor == second.actor):  # nobody does two things at once
            return
        if isinstance(first, Create) and isinstance(second, Create):
            second.label = first.label + 1
        for op, seen in zip((first, second), self.story.meet(first, second, at), strict=True):
            self.story.note(op, seen)


def test_every_story_ends_as_the_model_says(other_actor: Stranger) -> None:
    Machine.stranger = other_actor
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
