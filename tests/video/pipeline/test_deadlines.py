"""A wait that a stranger asks for is bounded, and a deadline wakes its task whatever that waits for."""

from __future__ import annotations

import math
import time
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django.fixtures import Settings

from media_pipeline.errors import DownloadFailed
from providers.contract import JobState, JobStatus, Submitted
from providers.errors import Busy, JobNotFound, KeyRefused, NotSent, OutOfCredits, ProviderDown, SubmissionUnknown
from tests.factories import accepted, admitted, age, claim_one, claimed, give_core, make_task, park_one, reload
from video.attempts import provider_calls, records
from video.credits import ledger
from video.engine import due, transitions
from video.engine.outcomes import LONGEST_WAIT_S, Advance, Park, TryAgain, WaitForSlot
from video.models import Generation, Stage, Status, VideoTask
from video.pipeline import media_stages, runner
from video.processes import periodic, sweeper

pytestmark = pytest.mark.django_db

STRANGE_WAITS = [86_400.0, 1e308, 10**400, math.inf, -math.inf, math.nan, -5.0, -0.0, 0.0]


def waits_s(task: VideoTask) -> float:
    """Seconds from the last claim until the task is due."""
    task = reload(task)
    assert task.next_run_at is not None
    assert task.claimed_at is not None
    return (task.next_run_at - task.claimed_at).total_seconds()


def deadline_in(task: VideoTask, seconds: float) -> None:
    VideoTask.objects.filter(pk=task.pk).update(deadline_at=Now() + timedelta(seconds=seconds))


def looking(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """Each poll is answered so."""
    monkeypatch.setattr(
        provider_calls, "_poll_with_one_key", lambda asked: {generation.pk: answer for generation in asked}
    )


# --- waits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", STRANGE_WAITS)
def test_a_wait_of_any_number_is_bounded_where_it_is_made(seconds: float) -> None:
    made = (
        Park(seconds, "", hint_delay_s=seconds).delay_s,
        Park(seconds, "", hint_delay_s=seconds).hint_delay_s,
        TryAgain("code", "message", "detail", at_least_s=seconds).at_least_s,
        WaitForSlot("", delay_s=seconds).delay_s,
        Advance(Stage.POLL, delay_s=seconds).delay_s,
    )
    assert all(isinstance(one, float) and 0 <= one <= LONGEST_WAIT_S for one in made)


def test_no_number_is_the_least_wait() -> None:
    assert Park(math.nan, "").delay_s == 0


@pytest.mark.parametrize("seconds", STRANGE_WAITS)
def test_a_poll_that_asks_for_any_wait_is_repeated_within_minutes(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    task = make_task()
    accepted(task)
    looking(monkeypatch, Busy("429", retry_after_s=seconds))
    runner.run_stage(Stage.POLL, task.pk)
    assert reload(task).status == "running"
    assert waits_s(task) <= provider_calls.LONGEST_PAUSE_S + 5


def test_a_poll_that_asks_for_a_day_is_repeated_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    deadline_in(task, 40)
    looking(monkeypatch, Busy("429", retry_after_s=86_400))
    runner.run_stage(Stage.POLL, task.pk)
    task = reload(task)
    assert task.next_run_at == task.deadline_at


def test_a_pause_for_a_whole_key_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_calls, "_paused_until", {})
    for seconds in STRANGE_WAITS:
        provider_calls._note_pause(("runway", "abc"), [], {"gen_1": Busy("429", retry_after_s=seconds)})
        until = provider_calls._paused_until.pop(("runway", "abc"), 0.0)
        assert until <= time.monotonic() + provider_calls.LONGEST_PAUSE_S


@pytest.mark.parametrize("seconds", [*STRANGE_WAITS, None])
def test_a_download_that_is_told_to_wait_waits_minutes(monkeypatch: pytest.MonkeyPatch, seconds: float | None) -> None:
    task = make_task()
    generation = accepted(task)
    assert records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)

    def busy(claim: object) -> None:
        raise DownloadFailed("the host answered 503", retry_after_s=seconds)

    monkeypatch.setitem(runner.WORK, Stage.DOWNLOAD, busy)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).tries == 0
    assert waits_s(task) <= provider_calls.LONGEST_PAUSE_S + 5


def test_a_wait_after_the_deadline_is_not_cut_to_nothing() -> None:
    task = make_task()
    accepted(task)
    deadline_in(task, -10)
    assert park_one(claimed(task, Stage.POLL), delay_s=20, reason="the disk is full")
    assert waits_s(task) >= 20  # else it would be due again and again


def test_the_next_stage_is_due_at_the_deadline_at_the_latest() -> None:
    task = make_task()
    generation = admitted(task)
    claim = claimed(task)
    records.mark_sent(claim, generation)
    records.record_accepted(generation.pk, Submitted("job-1"))
    deadline_in(task, 10)
    assert transitions.advance(claim, Stage.POLL, delay_s=90)
    task = reload(task)
    assert task.next_run_at == task.deadline_at


# --- the deadline wakes --------------------------------------------------------------------------------------------


def in_generate(task: VideoTask) -> None:
    claim, generation = claimed(task), Generation.objects.get(task=task)
    assert records.mark_sent(claim, generation)
    assert records.record_unknown(generation.pk)
    assert park_one(claim, delay_s=1800, reason="outcome unknown")


def in_poll(task: VideoTask) -> None:
    claim, generation = claimed(task), Generation.objects.get(task=task)
    assert records.mark_sent(claim, generation)
    assert records.record_accepted(generation.pk, Submitted("job-1"))
    assert transitions.advance(claim, Stage.POLL)


def in_download(task: VideoTask) -> None:
    in_poll(task)
    generation = Generation.objects.get(task=task)
    assert records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)


def in_transcode(task: VideoTask) -> None:
    in_download(task)
    assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE)
    give_core(task.pk)


def in_save(task: VideoTask) -> None:
    in_transcode(task)
    assert transitions.advance(claimed(task, Stage.TRANSCODE), Stage.THUMBNAIL)
    assert transitions.advance(claimed(task, Stage.THUMBNAIL), Stage.SAVE)


STAGES = {
    "generate": in_generate,
    "poll": in_poll,
    "download": in_download,
    "transcode": in_transcode,
    "save": in_save,
}
CODES = ["", "provider_paused", "key_gone", "storage_down", "disk_full", "anything"]


def asleep_past_deadline(stage: str, *, code: str = "", model: str = "gen4.5") -> VideoTask:
    """A row as an older version left it: parked for a day, and its deadline has passed meanwhile."""
    task = make_task(model_requested=model)
    admitted(task)
    STAGES[stage](task)
    VideoTask.objects.filter(pk=task.pk).update(
        next_run_at=Now() + timedelta(days=1),
        claimed_at=Now() - timedelta(seconds=100),
        deadline_at=Now() - timedelta(seconds=30),
        park_code=code,
        lease_until=None,
        rung_at=None,
    )
    return task


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_task_that_sleeps_past_its_deadline_is_due_after_one_sweep(stage: str, code: str) -> None:
    task = asleep_past_deadline(stage, code=code)
    other = make_task()
    accepted(other, "job-other")
    assert park_one(claimed(other, Stage.POLL), delay_s=60, reason="rendering")
    assert due.wake_overdue() == 1
    assert claim_one(task.pk, Stage(stage)) is not None
    assert due.wake_overdue() == 0  # the other one's deadline is to come


def test_the_sweeper_wakes_them_as_a_periodic_job(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[tuple[str, Stage]] = []
    monkeypatch.setattr(sweeper.dispatch, "resume_all", lambda found, **_: rung.extend(found) or len(rung))
    task = asleep_past_deadline("download")
    periodic.run_periodic()
    sweeper.tick()
    assert rung == [(task.pk, Stage.DOWNLOAD)]


def test_a_task_is_woken_by_its_deadline_once() -> None:
    """Trouble of this installation goes on beyond it: then the stage's own pauses count."""
    task = asleep_past_deadline("download", code="storage_down")
    assert due.wake_overdue() == 1
    assert park_one(claimed(task, Stage.DOWNLOAD), delay_s=60, reason="the storage is away", code="storage_down")
    assert due.wake_overdue() == 0
    assert waits_s(task) >= 60


def test_a_task_in_work_is_left_alone() -> None:
    task = asleep_past_deadline("download")
    VideoTask.objects.filter(pk=task.pk).update(lease_until=Now() + timedelta(seconds=20))
    assert due.wake_overdue() == 0


POLLS = {
    "goes on": JobStatus(JobState.RUNNING, "RUNNING", 0.5),
    "a status nobody knows": JobStatus(JobState.UNRECOGNISED, "PAUSED"),
    "busy": Busy("429", retry_after_s=86_400),
    "down": ProviderDown("503"),
    "key refused": KeyRefused("401"),
    "out of credits": OutOfCredits("empty"),
    "paused": provider_calls.Paused("left alone", 300),
    "key gone": provider_calls.KeyGone("abc"),
    "not found": JobNotFound("404"),
}


@pytest.mark.parametrize("answer", POLLS.values(), ids=POLLS.keys())
def test_a_woken_poll_ends_its_task_whatever_it_is_told(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    task = asleep_past_deadline("poll")
    looking(monkeypatch, answer)
    monkeypatch.setattr(provider_calls, "cancel", lambda generation: None)
    due.wake_overdue()
    runner.run_stage(Stage.POLL, task.pk)
    found = reload(task)
    assert (found.status, found.error_code) == ("failed", "timeout")
    assert ledger.balance(task.user_id) == 1000
    assert Generation.objects.get(task=task).look_at is not None  # its video may still come


def test_a_woken_poll_takes_the_video_that_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    task = asleep_past_deadline("poll")
    looking(monkeypatch, JobStatus(JobState.SUCCEEDED, "SUCCEEDED", result_url="https://example.com/a.mp4"))
    due.wake_overdue()
    runner.run_stage(Stage.POLL, task.pk)
    assert (reload(task).status, reload(task).stage) == ("running", "download")


def test_a_pause_of_its_key_does_not_keep_a_woken_task_from_its_last_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its video is ready, and one answer to another poll asked for a pause."""
    task, other = asleep_past_deadline("poll"), make_task()
    generation = accepted(other, "job-other")
    key = (generation.provider, generation.key_fingerprint)
    monkeypatch.setattr(provider_calls, "_paused_until", {key: time.monotonic() + 300})
    looking(monkeypatch, JobStatus(JobState.SUCCEEDED, "SUCCEEDED", result_url="https://example.com/a.mp4"))
    due.wake_overdue()
    runner.run_batch([task.pk, other.pk])
    assert reload(task).stage == "download"
    assert (reload(other).stage, reload(other).park_code) == ("poll", "provider_paused")


@pytest.mark.parametrize("error", [ProviderDown("503"), Busy("429", retry_after_s=86_400), provider_calls.KeyGone("a")])
def test_a_woken_download_without_a_link_ends_its_task(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    task = asleep_past_deadline("download")

    def no_link(generation: Generation) -> str:
        raise error

    monkeypatch.setattr(provider_calls, "result_url", no_link)
    due.wake_overdue()
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert (reload(task).status, reload(task).error_code) == ("failed", "download_failed")


@pytest.mark.parametrize("retries", [False, True])
@pytest.mark.parametrize("model", ["gen4.5", "kling-2.5-turbo", "pika-2.2"])
def test_a_woken_unanswered_submit_ends_its_task_and_stays_open(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, model: str, retries: bool
) -> None:
    settings.PUBLIC_BASE_URL = "https://videos.example.com"
    settings.RETRY_UNKNOWN_SUBMITS = retries
    monkeypatch.setattr(provider_calls, "look_up", lambda generation: None)
    task = asleep_past_deadline("generate", model=model)
    due.wake_overdue()
    runner.run_stage(Stage.GENERATE, task.pk)
    found = reload(task)
    if retries and model == "gen4.5":  # nothing is waited for there, so the operator's choice counts at once
        assert found.admit_at is not None
        return
    assert (found.status, found.error_code) == ("failed", "outcome_unknown")
    assert ledger.balance(task.user_id) == 1000
    generation = Generation.objects.get(task=task)
    assert generation.state == "unknown"
    assert generation.look_at is not None


def test_a_woken_unanswered_submit_is_looked_up_once_more_and_its_job_adopted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_calls, "look_up", lambda generation: Submitted("job-1"))
    task = asleep_past_deadline("generate", model="kling-2.5-turbo")
    due.wake_overdue()
    assert runner.run_stage(Stage.GENERATE, task.pk)  # polled at once
    assert reload(task).stage == "poll"
    looking(monkeypatch, JobStatus(JobState.SUCCEEDED, "succeed", result_url="https://example.com/a.mp4"))
    runner.run_stage(Stage.POLL, task.pk)
    assert reload(task).stage == "download"


def test_a_submit_that_may_still_be_answered_is_not_waited_for_beyond_the_deadline() -> None:
    task = asleep_past_deadline("generate")
    Generation.objects.filter(task=task).update(unknown_since=None, sent_at=Now())
    due.wake_overdue()
    runner.run_stage(Stage.GENERATE, task.pk)
    assert (reload(task).status, reload(task).error_code) == ("failed", "outcome_unknown")


# --- from when it counts -------------------------------------------------------------------------------------------


def test_the_deadline_counts_from_the_submit_so_that_no_job_is_paid_for_and_given_up(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """The task was refused for its account's sake, waited for a night, and got a slot again."""
    task = make_task()
    admitted(task)
    deadline_in(task, -8 * 3600)
    monkeypatch.setattr(provider_calls.Submission, "send", lambda self: Submitted("job-1"))
    runner.run_stage(Stage.GENERATE, task.pk)
    age(task.pk, 60)
    looking(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING", 0.5))
    runner.run_stage(Stage.POLL, task.pk)
    found = reload(task)
    assert (found.status, found.stage) == (Status.RUNNING, Stage.POLL)
    assert found.deadline_at is not None
    assert found.claimed_at is not None
    left_s = (found.deadline_at - found.claimed_at).total_seconds()
    assert settings.TASK_DEADLINE_SECONDS - 60 < left_s < settings.TASK_DEADLINE_SECONDS + 61


@pytest.mark.parametrize("answer", [NotSent("refused"), SubmissionUnknown("cut")])
def test_every_wait_in_generate_is_bounded(monkeypatch: pytest.MonkeyPatch, answer: Exception) -> None:
    task = make_task(model_requested="kling-2.5-turbo")
    admitted(task)

    def send(self: provider_calls.Submission) -> Submitted:
        raise answer

    monkeypatch.setattr(provider_calls.Submission, "send", send)
    runner.run_stage(Stage.GENERATE, task.pk)
    assert waits_s(task) <= 60


def test_a_stage_asks_for_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    accepted(task)
    claim = claimed(task, Stage.POLL)
    outcome = media_stages.trouble(claim, DownloadFailed("503", retry_after_s=99_999))
    assert isinstance(outcome, Park)
    assert outcome.delay_s == provider_calls.LONGEST_PAUSE_S
