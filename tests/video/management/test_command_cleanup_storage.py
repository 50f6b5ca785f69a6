"""manage.py cleanup_storage deletes what nobody needs, and nothing else."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError

from media_pipeline.errors import StorageDown
from media_pipeline.storage import object_keys
from media_pipeline.storage.base import MediaStorage
from tests.factories import make_task, make_user
from video import ids
from video.infra.toolkit import toolkit
from video.models import VideoTask
from video.processes import retention, storage_sweep

pytestmark = pytest.mark.django_db
DAY_S = 86_400


@pytest.fixture(autouse=True)
def storage(settings: Any, tmp_path: Path) -> Iterator[MediaStorage]:
    settings.STORAGE_LOCAL_PATH = tmp_path / "storage"
    settings.SCRATCH_PATH = tmp_path / "storage" / ".scratch"
    toolkit.cache_clear()
    yield toolkit().storage
    toolkit.cache_clear()


def clean(*args: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    out = io.StringIO()
    try:
        call_command("cleanup_storage", *args, stdout=out, stderr=out)
    except SystemExit as err:
        return int(err.code or 0), out.getvalue()
    except CommandError as err:
        return err.returncode, f"{out.getvalue()}{err}"
    return 0, out.getvalue()


def put(key: str, text: str = "0123456789") -> str:
    storage = toolkit().storage
    with storage.scratch_dir("test") as folder:
        path = folder / "file"
        path.write_text(text)
        storage.put_file(path, key)
    return key


def old(make: Any, monkeypatch: pytest.MonkeyPatch, days: float = 2) -> str:
    """An id that was made some days ago."""
    with monkeypatch.context() as patched:
        then = time.time_ns() - int(days * DAY_S * 1e9)
        patched.setattr(time, "time_ns", lambda: then)
        return str(make())


def there(key: str) -> bool:
    return toolkit().storage.exists(key)


def done(video_id: str) -> tuple[VideoTask, str, str]:
    """A finished task, with its two files."""
    task = make_task()
    video, thumbnail = object_keys.video_key(task.user_id, video_id), object_keys.thumbnail_key(task.user_id, video_id)
    VideoTask.objects.filter(pk=task.pk).update(
        status="success",
        stage="done",
        progress=100,
        admit_at=None,
        finished_at="2026-01-01T00:00:00Z",
        video_id=video_id,
        output_key=put(video),
        thumbnail_key=put(thumbnail),
    )
    return task, video, thumbnail


def test_an_id_tells_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids.made_at(ids.video_id()) == pytest.approx(time.time(), abs=60)
    assert ids.made_at(old(ids.task_id, monkeypatch, days=3)) == pytest.approx(time.time() - 3 * DAY_S, abs=60)
    for nonsense in ("", "vid_", "vid_1", f"vid_{'u' * 26}", f"vid_{'0' * 27}"):
        assert ids.made_at(nonsense) is None


def test_an_old_file_without_a_row_goes_and_all_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    _, video, thumbnail = done(old(ids.video_id, monkeypatch))
    loser = put(object_keys.video_key(1, old(ids.video_id, monkeypatch)), "12345")
    young = put(object_keys.video_key(1, ids.video_id()))
    foreign = [put("1/videos/holiday.mp4"), put("notes.txt"), put("1/other/vid_1.mp4")]
    code, said = clean()
    assert code == 0
    assert loser in said
    assert (
        "1 of 7 files deleted, 0.0 MB; 1 without a row are too young to tell; 3 are not named as ours and stay." in said
    )
    assert not there(loser)
    assert all(there(key) for key in (video, thumbnail, young, *foreign))
    assert "0 of 6 files deleted" in clean()[1]


def test_the_files_of_a_row_that_points_elsewhere_go(monkeypatch: pytest.MonkeyPatch) -> None:
    video_id = old(ids.video_id, monkeypatch)
    task, _, _ = done(video_id)
    copy = put(object_keys.video_key(task.user_id + 1, video_id))
    assert clean()[0] == 0
    assert not there(copy)


def test_work_files_go_once_their_task_has_none_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user()
    ended, keeps, active = (old(lambda: make_task(user).pk, monkeypatch) for _ in range(3))
    nobody = old(ids.task_id, monkeypatch)
    files = {task_id: put(object_keys.work_key(task_id, 3, "source.mp4")) for task_id in (ended, keeps, active, nobody)}
    failed = {"status": "failed", "error_code": "timeout", "error_message": "Too long.", "admit_at": None}
    for task_id, has_files in ((ended, False), (keeps, True)):
        VideoTask.objects.filter(pk=task_id).update(
            **failed, finished_at="2026-01-01T00:00:00Z", has_work_files=has_files
        )
    assert clean()[0] == 0
    assert {task_id for task_id, key in files.items() if there(key)} == {keeps, active}


def test_a_dry_run_and_json_only_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    loser = put(object_keys.video_key(1, old(ids.video_id, monkeypatch)), "12345")
    code, said = clean("--dry-run")
    assert code == 0
    assert "1 of 1 files would be deleted" in said
    code, said = clean("--dry-run", "--json")
    assert json.loads(said) == {
        "dryRun": True,
        "files": 1,
        "orphans": [{"key": loser, "bytes": 5}],
        "bytes": 5,
        "notDeleted": [],
        "tooYoung": 0,
        "notOurs": 0,
        "missing": [],
        "foundAgain": [],
    }
    assert there(loser)


def test_older_than_is_a_day_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    put(object_keys.video_key(1, old(ids.video_id, monkeypatch, days=2)))
    assert "1 without a row are too young" in clean("--older-than", "3d")[1]
    code, said = clean("--older-than", "1h")
    assert code == 2
    assert "a day at least" in said


def test_batches_see_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_sweep, "BATCH", 2)
    for _ in range(5):
        put(object_keys.video_key(1, old(ids.video_id, monkeypatch)))
    assert "5 of 5 files deleted" in clean()[1]


def test_what_can_not_be_deleted_is_said_and_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    loser = put(object_keys.video_key(1, old(ids.video_id, monkeypatch)))

    def refuse(self: MediaStorage, key: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(MediaStorage, "delete", refuse)
    code, said = clean()
    assert code == 1
    assert f"{loser} could not be deleted: [Errno 13] Permission denied" in said
    assert "1 could not be deleted" in said


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(StorageDown("503"), "The storage can't be read: 503"), (OperationalError("x"), "The database can't be reached")],
)
def test_without_storage_or_database_it_exits_2(
    monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def away(*args: object, **more: object) -> Iterator[storage_sweep.Orphan]:
        raise error

    monkeypatch.setattr(storage_sweep, "find", away)
    code, said = clean()
    assert code == 2
    assert sentence in said


def put_back(key: str) -> None:
    put(key)


class TestRowsWithoutAFile:
    """A row names a file that is not there."""

    def test_the_api_says_of_a_lost_video_that_it_is_missing_until_it_is_back(self, client_for: Any) -> None:
        task, video, _ = done(ids.video_id())
        done(ids.video_id())
        toolkit().storage.delete(video)
        code, said = clean("--dry-run")
        assert code == 1
        assert f"{task.pk}: its video is not there: {video}" in said
        assert VideoTask.objects.get(pk=task.pk).gone_why == ""
        code, said = clean("--json")
        assert code == 1
        assert json.loads(said)["missing"] == [{"taskId": task.pk, "what": "video", "key": video}]
        status = client_for(task.user).get("/api/video/status", {"taskId": task.pk}).json()["data"]
        assert (status["status"], status["result"]["videoUrl"]) == ("success", None)
        assert status["gone"]["code"] == "video_missing"
        assert "expiredAt" not in status
        assert clean()[0] == 0  # told once
        put_back(video)
        code, said = clean("--json")
        assert code == 0
        assert json.loads(said)["foundAgain"] == [{"taskId": task.pk, "key": video}]
        status = client_for(task.user).get("/api/video/status", {"taskId": task.pk}).json()["data"]
        assert status["result"]["videoUrl"]
        assert "gone" not in status

    def test_what_is_left_of_a_lost_video_is_no_orphan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _, video, thumbnail = done(old(ids.video_id, monkeypatch))
        toolkit().storage.delete(video)
        clean()
        assert retention.sweep() == 0
        clean()
        assert there(thumbnail)

    def test_what_is_left_of_a_lost_video_goes_with_its_time(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any
    ) -> None:
        task, video, thumbnail = done(ids.video_id())
        toolkit().storage.delete(video)
        clean()
        settings.KEEP_VIDEOS_DAYS = 1
        assert retention.sweep() == 1
        assert not there(thumbnail)
        assert VideoTask.objects.get(pk=task.pk).gone_why == "expired"

    def test_a_lost_thumbnail_is_no_link_any_more(self, client_for: Any) -> None:
        task, _, thumbnail = done(ids.video_id())
        toolkit().storage.delete(thumbnail)
        code, said = clean()
        assert code == 1
        assert "its thumbnail is not there" in said
        result = client_for(task.user).get("/api/video/status", {"taskId": task.pk}).json()["data"]["result"]
        assert result["thumbnailUrl"] is None
        assert result["videoUrl"]
        assert clean()[0] == 0

    def test_a_lost_original_is_offered_no_more_and_a_kept_one_is_no_orphan(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        video_id = old(ids.video_id, monkeypatch)
        task, _, _ = done(video_id)
        original = put(object_keys.original_key(task.user_id, video_id, ".webm"))
        VideoTask.objects.filter(pk=task.pk).update(source_key=original, original_bytes=5)
        assert clean()[0] == 0
        assert there(original)
        toolkit().storage.delete(original)
        assert clean()[0] == 1
        found = VideoTask.objects.get(pk=task.pk)
        assert (found.source_key, found.original_bytes, found.gone_why) == ("", None, "")
        put_back(original)
        assert clean()[0] == 0
        assert not there(original)  # no row names it now

    def test_another_storage_by_mistake_changes_no_row(self) -> None:
        task, video, thumbnail = done(ids.video_id())
        for key in (video, thumbnail):
            toolkit().storage.delete(key)
        code, said = clean()
        assert code == 2
        assert "The storage holds no file at all" in said
        assert VideoTask.objects.get(pk=task.pk).gone_why == ""

    def test_a_video_that_is_saved_meanwhile_is_not_called_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done(ids.video_id())
        listed = MediaStorage.list

        def late(self: MediaStorage, prefix: str) -> Iterator[str]:
            found = list(listed(self, prefix))
            if prefix:
                done_for(VideoTask.objects.get().user_id)
            return iter(found)

        def done_for(user_id: int) -> None:
            monkeypatch.setattr(MediaStorage, "list", listed)
            VideoTask.objects.filter(pk=done(ids.video_id())[0].pk).update(user_id=user_id)

        monkeypatch.setattr(MediaStorage, "list", late)
        assert clean()[0] == 0
        assert VideoTask.objects.count() == 2

    def test_batches_see_all_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage_sweep, "BATCH", 2)
        owner = make_user()
        for number in range(5):
            task, video, _ = done(ids.video_id())
            VideoTask.objects.filter(pk=task.pk).update(user_id=owner.pk)
            if number < 3:
                toolkit().storage.delete(video)
        assert "3 files of tasks missing" in clean()[1]
