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
from tests.video.machine.story import DEAD, Story

pytestmark = pytest.mark.django_db(transaction=True)
# By day one of the two is always the first, and there are few races; by night each is.
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


def lease_over(story: Story) -> None:
    """Its worker has not been heard of since it claimed the task."""
    claimed(story)
    story.tell(PassTime(0))


def sent_long_ago(story: Story) -> None:
    """Its worker has sent it, and has not been heard of since."""
    sent(story)
    story.tell(PassTime(0))


def rejected(story: Story) -> None:
    sent(story)
    story.tell(Reply(0, 1, "rejected"))


def second_attempt(story: Story) -> None:
    """The first one was given up as lost; it had a job after all, which is told when the second has been planned."""
    in_line_again(story)
    story.tell(Admit(), PassTime(0), Fact(0, 1, "accepted"), Claim(0, "generate"))


def late_of_the_first(story: Story) -> None:
    """Its task has failed with its second attempt, and then the first one's job ends well."""
    second_attempt(story)
    story.tell(Move(Held(0, "generate", 3), "fail"), Fact(0, 1, "succeeded"))


def cancelled_with_the_second(story: Story) -> None:
    """The second attempt's job is to stop; how the first one's ends decides nothing."""
    second_attempt(story)
    story.tell(MarkSent(Held(0, "generate", 3), 2), Reply(0, 2, "accepted"), Cancel(0))


def cancelled_with_its_video(story: Story) -> None:
    over(story)
    story.tell(Cancel(0))


def retried(story: Story) -> None:
    """Its job failed too, and a new attempt, in a run of its own, has been planned."""
    failed_in_poll(story)
    story.tell(Fact(0, 1, "failed"), Retry(0, free=True), Admit())


def done(story: Story) -> None:
    saving(story)
    story.tell(Move(SAVE, "succeed"))


SITUATIONS: list[Callable[[Story], None]] = [
    created,
    planned,
    claimed,
    lease_over,
    sent,
    sent_long_ago,
    overtaken,
    rejected,
    accepted,
    polled,
    over,
    saving,
    done,
    failed,
    failed_unanswered,
    failed_in_poll,
    late,
    cancelled_unanswered,
    cancelled_in_poll,
    in_line_again,
    second_attempt,
    late_of_the_first,
    cancelled_with_the_second,
    cancelled_with_its_video,
    retried,
]


@pytest.mark.parametrize("begin", SITUATIONS)
def test_whatever_is_tried_next_goes_through_or_is_refused_as_the_model_says(
    other_actor: Stranger, begin: Callable[[Story], None]
) -> None:
    story = Story(other_actor)
    begin(story)
    for op in story.whatever():
        try:
            story.would(op)
        except BaseException as err:
            raise AssertionError(f"{begin.__name__}: {op}") from err


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
            for at in range(0, MOST_STATEMENTS, 1 if NIGHT else 2):
                story = Story(other_actor)
                begin(story)
                try:
                    story.meet(first, second, at)
                except BaseException as err:
                    raise AssertionError(f"{begin.__name__}: {second} before statement {at} of {first}") from err
                if not story.met:  # it has no more statements
                    break


DEATHS: list[tuple[Callable[[Story], None], Op]] = [
    (created, Create(0, "two", 1)),
    (created, Admit()),
    (created, Cancel(0)),
    (planned, Claim(0, "generate")),
    (planned, Cancel(0)),
    (claimed, MarkSent(GENERATE, 1)),
    (claimed, Move(GENERATE, "fail")),
    (sent, Reply(0, 1, "accepted")),
    (sent, Reply(0, 1, "put back")),
    (sent, Cancel(0)),
    (polled, Fact(0, 1, "succeeded")),
    (polled, Move(POLL, "fail")),
    (saving, Move(SAVE, "succeed")),
    (failed, Retry(0)),
    (failed_in_poll, Retry(0)),
    (late, Deliver(0, 1)),
    (cancelled_unanswered, Reply(0, 1, "rejected")),
    (cancelled_unanswered, Expire()),
    (cancelled_in_poll, Fact(0, 1, "cancelled for nothing")),
    (in_line_again, Admit()),
]


def test_whoever_dies_before_a_statement_or_the_commit_leaves_all_or_nothing(other_actor: Stranger) -> None:
    for begin, op in DEATHS:
        for at in range(MOST_STATEMENTS):
            story = Story(other_actor)
            begin(story)
            try:
                if story.do(op, at) is not DEAD:
                    break
            except AssertionError as err:
                raise AssertionError(f"{begin.__name__}: {op} died before statement {at}") from err


@pytest.mark.parametrize("kind", ["park", "again", "trouble", "fail", "advance"])
def test_a_worker_that_was_overtaken_moves_nothing(other_actor: Stranger, kind: str) -> None:
    story = Story(other_actor)
    overtaken(story)
    assert story.tell(Move(GENERATE, kind, "poll")) is False
    story.check()


def test_a_worker_whose_lease_is_over_sends_nothing(other_actor: Stranger) -> None:
    story = Story(other_actor)
    claimed(story)
    assert story.tell(PassTime(0), MarkSent(GENERATE, 1)) is False
    story.check()


def test_a_late_video_of_an_older_attempt_brings_nothing_back(other_actor: Stranger) -> None:
    story = Story(other_actor)
    in_line_again(story)
    story.tell(Admit(), PassTime(0), Claim(0, "generate"), Move(Held(0, "generate", 3), "fail"))
    story.tell(Fact(0, 1, "accepted"), Fact(0, 1, "succeeded"), Deliver(0, 1))
    story.check()
    assert story.model.task(0).status == "failed"


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
