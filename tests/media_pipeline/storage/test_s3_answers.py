"""Answers as servers, proxies and networks give them: none costs a file, passes for a success, or leads us astray."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from media_pipeline.errors import MediaError, StorageDown, StorageRefused
from media_pipeline.storage import s3 as s3_storage
from media_pipeline.storage import s3_errors
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.s3_address import S3Address
from media_pipeline.storage.s3_bucket import MOST_ATTEMPTS
from tests.media_pipeline.storage.test_s3_storage import CALLS, KEY, use
from tests.s3 import S3Server, Wsgi

HTML = b"<!DOCTYPE html><html><head><title>Maintenance</title><body><p>Back soon<br>"
XHTML = b"<?xml version='1.0'?><html><body><p>Back soon</p></body></html>"
LATE = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We met an error</Message></Error>"

Between = Callable[[dict[str, Any], Any, Wsgi], Iterable[bytes]]
Changed = tuple[str, list[tuple[str, str]], bytes]


@pytest.fixture
def odd(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server whose answers a test may change; without the library's own pauses between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    yield s3
    s3.between = None


def body_of(environ: dict[str, Any]) -> bytes:
    """Of a request; read, so that the connection can go on."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return body


def says(status: str, body: bytes = b"", kind: str = "text/html", **headers: str) -> Between:
    """A stranger's answer to everything."""

    def between(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        body_of(environ)
        more = [(name.replace("_", "-"), value) for name, value in headers.items()]
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *more])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return between


def only(when: Callable[[dict[str, Any]], bool], then: Between) -> Between:
    """`then` for some calls; moto answers the others."""

    def between(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        return then(environ, start_response, moto) if when(environ) else moto(environ, start_response)

    return between


def changed(change: Callable[[str, list[tuple[str, str]], bytes], Changed]) -> Between:
    """What moto does stays; its answer comes otherwise."""

    def between(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        told: list[Any] = []
        body = b"".join(moto(environ, lambda status, headers, *_: told.extend((status, list(headers)))))
        status, headers, body = change(*told, body)
        start_response(status, headers)
        return [body]

    return between


def without_etag(status: str, headers: list[tuple[str, str]], body: bytes) -> Changed:
    kept = [(name, value) for name, value in headers if name.lower() not in {"etag", "content-length"}]
    body = body.replace(b"ETag>", b"Etak>")
    return status, [*kept, ("Content-Length", str(len(body)))], body


def cut(status: str, headers: list[tuple[str, str]], body: bytes) -> Changed:
    """The length of all, half of the bytes, and the end of the connection."""
    return status, [*headers, ("Connection", "close")], body[: len(body) // 2]


def method(name: str, query: str = "") -> Callable[[dict[str, Any]], bool]:
    return lambda environ: environ["REQUEST_METHOD"] == name and query in environ["QUERY_STRING"]


PAGES = {
    "a page": says("200 OK", HTML),
    "a page that is well-formed": says("200 OK", XHTML),
    "nothing": says("200 OK"),
    "an error that came late": says("200 OK", LATE, "application/xml"),
    "no content": says("204 No Content"),
    "a proxy that knows no such path": says("404 Not Found", HTML),
    "a login": says("302 Found", HTML, Location="http://login.example/"),
    "too many": says("429 Too Many Requests", HTML, Retry_After="1"),
    "a bad gateway": says("502 Bad Gateway", HTML),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("call", CALLS)
def test_a_strangers_answer_is_no_success_and_no_missing_file(
    odd: S3Server, media: MediaStorage, path: Path, call: str, page: str
) -> None:
    if (call, page) == ("delete", "no content"):
        pytest.skip("that is S3's own answer")
    media.put_file(path, KEY)
    media.put_file(path, "work/t/1-a")
    odd.between = PAGES[page]
    with pytest.raises(StorageDown) as caught:
        use(media, call, path)
    assert "login.example" not in str(caught.value)
    assert path.exists()
    odd.between = None
    for key in (KEY, "work/t/1-a"):
        with media.open(key) as file:
            assert file.read() == b"video bytes"
    assert not media.scratch_root.exists() or not list(media.scratch_root.iterdir())


@pytest.mark.parametrize("lacks", ["an upload", "a copy", "a part", "the last call of parts", "a look"])
def test_an_answer_without_etag_is_no_success(
    odd: S3Server, media: MediaStorage, path: Path, tmp_path: Path, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.put_file(path, "work/t/1-a")
    assert media.shortcomings() == []
    monkeypatch.setattr(s3_storage, "PART_BYTES", 5 * 1024**2)
    large = tmp_path / "large"
    large.write_bytes(b"x" * 6 * 1024**2)
    calls: dict[str, tuple[Callable[[dict[str, Any]], bool], Callable[[], object]]] = {
        "an upload": (method("PUT"), lambda: media.put_file(path, KEY)),
        "a copy": (method("PUT"), lambda: media.copy("work/t/1-a", KEY)),
        "a part": (method("PUT", "partNumber"), lambda: media.put_file(large, KEY)),
        "the last call of parts": (method("POST", "uploadId"), lambda: media.put_file(large, KEY)),
        "a look": (method("HEAD"), lambda: media.exists("work/t/1-a")),
    }
    when, work = calls[lacks]
    odd.between = only(when, changed(without_etag))
    if lacks == "the last call of parts":
        work()  # the object is there, whole: it was looked at
        odd.between = only(when, says("200 OK"))
        large.write_bytes(b"y" * 6 * 1024**2)
        with pytest.raises(StorageDown, match="ETag"):
            media.put_file(large, "work/t/2-a")
        return
    with pytest.raises(StorageDown, match="ETag"):
        work()


def test_an_etag_that_is_no_sum_is_looked_into_and_damage_goes_again(
    odd: S3Server, bucket: S3Address, media: MediaStorage, path: Path
) -> None:
    assert media.shortcomings() == []

    def other(status: str, headers: list[tuple[str, str]], body: bytes) -> Changed:
        kept = [(name, value) for name, value in headers if name.lower() != "etag"]
        return status, [*kept, ("ETag", f'"{"5" * 32}"')], body

    odd.between = only(method("PUT"), changed(other))
    odd.calls.clear()
    media.put_file(path, KEY)  # the bytes are right
    assert [call.split()[0] for call in odd.calls] == ["PUT", "GET"]

    def damaged(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(body_of(environ).replace(b"video", b"vudeo"))
        return moto(environ, start_response)

    odd.between = only(method("PUT"), damaged)
    with pytest.raises(StorageDown, match="damaged"):
        media.put_file(path, "work/t/2-a")
    odd.between = None
    assert odd.objects(bucket) == [f"reels/{KEY}"]
    media.put_file(path, "work/t/2-a")


@pytest.mark.parametrize("keeps", ["metadata", "an ETag"])
def test_an_answer_that_is_cut_or_damaged_is_no_file(
    odd: S3Server, media: MediaStorage, path: Path, tmp_path: Path, keeps: str
) -> None:
    media.put_file(path, KEY)

    def bare(change: Callable[..., Changed]) -> Between:
        def both(status: str, headers: list[tuple[str, str]], body: bytes) -> Changed:
            kept = [(name, value) for name, value in headers if keeps == "metadata" or "sha256" not in name.lower()]
            return change(status, kept, body)

        return only(method("GET"), changed(both))

    odd.between = bare(cut)
    with pytest.raises(StorageDown), media.fetch_to(KEY, tmp_path / "into"):
        pass
    with media.open(KEY) as file, pytest.raises(StorageDown):
        file.read()
    odd.between = bare(lambda status, headers, body: (status, headers, body.replace(b"video", b"vudeo")))
    with pytest.raises(StorageDown, match="damaged"), media.fetch_to(KEY, tmp_path / "into"):
        pass
    odd.between = bare(lambda *answer: answer)
    with media.fetch_to(KEY, tmp_path / "into") as fetched:
        assert fetched.read_bytes() == b"video bytes"
    assert list((tmp_path / "into").iterdir()) == []


def error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "headers", "kind", "said"),
    [
        ("503 Slow", "SlowDown", {}, StorageDown, "SlowDown"),
        ("409 Conflict", "OperationAborted", {}, StorageDown, "409"),
        ("400 Bad", "XAmzContentSHA256Mismatch", {}, StorageDown, "Mismatch"),
        ("403 No", "SignatureDoesNotMatch", {}, StorageRefused, "SignatureDoesNotMatch"),
        ("400 Bad", "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "eu-west-9"}, StorageRefused, "eu-west-9"),
        ("501 No", "NotImplemented", {}, StorageRefused, "doesn't know"),
        ("403 No", "key very secret", {}, StorageRefused, "an error"),
    ],
)
def test_errors_say_what_to_do(
    odd: S3Server,
    media: MediaStorage,
    path: Path,
    status: str,
    code: str,
    headers: dict[str, str],
    kind: type[MediaError],
    said: str,
) -> None:
    media.put_file(path, KEY)
    odd.between = says(status, error(code), "application/xml", **headers)
    with pytest.raises(kind, match=said) as caught:
        media.open(KEY)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("wrong_s", "said"), [(3600, r"is 3(599|600|601) s ahead of"), (-3600, r"s behind the")])
def test_a_wrong_clock_is_told_by_how_much(
    odd: S3Server, media: MediaStorage, monkeypatch: pytest.MonkeyPatch, wrong_s: int, said: str
) -> None:
    odd.between = says("403 No", error("RequestTimeTooSkewed"), "application/xml")
    monkeypatch.setattr(s3_errors, "time", SimpleNamespace(time=lambda: time.time() + wrong_s))
    with pytest.raises(StorageRefused, match=said):
        media.open(KEY)


class Stranger(BaseHTTPRequestHandler):
    seen: list[str] = []

    def do_GET(self) -> None:
        self.seen.append(f"{self.command} {self.path} {self.headers.get('Authorization')}")
        self.send_response(200)
        self.end_headers()

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_signed_for_a_place_that_an_answer_names(
    odd: S3Server, media: MediaStorage, path: Path, status: str, call: str
) -> None:
    media.put_file(path, KEY)
    media.put_file(path, "work/t/1-a")
    Stranger.seen.clear()
    stranger = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=stranger.serve_forever)
    thread.start()
    try:
        there = f"http://127.0.0.1:{stranger.server_port}/reels"
        more = {"Location": there, "x_amz_bucket_region": "eu-west-9"}
        odd.between = says(status, error("PermanentRedirect"), "application/xml", **more)
        odd.calls.clear()
        with pytest.raises(MediaError):
            use(media, call, path)
    finally:
        stranger.shutdown()
        thread.join()
        stranger.server_close()
    assert Stranger.seen == []
    assert len(set(odd.calls)) == 1  # it asks nobody for the right region, either


def test_a_lost_answer_to_the_last_call_of_an_upload_in_parts_costs_nothing(
    odd: S3Server, bucket: S3Address, media: MediaStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "PART_BYTES", 5 * 1024**2)
    assert media.shortcomings() == []
    path = tmp_path / "large"
    path.write_bytes(b"x" * 6 * 1024**2)
    lost = changed(lambda *_: ("500 Lost", [("Content-Length", "0")], b""))
    odd.between = only(method("POST", "uploadId"), lost)
    media.put_file(path, KEY)
    odd.between = None
    assert odd.objects(bucket) == [f"reels/{KEY}"]
    assert media.size_bytes(KEY) == 6 * 1024**2
    assert not odd.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads")


def test_a_list_that_breaks_off_is_not_the_whole_list(odd: S3Server, media: MediaStorage, path: Path) -> None:
    media.put_file(path, "work/t/1-a")

    def more_follows(status: str, headers: list[tuple[str, str]], body: bytes) -> Changed:
        body = body.replace(b"<IsTruncated>false", b"<IsTruncated>true")
        return status, [(name, value) for name, value in headers if name.lower() != "content-length"], body

    odd.between = only(method("GET", "list-type"), changed(more_follows))
    with pytest.raises(StorageDown):
        list(media.list("work"))
    with pytest.raises(StorageDown):
        media.delete_prefix("work/t")


def test_a_server_that_deletes_no_sets_is_asked_key_by_key(
    odd: S3Server, bucket: S3Address, media: MediaStorage, path: Path
) -> None:
    for number in range(3):
        media.put_file(path, f"work/t/{number}-a")
    odd.between = only(method("POST", "delete"), says("501 No", error("NotImplemented"), "application/xml"))
    assert media.delete_prefix("work/t") == 3
    assert odd.objects(bucket) == []


def test_deletions_carry_the_sum_that_older_servers_want(odd: S3Server, media: MediaStorage, path: Path) -> None:
    media.put_file(path, "work/t/1-a")
    sent: list[tuple[str, bytes]] = []

    def noted(environ: dict[str, Any], start_response: Any, moto: Wsgi) -> Iterable[bytes]:
        body = body_of(environ)
        sent.append((environ.get("HTTP_CONTENT_MD5", ""), body))
        environ["wsgi.input"] = io.BytesIO(body)
        return moto(environ, start_response)

    odd.between = only(method("POST", "delete"), noted)
    assert media.delete_prefix("work/t") == 1
    [(said, body)] = sent
    assert said == base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def test_a_storage_that_is_slow_to_come_back_is_asked_thrice_a_call(
    odd: S3Server, media: MediaStorage, path: Path
) -> None:
    media.put_file(path, KEY)
    odd.between = PAGES["a bad gateway"]
    odd.calls.clear()
    with pytest.raises(StorageDown):
        media.size_bytes(KEY)
    assert len(odd.calls) == MOST_ATTEMPTS
