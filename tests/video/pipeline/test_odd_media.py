"""Odd files through the real stages: fetched once more, delivered with a warning, failed only without any picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from media_pipeline import errors
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.fetch.download import Fetched
from tests.factories import accepted, age, claimed, give_core, make_task, reload
from tests.media_pipeline.table import recipes
from tests.media_pipeline.table.recipes import FAST, READY, X264, again, changed, clip, cut, flipped, zeroed
from video.attempts import records
from video.credits import ledger
from video.engine import transitions
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, TaskEvent, VideoTask
from video.pipeline import media_stages, odd_media, runner

pytestmark = pytest.mark.django_db
GOOD = clip("good.mp4", *READY, *FAST, tone=0, seconds=5, size="96x54", rate="30")
DAMAGED = changed(GOOD, zeroed(0.4, 0.7))
CUT = changed(GOOD, cut(0.97), "cut.mp4")
SHORT = clip("short.mp4", *READY, *FAST, tone=0, seconds=3, size="96x54")
TINY = clip("tiny.mp4", *READY, *FAST, tone=0, seconds=1, size="96x54")
HOPELESS = changed(GOOD, zeroed(0, 1))
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
HEVC = clip("h.mp4", *X265, *FAST, tone=0, seconds=5, size="96x54")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[recipes.Recipe], Path]:
    """Each file once."""
    found: dict[recipes.Recipe, Path] = {}

    def make(recipe: recipes.Recipe) -> Path:
        if recipe not in found:
            found[recipe] = recipe(tmp_path_factory.mktemp("odd"))
        return found[recipe]

    return make


class Host:
    """What the provider's file host answers, in turn; the last answer repeats."""

    def __init__(self) -> None:
        self.answers: list[Path | errors.MediaError] = []
        self.fetches = 0

    def fetch(self, _: str, path: Path, **__: object) -> Fetched:
        answer = self.answers[min(self.fetches, len(self.answers) - 1)]
        self.fetches += 1
        if isinstance(answer, errors.MediaError):
            raise answer
        shutil.copyfile(answer, path)
        return Fetched(path.stat().st_size, is_whole=True)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    found = Host()
    monkeypatch.setattr(media_stages.provider_calls, "result_url", lambda _: "https://provider.example/v.mp4")
    monkeypatch.setattr(media_stages, "fetch", found.fetch)
    yield found
    assert not list(toolkit().storage.scratch_root.iterdir())


def in_download() -> VideoTask:
    task = make_task()
    generation = accepted(task, task.pk)
    assert records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    return task


def to_its_end(task: VideoTask, *, most: int = 14) -> VideoTask:
    for _ in range(most):
        found = reload(task)
        if found.finished_at:
            break
        age(task.pk)
        give_core(task.pk)
        runner.run_stage(Stage(found.stage), task.pk)
    found = reload(task)
    assert found.finished_at, f"{found.stage} {found.tries} {found.park_reason}"
    return found


def codes(task: VideoTask) -> list[str]:
    return [one["code"] for one in task.warnings]


Made = Callable[[recipes.Recipe], Path]


@pytest.mark.parametrize(
    ("answers", "expected", "fetches"),
    [
        ([GOOD], [], 1),
        ([DAMAGED, GOOD], [], 2),
        ([DAMAGED], ["damaged"], 2),
        ([CUT, GOOD], [], 2),
        ([CUT], ["truncated"], 2),
        ([SHORT, GOOD], [], 2),
        ([SHORT], ["shorter_than_ordered"], 2),
        ([TINY], ["shorter_than_ordered", "much_shorter_than_ordered"], 2),
        ([DAMAGED, CUT], ["truncated"], 2),
    ],
    ids=["good", "damaged once", "damaged", "cut once", "cut", "short once", "short", "tiny", "each otherwise"],
)
def test_what_is_odd_is_fetched_again_and_delivered(
    made: Made, host: Host, answers: list[recipes.Recipe], expected: list[str], fetches: int
) -> None:
    host.answers = [made(one) for one in answers]
    task = to_its_end(in_download())
    assert (task.status, codes(task), host.fetches) == ("success", expected, fetches)
    assert Generation.objects.filter(task=task).count() == 1
    assert ledger.balance(task.user_id) == 990


@pytest.mark.parametrize(
    "second", [errors.LinkExpired("410"), errors.DownloadFailed("503"), errors.NotAVideo("a web page")], ids=str
)
def test_a_second_fetch_that_fails_costs_nothing(
    made: Made, host: Host, second: errors.MediaError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(odd_media, "SECOND_FETCH_S", 0.0)
    host.answers = [made(DAMAGED), second]
    task = to_its_end(in_download())
    assert (task.status, codes(task)) == ("success", ["damaged"])
    told = TaskEvent.objects.filter(task=task, stage="download", outcome="advanced").latest("id")
    assert "the first one is used" in told.detail


def test_a_second_fetch_waits_for_its_host_for_two_minutes_only(made: Made, host: Host) -> None:
    host.answers = [made(DAMAGED), errors.DownloadFailed("503")]
    task = in_download()
    for stage in (Stage.DOWNLOAD, Stage.TRANSCODE, Stage.DOWNLOAD):
        give_core(task.pk)
        age(task.pk)
        runner.run_stage(stage, task.pk)
    assert reload(task).stage == "download"
    TaskEvent.objects.filter(task=task).update(finished_at=Now() - timedelta(seconds=odd_media.SECOND_FETCH_S + 1))
    age(task.pk, 60)
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    assert reload(task).stage == "transcode"
    assert codes(to_its_end(task)) == ["damaged"]


def test_a_second_fetch_that_fails_after_the_first_file_was_lost_ends_the_task(made: Made, host: Host) -> None:
    host.answers = [made(DAMAGED), errors.NotAVideo("a web page")]
    task = in_download()
    runner.run_stage(Stage.DOWNLOAD, task.pk)
    give_core(task.pk)
    runner.run_stage(Stage.TRANSCODE, task.pk)
    toolkit().storage.delete(reload(task).source_key)
    task = to_its_end(task)
    assert (task.status, task.error_code) == ("failed", "not_a_video")
    assert ledger.balance(task.user_id) == 1000


def test_without_any_picture_the_task_fails(made: Made, host: Host) -> None:
    host.answers = [made(HOPELESS)]
    task = to_its_end(in_download())
    assert (task.status, task.error_code, task.warnings) == ("failed", "not_a_video", [])
    assert ledger.balance(task.user_id) == 1000


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ffmpeg that encodes crashes; copies work."""
    real = FFmpeg.run

    def run(self: FFmpeg, argv: list[str], **more: object) -> str:
        if "libx264" in argv:
            raise errors.TranscodeFailed("ffmpeg ended with signal 11 (SIGSEGV)")
        return real(self, argv, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(FFmpeg, "run", run)


def test_what_can_not_be_encoded_is_delivered_as_it_came(
    made: Made, host: Host, no_encoder: None, tmp_path: Path
) -> None:
    host.answers = [made(GOOD)]
    task = in_download()
    VideoTask.objects.filter(pk=task.pk).update(fps=24)
    task = to_its_end(task)
    assert (task.status, codes(task), host.fetches) == ("success", ["delivered_as_it_came"], 1)
    assert (task.video_width_px, task.video_height_px) == (96, 54)
    assert TaskEvent.objects.filter(task=task, stage="transcode", outcome="parked").count() == 1  # tried twice


def test_a_matroska_with_h264_becomes_an_mp4_as_it_came(made: Made, host: Host, no_encoder: None) -> None:
    host.answers = [made(again("g.mkv", GOOD, "-c", "copy"))]
    task = to_its_end(in_download())
    assert (task.status, codes(task)) == ("success", ["delivered_as_it_came"])


def test_what_is_no_h264_is_not_delivered_as_it_came(made: Made, host: Host, no_encoder: None) -> None:
    host.answers = [made(HEVC)]
    task = to_its_end(in_download())
    assert (task.status, task.error_code) == ("failed", "transcode_failed")
    assert ledger.balance(task.user_id) == 1000


def test_the_untouched_original_when_no_ffmpeg_runs_at_all(
    made: Made, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> str:
        raise errors.TranscodeFailed("ffmpeg ended with code 127")

    monkeypatch.setattr(FFmpeg, "run", run)
    host.answers = [made(GOOD)]
    task = to_its_end(in_download())
    assert (task.status, codes(task)) == ("success", ["delivered_as_it_came"])
    assert task.video_bytes == made(GOOD).stat().st_size


def test_a_cover_that_can_not_be_cut_costs_no_video(
    made: Made, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise errors.NotAVideo("the decoder crashed on it, twice")

    monkeypatch.setattr(media_stages, "make_thumbnail", fail)
    host.answers = [made(CUT)]
    task = to_its_end(in_download())
    assert (task.status, codes(task)) == ("success", ["truncated", "cover_is_black"])
    with toolkit().storage.fetch_to(task.thumbnail_key, tmp_path) as cover:
        from PIL import Image

        with Image.open(cover) as picture:
            assert (picture.size, picture.getextrema()) == ((1280, 720), ((0, 0), (0, 0), (0, 0)))


def test_flipped_bits_in_a_copy_are_found(made: Made, host: Host) -> None:
    host.answers = [made(changed(GOOD, flipped(0.3, 0.6)))]
    task = to_its_end(in_download())
    assert (task.status, codes(task)) == ("success", ["damaged"])


@pytest.mark.parametrize(("keep", "expected"), [(True, "last_frame_held"), (False, "sound_cut")])
def test_long_sound_is_kept_or_cut_by_the_setting(
    made: Made, host: Host, settings: Settings, keep: bool, expected: str
) -> None:
    settings.KEEP_LONG_SOUND = keep
    host.answers = [made(clip("l.mp4", *X264, "-c:a", "aac", *FAST, seconds=5, tone=7, size="96x54"))]
    task = to_its_end(in_download())
    assert (task.status, codes(task)) == ("success", [expected])
    assert task.video_duration_s == pytest.approx(7 if keep else 5, abs=0.05)
    assert task.video_has_sound is True
    assert task.video_fps == 30
