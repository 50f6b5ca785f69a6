"""A finished video is paid for: whatever its fetch meets, it is fetched again until the task's deadline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from media_pipeline import errors
from media_pipeline.encode.provenance import Provenance
from media_pipeline.fetch import parts
from media_pipeline.fetch.download import Fetched
from providers.contract import JobState, JobStatus
from providers.errors import Busy, JobNotFound, KeyRefused, OutOfCredits, ProviderDown
from tests.factories import accepted, age, claimed, make_task, make_user, reload
from video.actions import cancel, retry
from video.attempts import provider_calls, reconcile, records
from video.audit.actors import Unaudited
from video.credits import ledger
from video.engine import due, transitions
from video.infra.toolkit import toolkit
from video.models import CreditEntry, Generation, Stage, TaskEvent, VideoTask
from video.monitoring import overview
from video.pipeline import media_stages, patience, runner
from video.processes import periodic

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit().storage, "scratch_root", tmp_path / "scratch")
    monkeypatch.setattr(provider_calls, "result_url", lambda _: "https://cdn.example.com/v.mp4")


def in_download(job_id: str = "job-1", **more: Any) -> VideoTask:
    task = make_task(**more)
    generation = accepted(task, job_id)
    assert records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD, has_work_files=True)
    return task


def fetching(monkeypatch: pytest.MonkeyPatch, answer: Exception | Callable[..., Fetched]) -> None:
    """Each fetch ends so."""

    def fetch(url: str, path: Path, **more: Any) -> Fetched:
        if isinstance(answer, Exception):
            raise answer
        return answer(path, **more)

    monkeypatch.setattr(media_stages, "fetch", fetch)


def fetch_times(task: VideoTask, number: int) -> None:
    for _ in range(number):
        runner.run_stage(Stage.DOWNLOAD, task.pk)
        age(task.pk)


def past_deadline(task: VideoTask) -> None:
    VideoTask.objects.filter(pk=task.pk).update(deadline_at=Now() - timedelta(days=1), next_run_at=Now())


ASKED_AGAIN: dict[str, tuple[Exception, str]] = {
    # what the fetch meets: what the task fails with at its deadline
    "503": (errors.DownloadFailed("cdn.example.com answered 503", http_status=503), "download_failed"),
    "429": (errors.DownloadFailed("cdn.example.com answered 429", retry_after_s=30), "download_failed"),
    "refused": (errors.DownloadFailed("cdn.example.com refuses the connection"), "download_failed"),
    "403": (errors.LinkExpired("cdn.example.com answered 403", http_status=403), "download_failed"),
    "too slow": (errors.DownloadTimeout("the download passed its deadline"), "download_failed"),
    "a page": (errors.NotMedia("the answer is a web page, no media"), "not_a_video"),
    "too large": (errors.DownloadTooLarge("9000000000 bytes announced"), "download_too_large"),
    "forbidden": (errors.ForbiddenAddress("not a public address"), "forbidden_address"),
}


@pytest.mark.parametrize(("error", "code"), ASKED_AGAIN.values(), ids=ASKED_AGAIN.keys())
def test_a_fetch_that_fails_is_repeated_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    task = in_download()
    fetching(monkeypatch, error)
    fetch_times(task, 12)
    found = reload(task)
    assert (found.status, found.stage, found.tries, found.deaths) == ("running", "download", 0, 0)
    assert str(error) in found.park_reason
    assert "fetch 12 of the finished video failed" in found.park_reason
    assert Generation.objects.get(task=task).fetch_errors == 12
    told = TaskEvent.objects.filter(task=task, outcome="parked")
    assert list(told.values_list("error_code", "owner_detail")) == [(error.code, patience.OWNER_DETAIL)]  # type: ignore[attr-defined]
    past_deadline(task)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    found = reload(task)
    assert (found.status, found.error_code) == ("failed", code)
    assert found.error_message.startswith(patience.GAVE_UP)
    assert ledger.balance(task.user_id) == 1000
    assert Generation.objects.filter(task=task).count() == 1


NO_LINK: dict[str, tuple[Exception, str]] = {
    "down": (ProviderDown("503"), "download_failed"),
    "busy": (Busy("429", retry_after_s=7), "download_failed"),
    "key refused": (KeyRefused("401"), "download_failed"),
    "out of credits": (OutOfCredits("empty"), "download_failed"),
    "key gone": (provider_calls.KeyGone("abc"), "download_failed"),
    "not found": (JobNotFound("404"), "source_gone"),
}


@pytest.mark.parametrize(("error", "code"), NO_LINK.values(), ids=NO_LINK.keys())
def test_a_link_is_asked_for_as_patiently(monkeypatch: pytest.MonkeyPatch, error: Exception, code: str) -> None:
    def no_link(_: Generation) -> str:
        raise error

    task = in_download()
    monkeypatch.setattr(provider_calls, "result_url", no_link)
    fetch_times(task, 7)
    assert (reload(task).status, reload(task).tries) == ("running", 0)
    past_deadline(task)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert (reload(task).status, reload(task).error_code) == ("failed", code)


def test_the_pauses_grow_to_the_last_and_differ(settings: Settings) -> None:
    settings.DOWNLOAD_RETRY_SECONDS = (2.0, 4.0, 60.0)
    assert [patience.pause_s(number, 0) for number in range(6)] == [2, 2, 4, 60, 60, 60]
    assert patience.pause_s(10**9, 1) == pytest.approx(40)


def waits_s(task: VideoTask) -> float:
    found = reload(task)
    assert found.next_run_at is not None
    assert found.claimed_at is not None
    return (found.next_run_at - found.claimed_at).total_seconds()


def test_a_file_that_is_too_large_is_rarely_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    fetching(monkeypatch, errors.DownloadTooLarge("more than 2 GB"))
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert waits_s(task) >= patience.LARGE_FILE_PAUSE_S


def test_the_deadline_ends_the_pause_and_one_more_fetch_may_bring_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    fetching(monkeypatch, errors.DownloadTooLarge("more than 2 GB"))
    VideoTask.objects.filter(pk=task.pk).update(deadline_at=Now() + timedelta(seconds=20))
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).next_run_at == reload(task).deadline_at
    past_deadline(task)
    bring(monkeypatch)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).stage == "transcode"


def bring(monkeypatch: pytest.MonkeyPatch, *, is_whole: bool = True, error: Exception | None = None) -> None:
    """The file comes; what the prober says of it is `error`."""

    def fetch(path: Path, **_: Any) -> Fetched:
        path.write_bytes(b"\x00 a video")
        return Fetched(9, is_whole=is_whole)

    def probe(_: object, path: Path) -> Any:
        if error is not None:
            raise error
        return SimpleNamespace(provenance=Provenance())

    fetching(monkeypatch, fetch)
    monkeypatch.setattr("media_pipeline.encode.probe.Prober.probe", probe)


def test_a_video_that_comes_in_the_end_is_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    fetching(monkeypatch, errors.DownloadFailed("503"))
    fetch_times(task, 3)
    bring(monkeypatch)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert (reload(task).stage, reload(task).park_code) == ("transcode", "")
    assert Generation.objects.get(task=task).fetch_errors == 0
    assert list(CreditEntry.objects.filter(task=task).values_list("kind", flat=True)) == ["debit"]
    assert not list(toolkit().storage.scratch_root.iterdir())


def test_a_fetch_that_brought_a_part_begins_the_pauses_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    fetching(monkeypatch, errors.DownloadFailed("503"))
    fetch_times(task, 5)

    def cut(path: Path, *, part: parts.Part, **_: Any) -> Fetched:
        part.begin(parts.Known('"one"', 100, "cdn.example.com/v.mp4"))
        part.bytes_path.write_bytes(b"12345")
        raise errors.DownloadFailed("5 of 100 bytes arrived")

    fetching(monkeypatch, cut)
    fetch_times(task, 1)
    assert Generation.objects.get(task=task).fetch_errors == 1
    assert parts.owners(toolkit().storage.scratch_root) == {task.pk}


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_can_not_be_read_is_damaged_only_if_all_of_it_came(
    monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    task = in_download()
    bring(monkeypatch, is_whole=is_whole, error=errors.NotAVideo("truncated"))
    fetch_times(task, 5)
    assert reload(task).status == ("failed" if is_whole else "running")


def test_a_file_that_may_have_been_cut_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that ends with its connection: the next answer tells how long the file is."""
    task = in_download()
    bring(monkeypatch, error=errors.NotAVideo("truncated"))

    def cut(path: Path, *, part: parts.Part, **_: Any) -> Fetched:
        part.begin(parts.Known('"one"', None, "cdn.example.com/v.mp4"))
        part.bytes_path.write_bytes(b"12345")
        part.complete()
        return Fetched(5, is_whole=False)

    points: list[parts.ResumePoint | None] = []

    def rest(path: Path, *, part: parts.Part, **_: Any) -> Fetched:
        points.append(part.resume_point())
        return cut(path, part=part)

    fetching(monkeypatch, cut)
    fetch_times(task, 1)
    fetching(monkeypatch, rest)
    fetch_times(task, 1)
    assert [point and point.start for point in points] == [4]
    assert (reload(task).status, reload(task).park_code) == ("running", "download_failed")


def test_a_probe_that_takes_too_long_is_no_trouble_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    bring(monkeypatch, error=errors.MediaTimeout("the decoder passed its deadline"))
    fetch_times(task, 2)
    assert (reload(task).status, reload(task).error_code) == ("failed", "media_timeout")


# --- what else may happen meanwhile --------------------------------------------------------------------------------


def keep_a_part(monkeypatch: pytest.MonkeyPatch, task: VideoTask) -> None:
    def cut(path: Path, *, part: parts.Part, **_: Any) -> Fetched:
        part.begin(parts.Known('"one"', 100, "cdn.example.com/v.mp4"))
        part.bytes_path.write_bytes(b"12345")
        raise errors.DownloadFailed("5 of 100 bytes arrived")

    fetching(monkeypatch, cut)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert parts.owners(toolkit().storage.scratch_root) == {task.pk}


def test_a_cancel_in_the_pause_ends_it_and_the_part_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    keep_a_part(monkeypatch, task)
    assert periodic.sweep_parts() == 0
    cancel.cancel(task.pk, by=Unaudited("its user"))
    assert periodic.sweep_parts() == 1
    assert periodic.sweep_parts() == 0
    age(task.pk)
    assert runner.run_stage(Stage.DOWNLOAD, task.pk) is False
    assert reload(task).status == "cancelled"


@pytest.mark.parametrize(("released", "kept"), [(True, True), (False, False)])
def test_a_part_stays_for_the_next_worker_unless_the_task_is_no_longer_ours(
    monkeypatch: pytest.MonkeyPatch, released: bool, kept: bool
) -> None:
    task = in_download()
    keep_a_part(monkeypatch, task)
    age(task.pk)
    claim = claimed(task, Stage.DOWNLOAD)
    claim.released = released
    claim.lost.set()
    fetching(monkeypatch, errors.Cancelled("cancelled while downloading"))
    with pytest.raises(errors.Cancelled):
        media_stages.download(claim)
    assert bool(parts.owners(toolkit().storage.scratch_root)) is kept


@pytest.mark.parametrize("error", [errors.DiskFull("ENOSPC"), errors.NotAVideo("a picture")])
def test_a_part_is_no_longer_kept_where_it_is_of_no_use(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    task = in_download()
    keep_a_part(monkeypatch, task)
    age(task.pk)
    fetching(monkeypatch, error)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).status == "running"
    assert not parts.owners(toolkit().storage.scratch_root)


def test_a_task_that_fails_leaves_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download()
    keep_a_part(monkeypatch, task)
    past_deadline(task)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).status == "failed"
    assert not parts.owners(toolkit().storage.scratch_root)


def test_a_retry_by_hand_fetches_again_with_a_deadline_and_pauses_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    task = in_download(user=make_user())
    fetching(monkeypatch, errors.DownloadFailed("503"))
    fetch_times(task, 9)
    past_deadline(task)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    done = retry.retry(task.pk, by=Unaudited("its user"))
    assert (done.stage, done.debited) == (Stage.DOWNLOAD, 10)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert Generation.objects.get(task=task).fetch_errors == 1
    age(task.pk)
    bring(monkeypatch)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).stage == "transcode"
    assert Generation.objects.filter(task=task).count() == 1


def test_a_video_that_came_late_is_not_fetched_for_ever(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """A revived task has a deadline of its own."""
    task = make_task()
    accepted(task)
    past_deadline(task)
    monkeypatch.setattr(provider_calls, "cancel", lambda generation: None)
    answer = JobStatus(JobState.RUNNING, "RUNNING")
    monkeypatch.setattr(provider_calls, "_poll_with_one_key", lambda asked: {one.pk: answer for one in asked})
    runner.run_stage(Stage.POLL, task.pk)
    assert reload(task).status == "failed"
    answer = JobStatus(JobState.SUCCEEDED, "SUCCEEDED")
    age(task.pk)
    reconcile.reconcile()
    found = reload(task)
    assert (found.stage, found.finished_at) == ("download", None)
    assert found.deadline_at is not None
    fetching(monkeypatch, errors.DownloadFailed("503"))
    fetch_times(task, 3)
    past_deadline(task)
    assert due.wake_overdue() == 0  # it is due already
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert (reload(task).status, reload(task).error_code) == ("failed", "download_failed")
    assert ledger.balance(task.user_id) == 1000
    assert ledger.differences() == []


def test_operators_are_told_of_a_host_that_is_down(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.DOWNLOAD_RETRY_SECONDS = (60,)  # all still wait when they are looked at
    for number, error in enumerate(
        (errors.DownloadFailed("503"), errors.NotMedia("a page"), errors.LinkExpired("403"))
    ):
        task = in_download(f"job-{number}")
        fetching(monkeypatch, error)
        runner.run_stage(Stage.DOWNLOAD, task.pk)
    found = {one.code: one for one in overview.read().problems}
    assert "3 finished videos" in found["file_host"].sentence
    assert not found["file_host"].needs_person
