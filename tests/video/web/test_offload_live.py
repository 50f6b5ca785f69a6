"""The bytes of stored files are sent by real servers in front, set up as docs/serving.md and deploy/Caddyfile say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from tests.certificates import Certificates
from tests.front_servers import caddy, lighttpd, need_caddy, need_lighttpd, need_nginx, nginx
from tests.web_server import WebServer, free_port, web_server
from video.web import media

KEY = "7/videos/vid_1.mp4"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
OURS = "https://app.example.com"
NO_STORE = "no-store"


@dataclass(frozen=True)
class Proxied:
    """A server in front: its address, and the application behind it."""

    name: str
    ask: Callable[..., requests.Response]
    server: WebServer


def asked(base: str, authority: str | bool, path: str, method: str = "GET", **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, f"{base}{path}", headers=named, verify=authority, timeout=20)


@pytest.fixture(scope="module", params=["nginx", "lighttpd", "caddy"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    if request.param == "nginx":
        need_nginx()
        certificates = Certificates(folder)
        base = f"https://127.0.0.1:{port}"
        own = {"STORAGE_OFFLOAD": "x-accel-redirect", "PUBLIC_BASE_URL": base, "BEHIND_TLS_PROXY": "1"}
        with (
            web_server(folder, FRONTEND_ORIGINS=OURS, TRUSTED_PROXIES="127.0.0.1", **own) as server,
            nginx(folder, port, server, certificates, files=server.storage),
        ):
            server.store(KEY, CONTENT)
            yield Proxied("nginx", partial(asked, base, str(certificates.authority)), server)
    elif request.param == "caddy":
        need_caddy()
        own = {"STORAGE_OFFLOAD": "x-accel-redirect", "TRUSTED_PROXIES": "127.0.0.1"}
        with web_server(folder, FRONTEND_ORIGINS=OURS, **own) as server, caddy(folder, port, server):
            server.store(KEY, CONTENT)
            yield Proxied("caddy", partial(asked, f"http://127.0.0.1:{port}", True), server)
    else:
        need_lighttpd()
        with (
            web_server(folder, FRONTEND_ORIGINS=OURS, STORAGE_OFFLOAD="x-sendfile") as server,
            lighttpd(folder, port, server),
        ):
            server.store(KEY, CONTENT)
            yield Proxied("lighttpd", partial(asked, f"http://127.0.0.1:{port}", True), server)


@pytest.fixture
def link(proxied: Proxied) -> str:
    return media.signed_path(KEY)


def said(reply: requests.Response) -> dict[str, str]:
    """The headers, without those that a server has for itself."""
    own = {
        "accept-ranges",
        "server",
        "date",
        "connection",
        "keep-alive",
        "etag",
        "last-modified",
        "content-length",
        "content-range",
    }
    return {name.lower(): value for name, value in reply.headers.items() if name.lower() not in own}


def test_whole_file(proxied: Proxied, link: str) -> None:
    reply = proxied.ask(link)
    assert (reply.status_code, reply.content) == (200, CONTENT)
    assert (reply.headers["Content-Type"], reply.headers["Accept-Ranges"]) == ("video/mp4", "bytes")
    assert reply.headers["Cache-Control"].startswith("private, max-age=")
    assert not {"x-accel-redirect", "x-sendfile"} & set(said(reply))


def test_the_application_itself_sent_nothing(proxied: Proxied, link: str) -> None:
    reply = requests.get(f"{proxied.server.url}{link}", timeout=20)
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize("origin", [OURS, "https://other.example"])
@pytest.mark.parametrize("added", ["", "&download=1"])
def test_all_headers_of_the_application_are_passed_on(proxied: Proxied, link: str, added: str, origin: str) -> None:
    direct = requests.get(
        f"{proxied.server.url}{link}{added}", headers={"Origin": origin, "X-Forwarded-Proto": "https"}, timeout=20
    )
    told, wanted = said(proxied.ask(link + added, Origin=origin)), said(direct)
    wanted = {name: value for name, value in wanted.items() if name not in {"x-accel-redirect", "x-sendfile"}}
    for each in (told, wanted):  # a second may have passed, and each request has its own id
        each["x-request-id"] = each["x-request-id"][:4]
        each["cache-control"] = each["cache-control"].partition("=")[0]
    assert told == wanted
    assert (told.get("access-control-allow-origin") == OURS) == (origin == OURS)
    assert ("attachment" in told["content-disposition"]) == bool(added)


def test_head(proxied: Proxied, link: str) -> None:
    reply = proxied.ask(link, "HEAD")
    assert (reply.status_code, reply.headers["Content-Length"], reply.content) == (200, str(len(CONTENT)), b"")


@pytest.mark.parametrize(
    ("range_", "start", "end"), [("bytes=5-9", 5, 9), ("bytes=-3", 1_048_573, 1_048_575), ("bytes=1000000-", 10**6, -1)]
)
def test_range(proxied: Proxied, link: str, range_: str, start: int, end: int) -> None:
    reply = proxied.ask(link, Range=range_, Origin=OURS)
    end = end if end >= 0 else len(CONTENT) - 1
    assert (reply.status_code, reply.content) == (206, CONTENT[start : end + 1])
    assert reply.headers["Content-Range"] == f"bytes {start}-{end}/{len(CONTENT)}"
    assert {"content-range", "accept-ranges"} <= set(reply.headers["Access-Control-Expose-Headers"].split(", "))


def test_if_range_and_if_none_match_of_what_was_answered(proxied: Proxied, link: str) -> None:
    etag = proxied.ask(link).headers["ETag"]
    assert proxied.ask(link, Range="bytes=5-9", If_Range=etag).content == CONTENT[5:10]
    assert proxied.ask(link, Range="bytes=5-9", If_Range='"other"').content == CONTENT
    kept = proxied.ask(link, If_None_Match=etag)
    assert (kept.status_code, kept.content) == (304, b"")
    assert kept.headers["Cache-Control"].startswith("private, max-age=")


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        (f"/storage/{KEY}", {}, 403),
        (f"/storage/{KEY}?expires=1&signature=x", {}, 403),
        (lambda: media.signed_path("7/videos/vid_gone.mp4"), {}, 404),
        (lambda: media.signed_path("7/videos"), {}, 404),
        (lambda: media.signed_path(KEY), {"Range": "bytes=9999999-"}, 416),
        (lambda: media.signed_path(KEY), {"Range": f"bytes={'9' * 5000}-", "If_Range": '"other"'}, 416),
        (lambda: media.signed_path(KEY), {"method": "DELETE"}, 405),
        (f"/reelworks-files/{KEY}", {}, 404),
        (f"/%72eelworks-files/{KEY}", {}, 404),
    ],
)
def test_no_cache_keeps_a_refusal(
    proxied: Proxied, path: str | Callable[[], str], more: dict[str, Any], status: int
) -> None:
    reply = proxied.ask(path if isinstance(path, str) else path(), **more)
    assert (reply.status_code, reply.headers["Cache-Control"]) == (status, NO_STORE)
    assert CONTENT[:100] not in reply.content


def test_a_name_that_needs_encoding_is_found(proxied: Proxied) -> None:
    """The charset of keys is small; what an operator calls the folder is not, and see test_offload."""
    proxied.server.store("7/videos/a.b-c_1.webp", b"picture")
    reply = proxied.ask(media.signed_path("7/videos/a.b-c_1.webp"))
    assert (reply.content, reply.headers["Content-Type"]) == (b"picture", "image/webp")


def test_what_only_nginx_cannot_read_is_kept_by_no_cache(tmp_path: Path) -> None:
    """Its folder is another one: a mistake of the set-up, whose 404 must not stay for an hour."""
    need_nginx()
    certificates, port = Certificates(tmp_path), free_port()
    (tmp_path / "elsewhere").mkdir()
    with (
        web_server(tmp_path, STORAGE_OFFLOAD="x-accel-redirect") as server,
        nginx(tmp_path, port, server, certificates, files=tmp_path / "elsewhere"),
    ):
        server.store(KEY, CONTENT)
        reply = asked(f"https://127.0.0.1:{port}", str(certificates.authority), media.signed_path(KEY))
        found = reply.raw.headers.getlist("Cache-Control")
        assert (reply.status_code, found[-1]) == (404, NO_STORE)


def test_files_that_refer_to_others_are_written_by_the_application(proxied: Proxied) -> None:
    """A player follows the links of a stream, and only its media come from the server in front."""
    for name, content in {
        "hls.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhls_54.m3u8\n",
        "hls_54.m3u8": b'#EXTM3U\n#EXT-X-MAP:URI="hls_54.mp4",BYTERANGE="9@0"\n',
        "hls_54.mp4": CONTENT,
    }.items():
        proxied.server.store(f"7/videos/vid_1_{name}", content)
    link = media.signed_path("7/videos/vid_1_hls.m3u8")
    top = proxied.ask(link, Origin=OURS)
    assert (top.status_code, top.headers["Content-Type"]) == (200, "application/vnd.apple.mpegurl")
    assert top.headers["Access-Control-Allow-Origin"] == OURS
    inner = urljoin(link, top.text.splitlines()[-1])
    size = proxied.ask(inner, Origin=OURS)
    part = urljoin(inner, size.text.split('"')[1])
    found = proxied.ask(part, Origin=OURS, Range="bytes=3-8")
    assert (found.status_code, found.content, found.headers["Content-Type"]) == (206, CONTENT[3:9], "video/mp4")
    head = proxied.ask(link, "HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(top.content)))
    assert proxied.ask(link, If_None_Match=top.headers["ETag"]).status_code == 304
