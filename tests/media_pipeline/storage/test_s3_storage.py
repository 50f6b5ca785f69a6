"""What is special about a bucket: sums, parts, sets, and what its errors mean. The contract is in test_storage.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from media_pipeline.errors import DiskFull, StorageDown, StorageRefused
from media_pipeline.storage import s3 as s3_storage
from media_pipeline.storage import s3_bucket, s3_client
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.object_keys import sha256_of
from media_pipeline.storage.s3 import S3Storage
from media_pipeline.storage.s3_address import S3Address, S3Keys
from tests.s3 import KEYS, S3Server

KEY = "7/videos/vid_1.mp4"


@pytest.fixture
def refusing(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that a test may make refuse; without the library's own pauses between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    yield s3
    s3.refuse = None


def test_an_object_says_what_it_is(s3: S3Server, bucket: S3Address, media: MediaStorage, path: Path) -> None:
    media.put_file(path, KEY)
    media.put_file(path, "7/videos/vid_1_thumb.jpg")
    media.copy(KEY, "7/videos/vid_2.mp4")
    assert sorted(s3.objects(bucket)) == [
        "reels/7/videos/vid_1.mp4",
        "reels/7/videos/vid_1_thumb.jpg",
        "reels/7/videos/vid_2.mp4",
    ]
    for name, kind in (("vid_1.mp4", "video/mp4"), ("vid_1_thumb.jpg", "image/jpeg"), ("vid_2.mp4", "video/mp4")):
        found = s3.client.head_object(Bucket=bucket.bucket, Key=f"reels/7/videos/{name}")
        assert (found["ContentType"], found["Metadata"]) == (kind, {"sha256": sha256_of(path)})


def test_a_copy_is_made_by_the_server(s3: S3Server, media: MediaStorage, path: Path) -> None:
    media.put_file(path, "work/t/1-video.mp4")
    s3.calls.clear()
    media.copy("work/t/1-video.mp4", KEY)
    assert not [call for call in s3.calls if call.startswith("GET")]
    assert not media.scratch_root.exists()


def test_a_copy_overwrites_nothing(media: MediaStorage, path: Path) -> None:
    media.put_file(path, "work/t/1-video.mp4")
    path.write_bytes(b"another one")
    media.put_file(path, KEY)
    with pytest.raises(FileExistsError):
        media.copy("work/t/1-video.mp4", KEY)
    with media.open(KEY) as file:
        assert file.read() == b"another one"


def test_large_files_go_in_parts(
    s3: S3Server, bucket: S3Address, media: MediaStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "PART_BYTES", 5 * 1024**2)  # the least that S3 takes
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (11 * 4096))  # 11 MiB: three parts
    assert media.shortcomings() == []  # tried before the calls are counted
    s3.calls.clear()
    media.put_file(path, KEY)
    assert len([call for call in s3.calls if call.startswith("PUT")]) == 3
    media.put_file(path, KEY)  # again: known by its sum
    monkeypatch.setattr(s3_storage, "MOST_COPIED_BYTES", 5 * 1024**2)
    media.copy(KEY, "7/videos/vid_2.mp4")
    for key in (KEY, "7/videos/vid_2.mp4"):
        with media.fetch_to(key, tmp_path) as fetched:
            assert sha256_of(fetched) == sha256_of(path)
        about = s3.client.head_object(Bucket=bucket.bucket, Key=f"reels/{key}")
        assert (about["ContentType"], about["Metadata"]) == ("video/mp4", {"sha256": sha256_of(path)})
    path.write_bytes(b"x" * 6 * 1024**2)
    with pytest.raises(FileExistsError):
        media.put_file(path, KEY)
    assert not s3.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads")


def test_an_upload_that_breaks_leaves_no_parts(
    s3: S3Server, bucket: S3Address, media: MediaStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "PART_BYTES", 5 * 1024**2)
    path = tmp_path / "large"
    path.write_bytes(b"x" * 6 * 1024**2)

    class Cut:
        @staticmethod
        def from_filename(*_: object) -> None:
            raise StorageDown("the network is gone")

    monkeypatch.setattr(s3_storage, "ReadFileChunk", Cut)
    with pytest.raises(StorageDown):
        media.put_file(path, KEY)
    assert not media.exists(KEY)
    assert not s3.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads")


def test_a_file_that_changed_in_the_bucket_is_not_used(
    s3: S3Server, bucket: S3Address, media: MediaStorage, path: Path, tmp_path: Path
) -> None:
    media.put_file(path, KEY)
    s3.client.put_object(
        Bucket=bucket.bucket, Key=f"reels/{KEY}", Body=b"video bytez", Metadata={"sha256": sha256_of(path)}
    )
    with pytest.raises(StorageDown, match="damaged"), media.fetch_to(KEY, tmp_path / "into"):
        pass
    assert list((tmp_path / "into").iterdir()) == []


def test_a_full_disk_while_fetching_is_told_as_such(
    media: MediaStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.put_file(path, KEY)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFull), media.fetch_to(KEY, media.scratch_root):
        pass


def test_a_folder_is_deleted_in_sets(
    s3: S3Server, bucket: S3Address, media: MediaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "PAGE_KEYS", 4)
    names = [f"work/task_1/{number}-x" for number in range(9)]
    for name in (*names, "work/task_10/1-x"):
        s3.client.put_object(Bucket=bucket.bucket, Key=f"reels/{name}", Body=b"")
    s3.calls.clear()
    assert media.delete_prefix("work/task_1/") == 9
    assert len(s3.calls) == 3 + 3  # pages and sets of four
    assert list(media.list("")) == ["work/task_10/1-x"]


CALLS = ("put", "copy", "fetch", "open", "exists", "size", "delete", "delete_prefix", "list")


def use(media: MediaStorage, call: str, path: Path) -> None:
    """One call of each kind."""
    match call:
        case "put":
            media.put_file(path, KEY)
        case "copy":
            media.copy("work/t/1-a", KEY)
        case "fetch":
            with media.fetch_to(KEY, media.scratch_root):
                pass
        case "open":
            media.open(KEY).close()
        case "exists":
            media.exists(KEY)
        case "size":
            media.size_bytes(KEY)
        case "delete":
            media.delete(KEY)
        case "delete_prefix":
            media.delete_prefix("work/t")
        case "list":
            list(media.list("work"))


@pytest.mark.parametrize("call", CALLS)
def test_a_storage_that_fails_is_down_and_nothing_is_gone(
    refusing: S3Server, media: MediaStorage, path: Path, call: str
) -> None:
    refusing.refuse = (503, "SlowDown")
    refusing.calls.clear()
    with pytest.raises(StorageDown):
        use(media, call, path)
    assert len(refusing.calls) == s3_bucket.MOST_ATTEMPTS
    assert path.exists()


@pytest.mark.parametrize("call", CALLS)
def test_a_storage_that_refuses_us_is_told_apart(
    refusing: S3Server, media: MediaStorage, path: Path, call: str
) -> None:
    refusing.refuse = (403, "AccessDenied")
    refusing.calls.clear()
    with pytest.raises(StorageRefused, match="403"):
        use(media, call, path)
    assert len(refusing.calls) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_storage_that_nobody_answers_for_is_down(
    bucket: S3Address, tmp_path: Path, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    nowhere = replace(bucket, endpoint="http://127.0.0.1:9")
    with pytest.raises(StorageDown) as caught:
        use(MediaStorage(S3Storage(nowhere, KEYS), scratch_root=tmp_path), call, path)
    assert "127.0.0.1" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_no_missing_file(media: MediaStorage, s3: S3Server, path: Path) -> None:
    address = replace(s3.bucket(), bucket="no-such-bucket-here")
    with pytest.raises(StorageRefused, match="NoSuchBucket"):
        MediaStorage(S3Storage(address, KEYS), scratch_root=media.scratch_root).put_file(path, KEY)


def test_without_any_keys_the_storage_refuses(
    bucket: S3Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3_client.session.cache_clear()
    with pytest.raises(StorageRefused):
        MediaStorage(S3Storage(bucket), scratch_root=tmp_path).exists(KEY)
    with pytest.raises(StorageRefused):
        s3_client.found_keys()


def test_keys_that_are_found_are_used_for_links_too(monkeypatch: pytest.MonkeyPatch) -> None:
    s3_client.session.cache_clear()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "found-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "found-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "found-token")
    assert s3_client.found_keys() == S3Keys("found-id", "found-secret", "found-token")
    s3_client.session.cache_clear()


def test_secrets_are_in_no_line_and_no_repr(
    media: MediaStorage, refusing: S3Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    media.put_file(path, KEY)
    refusing.refuse = (403, "AccessDenied")
    with pytest.raises(StorageRefused) as caught:
        media.exists(KEY)
    said = f"{caplog.text} {caught.value!r} {caught.value} {KEYS!r}"
    assert KEYS.secret_access_key not in said
    assert caught.value.__cause__ is None
