"""Open cases: what is listed, and what an operator may settle."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from providers.contract import JobState, JobStatus, Submitted
from providers.errors import JobNotFound, ProviderDown, SubmissionUnknown
from tests.factories import OLGA, accepted, admitted, age, claimed, make_task, park_one, reload
from video.actions import cancel
from video.attempts import provider_calls, reconcile, records, task_moves, unsettled
from video.audit.actors import Unaudited
from video.credits import ledger
from video.engine.claims import Claim
from video.models import CreditEntry, Generation, Stage, Status, TaskEvent, VideoTask
from video.pipeline import runner

pytestmark = pytest.mark.django_db
State = Generation.State
Committed = Callable[..., Any]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[JobStatus | Exception], list[str]]:
    """What the provider says to every look from now on; the list gets the ids of the jobs looked at."""

    def answer(said: JobStatus | Exception) -> list[str]:
        looked: list[str] = []

        def look(generation: Generation) -> JobStatus:
            looked.append(generation.job_id)
            if isinstance(said, Exception):
                raise said
            return said

        monkeypatch.setattr(provider_calls, "poll", look)
        return looked

    return answer


def sent(task: VideoTask) -> tuple[Generation, Claim]:
    """Its attempt, sent and without an answer yet; the task is held."""
    generation = admitted(task)
    claim = claimed(task)
    assert records.mark_sent(claim, generation)
    return fresh(generation), claim


def unknown(task: VideoTask, *, ended: bool = True) -> Generation:
    """An attempt whose call ended without proof; its task has failed with it, or waits."""
    generation, claim = sent(task)
    records.record_unknown(generation.pk)
    if ended:
        assert task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.", generation_id=generation.pk)
    else:
        assert park_one(claim, delay_s=600, reason="Pika may still call back with the job")
    return fresh(generation)


def overdue(task: VideoTask, job_id: str = "job-1") -> Generation:
    """A job that outlived its task."""
    generation = accepted(task, job_id)
    assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.", generation_id=generation.pk)
    return fresh(generation)


def lost(task: VideoTask) -> Generation:
    generation = unknown(task)
    assert records.record_lost(generation.pk, code="outcome_unknown")
    return fresh(generation)


def fresh(generation: Generation) -> Generation:
    return Generation.objects.get(pk=generation.pk)


def only() -> unsettled.UnsettledAttempt:
    (case,) = unsettled.find()
    return case


class TestFind:
    def test_lists_what_nothing_drives_to_an_end(self) -> None:
        mine = [unknown(make_task()), overdue(make_task()), unknown(make_task(), ended=False), lost(make_task())]
        accepted(make_task(), "job-2")  # its task looks at it
        admitted(make_task())  # not sent
        sent(make_task())  # being sent
        found = unsettled.find()
        assert {case.generation.pk for case in found} == {generation.pk for generation in mine}
        assert [case.open for case in found] == [True, True, True, False]

    def test_a_submit_whose_worker_died_is_open_once_its_answer_is_overdue(self) -> None:
        task = make_task()
        generation, _ = sent(task)
        assert unsettled.find() == []
        age(task.pk, 75)
        assert only().generation.pk == generation.pk

    def test_those_given_up_leave_the_list_after_days(self) -> None:
        generation = lost(make_task())
        Generation.objects.filter(pk=generation.pk).update(ended_at=timezone.now() - timedelta(days=4))
        assert unsettled.find() == []

    def test_a_given_up_one_whose_job_became_known_is_open(self) -> None:
        generation = lost(make_task())
        Generation.objects.filter(pk=generation.pk).update(job_id="late", look_at=timezone.now())
        assert only().open

    def test_filters(self) -> None:
        runway, pika = make_task(), make_task(model_requested="pika-2.2")
        old, new = unknown(runway), unknown(pika)
        age(runway.pk, 3600)
        assert [case.generation.pk for case in unsettled.find(provider="pika")] == [new.pk]
        assert [case.generation.pk for case in unsettled.find(older_than_s=1800)] == [old.pk]

    def test_says_what_happens_and_until_when(self) -> None:
        generation = unknown(make_task())
        case = only()
        assert case.doing == "its task has ended; keeps its slot, then is lost"
        assert generation.sent_at is not None
        assert case.until == generation.sent_at + timedelta(seconds=settings.UNKNOWN_WINDOW_SECONDS["runway"])
        assert case.age_s is not None
        assert case.age_s < 60

    def test_says_when_a_job_is_looked_at_next(self) -> None:
        generation = overdue(make_task())
        case = only()
        assert case.next_at == generation.look_at
        assert generation.accepted_at is not None
        assert case.until == generation.accepted_at + timedelta(days=1)

    def test_says_which_look_up_comes_next(self) -> None:
        unknown(make_task(model_requested="kling-2.5-turbo"), ended=False)
        assert only().doing == "look-up 1 of 3 by our reference"

    def test_says_that_a_call_back_is_waited_for(self, settings: Any) -> None:
        settings.PUBLIC_BASE_URL = "https://videos.example.com"
        unknown(make_task(model_requested="pika-2.2"), ended=False)
        assert only().doing == "waits for Pika's call"

    def test_adds_up_what_is_at_stake(self) -> None:
        first, second, third = unknown(make_task()), overdue(make_task()), unknown(make_task())
        lost(make_task())  # booked, not open
        Generation.objects.filter(pk=first.pk).update(simulated=False, expected_usd=Decimal("0.60"))
        Generation.objects.filter(pk=second.pk).update(simulated=False, expected_usd=None)
        Generation.objects.filter(pk=third.pk).update(expected_usd=Decimal("0.25"))
        assert unsettled.stake(unsettled.find()) == unsettled.Exposure(3, Decimal("0.60"), Decimal("0.25"), 1)


class TestSettleAsLost:
    def test_frees_the_slot_keeps_the_cost_and_says_who(self) -> None:
        generation = unknown(make_task())
        case = unsettled.settle_as_lost(generation.pk, OLGA)
        assert (case.generation.state, case.open) == (State.LOST, False)
        assert case.generation.error_code == "outcome_unknown"
        assert case.generation.expected_usd == generation.expected_usd
        assert not Generation.objects.filter(state__in=Generation.LIVE).exists()
        event = TaskEvent.objects.filter(task_id=generation.task_id).latest("id")
        assert event.generation_id == generation.pk
        assert event.worker == "operator olga"
        assert event.detail == "olga settled attempt 1 as lost; its possible cost stays booked"

    def test_a_job_that_outlived_its_task(self) -> None:
        case = unsettled.settle_as_lost(overdue(make_task()).pk, OLGA)
        assert (case.generation.state, case.generation.error_code) == (State.LOST, "job_lost")
        assert case.generation.job_id == "job-1"
        assert case.generation.look_at is None

    def test_a_task_that_waits_ends_at_once_with_its_refund(
        self, django_capture_on_commit_callbacks: Committed
    ) -> None:
        task = make_task()
        generation = unknown(task, ended=False)
        with django_capture_on_commit_callbacks(execute=True):
            unsettled.settle_as_lost(generation.pk, OLGA)
        runner.run_stage(Stage.GENERATE, task.pk)
        task = reload(task)
        assert (task.status, task.error_code) == (Status.FAILED, "outcome_unknown")
        assert task.error_message == SubmissionUnknown.user_message
        assert CreditEntry.objects.filter(task=task, kind=CreditEntry.Kind.REFUND).count() == 1
        assert ledger.balance(task.user_id) == 1000

    @pytest.mark.parametrize(
        ("make", "sentence"),
        [
            (lambda: accepted(make_task()), "Its task still runs on this job (stage poll)"),
            (lambda: sent(make_task())[0], "Its submit may still be answered: wait until"),
            (lambda: admitted(make_task()), "It was never sent"),
            (lambda: lost(make_task()), "It is given up as lost already."),
        ],
    )
    def test_is_refused_with_a_sentence(self, make: Callable[[], Generation], sentence: str) -> None:
        generation = make()
        before = TaskEvent.objects.count()
        with pytest.raises(unsettled.SettlementRefused) as refused:
            unsettled.settle_as_lost(generation.pk, OLGA)
        assert str(refused.value).startswith(sentence)
        assert fresh(generation).state == generation.state
        assert TaskEvent.objects.count() == before

    def test_one_that_has_ended_and_one_that_is_not_there(self) -> None:
        generation = overdue(make_task())
        assert records.record_ended(generation.pk, State.SUCCEEDED)
        with pytest.raises(unsettled.SettlementRefused, match="It has ended as succeeded"):
            unsettled.settle_as_lost(generation.pk, OLGA)
        with pytest.raises(unsettled.SettlementRefused, match="There is no attempt gen_nothing"):
            unsettled.settle_as_lost("gen_nothing", OLGA)

    def test_the_second_of_two_operators_is_told(self) -> None:
        generation = unknown(make_task())
        unsettled.settle_as_lost(generation.pk, OLGA)
        with pytest.raises(unsettled.SettlementRefused, match="already"):
            unsettled.settle_as_lost(generation.pk, OLGA)
        assert TaskEvent.objects.filter(worker__startswith="operator").count() == 1


class TestOfACancelledTask:
    def test_the_list_says_what_the_refund_waits_for(self) -> None:
        accepted(task := make_task())
        sent(other := make_task(model_requested="pika-2.2"))
        for one in (task, other):
            cancel.cancel(one.pk, by=Unaudited("its user"))
        doing = {case.generation.state: case.doing for case in unsettled.find()}
        assert "its cost decides the refund" in doing[State.ACCEPTED]
        assert "else it is lost, and the task refunded" in doing[State.UNKNOWN]

    def test_settled_as_lost_before_a_job_was_known_it_is_refunded(self) -> None:
        task = make_task()
        generation, _ = sent(task)
        cancel.cancel(task.pk, by=Unaudited("its user"))
        with pytest.raises(unsettled.SettlementRefused, match="may still be answered"):
            unsettled.settle_as_lost(generation.pk, OLGA)
        records.record_unknown(generation.pk)
        unsettled.settle_as_lost(generation.pk, OLGA)
        assert ledger.balance(task.user_id) == 1000

    def test_a_known_job_that_is_settled_as_lost_stays_paid(self) -> None:
        task = make_task()
        generation = accepted(task)
        cancel.cancel(task.pk, by=Unaudited("its user"))
        unsettled.settle_as_lost(generation.pk, OLGA)
        assert ledger.balance(task.user_id) == 990

    def test_a_job_that_is_attached_is_told_to_stop_and_not_delivered(
        self, says: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = make_task()
        generation, _ = sent(task)
        cancel.cancel(task.pk, by=Unaudited("its user"))
        records.record_lost(generation.pk, code="outcome_unknown")
        says(JobStatus(JobState.RUNNING, "RUNNING"))
        unsettled.attach_job(generation.pk, "17f2-job", "olga")
        told: list[str] = []
        monkeypatch.setattr(provider_calls, "cancel", lambda generation: told.append(generation.job_id))
        reconcile.reconcile()
        assert told == ["17f2-job"]
        assert (reload(task).status, fresh(generation).state) == (Status.CANCELLED, State.ACCEPTED)


class TestAttachJob:
    RUNS = JobStatus(JobState.RUNNING, "RUNNING")
    DONE = JobStatus(JobState.SUCCEEDED, "SUCCEEDED", result_url="https://cdn.example.com/v.mp4", cost=Decimal(60))

    @pytest.mark.parametrize("make", [unknown, lost])
    def test_a_video_that_was_given_up_is_delivered_without_another_debit(
        self, make: Callable[[VideoTask], Generation], says: Any
    ) -> None:
        task = make_task()
        generation = make(task)
        says(self.DONE)
        case = unsettled.attach_job(generation.pk, " 17f2-job ", "olga")
        assert (case.generation.state, case.generation.job_id) == (State.ACCEPTED, "17f2-job")
        reconcile.reconcile()
        task = reload(task)
        assert fresh(generation).state == State.SUCCEEDED
        assert (task.status, task.stage) == (Status.RUNNING, Stage.DOWNLOAD)
        assert CreditEntry.objects.filter(task=task).count() == 2  # the debit and the refund
        assert TaskEvent.objects.get(worker="operator olga").detail == (
            "olga attached job 17f2-job to attempt 1; Runway says SUCCEEDED"
        )

    def test_a_task_that_waits_goes_on_with_the_job(
        self, says: Any, django_capture_on_commit_callbacks: Committed
    ) -> None:
        task = make_task(model_requested="pika-2.2")
        generation = unknown(task, ended=False)
        says(self.RUNS)
        with django_capture_on_commit_callbacks(execute=True):
            unsettled.attach_job(generation.pk, "found-1", "olga")
        runner.run_stage(Stage.GENERATE, task.pk)
        assert (reload(task).stage, fresh(generation).look_at) == (Stage.POLL, None)

    def test_a_job_that_the_provider_does_not_know_is_refused_for_an_id_is_for_ever(self, says: Any) -> None:
        generation = unknown(make_task())
        looked = says(JobNotFound("no such task"))
        with pytest.raises(unsettled.SettlementRefused, match='Runway knows no job mistyped for the key "simulator"'):
            unsettled.attach_job(generation.pk, "mistyped", "olga")
        assert looked == ["mistyped"]
        assert (fresh(generation).state, fresh(generation).job_id) == (State.UNKNOWN, "")

    def test_a_provider_that_is_down_does_not_stand_in_the_way(self, says: Any) -> None:
        generation = unknown(make_task())
        says(ProviderDown("it is down"))
        unsettled.attach_job(generation.pk, "found-1", "olga")
        assert fresh(generation).state == State.ACCEPTED
        assert TaskEvent.objects.get(worker="operator olga").detail.endswith("Runway could not be asked (ProviderDown)")

    @pytest.mark.parametrize(
        ("job_id", "sentence"),
        [
            ("", "A job id is made of letters"),
            ("two words", "A job id is made of letters"),
            ("../v1/tasks", "A job id is made of letters"),
            ("a,b", "A job id is made of letters"),
            ("jöb", "A job id is made of letters"),
            ("x" * 121, "A job id has at most 120 characters; this has 121."),
            ("gen_01kaq2f5d8k5v6w7x8y9z0abcd", "That is an id of ours"),
        ],
    )
    def test_what_can_be_no_job_id(self, job_id: str, sentence: str, says: Any) -> None:
        looked = says(self.RUNS)
        with pytest.raises(unsettled.SettlementRefused) as refused:
            unsettled.attach_job(unknown(make_task()).pk, job_id, "olga")
        assert str(refused.value).startswith(sentence)
        assert looked == []

    def test_the_longest_id_fits(self, says: Any) -> None:
        says(self.RUNS)
        assert unsettled.attach_job(unknown(make_task()).pk, "x" * 120, "olga").generation.job_id == "x" * 120

    def test_a_job_of_another_attempt_is_refused_with_its_owner(self, says: Any) -> None:
        owner, generation = overdue(make_task(), "taken-1"), unknown(make_task())
        says(self.RUNS)
        with pytest.raises(unsettled.SettlementRefused) as refused:
            unsettled.attach_job(generation.pk, "taken-1", "olga")
        assert str(refused.value) == f"Job taken-1 belongs to attempt {owner.pk} of {owner.task_id}."

    def test_a_job_that_was_taken_meanwhile_is_refused_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        other, generation = unknown(make_task()), unknown(make_task())

        def look(probe: Generation) -> JobStatus:
            records.record_accepted(other.pk, Submitted("found-1"))
            return self.RUNS

        monkeypatch.setattr(provider_calls, "poll", look)
        with pytest.raises(unsettled.SettlementRefused, match=f"belongs to attempt {other.pk}"):
            unsettled.attach_job(generation.pk, "found-1", "olga")
        assert fresh(generation).state == State.UNKNOWN
        assert not TaskEvent.objects.filter(worker="operator olga").exists()

    def test_the_same_id_at_another_provider_is_another_job(self, says: Any) -> None:
        overdue(make_task(), "same-1")
        says(self.RUNS)
        unsettled.attach_job(unknown(make_task(model_requested="pika-2.2")).pk, "same-1", "olga")

    def test_is_refused_where_a_job_is_known_or_proven_not_to_be(self, says: Any) -> None:
        says(self.RUNS)
        rejected, _ = sent(make_task())
        records.record_rejected(rejected.pk, code="bad_request", message="No.")
        for generation, sentence in (
            (overdue(make_task()), "It has a job already: job-1."),
            (rejected, "It has ended as rejected: proof that no job is its own."),
            (admitted(make_task()), "It was never sent, so no job can be its own."),
        ):
            with pytest.raises(unsettled.SettlementRefused) as refused:
                unsettled.attach_job(generation.pk, "found-1", "olga")
            assert str(refused.value) == sentence
        with pytest.raises(unsettled.SettlementRefused, match="There is no attempt"):
            unsettled.attach_job("gen_nothing", "found-1", "olga")

    def test_beside_a_newer_attempt_it_stays_lost_and_its_job_is_known(self, says: Any) -> None:
        task = make_task()
        generation = lost(task)
        VideoTask.objects.filter(pk=task.pk).update(
            status="pending", finished_at=None, admit_at=timezone.now(), error_code="", error_message=""
        )
        newer = admitted(task)
        says(self.RUNS)
        case = unsettled.attach_job(generation.pk, "found-1", "olga")
        assert (case.generation.state, case.generation.job_id, case.open) == (State.LOST, "found-1", True)
        assert fresh(newer).state == State.PLANNED


class TestLookNow:
    def test_a_look_that_was_not_due(self, says: Any) -> None:
        task = make_task()
        generation = overdue(task)
        says(TestAttachJob.DONE)
        assert unsettled.check_now(only()) == "looked at"
        assert fresh(generation).state == State.SUCCEEDED
        assert reload(task).stage == Stage.DOWNLOAD

    def test_by_our_reference_where_the_provider_can(self, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        generation = unknown(make_task(model_requested="kling-2.5-turbo"))
        says(TestAttachJob.RUNS)
        monkeypatch.setattr(provider_calls, "look_up", lambda generation: None)
        assert unsettled.check_now(only()) == "not found by our reference"
        monkeypatch.setattr(provider_calls, "look_up", lambda generation: Submitted("7001"))
        assert unsettled.check_now(only()) == "found by our reference; looked at"
        assert (fresh(generation).state, fresh(generation).job_id) == (State.ACCEPTED, "7001")

    def test_a_provider_that_can_tell_nothing_is_not_asked(self, says: Any) -> None:
        looked = says(TestAttachJob.RUNS)
        unknown(make_task())
        assert unsettled.check_now(only()) == "Runway can't be asked without a job id"
        assert looked == []

    def test_what_a_task_follows_is_left_to_it(self, says: Any) -> None:
        looked = says(TestAttachJob.RUNS)
        case = unsettled.get(accepted(make_task()).pk)
        assert case is not None
        assert unsettled.check_now(case) == "left to its task"
        assert looked == []
