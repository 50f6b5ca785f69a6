"""GET /api/video/status."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from providers.contract import JobState, JobStatus
from tests.factories import accepted, make_task
from video.attempts import configured_keys, provider_calls
from video.models import Generation, ProviderAccount, Stage, VideoTask
from video.pipeline import runner
from video.scheduling import admission, estimates

STATUS = "/api/video/status"


def ask(client: Client, task_id: str, **headers: Any) -> Any:
    return client.get(STATUS, {"taskId": task_id}, **headers)


def put(task: VideoTask, **columns: Any) -> None:
    """Put the row into a state that the pipeline takes minutes to reach."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE video_videotask SET {', '.join(f'{name} = %s' for name in columns)} WHERE id = %s",
            [*columns.values(), task.pk],
        )


def finish(task: VideoTask, status: str, **columns: Any) -> None:
    put(task, status=status, admit_at=None, next_run_at=None, finished_at="2026-11-24T00:00:00Z", **columns)


def succeed(task: VideoTask, video_id: str = "vid_1") -> None:
    folder = f"{task.user_id}/videos/{video_id}"
    finish(
        task,
        "success",
        stage="done",
        progress=100,
        video_id=video_id,
        output_key=f"{folder}.mp4",
        thumbnail_key=f"{folder}_thumb.jpg",
    )


def test_pending(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    reply = ask(api, task.pk)
    assert reply.status_code == 200
    assert reply["Cache-Control"] == "no-store"
    assert reply.json() == {
        "success": True,
        "data": {
            "taskId": task.pk,
            "status": "pending",
            "progress": 0,
            "stage": "generate",
            "position": 1,
            "expectedWait": reply.json()["data"]["expectedWait"],
        },
    }


def test_position_and_expected_wait_only_while_in_line(api: Client, user: AbstractBaseUser) -> None:
    configured_keys.sync()
    ProviderAccount.objects.filter(model="gen4.5").update(slots=1)
    other, first = make_task(), make_task(user)
    last = make_task(user)
    estimates._cache.clear()
    said = ask(api, last.pk).json()["data"]
    assert (said["position"], said["expectedWait"]) == (3, 3 * estimates.SIMULATED_S)
    assert ask(api, first.pk).json()["data"]["position"] == 2
    assert admission.admit() == [(other.pk, Stage.GENERATE)]
    estimates._cache.clear()
    assert ask(api, first.pk).json()["data"]["position"] == 1
    ProviderAccount.objects.filter(model="gen4.5").update(slots=2)
    admission.admit()
    assert not {"position", "expectedWait"} & set(ask(api, first.pk).json()["data"])


def test_a_priority_moves_a_task_before_its_users_others(api: Client, user: AbstractBaseUser) -> None:
    first, second = make_task(user), make_task(user)
    put(second, priority=5)
    assert ask(api, second.pk).json()["data"]["position"] == 1
    assert ask(api, first.pk).json()["data"]["position"] == 2


def test_without_any_slot_no_wait_is_promised(api: Client, user: AbstractBaseUser) -> None:
    configured_keys.sync()
    ProviderAccount.objects.update(closed_reason="out_of_credits")
    said = ask(api, make_task(user).pk).json()["data"]
    assert said["position"] == 1
    assert "expectedWait" not in said


def test_running_names_the_model_that_really_runs(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user, model_requested="runway-gen3")
    accepted(task)
    put(task, status="running", progress=50)
    assert ask(api, task.pk).json()["data"] == {
        "taskId": task.pk,
        "status": "running",
        "progress": 50,
        "stage": "poll",
        "model": "gen4.5",
    }


def test_success_has_links_and_no_error(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    succeed(task)
    data = ask(api, task.pk).json()["data"]
    assert set(data) == {"taskId", "status", "progress", "stage", "result"}
    assert (data["status"], data["progress"], data["stage"]) == ("success", 100, "done")
    start = f"http://testserver/storage/{user.pk}/videos/vid_1"
    assert data["result"]["videoUrl"].startswith(f"{start}.mp4?expires=")
    assert data["result"]["thumbnailUrl"].startswith(f"{start}_thumb.jpg?expires=")
    assert set(data["result"]) == {"videoUrl", "thumbnailUrl"}


def test_links_start_with_the_public_address(api: Client, user: AbstractBaseUser, settings: Settings) -> None:
    settings.PUBLIC_BASE_URL = "https://videos.example.com"
    task = make_task(user)
    succeed(task)
    for url in ask(api, task.pk).json()["data"]["result"].values():
        assert url.startswith("https://videos.example.com/storage/")


def test_links_stay_the_same_from_call_to_call(
    api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(user)
    succeed(task)
    links = []
    for now in (1_800_000_000.5, 1_800_000_005.5, 1_800_003_600.5):
        monkeypatch.setattr("video.web.media.time.time", lambda now=now: now)
        links.append(ask(api, task.pk).json()["data"]["result"])
    assert links[0] == links[1]
    assert links[1] != links[2]


def test_failed_has_a_sentence_and_a_code(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    finish(task, "failed", error_code="moderated", error_message="The provider refused this prompt.")
    assert ask(api, task.pk).json()["data"] == {
        "taskId": task.pk,
        "status": "failed",
        "progress": 0,
        "stage": "generate",
        "error": "The provider refused this prompt.",
        "errorCode": "moderated",
    }


def test_cancelled_is_failed_to_clients(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    finish(task, "cancelled")
    data = ask(api, task.pk).json()["data"]
    assert (data["status"], data["errorCode"]) == ("failed", "cancelled")
    assert data["error"]


def test_head_answers_like_get(api: Client, user: AbstractBaseUser) -> None:
    assert api.head(STATUS, {"taskId": make_task(user).pk}).status_code == 200


def test_tasks_of_others_look_like_none(api: Client, stranger: AbstractBaseUser) -> None:
    theirs = ask(api, make_task(stranger).pk)
    none = ask(api, "task_00000000000000000000000000")
    assert theirs.status_code == none.status_code == 404
    assert theirs.content == none.content
    assert none.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "task_id", ["task_xxx", "1", "task_\0", "task_é", "task_' OR 1=1", "x" * 5000, "task_" + "a" * 36]
)
def test_what_is_no_id_is_404(api: Client, task_id: str) -> None:
    assert ask(api, task_id).status_code == 404


@pytest.mark.parametrize("query", ["", "?taskId=", "?taskid=task_1", "?task_id=task_1"])
def test_without_an_id_is_400_naming_it(api: Client, query: str) -> None:
    reply = api.get(STATUS + query)
    assert reply.status_code == 400
    assert "taskId" in reply.json()["error"]["message"]


def test_progress_goes_on_between_two_looks_and_the_next_look_never_takes_it_back(
    api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(user)
    generation = accepted(task)

    def age_job(**seconds_ago: float) -> None:
        for column, seconds in seconds_ago.items():
            Generation.objects.filter(pk=generation.pk).update(**{column: timezone.now() - timedelta(seconds=seconds)})

    def progress() -> int:
        return int(ask(api, task.pk).json()["data"]["progress"])

    assert progress() == 5
    put(task, progress=18)  # a fifth of the render, seen at its 30th second
    age_job(accepted_at=90, last_polled_at=60)
    before = progress()
    assert before in range(43, 60)
    said = {generation.pk: JobStatus(JobState.RUNNING, "RUNNING", 0.3)}
    monkeypatch.setattr(provider_calls, "poll_many", lambda asked, **more: said)
    assert runner.run_batch([task.pk]) == []
    assert progress() >= before
    age_job(accepted_at=900, last_polled_at=700)
    assert progress() == 5 + int(0.95 * 65)  # however long it takes
