"""What is made beside a video: from the order to the links, and what becomes of it with the task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from config import beside
from media_pipeline import errors
from media_pipeline.encode import extras as extras_made
from media_pipeline.storage import object_keys
from tests.factories import make_task, make_user, reload
from tests.s3 import KEYS, S3Server
from tests.video.storing import days_pass, files, put, saved, small_clip, with_extras
from video.actions import delete
from video.admin import timeline
from video.engine.claims import Claim
from video.engine.outcomes import Advance, Succeed
from video.infra.toolkit import toolkit
from video.models import Stage, UserStorage, VideoTask
from video.pipeline import extras, media_stages, runner
from video.processes import retention, storage_sweep
from video.web import media

pytestmark = pytest.mark.django_db
JSON = "application/json"
BOTH = ["preview", "sprites"]
NAMES = ["preview.webp", "sprites.jpg", "sprites.vtt"]


@pytest.fixture(autouse=True)
def _storage(settings: Settings, tmp_path: Path) -> Any:
    settings.STORAGE_LOCAL_PATH, settings.SCRATCH_PATH = tmp_path / "storage", tmp_path / "scratch"
    toolkit.cache_clear()
    yield
    toolkit.cache_clear()


def status(client_for: Any, task: VideoTask) -> dict[str, Any]:
    data: dict[str, Any] = client_for(task.user).get("/api/video/status", {"taskId": task.pk}).json()["data"]
    return data


def codes(task: VideoTask) -> list[str]:
    return [one["code"] for one in reload(task).warnings]


class TestAnOrder:
    def create(self, api: Client, order: dict[str, Any], value: object) -> Any:
        return api.post("/api/video/create", {**order, "extras": value}, content_type=JSON)

    @pytest.mark.parametrize(
        ("given", "kept"), [(["sprites", "preview", "sprites"], BOTH), ([], []), (None, None), (["preview"], BOTH[:1])]
    )
    def test_its_kinds_are_kept_in_one_order(self, api: Client, order: dict[str, Any], given: Any, kept: Any) -> None:
        task_id = self.create(api, order, given).json()["data"]["taskId"]
        task = VideoTask.objects.get(pk=task_id)
        assert task.extras == kept
        assert api.get(f"/api/queues/tasks/{task_id}").json()["data"]["request"]["extras"] == kept
        assert extras.wanted(task) == (kept or [])

    @pytest.mark.parametrize("given", ["preview", ["gif"], [1], {"preview": True}, True, [["preview"]], [None]])
    def test_anything_else_is_refused_by_name(self, api: Client, order: dict[str, Any], given: Any) -> None:
        reply = self.create(api, order, given)
        assert reply.status_code == 400
        assert [one["field"] for one in reply.json()["error"]["details"]] == ["extras"]

    def test_without_a_word_the_setting_decides(self, settings: Settings) -> None:
        settings.EXTRAS = beside.extras(["sprites", "preview"])
        assert extras.wanted(make_task()) == BOTH
        assert extras.wanted(make_task(extras=[])) == []
        with pytest.raises(ImproperlyConfigured, match="EXTRAS must be words of still, preview, sprites, hls"):
            beside.extras(["gif"])


def test_they_are_stored_linked_counted_and_shown(client_for: Any, client: Client) -> None:
    task = with_extras(extras=BOTH)
    assert sorted(task.extra_files) == NAMES
    stem = task.output_key.removesuffix(".mp4")
    assert {f"{stem}_{name}" for name in NAMES} < set(files(task))
    sizes = {key: toolkit().storage.size_bytes(key) for key in files(task) if key.startswith(stem)}
    assert UserStorage.objects.get(pk=task.user_id).bytes == sum(sizes.values())
    result = status(client_for, task)["result"]
    assert set(result) == {"videoUrl", "thumbnailUrl", "previewUrl", "spritesUrl"}
    listed = client_for(task.user).get("/api/video/tasks").json()["data"]["tasks"]
    assert listed[0]["result"] == result
    preview = client.get(result["previewUrl"])
    assert (preview.status_code, preview["Content-Type"]) == (200, "image/webp")
    assert "preview.webp (0.01 MB)" in dict(timeline._made(task))["Beside it"]
    assert task.warnings == []


def test_a_task_without_any_has_no_more_than_before(client_for: Any) -> None:
    task = with_extras()
    assert task.extra_files == {}
    assert set(status(client_for, task)["result"]) == {"videoUrl", "thumbnailUrl"}


class TestATrack:
    """The file that refers to another one."""

    def test_has_links_of_its_own_that_end_when_its_does(self, client_for: Any, client: Client) -> None:
        link = status(client_for, with_extras(extras=["sprites"]))["result"]["spritesUrl"]
        reply = client.get(link)
        assert (reply.status_code, reply["Content-Type"]) == (200, "text/vtt")
        assert reply["Cache-Control"].startswith("private, max-age=")
        text = reply.content.decode()
        (inner,) = set(re.findall(r"^(vid_\S+)#xywh=\d", text, re.MULTILINE))
        assert urlsplit(link).query.split("&")[0] == urlsplit(inner).query.split("&")[0]
        sheet = client.get(urljoin(link, inner))
        assert (sheet.status_code, sheet["Content-Type"]) == (200, "image/jpeg")
        assert client.get(urljoin(link, inner.replace("_sprites.jpg", ".mp4"))).status_code == 403

    def test_is_answered_as_files_are(self, client_for: Any, client: Client) -> None:
        link = status(client_for, with_extras(extras=["sprites"]))["result"]["spritesUrl"]
        whole = client.get(link)
        head = client.head(link)
        assert (head.content, head["Content-Length"]) == (b"", str(len(whole.content)))
        assert client.get(link, HTTP_IF_NONE_MATCH=whole["ETag"]).status_code == 304
        assert client.get(link, HTTP_IF_MATCH='"other"').status_code == 412
        assert client.get(link + "&download=1")["Content-Disposition"].startswith("attachment")
        assert client.get(link[:-1]).status_code == 403

    def test_that_is_gone_is_404(self, client: Client) -> None:
        assert client.get(media.signed_path("7/videos/vid_1_sprites.vtt")).status_code == 404

    def test_in_a_bucket_is_ours_and_leads_into_it(self, client_for: Any, s3: S3Server, settings: Settings) -> None:
        address = s3.bucket("reels")
        settings.OBJECT_STORAGE = settings.OBJECT_STORAGE_FOR_CLIENTS = address
        settings.OBJECT_STORAGE_KEYS = KEYS
        toolkit.cache_clear()
        task = with_extras(extras=BOTH)
        result = status(client_for, task)["result"]
        assert requests.get(result["previewUrl"], timeout=10).headers["Content-Type"] == "image/webp"
        reply = Client().get(result["spritesUrl"])
        assert reply.status_code == 200
        (inner,) = set(re.findall(r"^(http\S+)#xywh=\d", reply.content.decode(), re.MULTILINE))
        assert requests.get(inner, timeout=10).content[:2] == b"\xff\xd8"
        settings.OBJECT_STORAGE_FOR_CLIENTS = address.through("https://cdn.example.com", plain=True)
        text = Client().get(result["spritesUrl"]).content.decode()
        stem = task.output_key.removesuffix(".mp4")
        assert f"\nhttps://cdn.example.com/reels/{stem}_sprites.jpg#xywh=" in text


def lines(text: str) -> list[str]:
    """The addresses in a playlist, each once."""
    found = [line for line in text.splitlines() if line and not line.startswith("#")]
    return list(dict.fromkeys([*re.findall(r'URI="([^"]+)"', text), *found]))


class TestAStream:
    """HLS: a playlist of playlists of pieces of files."""

    def test_can_be_followed_from_its_one_link(self, client_for: Any, client: Client) -> None:
        task = with_extras(extras=["hls"])
        assert sorted(task.extra_files) == ["hls.m3u8", "hls_54.m3u8", "hls_54.mp4"]
        link = status(client_for, task)["result"]["hlsUrl"]
        ends = urlsplit(link).query.split("&")[0]
        top = client.get(link)
        assert (top.status_code, top["Content-Type"]) == (200, "application/vnd.apple.mpegurl")
        (inner,) = lines(top.content.decode())
        size = client.get(urljoin(link, inner))
        assert size["Content-Type"] == "application/vnd.apple.mpegurl"
        (media_link,) = lines(size.content.decode())
        assert {urlsplit(one).query.split("&")[0] for one in (inner, media_link)} == {ends}
        init, begin = re.findall(r'BYTERANGE="?(\d+)@(\d+)', size.content.decode())[0]
        part = client.get(urljoin(link, media_link), HTTP_RANGE=f"bytes={begin}-{int(init) - 1}")
        assert (part.status_code, part["Content-Type"]) == (206, "video/mp4")
        content = b"".join(part.streaming_content)  # type: ignore[attr-defined]
        assert content[4:8] == b"ftyp"
        assert client.get(urljoin(link, inner.partition("?")[0])).status_code == 403

    def test_in_a_bucket_leads_into_it_by_way_of_us(self, client_for: Any, s3: S3Server, settings: Settings) -> None:
        settings.OBJECT_STORAGE = settings.OBJECT_STORAGE_FOR_CLIENTS = s3.bucket("reels")
        settings.OBJECT_STORAGE_KEYS = KEYS
        toolkit.cache_clear()
        link = status(client_for, with_extras(extras=["hls"]))["result"]["hlsUrl"]
        (inner,) = lines(Client().get(link).content.decode())
        assert not urlsplit(inner).netloc
        text = Client().get(urljoin(link, inner)).content.decode()
        (media_link,) = lines(text)
        begin = re.findall(r"BYTERANGE:(\d+)@(\d+)", text)[0][1]
        part = requests.get(media_link, headers={"Range": f"bytes={begin}-{int(begin) + 7}"}, timeout=10)
        assert (part.status_code, part.content[4:]) == (206, b"moof")

    def test_that_does_not_fit_on_the_disk_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("media_pipeline.disk.free_bytes", lambda _: media_stages.DISK_RESERVE_BYTES)
        task = with_extras(extras=["hls"])
        assert (task.status, codes(task), task.extra_files) == ("success", ["hls_left_out"], {})


class TestTrouble:
    """The video is paid for: nothing beside it may keep it from being delivered."""

    @pytest.mark.parametrize(
        "err",
        [errors.TranscodeFailed("no"), errors.DiskFull("full")],
    )
    def test_what_can_not_be_made_is_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, client_for: Any, err: errors.MediaError
    ) -> None:
        def fail(_: Any) -> Any:
            raise err

        monkeypatch.setitem(extras_made._MAKES, "preview", fail)
        task = with_extras(extras=BOTH)
        assert codes(task) == ["preview_left_out"]
        assert sorted(task.extra_files) == NAMES[1:]
        assert "previewUrl" not in status(client_for, task)["result"]

    def test_a_stage_that_failed_before_goes_on_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for columns in ({"tries": 1}, {"deaths": 2}):
            task = make_task(extras=BOTH)
            VideoTask.objects.filter(pk=task.pk).update(**columns)
            made = extras.make(claimed_in_thumbnail(task), Path("/nowhere"), Path("/nowhere"), reserve_bytes=0)
            assert made == ({}, ["preview_left_out", "sprites_left_out"])

    def test_a_bug_in_them_costs_one_try_and_no_video(self, monkeypatch: pytest.MonkeyPatch, client_for: Any) -> None:
        def fail(_: Any) -> Any:
            raise ZeroDivisionError

        monkeypatch.setitem(extras_made._MAKES, "preview", fail)
        monkeypatch.setattr(runner, "backoff_s", lambda *_: 0.0)
        run = runner.run_stage

        def twice(stage: Stage, task_id: str) -> bool:
            return run(stage, task_id) if stage is not Stage.THUMBNAIL else run(stage, task_id) or run(stage, task_id)

        monkeypatch.setattr(runner, "run_stage", twice)
        task = with_extras(extras=["preview"])
        assert (codes(task), task.extra_files) == (["preview_left_out"], {})

    def test_a_storage_that_is_away_is_waited_for_as_ever(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def down(*_: object, **__: object) -> None:
            raise errors.StorageDown("503")

        task = make_task(extras=["preview"])
        (tmp_path / "preview.webp").write_bytes(b"RIFF")
        monkeypatch.setattr(extras_made.Maker, "make", lambda *_: [tmp_path / "preview.webp"])
        clip = small_clip(tmp_path / "clip.mp4")
        monkeypatch.setattr(toolkit().storage, "put_file", down)
        with pytest.raises(errors.StorageDown):
            extras.make(claimed_in_thumbnail(task), clip, tmp_path, reserve_bytes=0)

    def test_a_work_file_that_is_lost_takes_its_kind_with_it(self, tmp_path: Path) -> None:
        task = make_task(extras=BOTH)
        work = {f"3-{name}": 4 for name in NAMES}
        for name in NAMES[:2]:
            put(f"work/{task.pk}/3-{name}", b"four")
        task.extra_files = work
        kept = extras.keep(task, object_keys.video_key(task.user_id, "vid_1"))
        assert kept["extra_files"] == {"preview.webp": 4}
        assert [one["code"] for one in kept["warnings"]] == ["sprites_left_out"]


def test_a_worker_that_lost_its_task_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    task = make_task()
    work = {"thumbnail_key": f"work/{task.pk}/3-thumb.jpg", "extra_files": {"3-preview.webp": 4}}
    final = {"output_key": "7/videos/vid_1.mp4", "thumbnail_key": "7/videos/vid_1_thumb.jpg"}
    final["extra_files"] = {"preview.webp": 4}  # type: ignore[assignment]
    for key in (f"work/{task.pk}/3-preview.webp", "7/videos/vid_1_preview.webp", "7/videos/vid_2_preview.webp"):
        put(key, b"four")
    media_stages.drop_what_was_made(Advance(Stage.SAVE, fields=work))
    media_stages.drop_what_was_made(Succeed(fields=final))
    assert [key for key in toolkit().storage.list("") if "preview" in key] == ["7/videos/vid_2_preview.webp"]


def claimed_in_thumbnail(task: VideoTask) -> Claim:
    found = reload(task)
    found.deaths += 1  # as a claim counts itself
    return Claim(task=found, stage=Stage.THUMBNAIL, fence=3, claimed_at=found.created_at)


class TestTheEnd:
    def test_they_go_with_the_time_of_the_video(self) -> None:
        task = with_extras(extras=BOTH, expires_in_s=1)
        days_pass(task, 1)
        assert retention.sweep() == 1
        assert not [key for key in files(task) if "/videos/" in key]
        found = reload(task)
        assert (found.extra_files, UserStorage.objects.get(pk=task.user_id).bytes) == ({}, 0)

    def test_they_go_when_the_task_is_deleted(self, client_for: Any, client: Client) -> None:
        task = with_extras(extras=BOTH)
        link = status(client_for, task)["result"]["spritesUrl"]
        assert not delete.delete(task.pk).files_left
        assert files(task) == []
        assert client.get(link).status_code == 404

    def test_cleanup_knows_them_and_finds_what_is_lost(self, client_for: Any) -> None:
        task = with_extras(extras=BOTH)
        storage = toolkit().storage
        seen = storage_sweep.Seen()
        assert list(storage_sweep.find(storage, seen, now=4e9)) == []
        assert seen.foreign == 0
        assert list(storage_sweep.find_lost(storage, seen)) == []
        before = UserStorage.objects.get(pk=task.user_id).bytes
        stem = task.output_key.removesuffix(".mp4")
        storage.delete(f"{stem}_sprites.jpg")
        (lost,) = storage_sweep.find_lost(storage, seen)
        assert (lost.what, lost.key) == ("extra", f"{stem}_sprites.jpg")
        assert lost.write_down()
        assert not lost.write_down()
        assert list(reload(task).extra_files) == ["preview.webp"]
        assert UserStorage.objects.get(pk=task.user_id).bytes < before
        assert "spritesUrl" not in status(client_for, task)["result"]
        (orphan,) = storage_sweep.find(storage, seen, now=4e9)
        assert orphan.key == f"{stem}_sprites.vtt"

    def test_a_lost_video_hides_them(self, client_for: Any) -> None:
        task = with_extras(extras=BOTH)
        toolkit().storage.delete(task.output_key)
        (lost,) = storage_sweep.find_lost(toolkit().storage, storage_sweep.Seen(files=1))
        assert lost.write_down()
        assert UserStorage.objects.get(pk=task.user_id).bytes == 0
        assert status(client_for, task)["result"] == {"videoUrl": None, "thumbnailUrl": None}


def test_work_files_of_an_older_worker_that_saved_are_not_offered(client_for: Any) -> None:
    """It knew nothing of them, so they have no final names."""
    user = make_user()
    task = saved(user)
    before = UserStorage.objects.get(pk=user.pk).bytes
    VideoTask.objects.filter(pk=task.pk).update(extra_files={"3-preview.webp": 1000})
    assert set(status(client_for, task)["result"]) == {"videoUrl", "thumbnailUrl"}
    assert UserStorage.objects.get(pk=user.pk).bytes == before


def test_the_stage_names_them_by_its_fence(user: AbstractBaseUser, tmp_path: Path) -> None:
    task = make_task(user, extras=["preview"])
    task.output_key = f"work/{task.pk}/1-video.mp4"
    toolkit().storage.put_file(small_clip(tmp_path / "v.mp4"), task.output_key)
    task.save()
    claim = claimed_in_thumbnail(task)
    outcome = media_stages.thumbnail(claim)
    assert isinstance(outcome, Advance)
    assert list(outcome.fields["extra_files"]) == ["3-preview.webp"]
