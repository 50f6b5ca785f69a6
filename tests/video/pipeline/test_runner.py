"""Policy of the stages without a network: what each answer of a provider, and each error, means for the task."""

from __future__ import annotations

import pytest
from pytest_django.fixtures import Settings

from media_pipeline.errors import MediaTimeout
from providers.contract import JobState, JobStatus, Submitted
from providers.errors import (
    Busy,
    JobFailed,
    JobNotFound,
    KeyRefused,
    NotSent,
    OutOfCredits,
    ProviderDown,
    RequestRejected,
    SubmissionUnknown,
)
from tests.factories import accepted, admitted, age, claim_one, make_task, reload
from video.attempts import provider_calls, reconcile, records, task_moves
from video.credits import ledger
from video.engine import claims, transitions
from video.engine.claims import Claim
from video.engine.leases import heartbeat
from video.models import Generation, ProviderAccount, Stage, TaskEvent, VideoTask
from video.pipeline import provider_stages, runner
from video.processes import periodic

pytestmark = pytest.mark.django_db


def sending(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """The next submits are answered so."""

    def send(self: provider_calls.Submission) -> Submitted:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Submitted)
        return answer

    monkeypatch.setattr(provider_calls.Submission, "send", send)


def looking(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """The next looks are answered so."""

    assert isinstance(answer, provider_calls.PollAnswer)
    monkeypatch.setattr(
        provider_calls, "_poll_with_one_key", lambda asked: {generation.pk: answer for generation in asked}
    )


SUBMITS: dict[str, tuple[object, str, str, str, str]] = {
    # name: (answer, task status, task stage, error code, state of the attempt)
    "accepted": (Submitted("job-1"), "running", "poll", "", "accepted"),
    "bad request": (RequestRejected("no"), "failed", "generate", "bad_request", "rejected"),
    "moderation": (RequestRejected("no", code="moderation"), "failed", "generate", "moderation", "rejected"),
    "busy": (Busy("later"), "running", "generate", "", "rejected"),
    "key refused": (KeyRefused("no"), "running", "generate", "", "rejected"),
    "out of credits": (OutOfCredits("empty"), "running", "generate", "", "rejected"),
    "not sent": (NotSent("refused"), "running", "generate", "", "planned"),
    "unknown": (SubmissionUnknown("cut"), "failed", "generate", "outcome_unknown", "unknown"),
    "a bug": (ZeroDivisionError(), "running", "generate", "", "unknown"),
}


@pytest.mark.parametrize(("answer", "status", "stage", "code", "state"), SUBMITS.values(), ids=SUBMITS.keys())
def test_an_answer_to_a_submit(
    monkeypatch: pytest.MonkeyPatch, answer: object, status: str, stage: str, code: str, state: str
) -> None:
    task = make_task()
    admitted(task)
    sending(monkeypatch, answer)
    runner.run_stage(Stage.GENERATE, task.pk)
    task = reload(task)
    assert (task.status, task.stage, task.error_code) == (status, stage, code)
    assert Generation.objects.get(task=task).state == state
    assert ledger.balance(task.user_id) == (1000 if status == "failed" else 990)


@pytest.mark.parametrize("answer", [RequestRejected("no"), RequestRejected("no", code="moderation")])
def test_a_users_bad_prompt_never_touches_the_account(monkeypatch: pytest.MonkeyPatch, answer: Exception) -> None:
    task = make_task()
    admitted(task)
    sending(monkeypatch, answer)
    runner.run_stage(Stage.GENERATE, task.pk)
    assert not ProviderAccount.objects.exclude(closed_reason="", cooldown_until=None, last_error="").exists()


def test_what_was_not_sent_is_sent_by_the_same_row_and_in_the_end_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    generation = admitted(task)
    sending(monkeypatch, NotSent("refused"))
    for _ in range(provider_stages.MOST_TRIES_TO_REACH):
        runner.run_stage(Stage.GENERATE, task.pk)
        age(task.pk)
    task = reload(task)
    assert (task.status, task.error_code) == ("failed", "provider_unreachable")
    assert [g.pk for g in task.generations.all()] == [generation.pk]
    assert ledger.balance(task.user_id) == 1000


LOOKS: dict[str, tuple[object, str, str, str, str]] = {
    "running": (JobStatus(JobState.RUNNING, "RUNNING", 0.5), "running", "poll", "", "accepted"),
    "queued": (JobStatus(JobState.QUEUED, "THROTTLED"), "running", "poll", "", "accepted"),
    "a status nobody knows": (JobStatus(JobState.UNRECOGNISED, "PAUSED"), "running", "poll", "", "accepted"),
    "succeeded": (JobStatus(JobState.SUCCEEDED, "SUCCEEDED"), "running", "download", "", "succeeded"),
    "failed": (
        JobStatus(JobState.FAILED, "FAILED", error=JobFailed("x", another_model_could=True)),
        "failed",
        "poll",
        "generation_failed",
        "failed",
    ),
    "cancelled": (JobStatus(JobState.CANCELLED, "CANCELLED"), "failed", "poll", "generation_cancelled", "cancelled"),
    "down": (ProviderDown("503"), "running", "poll", "", "accepted"),
    "busy": (Busy("429", retry_after_s=7), "running", "poll", "", "accepted"),
    "key refused": (KeyRefused("401"), "running", "poll", "", "accepted"),
    "key gone": (provider_calls.KeyGone("abc"), "running", "poll", "", "accepted"),
    "not found once": (JobNotFound("404"), "running", "poll", "", "accepted"),
}


@pytest.mark.parametrize(("answer", "status", "stage", "code", "state"), LOOKS.values(), ids=LOOKS.keys())
def test_a_look_at_a_job(
    monkeypatch: pytest.MonkeyPatch, answer: object, status: str, stage: str, code: str, state: str
) -> None:
    task = make_task()
    accepted(task)
    looking(monkeypatch, answer)
    runner.run_stage(Stage.POLL, task.pk)
    task = reload(task)
    assert (task.status, task.stage, task.error_code) == (status, stage, code)
    assert Generation.objects.get(task=task).state == state


@pytest.mark.parametrize("answer", [JobStatus(JobState.RUNNING, "RUNNING", 0.5), JobNotFound("404"), Busy("429")])
def test_a_look_at_a_real_provider_parks_by_its_own_rule(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, answer: object
) -> None:
    task = make_task()
    accepted(task)
    settings.SIMULATE = False
    looking(monkeypatch, answer)
    runner.run_stage(Stage.POLL, task.pk)
    task = reload(task)
    assert (task.status, task.stage, task.tries) == ("running", "poll", 0)
    assert task.next_run_at is not None
    assert task.claimed_at is not None
    assert (task.next_run_at - task.claimed_at).total_seconds() > 4.5


def test_failed_looks_never_fail_a_paid_job(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    looking(monkeypatch, ProviderDown("503"))
    for _ in range(20):
        runner.run_stage(Stage.POLL, task.pk)
        age(task.pk)
    assert reload(task).status == "running"
    assert TaskEvent.objects.filter(task=task, outcome="parked").count() == 1  # only what changed is recorded


def test_looks_that_change_nothing_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    looking(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING", 0.5))
    for _ in range(5):
        runner.run_stage(Stage.POLL, task.pk)
        age(task.pk)
    assert TaskEvent.objects.filter(task=task, outcome="parked").count() == 1
    assert 5 < reload(task).progress < 70


def past_deadline(task: VideoTask) -> None:
    VideoTask.objects.filter(pk=task.pk).update(deadline_at="2020-01-01T00:00:00Z")


def test_a_job_past_its_deadline_ends_the_task_and_is_looked_at_later(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    past_deadline(task)
    asked: list[str] = []
    monkeypatch.setattr(provider_calls, "cancel", lambda generation: asked.append(generation.job_id))
    looking(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING"))
    runner.run_stage(Stage.POLL, task.pk)
    task = reload(task)
    assert (task.status, task.error_code, asked) == ("failed", "timeout", ["job-1"])
    assert ledger.balance(task.user_id) == 1000
    generation = Generation.objects.get(task=task)
    assert generation.state == "accepted"
    assert generation.look_at is not None


def test_a_late_video_is_delivered_and_the_refund_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    past_deadline(task)
    monkeypatch.setattr(provider_calls, "cancel", lambda generation: None)
    looking(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING"))
    runner.run_stage(Stage.POLL, task.pk)
    looking(monkeypatch, JobStatus(JobState.SUCCEEDED, "SUCCEEDED"))
    age(task.pk)
    reconcile.reconcile()
    task = reload(task)
    assert (task.status, task.stage) == ("running", "download")
    assert ledger.balance(task.user_id) == 1000


def test_a_failed_tasks_unanswered_submit_is_looked_up_and_its_late_video_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its look-ups failed until the task's deadline; Kling has had the job all the while."""
    task = make_task(model_requested="kling-2.5-turbo")
    generation = admitted(task)
    claim = _claimed(task, Stage.GENERATE)
    assert records.mark_sent(claim, generation)
    assert task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.", generation_id=generation.pk)
    Generation.objects.filter(pk=generation.pk).update(unknown_since="2020-01-01T00:00:00Z")
    monkeypatch.setattr(provider_calls, "look_up", lambda generation: Submitted("job-1"))
    assert reconcile.reconcile() == 1
    looking(monkeypatch, JobStatus(JobState.SUCCEEDED, "succeed"))
    assert reconcile.reconcile() == 1
    task = reload(task)
    assert (task.status, task.stage) == ("running", "download")
    assert ledger.balance(task.user_id) == 1000


def test_an_open_job_is_given_up_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    generation = accepted(task)
    task_moves.fail(_claimed(task), code="timeout", message="Too long.")
    records.check_later(generation.pk, 0)
    looking(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING"))
    reconcile.reconcile()
    generation.refresh_from_db()
    assert generation.state == "accepted"
    Generation.objects.filter(pk=generation.pk).update(accepted_at="2020-01-01T00:00:00Z")
    age(task.pk, 4000)
    reconcile.reconcile()
    generation.refresh_from_db()
    assert generation.state == "lost"


def _claimed(task: VideoTask, stage: Stage = Stage.POLL) -> Claim:
    claim = claim_one(task.pk, stage)
    assert claim is not None
    return claim


@pytest.mark.parametrize("seen_by_the_heartbeat_first", [True, False])
def test_a_deadline_that_passed_while_the_whole_process_stood_still_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, seen_by_the_heartbeat_first: bool
) -> None:
    task = make_task()
    generation = accepted(task)
    assert records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(_claimed(task), Stage.DOWNLOAD)
    was_suspended = True

    def too_long(claim: Claim) -> None:
        if was_suspended:
            heartbeat._renewed[claim.task.pk, claim.fence] -= settings.STAGE_LEASE_SECONDS + 1
            if seen_by_the_heartbeat_first:
                heartbeat._renew([claim])
        raise MediaTimeout("the download passed its deadline")

    monkeypatch.setitem(runner.WORK, Stage.DOWNLOAD, too_long)
    monkeypatch.setattr("video.engine.leases.close_old_connections", lambda: None)  # the test's own
    for _ in range(3):
        runner.run_stage(Stage.DOWNLOAD, task.pk)
        assert (reload(task).status, reload(task).tries) == ("running", 0)
        age(task.pk)
    was_suspended = False
    for _ in range(2):
        runner.run_stage(Stage.DOWNLOAD, task.pk)
        age(task.pk)
    assert (reload(task).status, reload(task).error_code) == ("failed", "media_timeout")


def test_a_task_that_kills_workers_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    looking(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING"))
    for _ in range(claims.MAX_CRASHED_CLAIMS):
        assert claim_one(task.pk, Stage.POLL) is not None
        age(task.pk)
    runner.run_stage(Stage.POLL, task.pk)
    task = reload(task)
    assert (task.status, task.error_code) == ("failed", "worker_lost")
    assert ledger.balance(task.user_id) == 1000


def test_the_timeline_says_who_died_of_it_last() -> None:
    task = make_task()
    admitted(task)
    for _ in range(claims.MAX_CRASHED_CLAIMS):
        assert claim_one(task.pk, Stage.GENERATE) is not None
        age(task.pk)
    runner.run_stage(Stage.GENERATE, task.pk)
    told = TaskEvent.objects.filter(task=task).latest("id").detail
    assert f"6 claims of generate ended without a word; the last by {claims.WORKER}, begun at 20" in told


def test_backoff_grows_and_is_bounded() -> None:
    assert [runner.backoff_s(tries, 0) for tries in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    assert runner.backoff_s(3, 1) == pytest.approx(16 * 2 / 3)


def test_a_periodic_job_is_taken_once_a_period() -> None:
    assert periodic.take_period("x", 3600)
    assert not periodic.take_period("x", 3600)
    assert periodic.take_period("y", 3600)
