"""With STORAGE_URL: links, pages, commands and stages over a bucket of a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from media_pipeline import errors
from media_pipeline.encode.provenance import Provenance
from media_pipeline.storage.s3_address import S3Address
from tests.factories import accepted, admitted, age, claim_one, claimed, give_core, make_task, reload
from tests.pictures import opened, turned
from tests.s3 import KEYS, S3Server, parts_of
from tests.video import storing
from tests.video.api.test_api_status import ask, succeed
from video import checks
from video.actions.delete import delete
from video.attempts import records
from video.engine import transitions
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, TaskEvent, VideoTask
from video.pipeline import media_stages, runner, start_images
from video.processes import periodic, retention, storage_sweep
from video.web import media, uploads


@pytest.fixture
def bucket(s3: S3Server, settings: Settings, tmp_path: Path) -> Iterator[S3Address]:
    """This process stores in a bucket of its own."""
    address = s3.bucket("reels")
    settings.OBJECT_STORAGE = settings.OBJECT_STORAGE_FOR_CLIENTS = address
    settings.OBJECT_STORAGE_KEYS = KEYS
    settings.SCRATCH_PATH = tmp_path / "scratch"
    toolkit.cache_clear()
    yield address
    s3.refuse = s3.between = None
    toolkit.cache_clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses of AWS's library between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


def store(tmp_path: Path, key: str, content: bytes = b"0123456789") -> None:
    path = tmp_path / "content"
    path.write_bytes(content)
    toolkit().storage.put_file(path, key, move=True)


@pytest.mark.django_db
class TestStatus:
    def test_links_lead_to_s3_which_serves_them(
        self, api: Client, user: AbstractBaseUser, bucket: S3Address, tmp_path: Path
    ) -> None:
        task = make_task(user)
        succeed(task)
        task = reload(task)
        store(tmp_path, task.output_key)
        store(tmp_path, task.thumbnail_key, b"picture")
        result = ask(api, task.pk).json()["data"]["result"]
        whole = requests.get(result["videoUrl"], timeout=10)
        assert (whole.content, whole.headers["Content-Type"]) == (b"0123456789", "video/mp4")
        part = requests.get(result["videoUrl"], headers={"Range": "bytes=0-3"}, timeout=10)
        assert (part.status_code, part.content) == (206, b"0123")
        picture = requests.get(result["thumbnailUrl"], timeout=10)
        assert (picture.content, picture.headers["Content-Type"]) == (b"picture", "image/jpeg")
        place, _ = parts_of(result["videoUrl"])
        assert requests.get(place, timeout=10).status_code == 403

    def test_one_link_is_to_save(
        self, api: Client, user: AbstractBaseUser, bucket: S3Address, settings: Settings, tmp_path: Path
    ) -> None:
        task = make_task(user)
        succeed(task)
        store(tmp_path, reload(task).output_key)
        for cdn, plain in (("", False), ("https://cdn.example.com", True)):
            settings.OBJECT_STORAGE_FOR_CLIENTS = bucket.through(cdn, plain=plain)
            result = ask(api, task.pk).json()["data"]["result"]
            assert result["videoUrl"].startswith(cdn or bucket.endpoint)
            saved = requests.get(result["downloadUrl"], timeout=10)
            assert saved.content == b"0123456789"
            assert saved.headers["Content-Disposition"] == 'attachment; filename="vid_1.mp4"'

    def test_it_asks_nothing_of_s3_and_no_more_of_the_database(
        self, api: Client, user: AbstractBaseUser, bucket: S3Address, s3: S3Server
    ) -> None:
        task = make_task(user)
        succeed(task)
        s3.calls.clear()
        with CaptureQueriesContext(
            connection,
        ) as statements:
            assert ask(api, task.pk).status_code == 200
        assert len(statements) <= 2
        assert s3.calls == []

    def test_links_stay_the_same_from_call_to_call(
        self, api: Client, user: AbstractBaseUser, bucket: S3Address, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = make_task(user)
        succeed(task)
        seen = []
        for now in (1_800_000_000.5, 1_800_000_005.5, 1_800_003_600.5):
            monkeypatch.setattr("video.web.media.time.time", lambda now=now: now)
            seen.append(ask(api, task.pk).json()["data"]["result"]["videoUrl"])
        assert seen[0] == seen[1] != seen[2]

    def test_links_carry_the_address_that_clients_use(
        self, api: Client, user: AbstractBaseUser, bucket: S3Address, settings: Settings
    ) -> None:
        settings.OBJECT_STORAGE_FOR_CLIENTS = bucket.seen_from("https://videos.example.com")
        task = make_task(user)
        succeed(task)
        for link in ask(api, task.pk).json()["data"]["result"].values():
            assert link.startswith(f"https://videos.example.com/{bucket.bucket}/reels/")

    def test_a_machine_whose_role_has_no_keys_says_so(
        self, api: Client, user: AbstractBaseUser, bucket: S3Address, settings: Settings, monkeypatch: Any
    ) -> None:
        settings.OBJECT_STORAGE_KEYS = None
        monkeypatch.setattr("boto3.session.Session.get_credentials", lambda _: None)
        task = make_task(user)
        succeed(task)
        reply = ask(api, task.pk)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unavailable")


def test_a_link_from_before_the_move_leads_on(bucket: S3Address, tmp_path: Path) -> None:
    store(tmp_path, "7/videos/vid_1.mp4")
    reply = Client().get(media.signed_path("7/videos/vid_1.mp4"))
    assert (reply.status_code, reply["Cache-Control"]) == (302, "no-store")
    shown = requests.get(reply["Location"], timeout=10)
    assert (shown.content, shown.headers["Content-Disposition"]) == (b"0123456789", 'inline; filename="vid_1.mp4"')
    reply = Client().get(media.signed_path("7/videos/vid_1.mp4") + "&download=1")
    saved = requests.get(reply["Location"], timeout=10)
    assert (saved.content, saved.headers["Content-Disposition"]) == (b"0123456789", 'attachment; filename="vid_1.mp4"')
    assert Client().get("/storage/7/videos/vid_1.mp4").status_code == 403


class TestChecks:
    def test_a_good_bucket_is_quiet_and_left_as_it_was(self, bucket: S3Address, s3: S3Server) -> None:
        assert checks.bucket_is_usable(None) == []
        assert s3.objects(bucket) == []
        assert list(toolkit().storage.scratch_root.iterdir()) == []

    def test_a_bucket_that_is_not_there_is_told_with_what_to_do(self, bucket: S3Address, settings: Settings) -> None:
        settings.OBJECT_STORAGE = replace(bucket, bucket="no-such-bucket")
        [message] = checks.bucket_is_usable(None)
        assert message.id == "video.E003"
        assert "s3://no-such-bucket/reels can't be written" in message.msg
        assert "STORAGE_URL" in str(message.hint)
        assert KEYS.secret_access_key not in str(message)

    @pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown")])
    @pytest.mark.usefixtures("quick")
    def test_a_bucket_that_refuses(self, bucket: S3Address, s3: S3Server, status: int, code: str) -> None:
        s3.refuse = (status, code)
        assert [message.id for message in checks.bucket_is_usable(None)] == ["video.E003"]

    def test_a_server_that_overwrites_where_it_was_told_not_to(self, bucket: S3Address, s3: S3Server) -> None:
        def overwrites(environ: Any, start_response: Any, moto: Any) -> Any:
            environ.pop("HTTP_IF_NONE_MATCH", None)
            return moto(environ, start_response)

        s3.between = overwrites
        found = checks.bucket_is_usable(None)
        assert [message.id for message in found] == ["video.W015"] * 2
        assert "If-None-Match" in found[0].msg
        assert str(bucket) in found[0].msg
        assert s3.objects(bucket) == []

    def test_without_a_bucket_nothing_is_asked(self) -> None:
        assert checks.bucket_is_usable(None) == []

    def test_the_storage_folder_need_not_be_writable_then(
        self, bucket: S3Address, settings: Settings, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        settings.STORAGE_LOCAL_PATH = tmp_path / "file" / "storage"
        assert checks.storage_is_writable(None) == []
        settings.SCRATCH_PATH = tmp_path / "file" / "scratch"
        [message] = checks.storage_is_writable(None)
        assert (message.id, "SCRATCH_PATH" in message.msg) == ("video.E001", True)


def in_stage(stage: Stage, **columns: Any) -> VideoTask:
    """A task whose job has ended well, due in a stage."""
    task = make_task()
    generation = accepted(task)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    at = Stage.POLL
    for to in (Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE):
        if at is stage:
            break
        assert transitions.advance(claimed(task, at), to, **columns)
        at = to
    return task


@pytest.mark.django_db
@pytest.mark.usefixtures("quick")
class TestStages:
    @pytest.mark.parametrize(
        ("refuse", "code"), [((503, "SlowDown"), "storage_down"), ((403, "AccessDenied"), "storage_refused")]
    )
    @pytest.mark.parametrize("stage", [Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE])
    def test_a_storage_in_trouble_parks_a_stage_for_as_long_as_it_takes(
        self, bucket: S3Address, s3: S3Server, stage: Stage, refuse: tuple[int, str], code: str, tmp_path: Path
    ) -> None:
        task = in_stage(stage, source_key="work/t/1-s", output_key="work/t/1-o", thumbnail_key="work/t/1-t")
        s3.refuse = refuse
        for _ in range(7):  # more often than a stage may fail
            give_core(task.pk)
            assert runner.run_stage(stage, task.pk) is False
            age(task.pk)
        found = reload(task)
        assert (found.status, found.stage, found.tries, found.deaths) == ("running", stage.value, 0, 0)
        assert str(refuse[0]) in found.park_reason
        # Told once, not every ten seconds for as long as it lasts.
        assert list(TaskEvent.objects.filter(task=task, outcome="parked").values_list("error_code", flat=True)) == [
            code
        ]

    def test_a_download_that_can_not_be_stored_is_not_lost(
        self, bucket: S3Address, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(media_stages.provider_calls, "result_url", lambda _: "https://provider.example/v.mp4")
        monkeypatch.setattr(media_stages, "fetch", lambda url, path, **_: path.write_bytes(b"a video"))
        monkeypatch.setattr("media_pipeline.encode.probe.Prober.probe", lambda *_: Mock(provenance=Provenance()))
        task = in_stage(Stage.DOWNLOAD)
        s3.refuse = (503, "ServiceUnavailable")
        assert runner.run_stage(Stage.DOWNLOAD, task.pk) is False
        assert reload(task).stage == "download"
        assert list(toolkit().storage.scratch_root.iterdir()) == []
        s3.refuse = None
        age(task.pk)
        runner.run_stage(Stage.DOWNLOAD, task.pk)
        found = reload(task)
        assert (found.stage, found.tries) == ("transcode", 0)
        assert s3.objects(bucket) == [f"reels/{found.source_key}"]

    def test_a_work_file_that_is_gone_from_the_bucket_is_made_again(self, bucket: S3Address) -> None:
        task = in_stage(Stage.TRANSCODE, source_key="work/t/1-s")
        give_core(task.pk)
        runner.run_stage(Stage.TRANSCODE, task.pk)
        assert reload(task).stage == "download"

    @pytest.mark.parametrize("there", ["", "work/t/1-o", "work/t/1-t"])
    def test_save_without_both_work_files_goes_back_and_leaves_nothing(
        self, bucket: S3Address, s3: S3Server, tmp_path: Path, there: str
    ) -> None:
        task = in_stage(Stage.SAVE, output_key="work/t/1-o", thumbnail_key="work/t/1-t")
        if there:
            store(tmp_path, there)
        runner.run_stage(Stage.SAVE, task.pk)
        assert reload(task).stage == "transcode"
        assert s3.objects(bucket) == ([f"reels/{there}"] if there else [])

    def test_work_files_that_can_not_be_deleted_spoil_no_success(
        self, bucket: S3Address, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = in_stage(Stage.SAVE, output_key="work/t/1-o", thumbnail_key="work/t/1-t", has_work_files=True)
        store(tmp_path, "work/t/1-o")
        store(tmp_path, "work/t/1-t")

        def refused(*_: object) -> int:
            raise errors.StorageDown("the storage answered SlowDown (503)")

        with monkeypatch.context() as patched:
            patched.setattr("media_pipeline.storage.base.MediaStorage.delete_prefix", refused)
            assert runner.run_stage(Stage.SAVE, task.pk) is False
            assert reload(task).status == "success"
            assert periodic.sweep_work_files() >= 1  # tries, and leaves them for the next sweep
            assert reload(task).has_work_files
        periodic.sweep_work_files()
        assert not reload(task).has_work_files


@pytest.mark.django_db
class TestRetention:
    def test_what_expires_or_is_deleted_leaves_the_bucket(
        self, bucket: S3Address, s3: S3Server, settings: Settings
    ) -> None:
        settings.KEEP_SOURCE_DAYS = 7
        expired, deleted, kept = storing.saved(expires_in_s=1), storing.saved(), storing.saved()
        assert len(s3.objects(bucket)) == 9  # a video, a thumbnail and an original each
        storing.days_pass(expired, 1)
        assert retention.sweep() == 1
        assert not delete(deleted.pk).files_left
        assert all(f"/{kept.user_id}/videos/{kept.video_id}" in key for key in s3.objects(bucket))
        storing.days_pass(kept, 7.1)
        assert retention.sweep() == 1
        assert len(s3.objects(bucket)) == 2

    @pytest.mark.usefixtures("quick")
    def test_a_bucket_that_is_away_is_asked_again_by_the_sweeper(self, bucket: S3Address, s3: S3Server) -> None:
        task = storing.saved()
        s3.refuse = (503, "SlowDown")
        assert delete(task.pk).files_left
        assert retention.sweep() == 0
        s3.refuse = None
        assert retention.sweep() == 1
        assert s3.objects(bucket) == []

    def test_a_lost_video_is_found(self, bucket: S3Address, s3: S3Server) -> None:
        task, _ = storing.saved(), storing.saved()
        toolkit().storage.delete(task.output_key)
        lost = list(storage_sweep.find_lost(toolkit().storage, storage_sweep.Seen(files=3)))
        assert [(one.task_id, one.what) for one in lost] == [(task.pk, "video")]


@pytest.mark.django_db
def test_a_periodic_job_that_fails_keeps_no_other_from_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def fails() -> int:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(periodic, "PERIODIC", (("a", 60, fails), ("b", 60, lambda: done.append("b") or 0)))
    periodic.run_periodic()
    assert done == ["b"]


def test_local_storage_never_loads_awss_library() -> None:
    """It would cost each process 50 MB and each command most of a second."""
    program = (
        "import tests.environment, django; django.setup();"
        "import config.urls, video.processes.tasks, video.processes.sweeper;"
        "from video.infra.toolkit import toolkit; toolkit().storage.exists('a');"
        "import sys; print([name for name in sys.modules if name.startswith(('boto', 'storages', 's3transfer'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.django_db
def test_an_upload_is_kept_and_used_in_the_bucket(user: AbstractBaseUser, bucket: S3Address) -> None:
    upload = uploads.keep(user.pk, turned())
    task = make_task(user, image_url=upload.address)
    admitted(task)
    claim = claim_one(task.pk, Stage.GENERATE)
    assert claim is not None
    first, again = (start_images.start_image(claim, "gen4_turbo") for _ in range(2))
    assert first is not None
    assert first == again
    assert opened(first.data).size == (360, 640)
    assert uploads.erase_of(user.pk) == 1
    assert list(toolkit().storage.list("")) == [f"work/{task.pk}/start-image"]
    media_stages.drop_work_files(task.pk)
    assert not list(toolkit().storage.list(""))
