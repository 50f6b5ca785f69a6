"""GET /storage/…: signed links, ranges, caches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client
from pytest_django import Settings

from video.infra import toolkit
from video.web import media

KEY, THUMB = "7/videos/vid_1.mp4", "7/videos/vid_1_thumb.jpg"
CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
ETAG = '"vid_1.mp4"'


@pytest.fixture(autouse=True)
def _stored(tmp_path: Path, settings: Settings) -> Iterator[None]:
    """One video and its thumbnail in a storage of their own."""
    settings.STORAGE_LOCAL_PATH = tmp_path
    toolkit.toolkit.cache_clear()
    for key, content in ((KEY, CONTENT), (THUMB, b"\xff\xd8picture")):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    yield
    toolkit.toolkit.cache_clear()


# No test here has the `db` fixture: a file is served without asking the database.
@pytest.fixture
def web() -> Client:
    return Client(raise_request_exception=False)


def body(reply: Any) -> bytes:
    return b"".join(reply.streaming_content) if reply.streaming else bytes(reply.content)


def link(key: str = KEY) -> str:
    return media.signed_path(key)


def test_whole_file(web: Client) -> None:
    reply = web.get(link())
    assert reply.status_code == 200
    assert body(reply) == CONTENT
    assert reply["Content-Length"] == str(len(CONTENT))
    assert reply["Content-Type"] == "video/mp4"
    assert reply["Accept-Ranges"] == "bytes"
    assert reply["ETag"] == ETAG
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert reply["Content-Disposition"] == 'inline; filename="vid_1.mp4"'
    assert reply["Cache-Control"].startswith("private, max-age=")


def test_thumbnail_is_a_jpeg(web: Client) -> None:
    reply = web.get(link(THUMB))
    assert (reply["Content-Type"], body(reply)) == ("image/jpeg", b"\xff\xd8picture")


def test_download_is_an_attachment(web: Client) -> None:
    assert web.get(link() + "&download=1")["Content-Disposition"] == 'attachment; filename="vid_1.mp4"'


def test_head_has_the_headers_and_no_body(web: Client) -> None:
    reply = web.head(link(), HTTP_RANGE="bytes=0-99")
    assert (reply.status_code, reply["Content-Length"], body(reply)) == (200, str(len(CONTENT)), b"")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=1000-1000", 1000, 1000),
        ("bytes=300000-700000", 300_000, 700_000),
        ("bytes=1048570-", 1_048_570, 1_048_575),
        ("bytes=-100", 1_048_476, 1_048_575),
        ("bytes=-9999999", 0, 1_048_575),
        ("bytes=1048000-9999999", 1_048_000, 1_048_575),
    ],
)
def test_range_is_206_with_exactly_those_bytes(web: Client, asked: str, start: int, end: int) -> None:
    reply = web.get(link(), HTTP_RANGE=asked)
    assert reply.status_code == 206
    assert body(reply) == CONTENT[start : end + 1]
    assert reply["Content-Length"] == str(end + 1 - start)
    assert reply["Content-Range"] == f"bytes {start}-{end}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=1048576-", "bytes=-0", "bytes=9999999-99999999"])
def test_range_beyond_the_end_is_416(web: Client, asked: str) -> None:
    reply = web.get(link(), HTTP_RANGE=asked)
    assert (reply.status_code, reply["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=b-a", "bytes=9-1", ""])
def test_ranges_that_nobody_needs_get_the_whole_file(web: Client, asked: str) -> None:
    assert web.get(link(), HTTP_RANGE=asked).status_code == 200


@pytest.mark.parametrize(("if_range", "status"), [(ETAG, 206), ('"vid_2.mp4"', 200), (f"W/{ETAG}", 200)])
def test_if_range(web: Client, if_range: str, status: int) -> None:
    assert web.get(link(), HTTP_RANGE="bytes=0-9", HTTP_IF_RANGE=if_range).status_code == status


@pytest.mark.parametrize(
    ("known", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), ("*", 304), (f'"x", {ETAG}', 304), ('"x"', 200), ("junk", 200)],
)
def test_if_none_match(web: Client, known: str, status: int) -> None:
    reply = web.get(link(), HTTP_IF_NONE_MATCH=known)
    assert reply.status_code == status
    assert reply["ETag"] == ETAG


SPOILT = (
    "no signature at all",
    "no expiry",
    "no signature",
    "another signature",
    "a later expiry",
    "another spelling",
    "another key",
    "another user",
    "a way round",
    "an absolute path",
    "no ASCII",
)


def spoilt() -> Iterator[tuple[str, str]]:
    path, _, query = link().partition("?")
    given = {name: values[0] for name, values in parse_qs(query).items()}
    yield "no signature at all", path
    yield "no expiry", f"{path}?signature={given['signature']}"
    yield "no signature", f"{path}?expires={given['expires']}"
    yield "another signature", f"{path}?{urlencode({**given, 'signature': '0' * 64})}"
    yield "a later expiry", f"{path}?{urlencode({**given, 'expires': int(given['expires']) + 1})}"
    yield "another spelling", f"{path}?{urlencode({**given, 'expires': '+' + given['expires']})}"
    yield "another key", f"/storage/{THUMB}?{query}"
    yield "another user", f"/storage/8/videos/vid_1.mp4?{query}"
    yield "a way round", f"/storage/x/../{KEY}?{query}"
    yield "an absolute path", f"/storage//etc/passwd?{query}"
    yield "no ASCII", f"{path}?{urlencode({**given, 'signature': 'é'})}"


@pytest.mark.parametrize("why", SPOILT)
def test_anything_but_a_genuine_link_is_403(web: Client, why: str) -> None:
    addresses = dict(spoilt())
    assert set(addresses) == set(SPOILT)
    reply = web.get(addresses[why])
    assert (reply.status_code, body(reply)[:9]) == (403, b"This link")
    assert reply["Cache-Control"] == "no-store"


def test_an_expired_link_is_403(web: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    old = link()
    expires = int(parse_qs(urlsplit(old).query)["expires"][0])
    monkeypatch.setattr("video.web.media.time.time", lambda: expires - 0.5)
    assert web.get(old).status_code == 200
    monkeypatch.setattr("video.web.media.time.time", lambda: float(expires))
    assert web.get(old).status_code == 403


def test_a_link_signed_with_another_secret_is_403(web: Client, settings: Settings) -> None:
    old = link()
    settings.SECRET_KEY = "another secret " * 4
    assert web.get(old).status_code == 403


def test_a_link_from_before_the_secret_was_rotated_works_until_it_ends(web: Client, settings: Settings) -> None:
    old = link()
    settings.SECRET_KEY_FALLBACKS = ["an older secret " * 4, settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret " * 4
    assert web.get(old).status_code == 200
    assert web.get(link()).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert web.get(old).status_code == 403


def test_nothing_is_opened_before_the_signature_holds(web: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media_pipeline.storage.base.MediaStorage.open", lambda *_: pytest.fail("the disk was touched"))
    assert web.get(f"/storage/{KEY}").status_code == 403


@pytest.mark.parametrize("key", ["7/videos/vid_gone.mp4", "7/videos", "../secret_key", "7/videos/vid_1.mp4/x"])
def test_a_good_link_to_no_file_is_404(web: Client, key: str) -> None:
    assert web.get(link(key)).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_files_are_read_only(web: Client, method: str) -> None:
    reply = web.generic(method, link())
    assert (reply.status_code, reply["Allow"]) == (405, "GET, HEAD")


def test_signatures_are_in_no_log_line(web: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good = link()
    signature = parse_qs(urlsplit(good).query)["signature"][0]
    web.get(good)
    web.get(good.replace("vid_1", "vid_2"))
    web.get(link("7/videos/vid_gone.mp4"))
    web.post(good)
    assert "/storage/" in caplog.text  # the refusals are there
    assert signature not in caplog.text
    assert "signature" not in caplog.text


@pytest.mark.django_db  # closing an answer ends its request, which looks after the connections
def test_the_file_is_closed_when_the_client_goes_early(web: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = toolkit.toolkit().storage.open
    monkeypatch.setattr(toolkit.toolkit().storage, "open", lambda key: opened.append(real(key)) or opened[-1])
    reply = web.get(link())
    next(iter(reply.streaming_content))
    reply.close()
    assert opened[0].closed


def test_a_small_part_is_right_and_closes_its_file(web: Client) -> None:
    reply = web.get(link(), HTTP_RANGE="bytes=100-199")
    assert body(reply) == CONTENT[100:200]
    assert reply["Content-Length"] == "100"
