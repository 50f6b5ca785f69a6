"""Two actors who meet: at every statement of the one the other comes in between, and in real races without any order.

What each is told and what the database says afterwards must be as if one had come after the other (`machine/story.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.video.machine.crash import MOST_STATEMENTS, Stranger
from tests.video.machine.facts import Deliver, Fact, MarkSent, RefundAgain, Reply
from tests.video.machine.ops import Admit, Claim, Create, Expire, Held, Hint, Move, Op, PassTime, Ring
from tests.video.machine.steer import Cancel, Retry
from tests.video.machine.story import Story

pytestmark = pytest.mark.django_db(transaction=True)
# By day the first statements of the first actor, and few races; by night all of both.
NIGHT = "MACHINE_EXAMPLES" in os.environ
ROUNDS = 100 if NIGHT else 5

GENERATE, POLL, SAVE = Held(0, "generate", 1), Held(0, "poll", 2), Held(0, "save", 6)
AGAIN = Held(0, "generate", 2)


def created(story: Story) -> None:
    story.tell(Create(0, "one", 0))


def planned(story: Story) -> None:
    created(story)
    story.tell(Admit(), PassTime(0))


def claimed(story: Story) -> None:
    planned(story)
    story.tell(Claim(0, "generate"))


def sent(story: Story) -> None:
    claimed(story)
    story.tell(MarkSent(GENERATE, 1))


def overtaken(story: Story) -> None:
    """The worker that has sent it is late, and another one has the task."""
    sent(story)
    story.tell(PassTime(0), Claim(0, "generate"))


def accepted(story: Story) -> None:
    sent(story)
    story.tell(Reply(0, 1, "accepted"))


def polled(story: Story) -> None:
    accepted(story)
    story.tell(Move(GENERATE, "advance", "poll"), Claim(0, "poll"))


def over(story: Story) -> None:
    """The job has ended well, and its task still stands in poll."""
    polled(story)
    story.tell(Fact(0, 1, "succeeded"))


def saving(story: Story) -> None:
    over(story)
    story.tell(Move(POLL, "advance", "download"))
    for fence, (stage, to) in enumerate(
        (("download", "transcode"), ("transcode", "thumbnail"), ("thumbnail", "save")), 3
    ):
        story.tell(Claim(0, stage), Move(Held(0, stage, fence), "advance", to))
    story.tell(Claim(0, "save"))


def failed(story: Story) -> None:
    claimed(story)
    story.tell(Move(GENERATE, "fail"))


def failed_unanswered(story: Story) -> None:
    sent(story)
    story.tell(Move(GENERATE, "fail"), PassTime(0))


def failed_in_poll(story: Story) -> None:
    polled(story)
    story.tell(Move(POLL, "fail"))


def late(story: Story) -> None:
    failed_in_poll(story)
    story.tell(Fact(0, 1, "succeeded"))


def cancelled_unanswered(story: Story) -> None:
    sent(story)
    story.tell(Cancel(0), PassTime(0))


def cancelled_in_poll(story: Story) -> None:
    polled(story)
    story.tell(Cancel(0))


def in_line_again(story: Story) -> None:
    """Its first attempt was given up as lost, and its task stands in line for another one."""
    sent(story)
    story.tell(Fact(0, 1, "given up"), PassTime(0))
    story.tell(Claim(0, "generate"), Move(AGAIN, "wait"))


MEETINGS: list[tuple[Callable[[Story], None], Op, Op]] = [
    (created, Create(0, "one", 1), Create(0, "one", 2)),
    (created, Create(0, None, 1), Create(0, None, 2)),  # paid for one more only
    (created, Admit(), Admit()),
    (created, Admit(), Cancel(0)),
    (planned, Claim(0, "generate"), Claim(0, "generate")),
    (planned, Claim(0, "generate"), Cancel(0)),
    (planned, Ring(), Claim(0, "generate")),
    (claimed, MarkSent(GENERATE, 1), Cancel(0)),
    (claimed, Move(GENERATE, "fail"), Cancel(0)),
    (sent, Cancel(0), Reply(0, 1, "accepted")),
    (sent, Cancel(0), Reply(0, 1, "rejected")),
    (sent, Cancel(0), Reply(0, 1, "put back")),
    (sent, Fact(0, 1, "given up"), Cancel(0)),
    (sent, Fact(0, 1, "given up"), Fact(0, 1, "accepted")),
    (overtaken, Move(AGAIN, "fail"), Reply(0, 1, "accepted")),
    (overtaken, Move(AGAIN, "fail"), Reply(0, 1, "rejected")),
    (overtaken, Move(AGAIN, "fail"), Reply(0, 1, "put back")),
    (accepted, Move(GENERATE, "advance", "poll"), Cancel(0)),
    (accepted, Move(GENERATE, "advance", "poll"), Hint(0)),
    (polled, Move(POLL, "park", later=True), Hint(0)),
    (polled, Move(POLL, "fail"), Fact(0, 1, "succeeded")),
    (polled, Cancel(0), Fact(0, 1, "succeeded")),
    (polled, Cancel(0), Fact(0, 1, "cancelled for nothing")),
    (polled, Cancel(0), Fact(0, 1, "job lost")),
    (over, Move(POLL, "advance", "download"), Cancel(0)),
    (saving, Move(SAVE, "succeed", ""), Cancel(0)),
    (saving, Move(SAVE, "fail"), Cancel(0)),
    (failed, RefundAgain(0), RefundAgain(0)),
    (failed, Retry(0), Retry(0)),
    (failed, Retry(0, free=True), Retry(0, free=True)),
    (failed, Retry(0), Cancel(0)),
    (failed, Retry(0), Create(0, None, 1)),
    (failed_unanswered, Retry(0), Fact(0, 1, "given up")),
    (failed_unanswered, Retry(0), Fact(0, 1, "accepted")),
    (failed_unanswered, Expire(), Fact(0, 1, "accepted")),
    (failed_in_poll, Retry(0), Fact(0, 1, "succeeded")),
    (failed_in_poll, Retry(0, anew=True), Fact(0, 1, "failed")),
    (late, Deliver(0, 1), Deliver(0, 1)),
    (late, Deliver(0, 1), Retry(0)),
    (late, Deliver(0, 1), Retry(0, anew=True)),
    (cancelled_unanswered, Fact(0, 1, "accepted"), Expire()),
    (cancelled_unanswered, Retry(0), Fact(0, 1, "given up")),
    (cancelled_unanswered, Fact(0, 1, "rejected"), Fact(0, 1, "given up")),
    (cancelled_in_poll, Retry(0), Fact(0, 1, "cancelled for nothing")),
    (cancelled_in_poll, Cancel(0), Fact(0, 1, "cancelled for nothing")),
    (in_line_again, Admit(), Fact(0, 1, "accepted")),
    (in_line_again, Cancel(0), Fact(0, 1, "accepted")),
]


def test_two_who_meet_at_any_statement_end_as_if_one_had_come_after_the_other(other_actor: Stranger) -> None:
    for begin, one, other in MEETINGS:
        for first, second in ((one, other), (other, one)) if NIGHT else ((one, other),):
            for at in range(MOST_STATEMENTS if NIGHT else 4):
                story = Story(other_actor)
                begin(story)
                try:
                    story.meet(first, second, at)
                except BaseException as err:
                    raise AssertionError(f"{begin.__name__}: {second} before statement {at} of {first}") from err
                if not story.met:  # it has no more statements
                    break


RACES: list[tuple[Callable[[Story], None], Op, Op]] = [
    (planned, Claim(0, "generate"), Claim(0, "generate")),
    (over, Move(POLL, "advance", "download"), Cancel(0)),
    (saving, Move(SAVE, "succeed"), Cancel(0)),
    (overtaken, Reply(0, 1, "accepted"), Move(AGAIN, "fail")),
    (failed, RefundAgain(0), RefundAgain(0)),
    (failed, Retry(0), Retry(0)),
]


@pytest.mark.parametrize(("begin", "one", "other"), RACES, ids=[begin.__name__ for begin, _, _ in RACES])
def test_in_a_race_one_comes_after_the_other(
    other_actor: Stranger, begin: Callable[[Story], None], one: Op, other: Op
) -> None:
    for _ in range(ROUNDS):
        story = Story(other_actor)
        begin(story)
        story.race(one, other)
