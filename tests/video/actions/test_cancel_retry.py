"""Cancel and retry: every row of the table, on rows made the way the product makes them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from providers.contract import CancelOutcome, JobState, JobStatus, Submitted
from providers.errors import JobFailed, JobNotFound, ProviderDown
from tests.factories import OLGA, accepted, admitted, age, claimed, make_task, make_user, reload
from video.actions import cancel as cancel_action
from video.actions import retry as retry_action
from video.actions.cancel import Refund
from video.actions.task_rows import ActionRefused
from video.attempts import provider_calls, reconcile, records, task_moves
from video.audit.actors import Unaudited
from video.credits import ledger
from video.engine import claims, transitions
from video.engine.claims import Claim
from video.models import CreditEntry, Generation, Stage, TaskEvent, VideoTask
from video.scheduling import admission

pytestmark = pytest.mark.django_db
State = Generation.State

# (model, standard of the key does not matter here): a provider each
MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo"}


def gen(task: VideoTask) -> Generation:
    return Generation.objects.filter(task=task).order_by("-attempt")[0]


def kinds(task: VideoTask) -> list[tuple[str, int, int]]:
    return list(CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", "amount", "run"))


def cancel(task: VideoTask) -> cancel_action.Cancelled:
    return cancel_action.cancel(task.pk, by=Unaudited("its user"))


def retry(task: VideoTask, **more: Any) -> retry_action.Retried:
    return retry_action.retry(task.pk, by=Unaudited("its user"), **more)


def refused(code: str, call: Callable[[], Any]) -> str:
    with pytest.raises(ActionRefused) as caught:
        call()
    assert caught.value.code == code
    return caught.value.message


def unknown(model: str = "gen4.5") -> tuple[VideoTask, Generation, Claim]:
    """A task whose submit is under way."""
    task = make_task(model_requested=model)
    generation = admitted(task)
    claim = claimed(task)
    assert records.mark_sent(claim, generation)
    return task, generation, claim


def running(model: str = "gen4.5") -> tuple[VideoTask, Generation]:
    """A task whose job renders."""
    task = make_task(model_requested=model)
    return task, accepted(task, f"job-of-{task.pk}")


def rendered(model: str = "gen4.5") -> VideoTask:
    """A task whose job has ended well; it stands in download."""
    task, generation = running(model)
    claim = claimed(task, Stage.POLL)
    assert records.record_ended(generation.pk, State.SUCCEEDED)
    assert transitions.advance(claim, Stage.DOWNLOAD, has_work_files=True)
    return reload(task)


def at(stage: Stage) -> VideoTask:
    """A rendered task on its way, due in that stage."""
    task = rendered()
    for here, to, fields in (
        (Stage.DOWNLOAD, Stage.TRANSCODE, {"source_key": f"work/{task.pk}/1/source.mp4"}),
        (Stage.TRANSCODE, Stage.THUMBNAIL, {"output_key": f"work/{task.pk}/2/video.mp4"}),
        (Stage.THUMBNAIL, Stage.SAVE, {"thumbnail_key": f"work/{task.pk}/3/thumb.jpg"}),
    ):
        if reload(task).stage == stage:
            break
        assert transitions.advance(claimed(task, here), to, **fields)
    return reload(task)


def failed(task: VideoTask, code: str = "timeout") -> VideoTask:
    """The same task, failed where it stands."""
    task = reload(task)
    claim = claimed(task, Stage(task.stage))
    assert task_moves.fail(claim, code=code, message="It failed.")
    return reload(task)


def says(monkeypatch: pytest.MonkeyPatch, *said: Any, cancelled: Any = CancelOutcome.REQUESTED) -> list[str]:
    """What the provider answers to looks, one after the other, and to a cancel. Returns the calls as they come."""
    answers, calls = list(said), []

    def look(generation: Generation) -> JobStatus:
        calls.append("look")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(generation: Generation) -> Any:
        calls.append("cancel")
        return cancelled

    monkeypatch.setattr(provider_calls, "poll", look)
    monkeypatch.setattr(provider_calls, "cancel", stop)
    return calls


class TestCancel:
    def test_in_line_it_is_cancelled_and_refunded_at_once(self) -> None:
        task = make_task()
        done = cancel(task)
        assert (done.refund, done.changed, done.stage, done.asks_provider) == (Refund.DONE, True, "generate", False)
        task = reload(task)
        assert (task.status, task.fence, task.admit_at, task.error_code) == ("cancelled", 1, None, "")
        assert task.finished_at is not None
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]
        assert admission.admit() == []

    def test_a_planned_attempt_is_rejected_and_its_slot_is_free(self) -> None:
        task = make_task()
        generation = admitted(task)
        assert cancel(task).refund is Refund.DONE
        generation.refresh_from_db()
        assert (generation.state, generation.error_code) == ("rejected", "task_ended")
        assert ledger.balance(task.user_id) == 1000

    def test_the_probe_of_a_planned_attempt_is_given_back(self, django_capture_on_commit_callbacks: Any) -> None:
        task = make_task()
        generation = admitted(task)
        with connection.cursor() as cursor:
            cursor.execute(
                """INSERT INTO video_circuit (model, provider, faults, open_until, probing_since, last_error)
                VALUES (%s, 'runway', 5, statement_timestamp() - interval '1 minute', statement_timestamp(), '')""",
                [generation.model],
            )
            with django_capture_on_commit_callbacks(execute=True):
                cancel(task)
            cursor.execute("SELECT probing_since FROM video_circuit WHERE model = %s", [generation.model])
            assert cursor.fetchone() == (None,)

    def test_a_claimed_task_is_taken_from_its_worker(self) -> None:
        task = make_task()
        generation = admitted(task)
        claim = claimed(task)
        cancel(task)
        assert claims.renew_leases([claim]) == set()  # the next heartbeat tells the worker to stop
        assert not records.mark_sent(claim, generation)
        assert not transitions.advance(claim, Stage.POLL)
        assert not task_moves.fail(claim, code="late", message="late")
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    @pytest.mark.parametrize("model", MODELS.values())
    def test_a_submit_under_way_is_cancelled_and_the_refund_waits_for_the_truth(self, model: str) -> None:
        task, generation, _ = unknown(model)
        done = cancel(task)
        assert (done.refund, done.asks_provider) == (Refund.PENDING, False)
        generation.refresh_from_db()
        assert generation.state == "unknown"
        assert generation.cancel_wanted_at is not None
        assert reload(task).status == "cancelled"
        assert kinds(task) == [("debit", -10, 1)]

    def test_then_it_is_refused_and_refunded(self) -> None:
        task, generation, _ = unknown()
        cancel(task)
        assert records.record_rejected(generation.pk, code="bad_request", message="No.")
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_or_no_byte_left_and_it_is_rejected_and_refunded(self) -> None:
        task, generation, _ = unknown()
        cancel(task)
        assert records.put_back(generation.pk)
        generation.refresh_from_db()
        assert (generation.state, generation.error_code) == ("rejected", "task_ended")
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_or_it_is_settled_as_lost_and_refunded(self) -> None:
        task, generation, _ = unknown()
        cancel(task)
        assert records.record_lost(generation.pk, code="outcome_unknown")
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_or_its_window_is_over_and_it_is_refunded(self) -> None:
        task, _, _ = unknown()
        cancel(task)
        age(task.pk, 3600)
        assert records.expire_unknown({"runway": 1800}) == 1
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_or_the_job_is_found_and_stopped_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, generation, _ = unknown()
        cancel(task)
        assert records.record_accepted(generation.pk, Submitted("job-1"))
        calls = says(
            monkeypatch,
            JobStatus(JobState.QUEUED, "PENDING"),
            JobStatus(JobState.CANCELLED, "CANCELLED", cost=Decimal(0)),
        )
        assert reconcile.reconcile() == 1
        assert calls == ["look", "cancel", "look"]
        assert gen(task).state == "cancelled"
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_kling_is_asked_by_our_reference_and_never_sent_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, generation, _ = unknown("kling-2.5-turbo")
        records.record_unknown(generation.pk)
        cancel(task)
        asked = []
        monkeypatch.setattr(provider_calls, "look_up", lambda generation: asked.append(generation.pk))
        assert reconcile.reconcile() == 1  # its first look-up is due in a quarter of a minute
        assert asked == []
        for nth in (1, 2, 3):
            Generation.objects.filter(pk=generation.pk).update(
                unknown_since="2026-01-01T00:00:00Z", look_at="2026-01-01T00:00:00Z"
            )
            assert reconcile.reconcile() == 1
            assert len(asked) == nth
        assert gen(task).state == "lost"
        assert not gen(task).resent
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_kling_has_the_job_so_it_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, generation, _ = unknown("kling-2.5-turbo")
        cancel(task)
        Generation.objects.filter(pk=generation.pk).update(unknown_since="2026-01-01T00:00:00Z")
        monkeypatch.setattr(provider_calls, "look_up", lambda generation: Submitted("job-1"))
        reconcile.reconcile()
        assert gen(task).state == "accepted"
        assert gen(task).look_at is not None
        calls = says(monkeypatch, JobStatus(JobState.FAILED, "failed", error=JobFailed("x", another_model_could=True)))
        reconcile.reconcile()
        assert calls == ["look"]
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_a_look_up_that_fails_is_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, generation, _ = unknown("kling-2.5-turbo")
        cancel(task)
        Generation.objects.filter(pk=generation.pk).update(unknown_since="2026-01-01T00:00:00Z")

        def down(generation: Generation) -> None:
            raise ProviderDown("no answer")

        monkeypatch.setattr(provider_calls, "look_up", down)
        reconcile.reconcile()
        assert gen(task).state == "unknown"
        assert gen(task).look_at is not None
        assert reconcile.reconcile() == 0

    ENDS = [
        # (provider, last word before, the end, whether the provider took nothing)
        ("runway", "PENDING", JobStatus(JobState.CANCELLED, "CANCELLED", cost=Decimal(0)), True),
        ("runway", "RUNNING", JobStatus(JobState.CANCELLED, "CANCELLED", cost=Decimal(60)), False),
        ("runway", "PENDING", JobStatus(JobState.CANCELLED, "CANCELLED"), False),
        ("runway", "RUNNING", JobStatus(JobState.SUCCEEDED, "SUCCEEDED", cost=Decimal(60)), False),
        ("pika", "IN_QUEUE", JobStatus(JobState.CANCELLED, "COMPLETED"), True),
        ("pika", "IN_PROGRESS", JobStatus(JobState.CANCELLED, "COMPLETED"), False),
        ("pika", "IN_PROGRESS", JobStatus(JobState.SUCCEEDED, "COMPLETED"), False),
        ("kling", "processing", JobStatus(JobState.SUCCEEDED, "succeed", cost=Decimal(3)), False),
        ("kling", "processing", JobStatus(JobState.FAILED, "failed"), True),
    ]

    @pytest.mark.parametrize(("provider", "before", "end", "took_nothing"), ENDS)
    def test_an_accepted_job_is_stopped_and_refunded_only_if_nothing_was_charged(
        self, monkeypatch: pytest.MonkeyPatch, provider: str, before: str, end: JobStatus, took_nothing: bool
    ) -> None:
        task, generation = running(MODELS[provider])
        done = cancel(task)
        assert (done.refund, done.asks_provider) == (Refund.PENDING, True)
        assert reload(task).status == "cancelled"
        live = JobStatus(JobState.RUNNING, before)
        calls = says(monkeypatch, live, end, cancelled=None if provider == "kling" else CancelOutcome.REQUESTED)
        reconcile.reconcile()
        if provider == "kling":  # it knows no cancel: looked at until the job has ended by itself
            assert calls == ["look", "cancel"]
            assert gen(task).state == "accepted"
            Generation.objects.filter(pk=generation.pk).update(look_at="2026-01-01T00:00:00Z")
            reconcile.reconcile()
        else:
            assert calls == ["look", "cancel", "look"]
        assert gen(task).state == end.state
        assert (("refund", 10, 1) in kinds(task)) is took_nothing
        assert reload(task).status == "cancelled"  # a video that comes late is not delivered

    def test_a_finished_video_is_not_erased_by_the_wish_to_stop_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, _ = running()
        cancel(task)
        calls = says(monkeypatch, JobStatus(JobState.SUCCEEDED, "SUCCEEDED"))
        reconcile.reconcile()
        assert calls == ["look"]
        assert kinds(task) == [("debit", -10, 1)]

    def test_a_provider_that_forgets_a_cancelled_job_has_told_no_cost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, _ = running()
        cancel(task)
        says(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING"), JobNotFound("gone"))
        reconcile.reconcile()
        assert (gen(task).state, gen(task).provider_status) == ("cancelled", "gone after our cancel")
        assert kinds(task) == [("debit", -10, 1)]

    def test_a_job_that_does_not_show_yet_is_asked_to_stop_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, generation = running()
        cancel(task)
        calls = says(monkeypatch, JobNotFound("not yet"), cancelled=CancelOutcome.NOT_FOUND)
        reconcile.reconcile()
        assert calls == ["look", "cancel", "look"]
        assert (gen(task).state, gen(task).not_found) == ("accepted", 1)
        Generation.objects.filter(pk=generation.pk).update(look_at="2026-01-01T00:00:00Z")
        says(monkeypatch, JobStatus(JobState.QUEUED, "PENDING"), JobStatus(JobState.CANCELLED, "C", cost=Decimal(0)))
        reconcile.reconcile()
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]

    def test_a_provider_in_trouble_is_asked_again_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task, generation = running()
        cancel(task)
        says(monkeypatch, ProviderDown("no answer"))
        reconcile.reconcile()
        assert reconcile.reconcile() == 0
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT extract(epoch FROM look_at - statement_timestamp()) FROM video_generation WHERE id = %s",
                [generation.pk],
            )
            assert 0 < cursor.fetchone()[0] <= 60

    @pytest.mark.parametrize("stage", [Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE])
    def test_after_the_providers_success_nothing_is_refunded(self, stage: Stage) -> None:
        task = at(stage)
        assert task.stage == stage
        done = cancel(task)
        assert (done.refund, done.stage, done.asks_provider) == (Refund.NONE, stage, False)
        task = reload(task)
        assert (task.status, task.stage, task.has_work_files) == ("cancelled", stage, True)  # its files are swept
        assert kinds(task) == [("debit", -10, 1)]

    def test_a_success_that_the_task_has_not_heard_of_is_not_refunded_either(self) -> None:
        task, generation = running()
        records.record_ended(generation.pk, State.SUCCEEDED)
        assert cancel(task).refund is Refund.NONE

    def test_an_end_that_the_task_has_not_heard_of_is_no_live_attempt(self) -> None:
        task, generation = running()
        records.record_ended(generation.pk, State.FAILED, code="generation_failed")
        assert cancel(task).refund is Refund.DONE

    def test_twice_is_once(self) -> None:
        for task in (make_task(), running()[0], rendered()):
            first = cancel(task)
            again = cancel(task)
            assert first.changed
            assert not again.changed
            assert again.refund is first.refund
            assert TaskEvent.objects.filter(task=task, outcome="cancelled").count() == 1
            assert reload(task).fence > 0

    def test_one_that_has_ended_otherwise_is_refused(self) -> None:
        done = at(Stage.SAVE)
        assert transitions.succeed(claimed(done, Stage.SAVE), generation_id=None, video_id="vid_1")
        assert "stored" in refused("not_cancellable", lambda: cancel(done))
        over = failed(running()[0])
        assert "failed" in refused("not_cancellable", lambda: cancel(over))
        assert reload(over).status == "failed"

    def test_one_that_is_not_there_or_somebody_elses_is_not_found(self) -> None:
        task = make_task()
        refused("not_found", lambda: cancel_action.cancel("task_nope", by=Unaudited("x")))
        refused("not_found", lambda: cancel_action.cancel(task.pk, by=Unaudited("x"), user_id=make_user().pk))
        assert reload(task).status == "pending"

    def test_the_timeline_says_who_and_what_of_the_money(self) -> None:
        task = make_task()
        cancel(task)
        event = TaskEvent.objects.filter(task=task).order_by("-id")[0]
        assert (event.outcome, event.stage, event.worker) == ("cancelled", "generate", "its user")
        assert event.detail == "cancelled by its user; refunded"

    def test_the_older_end_of_an_earlier_attempt_refunds_nothing(self) -> None:
        """Late truth about a lost attempt says nothing of the one that the cancel was about."""
        task, generation, claim = unknown()
        records.record_lost(generation.pk, code="outcome_unknown")
        assert transitions.wait_for_slot(claim, delay_s=0, reason="again")
        second = admitted(task)
        assert records.mark_sent(claimed(task), second)
        assert records.record_accepted(second.pk, Submitted("job-2"))
        assert records.record_accepted(generation.pk, Submitted("job-1"))
        cancel(task)
        assert records.record_ended(generation.pk, State.FAILED, took_nothing=True)
        assert kinds(task) == [("debit", -10, 1)]
        assert records.record_ended(second.pk, State.FAILED, took_nothing=True)
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1)]


class TestRetry:
    def test_without_a_job_it_goes_in_line_again_as_a_run_of_its_own(self) -> None:
        task, generation, claim = unknown()
        records.record_rejected(generation.pk, code="bad_request", message="No.")
        assert task_moves.fail(claim, code="bad_request", message="No.")
        done = retry(task)
        assert done == retry_action.Retried(task.pk, 2, Stage.GENERATE, 10, 0)
        task = reload(task)
        assert (task.status, task.stage, task.run, task.rerun, task.progress) == ("running", "generate", 2, True, 0)
        assert (task.error_code, task.finished_at, task.deadline_at) == ("", None, None)
        assert task.admit_at is not None
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1), ("debit", -10, 2)]
        assert (admitted(task).attempt, admitted(task).run) == (2, 2)
        assert reload(task).deadline_at is not None

    @pytest.mark.parametrize(
        ("stage", "goes_on_at"),
        [
            (Stage.DOWNLOAD, Stage.DOWNLOAD),
            (Stage.TRANSCODE, Stage.TRANSCODE),
            (Stage.THUMBNAIL, Stage.TRANSCODE),
            (Stage.SAVE, Stage.TRANSCODE),
        ],
    )
    def test_after_the_providers_success_nothing_is_submitted_again(self, stage: Stage, goes_on_at: Stage) -> None:
        task = failed(at(stage))
        done = retry(task)
        assert (done.stage, done.run, done.debited) == (goes_on_at, 2, 10)
        task = reload(task)
        assert (task.status, task.stage, task.progress) == ("running", goes_on_at, transitions.PROGRESS_AT[goes_on_at])
        assert task.deadline_at is not None
        assert (gen(task).attempt, gen(task).run) == (1, 2)  # the attempt goes along with the run that pays for it
        claimed(task, goes_on_at)

    def test_a_job_that_still_renders_is_taken_up_again(self) -> None:
        task, generation = running("kling-2.5-turbo")
        failed(task)
        Generation.objects.filter(pk=generation.pk).update(cancel_wanted_at="2026-01-01T00:00:00Z")
        assert retry(task).stage is Stage.POLL
        generation.refresh_from_db()
        assert (generation.state, generation.run) == ("accepted", 2)
        assert generation.look_at is None
        assert generation.cancel_wanted_at is None

    def test_while_its_job_is_being_stopped_it_is_refused(self) -> None:
        task, generation = running()
        failed(task)
        records.want_cancel(generation.pk)
        assert "has not ended" in refused("attempt_unsettled", lambda: retry(task))
        records.record_ended(generation.pk, State.CANCELLED)
        assert retry(task).stage is Stage.GENERATE

    @pytest.mark.parametrize("regenerate", [False, True])
    def test_while_nobody_knows_whether_a_job_exists_it_is_refused(self, regenerate: bool) -> None:
        task, generation, claim = unknown()
        assert task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.")
        before = kinds(task)
        assert "nobody knows" in refused("attempt_unsettled", lambda: retry(task, regenerate=regenerate))
        assert (reload(task).status, kinds(task)) == ("failed", before)
        records.give_up_unknown(generation.pk)
        assert retry(task).stage is Stage.GENERATE

    def test_anew_beside_a_job_that_renders_is_refused(self) -> None:
        task, _ = running()
        failed(task)
        refused("attempt_unsettled", lambda: retry(task, regenerate=True))
        assert retry(task).stage is Stage.POLL

    def test_a_source_that_is_gone_is_only_made_anew(self) -> None:
        task = failed(at(Stage.TRANSCODE), "source_gone")
        assert "regenerate" in refused("source_gone", lambda: retry(task))
        assert retry(task, regenerate=True).stage is Stage.GENERATE
        task = reload(task)
        assert (task.source_key, task.run) == ("", 2)
        assert (
            cancel_action.cancel(task.pk, by=Unaudited("x")).refund is Refund.DONE
        )  # the old success is not this run's

    def test_short_of_credits_it_stays_as_it_was(self) -> None:
        task = failed(running()[0])
        user = task.user_id
        make_task_of(user, 990 // 10 + 1)
        assert ledger.balance(user) == 0
        with pytest.raises(ledger.InsufficientCredits):
            retry(task)
        assert (reload(task).status, reload(task).run) == ("failed", 1)

    def test_free_is_a_grant_and_a_debit(self) -> None:
        task = failed(at(Stage.DOWNLOAD))
        done = retry_action.retry(task.pk, by=OLGA, free=True)
        assert (done.debited, done.granted) == (10, 10)
        assert kinds(task)[2:] == [("grant", 10, 2), ("debit", -10, 2)]
        assert CreditEntry.objects.get(task=task, kind="grant").note.endswith("by operator olga")
        assert ledger.balance(task.user_id) == 1000
        assert ledger.differences() == []

    def test_the_models_are_those_of_a_new_order(self) -> None:
        task = make_task(model_requested="", fallback=True)
        offered = task.eligible_models
        generation = admitted(task)
        claim = claimed(task)
        records.record_rejected(generation.pk, code="generation_failed", message="No.")
        assert transitions.wait_for_slot(claim, delay_s=0, reason="x", models=offered[1:2])
        task = reload(task)
        assert len(task.eligible_models) == 1
        assert transitions.fail_waiting(task, code="x", message="x")
        retry(task)
        assert reload(task).eligible_models == offered

    def test_a_model_that_can_not_be_had_any_more_is_told(self, settings: Any) -> None:
        task = make_task()
        assert transitions.fail_waiting(task, code="x", message="x")
        settings.PROVIDER_KEYS = {**settings.PROVIDER_KEYS, "runway": ()}
        refused("model_unavailable", lambda: retry(task))

    def test_twice_is_once(self) -> None:
        task = failed(at(Stage.DOWNLOAD))
        retry(task)
        assert "under way" in refused("not_retryable", lambda: retry(task))
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1), ("debit", -10, 2)]

    def test_one_that_runs_or_is_stored_is_refused(self) -> None:
        for task in (make_task(), running()[0]):
            assert "under way" in refused("not_retryable", lambda task=task: retry(task))
        done = at(Stage.SAVE)
        assert transitions.succeed(claimed(done, Stage.SAVE), generation_id=None, video_id="vid_1")
        assert "stored" in refused("not_retryable", lambda: retry(done, regenerate=True))

    def test_somebody_elses_is_not_found(self) -> None:
        task = failed(at(Stage.DOWNLOAD))
        refused("not_found", lambda: retry(task, user_id=make_user().pk))
        refused("not_found", lambda: retry_action.retry("task_nope", by=Unaudited("x")))

    def test_cancel_of_a_retried_task_is_about_its_new_run(self) -> None:
        task, generation, claim = unknown()
        records.record_rejected(generation.pk, code="x", message="x")
        assert task_moves.fail(claim, code="x", message="x")
        retry(task)
        assert cancel(task).refund is Refund.DONE
        assert kinds(task)[2:] == [("debit", -10, 2), ("refund", 10, 2)]

    def test_cancel_of_a_retried_job_refunds_the_run_that_paid_for_it(self) -> None:
        task, generation = running("kling-2.5-turbo")
        failed(task)
        retry(task)
        assert cancel(task).refund is Refund.PENDING
        records.record_ended(generation.pk, State.FAILED, took_nothing=True)
        assert kinds(task)[2:] == [("debit", -10, 2), ("refund", 10, 2)]

    def test_a_failure_of_the_new_run_refunds_that(self) -> None:
        task = failed(at(Stage.DOWNLOAD))
        retry(task)
        failed(task)
        assert kinds(task)[2:] == [("debit", -10, 2), ("refund", 10, 2)]
        assert ledger.balance(task.user_id) == 1000

    def test_a_cancelled_task_without_refund_goes_on_with_what_it_has_paid_for(self) -> None:
        task = at(Stage.SAVE)
        cancel(task)
        done = retry(task)
        assert done == retry_action.Retried(task.pk, 1, Stage.TRANSCODE, 0, 0)
        assert reload(task).progress == transitions.PROGRESS_AT[Stage.SAVE]  # never falls within a run
        assert kinds(task) == [("debit", -10, 1)]

    def test_a_cancelled_and_refunded_task_pays_again(self) -> None:
        task = make_task()
        cancel(task)
        assert retry(task) == retry_action.Retried(task.pk, 2, Stage.GENERATE, 10, 0)
        assert kinds(task) == [("debit", -10, 1), ("refund", 10, 1), ("debit", -10, 2)]

    def test_a_cancelled_task_whose_stopped_job_cost_money_pays_for_a_new_one(self) -> None:
        task, generation = running()
        cancel(task)
        refused("attempt_unsettled", lambda: retry(task))
        records.record_ended(generation.pk, State.CANCELLED, cost=Decimal(60))
        assert retry(task) == retry_action.Retried(task.pk, 2, Stage.GENERATE, 10, 0)
        assert kinds(task) == [("debit", -10, 1), ("debit", -10, 2)]

    def test_a_late_video_of_a_task_that_was_retried_meanwhile_is_not_delivered_beside_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task, generation = running()
        failed(task)
        records.record_lost(generation.pk, code="job_lost")
        retry(task)
        records.check_later(generation.pk, 0)
        says(monkeypatch, JobStatus(JobState.SUCCEEDED, "SUCCEEDED"))
        reconcile.reconcile()
        assert (reload(task).status, reload(task).stage) == ("running", "generate")

    def test_a_late_video_of_a_retried_job_that_failed_again_is_delivered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task, generation = running("kling-2.5-turbo")
        failed(task)
        retry(task)
        failed(task)
        records.check_later(generation.pk, 0)
        says(monkeypatch, JobStatus(JobState.SUCCEEDED, "succeed"))
        reconcile.reconcile()
        assert (reload(task).status, reload(task).stage) == ("running", "download")

    def test_the_timeline_says_who_and_what_it_costs(self) -> None:
        task = failed(at(Stage.DOWNLOAD))
        retry(task)
        event = TaskEvent.objects.filter(task=task).order_by("-id")[0]
        assert (event.outcome, event.stage, event.run) == ("resumed", "download", 2)
        assert event.detail == "retried by its user; 10 credits"


def make_task_of(user_id: int, number: int) -> None:
    """Spend credits."""
    from django.contrib.auth import get_user_model

    user = get_user_model().objects.get(pk=user_id)
    for _ in range(number):
        make_task(user)
