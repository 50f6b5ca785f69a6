"""manage.py generate: the pipeline is played move by move, in place of the time between two looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError, OutputWrapper
from django.db import OperationalError

from providers.api_keys import parse_keys
from providers.contract import Submitted
from tests.factories import accepted, admitted, claimed, make_task, make_user, park_one
from tests.pictures import picture
from tests.video.presence import everybody
from video.attempts import records, task_moves
from video.credits import ledger
from video.engine import transitions
from video.management import task_progress
from video.management.commands import generate as command
from video.models import Generation, Stage, Upload, VideoTask
from video.processes import periodic
from video.web import demo_login, uploads

pytestmark = pytest.mark.django_db
PROMPT = "A cat walking in a garden"


def generate(*args: str) -> str:
    out = StringIO()
    call_command("generate", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def refused(*args: str) -> str:
    """What bad input is told; nothing may have been made."""
    with pytest.raises(CommandError) as caught:
        generate(*args)
    assert caught.value.returncode == 2
    assert not VideoTask.objects.exists()
    return str(caught.value)


Play = Callable[[Iterator[None]], None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Between two looks of the command, the next move of the story is made; after the last one it must be done."""

    def begin(moves: Iterator[None]) -> None:
        def sleep(seconds: float) -> None:
            assert next(moves, "end") != "end", "the story is over, and the command still waits"

        monkeypatch.setattr(command.time, "sleep", sleep)

    return begin


def only_task() -> VideoTask:
    return VideoTask.objects.get()


def to_success() -> Iterator[None]:
    task = only_task()
    generation = admitted(task)
    yield
    claim = claimed(task)
    records.mark_sent(claim, generation)
    records.record_accepted(generation.pk, Submitted("job-1"))
    transitions.advance(claim, Stage.POLL, detail="runway has the job")
    yield
    park_one(claimed(task, Stage.POLL), delay_s=0, reason="runway: running", progress=40)
    yield
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD, detail="runway is done")
    yield
    for stage in (Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL):
        transitions.advance(claimed(task, stage), transitions.next_stage(stage))
    yield
    yield  # a look in between that moves nothing
    transitions.succeed(
        claimed(task, Stage.SAVE),
        generation_id=generation.pk,
        video_id="vid_1",
        output_key=f"{task.user_id}/videos/vid_1.mp4",
        thumbnail_key=f"{task.user_id}/videos/vid_1_thumb.jpg",
    )
    yield


def to_failure() -> Iterator[None]:
    task = only_task()
    admitted(task)
    yield
    task_moves.fail(claimed(task), code="moderation", message="The provider refused this prompt.")
    yield


class TestCreate:
    def test_belongs_to_demo_while_simulating_and_is_paid_for(self) -> None:
        out = generate(PROMPT)
        task = only_task()
        assert task.pk in out
        assert (task.prompt, task.duration_s, task.aspect_ratio) == (PROMPT, 5, "16:9")
        assert task.user.username == demo_login.NAME
        assert ledger.balance(task.user_id) == demo_login.CREDITS - 10

    def test_options_are_what_the_api_takes(self) -> None:
        user = make_user()
        generate(
            PROMPT,
            *("--user", user.username, "--model", "gen4.5", "--duration", "8", "--aspect-ratio", "9:16"),
            *("--quality", "high", "--resolution", "480p", "--fps", "24", "--seed", "7"),
        )
        task = only_task()
        assert task.user == user
        assert (task.model_requested, task.duration_s, task.aspect_ratio) == ("gen4.5", 8, "9:16")
        assert (task.quality, task.resolution, task.fps, task.seed) == ("high", "480p", 24, 7)

    def test_the_rate_of_the_source_is_a_word(self) -> None:
        generate(PROMPT, "--fps", "source")
        assert only_task().fps == 0
        with pytest.raises(CommandError, match='--fps: must be a whole number from 1 to 60, or "source"'):
            generate(PROMPT, "--fps", "quick")

    def test_a_priority_is_for_operators_only(self) -> None:
        generate(PROMPT, "--priority", "5")
        assert only_task().priority == 5

    def test_json_without_wait(self) -> None:
        assert json.loads(generate(PROMPT, "--json")) == {"taskId": only_task().pk, "status": "pending"}

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["--duration", "99"], "--duration: "),
            (["--priority", "101"], "--priority: must be from -100 to 100"),
            (["--aspect-ratio", "5:1"], "--aspect-ratio: must be one of"),
            (["--model", "runway-gen33"], "--model: "),
            (["--image-url", "http://127.0.0.1/x.png"], "--image-url: must be a public https link"),
            (["--user", "nobody-here"], "no user 'nobody-here'"),
        ],
    )
    def test_bad_input_is_named_by_its_option(self, args: list[str], said: str) -> None:
        assert said in refused(PROMPT, *args)

    def test_an_empty_prompt_is_refused(self) -> None:
        assert refused("  ").startswith("prompt: ")

    def test_short_of_credits_says_how_to_get_some(self) -> None:
        user = make_user(9)
        assert f"grant_credits {user.username}" in refused(PROMPT, "--user", user.username)

    def test_without_simulation_the_only_superuser_is_meant(self, settings: Any) -> None:
        settings.SIMULATE = False
        settings.PROVIDER_KEYS = {
            **settings.PROVIDER_KEYS,
            "runway": parse_keys("key-for-a-test", variable="RUNWAY_API_KEY"),
        }
        assert "--user NAME" in refused(PROMPT)
        boss = get_user_model().objects.create_superuser("boss")
        ledger.grant(boss.pk, 10)
        generate(PROMPT)
        assert only_task().user == boss
        get_user_model().objects.create_superuser("other-boss")
        with pytest.raises(CommandError, match="--user NAME"):
            generate(PROMPT)

    def test_without_any_key_simulation_is_offered(self, settings: Any) -> None:
        settings.SIMULATE = False
        settings.PROVIDER_KEYS = dict.fromkeys(settings.PROVIDER_KEYS, ())
        assert "REELWORKS_SIMULATE=1" in refused(PROMPT, "--user", make_user().username)


class TestWait:
    def test_last_two_lines_say_where_the_files_are(
        self, play: Play, settings: Any, monkeypatch: Any, tmp_path: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        settings.STORAGE_LOCAL_PATH = tmp_path / "storage"
        play(to_success())
        lines = generate(PROMPT, "--wait").splitlines()
        user_id = only_task().user_id
        assert lines[-2:] == [
            f"video: storage/{user_id}/videos/vid_1.mp4",
            f"thumbnail: storage/{user_id}/videos/vid_1_thumb.jpg",
        ]
        shown = "\n".join(lines[:-2])
        for stage in ("generate", "poll", "download", "transcode", "thumbnail", "save"):
            assert f"{stage:<10} done in " in shown
        assert "runway: running" in shown

    def test_paths_outside_of_here_are_absolute(
        self, play: Play, settings: Any, monkeypatch: Any, tmp_path: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        settings.STORAGE_LOCAL_PATH = tmp_path.parent / "elsewhere"
        play(to_success())
        assert generate(PROMPT, "--wait").splitlines()[-2].startswith(f"video: {tmp_path.parent}/elsewhere/")

    def test_failure_is_exit_code_1_with_cause_and_refund(self, play: Play) -> None:
        play(to_failure())
        with pytest.raises(CommandError) as caught:
            generate(PROMPT, "--wait")
        assert caught.value.returncode == 1
        assert "The provider refused this prompt. (moderation) Its credits were given back." in str(caught.value)

    def test_json_has_the_result_and_nothing_else(self, play: Play) -> None:
        play(to_success())
        result = json.loads(generate(PROMPT, "--wait", "--json"))
        assert result["status"] == "success"
        assert result["video"].endswith("/videos/vid_1.mp4")
        assert result["thumbnail"].endswith("/videos/vid_1_thumb.jpg")

    def test_json_of_a_failure(self, play: Play) -> None:
        play(to_failure())
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("generate", PROMPT, "--wait", "--json", stdout=out)
        result = json.loads(out.getvalue())
        assert (result["status"], result["errorCode"], result["refunded"]) == ("failed", "moderation", True)

    def test_waiting_in_vain_is_exit_code_3(self) -> None:
        with pytest.raises(CommandError, match="goes on") as caught:
            generate(PROMPT, "--wait", "--timeout", "0")
        assert caught.value.returncode == 3
        assert only_task().status == "pending"

    def test_ctrl_c_is_exit_code_130_and_the_task_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def sleep(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(command.time, "sleep", sleep)
        err = StringIO()
        with pytest.raises(SystemExit) as caught:
            call_command("generate", PROMPT, "--wait", stdout=StringIO(), stderr=err)
        assert caught.value.code == 130
        assert "The task goes on" in err.getvalue()
        assert only_task().pk in err.getvalue()
        assert only_task().status == "pending"

    def test_a_restarting_database_is_waited_for(self, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        play(to_success())
        look, breaks = command.Progress.refresh, iter([True])

        def shaky(self: command.Progress) -> None:
            if self.finished and next(breaks, False):
                raise OperationalError("terminating connection due to administrator command")
            look(self)

        monkeypatch.setattr(command.Progress, "refresh", shaky)
        monkeypatch.setattr(command.connection, "close", lambda: None)  # it is the test's own
        out = generate(PROMPT, "--wait")
        assert "can't be reached" in out
        assert out.splitlines()[-2].startswith("video: ")


class TestHints:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(task_progress, "STILL_S", 0.0)

    def test_without_workers_it_says_to_run_make_up(self) -> None:
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("generate", PROMPT, "--wait", "--timeout", "0", stdout=out)
        assert "`make up`" in out.getvalue()

    def test_with_a_sweeper_the_wait_is_for_a_slot(self) -> None:
        periodic.take_period("reconcile", 15)
        everybody()
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("generate", PROMPT, "--wait", "--timeout", "0", stdout=out)
        assert "free slot" in out.getvalue()
        assert "make up" not in out.getvalue()

    def test_without_a_worker_it_says_so_again_and_again_also_of_a_parked_task(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "SAID_AGAIN_S", 0.0)
        task, looks, out = make_task(), iter((None, None)), StringIO()
        accepted(task)
        assert park_one(claimed(task, Stage.POLL), delay_s=60, reason="rendering")

        def sleep(seconds: float) -> None:
            if next(looks, "end") == "end":
                raise KeyboardInterrupt

        monkeypatch.setattr(command.time, "sleep", sleep)
        printer = command.Lines(OutputWrapper(out))
        with pytest.raises(KeyboardInterrupt):
            command.Command()._watch(command.Progress(task), printer, timeout_s=None)
        assert out.getvalue().count("No worker of videoQueue is alive. Nothing is working on this task.") == 3


class TestImage:
    def test_a_file_of_this_machine_becomes_an_upload(self, tmp_path: Path) -> None:
        (tmp_path / "cat.jpg").write_bytes(picture(640, 360))
        generate(PROMPT, "--image", str(tmp_path / "cat.jpg"))
        task = only_task()
        assert uploads.find(task.user_id, task.image_url).width_px == 640

    def test_what_can_not_be_had_is_named_by_its_option(self, tmp_path: Path, settings: Any) -> None:
        text = tmp_path / "cat.txt"
        text.write_text("no picture")
        assert "--image: The start image is not a picture" in refused(PROMPT, "--image", str(text))
        assert "can't be read: Is a directory" in refused(PROMPT, "--image", str(tmp_path))
        assert "can't be read: No such file" in refused(PROMPT, "--image", str(tmp_path / "nothing"))
        both = ("--image", str(text), "--image-url", "https://images.example.com/a.png")
        assert "--image: can't be given beside --image-url" in refused(PROMPT, *both)
        assert "--image-url: The start image is not" in refused(PROMPT, "--image-url", "data:image/png;base64,AAAA")
        settings.UPLOAD_MAX_BYTES = 4
        assert "has more than 4 bytes" in refused(PROMPT, "--image", str(text))
        assert not Upload.objects.exists()
