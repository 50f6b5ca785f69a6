"""The page of a task: where its time went, links, buttons with their reasons, the call as curl, and its webhooks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from tests.factories import accepted, admitted, claimed, make_task, make_user
from video.admin import task_page, waterfall
from video.attempts import task_moves
from video.management.demo_data import history, present
from video.models import Generation, Stage, Status, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def at(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def event(task: VideoTask, stage: str, outcome: str, begun: float, ended: float) -> TaskEvent:
    return TaskEvent(task=task, run=1, stage=stage, outcome=outcome, started_at=at(begun), finished_at=at(ended))


def ended_task() -> VideoTask:
    return VideoTask(id="task_x", status="success", stage="done", created_at=at(0), finished_at=at(3600.4))


def long_story(task: VideoTask) -> tuple[list[TaskEvent], list[Generation]]:
    """An hour at the provider, and stages of 100 ms."""
    events = [
        event(task, "generate", "created", 0, 0),
        event(task, "generate", "admitted", 0, 10),
        event(task, "generate", "advanced", 10, 10.1),
        event(task, "poll", "parked", 600, 600.1),
        event(task, "poll", "advanced", 3600, 3600.1),
        event(task, "download", "advanced", 3600.1, 3600.2),
        event(task, "transcode", "advanced", 3600.2, 3600.3),
        event(task, "save", "succeeded", 3600.3, 3600.4),
    ]
    generation = Generation(
        attempt=1, model="gen4.5", state="succeeded", sent_at=at(10), accepted_at=at(10.1), ended_at=at(3600)
    )
    return events, [generation]


class TestWaterfall:
    def test_each_stage_and_attempt_has_its_time(self) -> None:
        task = ended_task()
        rows = {row.name: row for row in waterfall.rows_of(task, *long_story(task), at(9999))}
        took = {name: round(row.took_s, 1) for name, row in rows.items() if row.bars}
        assert took == {
            "in line": 10.0, "generate": 0.1, "attempt 1": 3590.0, "poll": 3590.0,
            "download": 0.1, "transcode": 0.1, "save": 0.1,
        }  # fmt: skip

    def test_it_is_to_scale_and_shows_what_is_short(self) -> None:
        task = ended_task()
        rows = [row for row in waterfall.rows_of(task, *long_story(task), at(9999)) if row.bars]
        scale = waterfall.Scale(rows)
        assert scale.x(at(0)) == 0
        assert scale.x(at(1800.2)) == pytest.approx(waterfall.WIDTH / 2)
        drawings = waterfall.draw(task, *long_story(task), at(9999))
        assert len(drawings) == 2  # the last stages once more, larger
        widths = [float(found) for found in re.findall(r'width="([\d.]+)"', drawings[0])]
        assert min(widths) >= waterfall.LEAST
        larger = [float(found) for found in re.findall(r'width="([\d.]+)"', drawings[1])]
        assert min(larger) > 300
        assert "style=" not in "".join(drawings)

    def test_its_words_are_all_there_without_the_drawing(self) -> None:
        task = ended_task()
        words = re.sub(r"<svg.*?</svg>", "", waterfall.draw(task, *long_story(task), at(9999))[0], flags=re.DOTALL)
        for word in ("in line", "attempt 1", "gen4.5", "59 min 50 s", "transcode", "0.10 s", "1 h 00 min from create"):
            assert word in words, word

    def test_a_pause_before_a_retry_is_cut_out_and_said(self) -> None:
        task = VideoTask(
            id="task_x", status="failed", stage="generate", run=2, created_at=at(0), finished_at=at(90_040)
        )
        events = [
            event(task, "generate", "created", 0, 0),
            event(task, "generate", "admitted", 0, 20),
            event(task, "generate", "failed", 20, 21),
            event(task, "generate", "resumed", 90_000, 90_000),
            event(task, "generate", "admitted", 90_000, 90_020),
            event(task, "generate", "failed", 90_020, 90_021),
        ]
        (drawn,) = waterfall.draw(task, events, [], at(99_999))
        assert "left out, where nothing was to be done: 1 d 0 h" in drawn
        (line, generate, *_) = waterfall.rows_of(task, events, [], at(99_999))
        assert (len(line.bars), len(generate.bars)) == (2, 2)
        places = [waterfall.Scale([line, generate]).x(bar.begin) for bar in line.bars]
        assert places[1] < waterfall.WIDTH * 0.6

    def test_of_a_task_that_waits_or_runs_it_goes_until_now(self) -> None:
        task = VideoTask(id="task_x", status="pending", stage="generate", admit_at=at(0), created_at=at(0))
        events = [event(task, "generate", "created", 0, 0)]
        (line, *_) = waterfall.rows_of(task, events, [], at(30))
        assert line.took_s == 30
        assert "to now" in waterfall.draw(task, events, [], at(30))[0]
        assert waterfall.draw(task, events, [], at(0)) == []


def page(client: Client, task_id: str) -> str:
    answer = client.get(f"/admin/video/videotask/{task_id}/change/")
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


def viewer(*permissions: str) -> Client:
    user = make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))  # type: ignore[attr-defined]
    client = Client()
    client.force_login(user)
    return client


class TestLinks:
    def test_lead_to_user_key_account_attempt_and_open_case(self, root: Client) -> None:
        history.write(3, 1, [], lambda line: None)
        generation = Generation.objects.select_related("task").get(state="unknown")
        shown = page(root, generation.task_id)
        for address in (
            f"/admin/auth/user/{generation.user_id}/change/",
            f"/admin/video/provideraccount/{generation.account_id}/change/",
            f"/admin/video/generation/{quote(generation.pk)}/change/",
            f"/admin/video/generation/open-cases/{generation.pk}/",
            "/admin/video/providerkey/",
        ):
            assert address in shown, address

    def test_are_words_for_who_may_not_follow_them(self) -> None:
        task = make_task()
        admitted(task)
        shown = page(viewer("view_videotask"), task.pk)
        for address in ("/admin/auth/user/", "/admin/video/providerkey/", "/admin/video/generation/"):
            assert address not in shown
        assert task.user.get_username() in shown

    def test_lead_to_the_providers_console_but_for_simulated_jobs(self) -> None:
        generation = Generation(provider="runway", simulated=False)
        assert task_page.console_of(generation) == "https://dev.runwayml.com/"
        generation.simulated = True
        assert task_page.console_of(generation) == ""


class TestButtons:
    def test_of_who_may_only_look_are_off_and_say_so(self) -> None:
        task = make_task()
        shown = page(viewer("view_videotask"), task.pk)
        assert shown.count(task_page.NO_PERMISSION) == 2
        assert 'value="cancel_chosen"' not in shown

    def test_say_what_they_would_do_or_why_they_cannot(self) -> None:
        task = make_task()
        cancels, retries = task_page.acts(task, may_steer=True, may_grant=False)
        assert cancels.is_possible
        assert cancels.why == "In generate; refunded."
        assert not retries.is_possible
        assert "it is still under way" in retries.why
        accepted(task)
        assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
        task.refresh_from_db()
        cancels, retries = task_page.acts(task, may_steer=True, may_grant=False)
        assert not cancels.is_possible
        assert "it has failed" in cancels.why
        assert retries.is_possible or "not ended" in retries.why

    def test_a_retry_that_its_user_cannot_pay_can_be_granted(self) -> None:
        task = make_task(make_user(credit=10))
        admitted(task)
        assert task_moves.fail(claimed(task), code="moderation", message="No.")
        task.refresh_from_db()
        task.user.credit_account.entries.model.objects.create(account_id=task.user_id, kind="adjust", amount=-10)
        type(task.user.credit_account).objects.filter(pk=task.user_id).update(balance=0)
        (_, retries) = task_page.acts(task, may_steer=True, may_grant=False)
        assert not retries.is_possible
        assert retries.why == "Its user is short of credits: 10 credits are needed, the account holds 0."
        (_, retries) = task_page.acts(task, may_steer=True, may_grant=True)
        assert retries.is_possible


class TestCurl:
    def test_says_the_same_order_whatever_is_in_the_prompt(self) -> None:
        prompt = 'It\'s a "cat"; $(rm -rf ~) `id` \\ $TOKEN\nend'
        task = make_task(prompt=prompt, seed=7, policy="speed", quality="high")
        curl = task_page.curl_of(task)
        assert curl is not None
        words = subprocess.run(
            ["bash", "-c", curl.command.replace("curl ", "printf '%s\\0' ", 1)],
            capture_output=True,
            text=True,
            check=True,
            env={"TOKEN": "secret"},
        ).stdout.split("\0")
        assert "Authorization: Bearer secret" in words
        assert json.loads(words[words.index("-d") + 1]) == {
            "prompt": prompt, "duration": 5, "aspectRatio": "16:9", "model": "gen4.5", "policy": "speed",
            "fallback": False, "quality": "high", "seed": 7,
        }  # fmt: skip
        assert shlex.split(curl.command)[2].endswith("/api/video/create")

    def test_holds_no_signature_and_tells_no_receiver(self) -> None:
        task = make_task()
        task.image_url = "https://pictures.example/cat.png?X-Signature=abc123"
        task.webhook_url = "https://hooks.example/token-xyz"
        curl = task_page.curl_of(task)
        assert curl is not None
        assert "abc123" not in curl.command
        assert "hooks.example" not in curl.command
        assert len(curl.notes) == 2

    def test_is_not_there_once_the_prompt_is_deleted(self) -> None:
        assert task_page.curl_of(VideoTask(gone_why="deleted")) is None
        assert task_page.curl_of(VideoTask(render_of_id="task_y")) is None


def test_webhooks_and_their_tries_are_told_without_the_receivers_path(root: Client) -> None:
    history.write(8, 1, [], lambda line: None)
    present.write()
    task = VideoTask.objects.filter(webhook_deliveries__state="failed").exclude(status=Status.SUCCESS).first()
    assert task is not None
    shown = page(root, task.pk)
    assert "intranet.studio-north.example" in shown
    assert "intranet.studio-north.example/videos" not in shown
    assert shown.count("Bad Gateway") == 4
    assert "no answer within 10 s" in shown
    assert "intranet" not in page(viewer("view_videotask"), task.pk)
