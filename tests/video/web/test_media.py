"""GET /storage/…: signed links, ranges, caches."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from django.test import Client
from pytest_django import Settings

from media_pipeline.errors import StorageRefused
from media_pipeline.storage.offload import Offload
from video.infra import toolkit
from video.web import media

KEY, THUMB = "7/videos/vid_1.mp4", "7/videos/vid_1_thumb.jpg"
CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
ETAG = '"vid_1.mp4"'
MADE, LATER = "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:01 GMT"
NO_STORE = "no-store"
OURS = "https://app.example.com"


@pytest.fixture(autouse=True)
def _stored(tmp_path: Path, settings: Settings) -> Iterator[None]:
    """One video and its thumbnail in a storage of their own."""
    settings.STORAGE_LOCAL_PATH = tmp_path
    toolkit.toolkit.cache_clear()
    for key, content in ((KEY, CONTENT), (THUMB, b"\xff\xd8picture")):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (0, 1_792_567_680.5))
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
    assert (reply["ETag"], reply["Last-Modified"]) == (ETAG, MADE)
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert reply["Content-Disposition"] == 'inline; filename="vid_1.mp4"'
    assert reply["Cache-Control"].startswith("private, max-age=")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vid_1_thumb.jpg", "image/jpeg"),
        ("cover.png", "image/png"),
        ("preview.webp", "image/webp"),
        ("sprites.vtt", "text/vtt"),
        ("index.m3u8", "application/vnd.apple.mpegurl"),
        ("init.mp4", "video/mp4"),
        ("part_1.m4s", "video/mp4"),
        ("source.webm", "video/webm"),
        ("source.mov", "video/quicktime"),
        ("source.mkv", "video/matroska"),
        ("source.ts", "video/mp2t"),
        ("source.avi", "video/vnd.avi"),
        ("source.gif", "image/gif"),
    ],
)
def test_a_kind_of_file_has_its_type(web: Client, tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "7/videos" / name).write_bytes(b"<script>")
    reply = web.get(link(f"7/videos/{name}"))
    assert (reply["Content-Type"], body(reply)) == (kind, b"<script>")
    assert reply["Content-Disposition"] == f'inline; filename="{name}"'


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "program.js", "app.swf", "vid_1.MP4.exe", "none", "x."])
def test_no_other_kind_is_shown(web: Client, tmp_path: Path, name: str) -> None:
    (tmp_path / "7/videos" / name).write_bytes(b"<script>")
    reply = web.get(link(f"7/videos/{name}"))
    assert (reply["Content-Type"], reply["X-Content-Type-Options"]) == ("application/octet-stream", "nosniff")
    assert reply["Content-Disposition"] == f'attachment; filename="{name}"'
    assert reply["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("added", "disposition"), [("&download=1", "attachment"), ("&download=0", "inline"), ("&download=x", "inline")]
)
def test_download_is_an_attachment(web: Client, added: str, disposition: str) -> None:
    assert web.get(link() + added)["Content-Disposition"] == f'{disposition}; filename="vid_1.mp4"'


def test_head_has_the_headers_of_get_and_no_body(web: Client) -> None:
    with_body, without = web.get(link()), web.head(link(), HTTP_RANGE="bytes=0-99")
    assert (without.status_code, without["Content-Length"], body(without)) == (200, str(len(CONTENT)), b"")
    own = {"Cache-Control": "", "X-Request-Id": ""}  # a second may have passed, and each request has its own
    told = [{**reply.headers, **own} for reply in (with_body, without)]
    assert told[0] == told[1]


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
    assert (reply["Cache-Control"], reply["Accept-Ranges"]) == (NO_STORE, "bytes")
    assert "ETag" not in reply


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=b-a", "bytes=9-1", ""])  # and see test_ranges
def test_ranges_that_nobody_needs_get_the_whole_file(web: Client, asked: str) -> None:
    assert web.get(link(), HTTP_RANGE=asked).status_code == 200


@pytest.mark.parametrize(
    ("if_range", "status"), [(ETAG, 206), ('"vid_2.mp4"', 200), (f"W/{ETAG}", 200), (MADE, 206), (LATER, 200)]
)
def test_if_range(web: Client, if_range: str, status: int) -> None:
    assert web.get(link(), HTTP_RANGE="bytes=0-9", HTTP_IF_RANGE=if_range).status_code == status


@pytest.mark.parametrize(
    ("known", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), ("*", 304), (f'"x", {ETAG}', 304), ('"x"', 200), ("junk", 200)],
)
def test_if_none_match(web: Client, known: str, status: int) -> None:
    reply = web.get(link(), HTTP_IF_NONE_MATCH=known)
    assert reply.status_code == status
    assert (reply["ETag"], reply["Last-Modified"]) == (ETAG, MADE)
    assert reply["Cache-Control"].startswith("private, max-age=")
    assert ("Content-Type" in reply) == (status == 200)  # a cache would give the stored file the type of a 304


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"HTTP_IF_MODIFIED_SINCE": MADE}, 304),
        ({"HTTP_IF_MODIFIED_SINCE": "Wed, 21 Oct 2026 07:27:59 GMT"}, 200),
        ({"HTTP_IF_MODIFIED_SINCE": "yesterday"}, 200),
        ({"HTTP_IF_MODIFIED_SINCE": MADE, "HTTP_IF_NONE_MATCH": '"x"'}, 200),
        ({"HTTP_IF_UNMODIFIED_SINCE": MADE}, 200),
        ({"HTTP_IF_UNMODIFIED_SINCE": "Wed, 21 Oct 2026 07:27:59 GMT"}, 412),
        ({"HTTP_IF_MATCH": ETAG}, 200),
        ({"HTTP_IF_MATCH": "*"}, 200),
        ({"HTTP_IF_MATCH": '"x"', "HTTP_RANGE": "bytes=0-9"}, 412),
        ({"HTTP_IF_MATCH": '"x"', "HTTP_RANGE": "bytes=9999999-"}, 412),
        ({"HTTP_IF_NONE_MATCH": ETAG, "HTTP_RANGE": "bytes=9999999-"}, 304),
    ],
)
def test_other_conditions(web: Client, condition: dict[str, str], status: int) -> None:
    reply = web.get(link(), **condition)
    assert reply.status_code == status
    assert (reply["Cache-Control"] == NO_STORE) == (status == 412)


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


@pytest.mark.parametrize(
    "key", ["7/videos/vid_gone.mp4", "7/videos", "../secret_key", "7/videos/vid_1.mp4/x", "7//x", "7/\r\nX: y", "é"]
)
def test_a_good_link_to_no_file_is_404(web: Client, key: str) -> None:
    path, _, query = link(key).partition("?")
    reply = web.get(f"{quote(path)}?{query}")
    assert (reply.status_code, reply["Cache-Control"]) == (404, NO_STORE)


def test_a_file_that_cannot_be_read_is_503_and_logged(
    web: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = tmp_path / "7/videos/vid_3.mp4"
    loop.symlink_to(loop)
    reply = web.get(link("7/videos/vid_3.mp4"))
    assert (reply.status_code, reply["Cache-Control"], reply["Retry-After"]) == (503, NO_STORE, "5")
    assert "7/videos/vid_3.mp4 can't be sent: Too many levels of symbolic links" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_bucket_that_no_link_can_be_signed_for_is_503(
    web: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, to_save: bool) -> str:
        raise StorageRefused("the role has no keys")

    settings.OBJECT_STORAGE_FOR_CLIENTS = object()
    monkeypatch.setattr(media, "_bucket_link", refused)
    reply = web.get(media.signed_path(KEY))
    assert (reply.status_code, reply["Cache-Control"]) == (503, NO_STORE)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_files_are_read_only(web: Client, method: str) -> None:
    reply = web.generic(method, link())
    assert (reply.status_code, reply["Allow"], reply["Cache-Control"]) == (405, "GET, HEAD", NO_STORE)


READABLE = {"accept-ranges", "content-disposition", "content-length", "content-range", "etag"}


@pytest.mark.parametrize("origin", [OURS, "https://other.example", "null", "", None])
@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (200, {}),
        (206, {"HTTP_RANGE": "bytes=0-9"}),
        (304, {"HTTP_IF_NONE_MATCH": ETAG}),
        (403, {}),
        (404, {}),
        (412, {"HTTP_IF_MATCH": '"x"'}),
        (416, {"HTTP_RANGE": "bytes=9999999-"}),
    ],
)
def test_pages_of_our_front_ends_may_read_each_answer(
    web: Client, settings: Settings, status: int, asked: dict[str, str], origin: str | None
) -> None:
    settings.CORS_ALLOWED_ORIGINS = [OURS]
    address = {403: link() + "0", 404: link("7/videos/vid_gone.mp4")}.get(status, link())
    reply = web.get(address, **asked, **({} if origin is None else {"HTTP_ORIGIN": origin}))
    assert (reply.status_code, reply["Vary"].lower()) == (status, "origin")
    assert reply.get("Access-Control-Allow-Origin") == (OURS if origin == OURS else None)
    exposed = set(reply.get("Access-Control-Expose-Headers", "").split(", "))
    assert (exposed >= READABLE) == (origin == OURS)
    assert reply["Cross-Origin-Resource-Policy"] == "cross-origin"


@pytest.mark.parametrize("origin", [OURS, "https://other.example"])
def test_a_preflight_is_answered_without_looking_at_the_link(web: Client, settings: Settings, origin: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [OURS]
    wishes = {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET", "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "range,if-range"}
    reply = web.options(f"/storage/{KEY}", HTTP_ORIGIN=origin, **wishes)
    assert (reply.status_code, reply["Vary"].lower(), body(reply)) == (200, "origin", b"")
    allowed = [set(reply.get(f"Access-Control-Allow-{what}", "").split(", ")) for what in ("Headers", "Methods")]
    assert (allowed[0] >= {"range", "if-range"} and allowed[1] >= {"GET", "HEAD"}) == (origin == OURS)


def test_signatures_are_in_no_log_line(
    web: Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    good = link()
    signature = parse_qs(urlsplit(good).query)["signature"][0]
    web.get(good)
    web.get(good.replace("vid_1", "vid_2"))
    web.get(link("7/videos/vid_gone.mp4"))
    web.post(good)
    said = caplog.text + capfd.readouterr().err  # a line a request goes past `logging`
    assert "GET media 403" in said
    assert signature not in said
    assert "signature" not in said


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


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"HTTP_RANGE": "bytes=0-9"},
        {"HTTP_IF_MATCH": '"of the other server"'},
        {"HTTP_IF_NONE_MATCH": "*"},
        {"HTTP_RANGE": "bytes=0-9", "HTTP_IF_RANGE": '"of the other server"'},
    ],
)
def test_offloaded_only_the_place_of_the_file_is_said(
    web: Client, settings: Settings, method: str, asked: dict[str, str]
) -> None:
    """The server in front judges ranges and conditions by itself; test_offload_live.py has real ones."""
    settings.STORAGE_OFFLOAD = Offload("X-Accel-Redirect", "/files/")
    reply = web.generic(method, link(), **asked)
    assert (reply.status_code, reply["X-Accel-Redirect"], body(reply)) == (200, f"/files/{KEY}", b"")
    assert reply["Content-Type"] == "video/mp4"
    assert reply["Cache-Control"].startswith("private, max-age=")
    assert (reply["ETag"], reply["Last-Modified"]) == (ETAG, MADE)
    assert "Content-Range" not in reply


@pytest.mark.parametrize(
    ("address", "asked", "status"),
    [
        (lambda: f"/storage/{KEY}", {}, 403),
        (lambda: link("7/videos/vid_gone.mp4"), {}, 404),
        (lambda: link("7/videos"), {}, 404),
        (lambda: link("../secret_key"), {}, 404),
        (link, {"HTTP_RANGE": "bytes=9999999-"}, 416),
        (link, {"HTTP_RANGE": "bytes=9999999-", "HTTP_IF_RANGE": '"of the other server"'}, 416),
    ],
)
def test_offloaded_a_refusal_is_still_ours(
    web: Client, settings: Settings, address: Callable[[], str], asked: dict[str, str], status: int
) -> None:
    settings.STORAGE_OFFLOAD = Offload("X-Sendfile", "/srv/")
    reply = web.get(address(), **asked)
    assert reply.status_code == status
    assert "X-Sendfile" not in reply
