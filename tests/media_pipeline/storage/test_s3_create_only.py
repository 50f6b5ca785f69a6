"""Servers that keep to "only if nothing is there", and servers that don't: no key is overwritten with either."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from media_pipeline.errors import MediaError, StorageDown, StorageRefused
from media_pipeline.storage import s3 as s3_storage
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.s3 import PROBES, S3Storage
from media_pipeline.storage.s3_address import S3Address
from tests.rclone import RcloneServer
from tests.s3 import KEYS, S3Server, Wsgi

KEY = "7/videos/vid_1.mp4"
MIB = 1024**2


@pytest.fixture
def odd(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that a test may change; without the library's own pauses between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    monkeypatch.setattr(s3_storage, "PART_BYTES", 5 * MIB)
    yield s3
    s3.between = s3.refuse = None


def storage(bucket: S3Address, tmp_path: Path) -> MediaStorage:
    return MediaStorage(S3Storage(bucket, KEYS), scratch_root=tmp_path / "scratch")


def is_conditional(environ: dict[str, Any]) -> bool:
    return environ.get("HTTP_IF_NONE_MATCH") == "*"


def refuses(status: str, code: str) -> Callable[[dict[str, Any], Any, Wsgi], Iterable[bytes]]:
    """A server that knows no condition, and says so."""

    def between(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        if not is_conditional(environ):
            return moto(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return between


def overwrites(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
    """A server that knows no condition, and doesn't say so."""
    environ.pop("HTTP_IF_NONE_MATCH", None)
    return moto(environ, start_response)


def lies(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
    """A server that says 412 where a key is taken, and overwrites."""
    if not is_conditional(environ):
        return moto(environ, start_response)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    told: list[Any] = []

    def note(status: str, headers: Any, *_: Any) -> None:
        told[:] = [status, headers]

    answer = list(moto({**environ, "wsgi.input": io.BytesIO(body)}, note))
    if told[0].startswith("412"):
        plain = {name: value for name, value in environ.items() if name != "HTTP_IF_NONE_MATCH"}
        list(moto({**plain, "wsgi.input": io.BytesIO(body)}, lambda *_: None))
    start_response(*told)
    return answer


WITHOUT = {
    "501": refuses("501 Not Implemented", "NotImplemented"),
    "400": refuses("400 Bad Request", "NotImplemented"),
    "400 of another kind": refuses("400 Bad Request", "InvalidArgument"),
    "405": refuses("405 Method Not Allowed", "MethodNotAllowed"),
    "412 always": refuses("412 Precondition Failed", "PreconditionFailed"),
    "200": overwrites,
    "412 and overwrites": lies,
}


def large(tmp_path: Path, letter: bytes) -> Path:
    path = tmp_path / f"large-{letter.decode()}"
    path.write_bytes(letter * 6 * MIB)
    return path


@pytest.mark.parametrize("server", WITHOUT)
def test_a_server_without_the_condition_loses_no_file(
    odd: S3Server,
    bucket: S3Address,
    media: MediaStorage,
    tmp_path: Path,
    server: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd.between = WITHOUT[server]
    path = tmp_path / "source"
    for _ in range(2):
        path.write_bytes(b"one")
        media.put_file(path, KEY)
        media.put_file(path, "work/t/1-a")
        path.write_bytes(b"two")
        with pytest.raises(FileExistsError):
            media.put_file(path, KEY)
    media.put_file(large(tmp_path, b"x"), "work/t/2-a")
    media.put_file(large(tmp_path, b"x"), "work/t/2-a")
    with pytest.raises(FileExistsError):
        media.put_file(large(tmp_path, b"y"), "work/t/2-a")
    with media.open(KEY) as file:
        assert file.read() == b"one"
    with media.open("work/t/2-a") as file:
        assert file.read() == b"x" * 6 * MIB
    told = [record for record in caplog.records if "If-None-Match" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING] * 2  # once for each kind of upload
    assert str(bucket) in told[0].getMessage()
    assert len(media.shortcomings()) == 2
    assert sorted(odd.objects(bucket)) == [f"reels/{KEY}", "reels/work/t/1-a", "reels/work/t/2-a"]
    assert not odd.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads")


def test_a_server_with_it_is_quiet_and_left_as_it_was(
    odd: S3Server, bucket: S3Address, media: MediaStorage, caplog: pytest.LogCaptureFixture
) -> None:
    assert media.shortcomings() == []
    assert odd.objects(bucket) == []
    assert not odd.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads")
    assert "If-None-Match" not in caplog.text
    odd.calls.clear()
    assert media.shortcomings() == []
    assert odd.calls == []


def test_the_second_server_overwrites_and_is_found_out(rclone: RcloneServer, tmp_path: Path) -> None:
    """What moto would never show. rclone keeps no condition in an upload, and joins parts over an object, too."""
    bucket = rclone.bucket()
    where = {"Bucket": bucket.bucket, "Key": "a"}
    for content in (b"one", b"two"):
        assert rclone.client.put_object(**where, Body=content, IfNoneMatch="*")["ETag"]
    assert rclone.client.get_object(**where)["Body"].read() == b"two"
    media = storage(bucket, tmp_path)
    assert len(media.shortcomings()) == 2
    assert rclone.objects(bucket) == ["a"]


def test_all_threads_of_a_process_wait_for_one_try(
    odd: S3Server, bucket: S3Address, media: MediaStorage, tmp_path: Path
) -> None:
    odd.between = overwrites
    odd.calls.clear()
    failed: list[BaseException] = []
    gate = threading.Barrier(8)

    def put(number: int) -> None:
        path = tmp_path / f"source-{number}"
        path.write_bytes(b"%d" % number)
        gate.wait(10)
        try:
            media.put_file(path, f"work/t/{number}-a")
        except BaseException as err:
            failed.append(err)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    probes = [call.split()[0] for call in odd.calls if f"/{PROBES}/" in call]
    assert probes == ["PUT", "PUT", "DELETE"]
    assert len(odd.objects(bucket)) == 8


def test_a_try_that_broke_off_is_made_again(odd: S3Server, media: MediaStorage, tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"one")
    for answer, kind in (((503, "SlowDown"), StorageDown), ((403, "AccessDenied"), StorageRefused)):
        odd.refuse = answer
        with pytest.raises(kind):
            media.put_file(path, KEY)
    odd.refuse = None
    media.put_file(path, KEY)
    assert media.shortcomings() == []


@pytest.mark.parametrize("which", [0, 1])
def test_an_answer_that_was_lost_does_not_mislead(
    odd: S3Server, bucket: S3Address, media: MediaStorage, tmp_path: Path, which: int
) -> None:
    """The library repeats an upload whose answer was lost, and meets what that has written."""
    left = [which]

    def loses_one(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            left[0] -= 1
            if left[0] == -1:
                list(moto(environ, lambda *_: None))
                start_response("500 Lost", [("Content-Length", "0")])
                return [b""]
        return moto(environ, start_response)

    odd.between = loses_one
    path = tmp_path / "source"
    path.write_bytes(b"one")
    media.put_file(path, KEY)
    assert media.shortcomings() == []
    assert odd.objects(bucket) == [f"reels/{KEY}"]


def test_what_a_killed_process_left_is_swept(
    odd: S3Server, bucket: S3Address, media: MediaStorage, tmp_path: Path
) -> None:
    for key in (f"{PROBES}/left", "work/t/1-a"):
        odd.client.put_object(Bucket=bucket.bucket, Key=f"reels/{key}", Body=b"")
    modified = odd.client.head_object(Bucket=bucket.bucket, Key=f"reels/{PROBES}/left")["LastModified"].timestamp()
    assert media.sweep_scratch(older_than_s=60, now=modified + 59) == 0
    assert media.sweep_scratch(older_than_s=60, now=modified + 61) == 1
    assert odd.objects(bucket) == ["reels/work/t/1-a"]


def test_a_probe_that_can_not_be_removed_costs_no_upload(
    odd: S3Server, media: MediaStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def keeps_all(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "DELETE":
            return moto(environ, start_response)
        start_response("403 No", [("Content-Length", "0")])
        return [b""]

    odd.between = keeps_all
    path = tmp_path / "source"
    path.write_bytes(b"one")
    media.put_file(path, KEY)
    assert "next sweep" in caplog.text
    with pytest.raises(MediaError):
        media.delete(KEY)
