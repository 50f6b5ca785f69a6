"""What is kept for how long: videos, their originals, and what a process that dies in between leaves."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from media_pipeline.errors import StorageDown
from media_pipeline.storage.base import MediaStorage
from tests.factories import make_user, reload
from tests.video.storing import SOURCE, THUMBNAIL, VIDEO, before_save, days_pass, files, saved
from video.engine import stored_files
from video.infra import failpoints
from video.infra.failpoints import FailpointError
from video.infra.toolkit import toolkit
from video.models import Stage, UserStorage, VideoTask
from video.pipeline import runner
from video.processes import retention

pytestmark = pytest.mark.django_db


def shown(client_for: Any, task: VideoTask) -> dict[str, Any]:
    reply = client_for(task.user).get("/api/video/status", {"taskId": task.pk})
    assert reply.status_code == 200
    data: dict[str, Any] = reply.json()["data"]
    return data


def path_of(link: str) -> str:
    return link.removeprefix("http://testserver")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the process fail after it has deleted one file."""

    def run() -> None:
        failpoints.arm("removal.after_file", "raise")
        with pytest.raises(FailpointError):
            retention.sweep()
        failpoints._armed.clear()

    yield run
    failpoints._armed.clear()


def test_without_a_setting_and_without_a_wish_a_video_stays(client_for: Any) -> None:
    task = saved()
    days_pass(task, 4000)
    assert retention.sweep() == 0
    status = shown(client_for, task)
    assert set(status["result"]) == {"videoUrl", "thumbnailUrl"}
    assert not {"expiresAt", "expiredAt", "gone"} & set(status)


def test_the_operators_days_hold_for_videos_of_before_and_can_be_made_longer(
    settings: Settings, client_for: Any, client: Client
) -> None:
    task = saved()
    days_pass(task, 29.9)
    settings.KEEP_VIDEOS_DAYS = 30
    assert retention.sweep() == 0
    link = path_of(shown(client_for, task)["result"]["videoUrl"])
    days_pass(task, 0.2)
    settings.KEEP_VIDEOS_DAYS = 31
    assert retention.sweep() == 0
    settings.KEEP_VIDEOS_DAYS = 30
    assert retention.sweep() == 1
    assert files(task) == []
    found = reload(task)
    assert (found.status, found.gone_why, found.output_key, found.video_bytes) == ("success", "expired", "", len(VIDEO))
    assert found.prompt  # the row stays with its facts
    status = shown(client_for, task)
    assert status["status"] == "success"
    assert status["result"] == {"videoUrl": None, "thumbnailUrl": None}
    assert status["gone"]["code"] == "video_expired"
    assert status["expiredAt"] == status["gone"]["at"]
    assert client.get(link).status_code == 404
    assert retention.sweep() == 0
    reply = client_for(task.user).post("/api/video/retry", {"taskId": task.pk}, content_type="application/json")
    assert reply.status_code == 409
    assert "its video was made, and is gone now" in reply.json()["error"]["message"]


def test_a_task_can_have_a_time_of_its_own(client_for: Any, settings: Settings) -> None:
    task = saved(expires_in_s=3600)
    settings.KEEP_VIDEOS_DAYS = 30
    status = shown(client_for, task)
    assert status["expiresAt"] == (reload(task).expires_at).isoformat().replace("+00:00", "Z")
    days_pass(task, 59 / 60 / 24)
    assert retention.sweep() == 0
    days_pass(task, 2 / 60 / 24)
    assert retention.sweep() == 1
    assert shown(client_for, task)["gone"]["code"] == "video_expired"
    longer = saved(expires_in_s=40 * 86_400)  # from before the operator said 30 days
    days_pass(longer, 30.1)
    assert retention.sweep() == 1


def test_the_row_says_it_before_a_file_goes_and_the_next_turn_deletes_the_rest(
    client_for: Any, settings: Settings, broken: Any
) -> None:
    settings.KEEP_SOURCE_DAYS = 90
    task = saved(expires_in_s=1)
    assert len(files(task)) == 3
    days_pass(task, 1)
    broken()
    assert len(files(task)) == 2
    assert shown(client_for, task)["gone"]["code"] == "video_expired"
    assert stored_files.unfinished(10) == [task.pk]
    assert UserStorage.objects.get(pk=task.user_id).bytes > 0  # bytes count until they are gone
    assert retention.sweep() == 1
    assert files(task) == []
    assert UserStorage.objects.get(pk=task.user_id).bytes == 0


def test_a_storage_that_is_away_ends_the_turn_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [saved(expires_in_s=1) for _ in range(2)]
    for task in tasks:
        days_pass(task, 1)

    def down(*_: object) -> None:
        raise StorageDown("503")

    with monkeypatch.context() as patched:
        patched.setattr("media_pipeline.storage.base.MediaStorage.delete", down)
        assert retention.sweep() == 0
    assert retention.sweep() == 2
    assert [files(task) for task in tasks] == [[], []]


def test_a_file_that_can_not_be_deleted_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    tasks = [saved(expires_in_s=1) for _ in range(4)]
    for task in tasks:
        days_pass(task, 1)
    delete = MediaStorage.delete

    def refuse(self: MediaStorage, key: str) -> None:
        if key.startswith(f"{tasks[0].user_id}/"):
            raise PermissionError(13, "Permission denied")
        delete(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(MediaStorage, "delete", refuse)
        assert retention.sweep() == 3
    assert f"a file of {tasks[0].pk} can't be deleted" in caplog.text
    assert [len(files(task)) for task in tasks] == [2, 0, 0, 0]
    assert retention.sweep() == 1


def test_batches_see_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    user = make_user()
    for _ in range(5):
        days_pass(saved(user, expires_in_s=1), 1)
    assert retention.sweep() == 5
    assert UserStorage.objects.get(pk=user.pk).videos == 0


def test_a_turn_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LONGEST_S", 0.0)
    days_pass(saved(expires_in_s=1), 1)
    assert retention.sweep() == 0


def test_the_original_is_kept_and_offered_for_its_days(settings: Settings, client_for: Any, client: Client) -> None:
    settings.KEEP_SOURCE_DAYS = 7
    task = saved()
    assert reload(task).original_bytes == len(SOURCE)
    assert not reload(task).source_key.startswith("work/")
    assert UserStorage.objects.get(pk=task.user_id).bytes == len(VIDEO) + len(THUMBNAIL) + len(SOURCE)
    link = path_of(shown(client_for, task)["result"]["originalUrl"])
    assert b"".join(client.get(link).streaming_content) == SOURCE
    days_pass(task, 7.1)
    assert "originalUrl" not in shown(client_for, task)["result"]
    assert retention.sweep() == 1
    assert client.get(link).status_code == 404
    assert len(files(task)) == 2
    found = reload(task)
    assert (found.source_key, found.original_bytes) == ("", None)
    assert UserStorage.objects.get(pk=task.user_id).bytes == len(VIDEO) + len(THUMBNAIL)
    assert retention.sweep() == 0


def test_without_the_setting_no_original_is_kept() -> None:
    task = saved()
    assert (reload(task).source_key, reload(task).original_bytes) == ("", None)
    assert len(files(task)) == 2


def test_an_original_that_is_gone_already_spoils_no_success(settings: Settings) -> None:
    settings.KEEP_SOURCE_DAYS = 7
    task = before_save()
    toolkit().storage.delete(reload(task).source_key)
    runner.run_stage(Stage.SAVE, task.pk)
    found = reload(task)
    assert (found.status, found.source_key, found.original_bytes) == ("success", "", None)


def test_a_save_that_is_lost_leaves_no_original(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.KEEP_SOURCE_DAYS = 7
    task = before_save()
    monkeypatch.setattr(runner.transitions, "succeed", lambda *_, **__: False)  # cancelled in this very moment
    runner.run_stage(Stage.SAVE, task.pk)
    assert [key for key in files(task) if not key.startswith("work/")] == []
