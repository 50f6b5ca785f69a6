"""Cancel and retry against everything that may happen at the same moment: two connections, whoever wins, it adds up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from providers.contract import Submitted
from tests.factories import accepted, admitted, claimed, live, make_task, reload
from tests.system.system import until
from tests.video.racing import together
from video.actions import cancel as cancel_action
from video.actions import retry as retry_action
from video.actions.cancel import Refund
from video.actions.task_rows import ActionRefused
from video.attempts import records, task_moves
from video.audit.actors import Unaudited
from video.credits import ledger
from video.engine import transitions
from video.engine.claims import Claim
from video.models import CreditEntry, Generation, Stage, VideoTask
from video.scheduling import admission

pytestmark = pytest.mark.django_db(transaction=True)
State = Generation.State
ROUNDS = 6


def cancel(task: VideoTask) -> Callable[[], Any]:
    return lambda: cancel_action.cancel(task.pk, by=Unaudited("its user"))


def retry(task: VideoTask) -> Callable[[], Any]:
    return lambda: retry_action.retry(task.pk, by=Unaudited("its user"))


def gen(task: VideoTask) -> Generation:
    return Generation.objects.filter(task=task).order_by("-attempt")[0]


def kinds(task: VideoTask) -> list[tuple[str, int]]:
    return sorted(CreditEntry.objects.filter(task=task).values_list("kind", "run"), key=lambda row: (row[1], row[0]))


PAID, REFUNDED = [("debit", 1)], [("debit", 1), ("refund", 1)]


def sent(task: VideoTask) -> tuple[Generation, Claim]:
    generation = admitted(task)
    claim = claimed(task)
    assert records.mark_sent(claim, generation)
    return generation, claim


def rendering(model: str = "gen4.5") -> tuple[VideoTask, Generation]:
    task = make_task(model_requested=model)
    return task, accepted(task, f"job-of-{task.pk}")


def ready() -> tuple[VideoTask, Claim]:
    """A task that is being saved."""
    task, generation = rendering()
    records.record_ended(generation.pk, State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    for here, to in (
        (Stage.DOWNLOAD, Stage.TRANSCODE),
        (Stage.TRANSCODE, Stage.THUMBNAIL),
        (Stage.THUMBNAIL, Stage.SAVE),
    ):
        assert transitions.advance(claimed(task, here), to)
    return task, claimed(task, Stage.SAVE)


def refused_submit() -> VideoTask:
    """A failed task with nothing to go on with."""
    task = make_task()
    generation = admitted(task)
    claim = claimed(task)
    records.record_rejected(generation.pk, code="bad_request", message="No.")
    assert task_moves.fail(claim, code="bad_request", message="No.")
    return task


def test_cancel_against_success_the_first_wins() -> None:
    for turn in range(ROUNDS):
        task, claim = ready()
        cancelled, stored = together(
            turn,
            cancel(task),
            lambda claim=claim, turn=turn: transitions.succeed(claim, generation_id=None, video_id=f"vid_{turn}"),
        )
        assert reload(task).status == ("success" if stored else "cancelled")
        assert (getattr(cancelled, "code", "") == "not_cancellable") is stored
        assert kinds(task) == PAID


def test_cancel_against_the_submit_is_either_never_sent_or_pending() -> None:
    for turn in range(ROUNDS):
        task = make_task()
        generation = admitted(task)
        claim = claimed(task)
        cancelled, may_send = together(
            turn, cancel(task), lambda claim=claim, generation=generation: records.mark_sent(claim, generation)
        )
        assert reload(task).status == "cancelled"
        assert gen(task).state == ("unknown" if may_send else "rejected")
        assert cancelled.refund is (Refund.PENDING if may_send else Refund.DONE)
        assert kinds(task) == (PAID if may_send else REFUNDED)
        records.record_rejected(generation.pk, code="x", message="x")
        assert kinds(task) == REFUNDED


def test_cancel_against_the_submits_answer_leaves_a_job_that_is_looked_at() -> None:
    for turn in range(ROUNDS):
        task = make_task()
        generation, _ = sent(task)
        _, recorded = together(
            turn,
            cancel(task),
            lambda generation=generation: records.record_accepted(generation.pk, Submitted(f"job-{generation.pk}")),
        )
        assert recorded
        generation.refresh_from_db()
        assert generation.state == "accepted"
        assert generation.look_at is not None
        assert generation.cancel_wanted_at is not None


def test_an_answer_that_had_to_wait_for_the_cancel_still_leaves_a_job_that_is_looked_at() -> None:
    """It read the task before the cancel was committed, and must hear of it from the attempt's own row."""
    task = make_task()
    generation, _ = sent(task)
    answer = threading.Thread(
        target=lambda: (records.record_accepted(generation.pk, Submitted("job-1")), connection.close())
    )
    with transaction.atomic():
        cancel_action.cancel(task.pk, by=Unaudited("its user"))
        answer.start()
        until("the answer waits for us", _somebody_waits)
    answer.join(60)
    generation.refresh_from_db()
    assert generation.state == "accepted"
    assert generation.look_at is not None


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # else one transaction sees the same all the time
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


ENDS: dict[str, tuple[Callable[[Generation], Any], str]] = {
    "refused": (lambda g: records.record_rejected(g.pk, code="bad_request", message="No."), "rejected"),
    "not sent": (lambda g: records.put_back(g.pk), "rejected"),
    "lost": (lambda g: records.give_up_unknown(g.pk), "lost"),
}


@pytest.mark.parametrize("end", ENDS)
def test_cancel_against_the_truth_about_a_submit_refunds_once(end: str) -> None:
    record, state = ENDS[end]
    for turn in range(ROUNDS):
        task = make_task()
        generation, _ = sent(task)
        together(turn, cancel(task), lambda generation=generation: record(generation))
        assert reload(task).status == "cancelled"
        assert gen(task).state == state
        assert kinds(task) == REFUNDED


def test_cancel_against_a_bad_end_of_the_job_refunds_once() -> None:
    for turn in range(ROUNDS):
        task, generation = rendering()
        together(
            turn,
            cancel(task),
            lambda generation=generation: records.record_ended(generation.pk, State.FAILED, took_nothing=True),
        )
        assert (reload(task).status, gen(task).state) == ("cancelled", "failed")
        assert kinds(task) == REFUNDED


def test_cancel_against_the_tasks_failure_refunds_once() -> None:
    for turn in range(ROUNDS):
        task = make_task()
        generation = admitted(task)
        claim = claimed(task)
        cancelled, failed = together(
            turn, cancel(task), lambda claim=claim: task_moves.fail(claim, code="timeout", message="Too long.")
        )
        assert reload(task).status == ("failed" if failed else "cancelled")
        assert isinstance(cancelled, ActionRefused) is failed
        generation.refresh_from_db()
        assert generation.state == "rejected"
        assert kinds(task) == REFUNDED


def test_cancel_against_admission_leaves_no_slot_taken() -> None:
    for turn in range(ROUNDS):
        task = make_task()
        together(turn, cancel(task), admission.admit)
        admission.admit()
        assert reload(task).status == "cancelled"
        assert live(task.pk) is None
        assert kinds(task) == REFUNDED


def test_of_two_cancels_one_changes_something() -> None:
    for turn in range(ROUNDS):
        task = make_task()
        both = together(turn, cancel(task), cancel(task))
        assert sorted(done.changed for done in both) == [False, True]
        assert {done.refund for done in both} == {Refund.DONE}
        assert kinds(task) == REFUNDED


def test_of_two_retries_one_goes_on_and_is_debited() -> None:
    for turn in range(ROUNDS):
        task = refused_submit()
        both = together(turn, retry(task), retry(task))
        assert sorted(getattr(done, "code", "") for done in both) == ["", "not_retryable"]
        assert kinds(task) == [*REFUNDED, ("debit", 2)]
        assert (reload(task).status, reload(task).run) == ("running", 2)


def test_retry_against_cancel_of_a_failed_task_adds_up_whoever_wins() -> None:
    for turn in range(ROUNDS):
        task = refused_submit()
        retried, cancelled = together(turn, retry(task), cancel(task))
        assert retried.run == 2
        if isinstance(cancelled, ActionRefused):
            assert cancelled.code == "not_cancellable"
            assert reload(task).status == "running"
            assert kinds(task) == [*REFUNDED, ("debit", 2)]
        else:
            assert (cancelled.run, cancelled.refund, reload(task).status) == (2, Refund.DONE, "cancelled")
            assert kinds(task) == [*REFUNDED, ("debit", 2), ("refund", 2)]


def test_retry_of_a_cancelled_task_against_the_end_of_its_job_is_paid_for_exactly_once() -> None:
    for turn in range(ROUNDS):
        task, generation = rendering("kling-2.5-turbo")
        cancel_action.cancel(task.pk, by=Unaudited("x"))
        retried, ended = together(
            turn,
            retry(task),
            lambda generation=generation: records.record_ended(generation.pk, State.FAILED, took_nothing=True),
        )
        assert ended
        if retried.run == 1:  # it took the job up first, and hears of its end like any other task
            assert (retried.stage, retried.debited) == (Stage.POLL, 0)
            assert kinds(task) == PAID
        else:
            assert (retried.stage, retried.debited) == (Stage.GENERATE, 10)
            assert kinds(task) == [*REFUNDED, ("debit", 2)]


def test_retry_against_a_video_that_comes_late_is_one_of_the_two() -> None:
    for turn in range(ROUNDS):
        task, generation = rendering("kling-2.5-turbo")
        assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
        records.record_ended(generation.pk, State.SUCCEEDED)
        retried, revived = together(
            turn, retry(task), lambda task=task, generation=generation: transitions.revive(task.pk, 1, generation.pk)
        )
        assert isinstance(retried, ActionRefused) is revived
        task = reload(task)
        assert (task.status, task.stage, task.run) == ("running", "download", 1 if revived else 2)
        assert kinds(task) == (REFUNDED if revived else [*REFUNDED, ("debit", 2)])


def test_after_all_of_it_the_ledger_is_whole() -> None:
    """Each test's end empties the tables, so this one makes a bit of everything again."""
    for turn in range(3):
        task = refused_submit()
        together(turn, retry(task), cancel(task), retry(task), cancel(task))
    assert ledger.differences() == []
