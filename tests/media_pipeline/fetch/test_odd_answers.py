"""Answers as file hosts really give them: each ends as the file, or as one of our own errors."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_pipeline.errors import (
    DownloadFailed,
    DownloadTooLarge,
    ForbiddenAddress,
    LinkExpired,
    MediaError,
    NotAVideo,
    NotMedia,
)
from media_pipeline.fetch.addresses import MAX_SENT_LENGTH, check_public_url
from media_pipeline.fetch.bodies import PIECE_BYTES
from media_pipeline.fetch.download import Fetched, download
from media_pipeline.fetch.links import as_sent, redirect_target
from tests.providers.raw_server import Server

BODY = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 2000


def reply(body: bytes = BODY, *headers: str, status: str = "200 OK", length: str | None = "") -> bytes:
    """An answer on the wire; without `length` nothing tells where it ends."""
    told = [] if length is None else [f"Content-Length: {length or len(body)}"]
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, *told, "\r\n")).encode("latin-1") + body


class Host:
    """Answers with the next of `answers`, the last of them again and again; keeps the targets that were asked for."""

    def __init__(self) -> None:
        self.answers: list[bytes] = [reply()]
        self.server = Server(lambda connection, _: connection.sendall(self._next()))
        self.url = self.server.url

    def _next(self) -> bytes:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def targets(self) -> list[bytes]:
        return [request.split(b" ")[1] for request in self.server.requests]


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.server.close()


Fetch = Callable[..., tuple[bytes, Fetched]]


@pytest.fixture
def fetch(host: Host, tmp_path: Path) -> Iterator[Fetch]:
    """`fetch(answer, …)`: the file that comes of these answers; afterwards no half file may be there."""

    def run(*answers: bytes, link: str = "/v.mp4", **options: Any) -> tuple[bytes, Fetched]:
        host.answers = list(answers) or host.answers
        set_up = {"max_bytes": 10**8, "deadline_s": 20, "idle_timeout_s": 5, "trusted_origins": frozenset({host.url})}
        fetched = download(host.url + link, tmp_path / "v.mp4", **(set_up | options))
        return (tmp_path / "v.mp4").read_bytes(), fetched

    yield run
    assert not [path.name for path in tmp_path.iterdir() if path.name != "v.mp4"]


# --- lengths -------------------------------------------------------------------------------------------------------

LENGTHS: dict[str, type[MediaError]] = {
    "-1": DownloadFailed,
    "-" + "9" * 5000: DownloadFailed,
    "+5": DownloadFailed,
    f"+{len(BODY)}": DownloadFailed,
    "0x10": DownloadFailed,
    "1e3": DownloadFailed,
    "1_000": DownloadFailed,
    "12.0": DownloadFailed,
    "many": DownloadFailed,
    "５": DownloadFailed,
    "²": DownloadFailed,
    f"{len(BODY)}, {len(BODY) + 1}": DownloadFailed,
    f"{len(BODY)}, x": DownloadFailed,
    f"{len(BODY)}\r\nContent-Length: 7": DownloadFailed,
    "9" * 19: DownloadTooLarge,
    "9" * 20: DownloadTooLarge,
    "9" * 5000: DownloadTooLarge,
    "1" + "0" * 60_000: DownloadTooLarge,
}


@pytest.mark.parametrize(("length", "error"), LENGTHS.items(), ids=[f"{one[:30]!r}" for one in LENGTHS])
def test_a_length_that_is_none_is_an_error_of_ours(fetch: Fetch, length: str, error: type[MediaError]) -> None:
    wire = reply(length=length.encode().decode("latin-1"))
    with pytest.raises(error) as caught:
        fetch(wire)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "length", [str(len(BODY)), f"000{len(BODY)}", "0" * 5000 + str(len(BODY)), f"{len(BODY)}, {len(BODY)}"]
)
def test_a_length_in_an_odd_spelling_is_that_length(fetch: Fetch, length: str) -> None:
    assert fetch(reply(length=length)) == (BODY, Fetched(len(BODY), is_whole=True))


def test_without_a_length_nobody_knows_whether_all_of_it_came(fetch: Fetch) -> None:
    assert fetch(reply(length=None)) == (BODY, Fetched(len(BODY), is_whole=False))


# --- codings -------------------------------------------------------------------------------------------------------


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


HALF = len(BODY) // 2
CODED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "x-gzip": ("x-gzip", gzip.compress(BODY)),
    "in capitals": ("GZIP", gzip.compress(BODY)),
    "with identity": ("identity, gzip", gzip.compress(BODY)),
    "in two members": ("gzip", gzip.compress(BODY[:HALF]) + gzip.compress(BODY[HALF:])),
    "with padding": ("gzip", gzip.compress(BODY) + bytes(100)),
    "deflate": ("deflate", zlib.compress(BODY)),
    "deflate without a frame": ("deflate", bare_deflate(BODY)),
    "both": ("deflate, gzip", gzip.compress(zlib.compress(BODY))),
    "twice": ("gzip, gzip", gzip.compress(gzip.compress(BODY))),
    "on two lines": ("deflate\r\nContent-Encoding: gzip", gzip.compress(zlib.compress(BODY))),
    "gzip in name only": ("gzip", BODY),
    "identity": ("identity", BODY),
    "an empty word": ("", BODY),
    "no coding": ("utf-8", BODY),
    "a store's own word": ("aws-chunked", BODY),
}


@pytest.mark.parametrize(("coding", "wire"), CODED.values(), ids=CODED.keys())
def test_a_coding_that_nobody_asked_for_is_undone(fetch: Fetch, coding: str, wire: bytes) -> None:
    body, fetched = fetch(reply(wire, f"Content-Encoding: {coding}"))
    assert body == BODY
    assert fetched.is_whole is (coding in ("identity", ""))


@pytest.mark.parametrize(
    ("coding", "wire"),
    [
        ("br", BODY),
        ("zstd", BODY),
        ("gzip, br", gzip.compress(BODY)),
        ("compress", BODY),
        (", ".join(["gzip"] * 6), BODY),
        ("gzip", gzip.compress(BODY)[:-9]),
        ("gzip", gzip.compress(BODY)[:-1]),
        ("gzip", gzip.compress(BODY)[:200] + b"xxxx" + gzip.compress(BODY)[204:]),
        ("deflate", zlib.compress(BODY)[:-5]),
        ("deflate", BODY),
    ],
)
def test_a_coding_that_can_not_be_undone_is_asked_for_again(fetch: Fetch, coding: str, wire: bytes) -> None:
    with pytest.raises(DownloadFailed):
        fetch(reply(wire, f"Content-Encoding: {coding}"))


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, 4 * PIECE_BYTES, 4 * PIECE_BYTES + 1])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_unpacks_to_whole_pieces_ends_well(fetch: Fetch, size: int, pack: Callable[[bytes], bytes]) -> None:
    body, _ = fetch(reply(pack(bytes(size)), f"Content-Encoding: {'gzip' if pack is gzip.compress else 'deflate'}"))
    assert body == bytes(size)


def test_a_bomb_ends_at_the_limit(fetch: Fetch) -> None:
    bomb = gzip.compress(gzip.compress(bytes(200 * 1024**2)))
    assert len(bomb) < 10_000
    with pytest.raises(DownloadTooLarge):
        fetch(reply(bomb, "Content-Encoding: gzip, gzip"), max_bytes=1024**2)


# --- bodies --------------------------------------------------------------------------------------------------------

NO_MEDIA = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "a page": b"<!doctype html><title>Sorry</title><p>Please try again later.",
    "a page in capitals": b"\r\n<HTML><BODY>Wartung</BODY></HTML>",
    "a long page": b"<html>" + "<p>Gleich wieder da: größer, schöner.</p>".encode() * 9000,
    "XML": b'<?xml version="1.0"?>\n<Error><Code>SlowDown</Code></Error>',
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "JSON": b'{"error":"try again"}',
    "a list": b"[]",
    "a number": b"503",
    "words": b"upstream connect error or disconnect/reset before headers",
    "with a mark": b"\xef\xbb\xbf<html></html>",
    "UTF-16": "<html>".encode("utf-16"),
    "Latin-1": "Später".encode("latin-1"),
    "a playlist": b"#EXTM3U\n#EXT-X-ENDLIST\n",
    "an archive": b"PK\x03\x04" + bytes(100),
    "gzip without its header": gzip.compress(b"<html></html>"),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\x00",
}
MEDIA = {
    "MP4": BODY,
    "MP4 without ftyp": b"\x00\x00\x00\x08wide\x00\x00\x10\x00mdat" + bytes(99),
    "WebM": b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01",
    "AVI": b"RIFF\x24\x10\x00\x00AVI LIST",
    "GIF": b"GIF89a\x40\x01\xc0\x00\xf7\x00\x00",
    "WebP": b"RIFF\x24\x10\x00\x00WEBPVP8X\x0a\x00\x00\x00",
    "MPEG-TS": b"G@\x11\x10\x00B\xf0%\x00\x01\xc1",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "something else": bytes(255 - byte for byte in BODY[:5000]),
    "text far behind": b"\x00" + b"<html>" * 500,
}


@pytest.mark.parametrize("length", ["", None])
@pytest.mark.parametrize("body", NO_MEDIA.values(), ids=NO_MEDIA.keys())
def test_what_is_no_media_is_told_from_a_damaged_file(fetch: Fetch, body: bytes, length: str | None) -> None:
    with pytest.raises(NotMedia) as caught:
        fetch(reply(body, "Content-Type: video/mp4", length=str(len(body)) if length == "" else None))
    assert caught.value.code == NotAVideo.code


@pytest.mark.parametrize("body", MEDIA.values(), ids=MEDIA.keys())
def test_whatever_may_be_media_passes_whatever_its_name(fetch: Fetch, body: bytes) -> None:
    assert fetch(reply(body, "Content-Type: text/html"))[0] == body


# --- addresses -----------------------------------------------------------------------------------------------------

WRITTEN = {
    # what a provider writes after its origin: what is asked for
    "/a video.mp4": b"/a%20video.mp4",
    '/a|b{c}^d`e"f<g>.mp4': b"/a%7Cb%7Bc%7D%5Ed%60e%22f%3Cg%3E.mp4",
    "/größe/猫.mp4?name=schöne katze": b"/gr%C3%B6%C3%9Fe/%E7%8C%AB.mp4?name=sch%C3%B6ne%20katze",
    "/a%20b%2Fc%7e.mp4?sig=a%2Bb+c~": b"/a%20b%2Fc%7e.mp4?sig=a%2Bb+c~",
    "/100%.mp4": b"/100%.mp4",
    "/v.mp4?X-Amz-Credential=AK/2026/eu&list=[1]#t=2": b"/v.mp4?X-Amz-Credential=AK/2026/eu&list=[1]",
    "?only=a query": b"/?only=a%20query",
    "/v.mp4 ": b"/v.mp4",
    "/" + "é" * 4000: b"/" + b"%C3%A9" * 4000,
    "/" + "a" * 8000: b"/" + b"a" * 8000,
}


@pytest.mark.parametrize(("written", "asked"), WRITTEN.items(), ids=[one[:20] for one in WRITTEN])
def test_a_link_is_asked_for_as_browsers_do(fetch: Fetch, host: Host, written: str, asked: bytes) -> None:
    assert fetch(link=written)[0] == BODY
    assert host.targets == [asked]


LOCATIONS = {
    b"/found.mp4": b"/found.mp4",
    b"found.mp4?a=b c": b"/dir/found.mp4?a=b%20c",
    b"../found.mp4": b"/found.mp4",
    b"?again=1": b"/dir/v.mp4?again=1",
    "/größe.mp4".encode(): b"/gr%C3%B6%C3%9Fe.mp4",
    "/größe.mp4".encode("latin-1"): b"/gr%F6%DFe.mp4",
    b"/a%c3%b6\xc3\xb6\xff": b"/a%c3%b6%C3%B6%FF",
    b'/a|b{c}^d`"<>': b"/a%7Cb%7Bc%7D%5Ed%60%22%3C%3E",
    b"{origin}/full path.mp4#frag": b"/full%20path.mp4",
    b"//{host}/same scheme": b"/same%20scheme",
    b"   /blanks around   ": b"/blanks%20around",
    b"/" + b"a" * 8000: b"/" + b"a" * 8000,
}


@pytest.mark.parametrize(("location", "asked"), LOCATIONS.items(), ids=[str(one[:20]) for one in LOCATIONS])
def test_a_redirect_is_followed_as_browsers_do(fetch: Fetch, host: Host, location: bytes, asked: bytes) -> None:
    origin = host.url.encode()
    location = location.replace(b"{origin}", origin).replace(b"{host}", origin.removeprefix(b"http://"))
    moved = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    assert fetch(moved, reply(), link="/dir/v.mp4")[0] == BODY
    assert host.targets == [b"/dir/v.mp4", asked]


NOWHERE = [
    b"http://[",
    b"http://[::1",
    b"http:\\\\127.0.0.1\\a",
    b"/a\\b",
    b"/a\tb",
    b"/a\x00b",
    b"https:/127.0.0.1/a",
    b"///127.0.0.1/a",
    b"file:///etc/passwd",
    b"data:video/mp4;base64,AAAA",
    b"gopher://127.0.0.1/",
    b"https://127.0.0.1/a b",
    "https://１２７.0.0.1/".encode(),
    "https://ⓛocalhost/".encode(),
    b"https://user@example.com/",
    b"https://example.com:99999/",
    b"https://" + b"a" * 300 + b".example/",
    b"/" + b"a" * 9000,
]


@pytest.mark.parametrize("location", NOWHERE, ids=[str(one[:24]) for one in NOWHERE])
def test_a_redirect_that_may_not_be_followed_is_not(fetch: Fetch, host: Host, location: bytes) -> None:
    moved = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    with pytest.raises(ForbiddenAddress):
        fetch(moved, reply())
    assert len(host.targets) == 1


@pytest.mark.parametrize("location", [b"", b"Location:\r\n", b"X: y\r\n"])
def test_a_redirect_to_nowhere_is_asked_for_again(fetch: Fetch, location: bytes) -> None:
    with pytest.raises(DownloadFailed):
        fetch(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + location + b"\r\n")


@given(st.binary(max_size=60), st.sampled_from([b"", b"/", b"//", b"https://", b"http://"]))
@settings(deadline=None)
def test_whatever_a_location_is_it_has_one_reading_or_none(location: bytes, begin: bytes) -> None:
    try:
        found = redirect_target("https://cdn.example.com/dir/v.mp4", (begin + location).decode("latin-1"))
        check_public_url(found, longest=MAX_SENT_LENGTH)
    except ForbiddenAddress:
        return
    assert found.isascii()
    assert as_sent(found, longest=MAX_SENT_LENGTH) == found


# --- everything else -----------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, type[MediaError]]] = {
    "nothing at all": (b"", DownloadFailed),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n", DownloadFailed),
    "a status of words": (b"HTTP/1.1 OK fine\r\n\r\n", DownloadFailed),
    "a status of four digits": (b"HTTP/1.1 2000 OK\r\n\r\n", DownloadFailed),
    "a head that ends early": (b"HTTP/1.1 200 OK\r\nContent-Len", NotMedia),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, DownloadFailed),
    "very many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", DownloadFailed),
    "a chunk of no length": (reply(b"zz\r\nabc", "Transfer-Encoding: chunked", length=None), DownloadFailed),
    "a chunk of minus one": (reply(b"-1\r\nabc", "Transfer-Encoding: chunked", length=None), DownloadFailed),
    "chunks cut off": (reply(b"5\r\n\x00bcde\r\n", "Transfer-Encoding: chunked", length=None), DownloadFailed),
    "switching protocols": (reply(status="101 Switching"), DownloadFailed),
    "a part nobody asked for": (reply(status="206 Partial", length=None), DownloadFailed),
    "not modified": (reply(b"", status="304 Not Modified"), DownloadFailed),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", DownloadFailed),
    "too many requests": (reply(b"", "Retry-After: 7", status="429 Slow"), DownloadFailed),
    "a teapot": (reply(status="418 Teapot"), DownloadFailed),
    "a status of its own": (reply(status="799 Eh"), DownloadFailed),
    "gone": (reply(b"gone", status="410 Gone"), LinkExpired),
}


@pytest.mark.parametrize(("wire", "error"), BROKEN.values(), ids=BROKEN.keys())
def test_an_answer_that_is_none_is_an_error_of_ours(fetch: Fetch, wire: bytes, error: type[MediaError]) -> None:
    with pytest.raises(error):
        fetch(wire)


def test_no_log_line_has_the_address_of_an_odd_answer(fetch: Fetch, caplog: pytest.LogCaptureFixture) -> None:
    """The level is set in the settings: urllib3's own warnings quote it."""
    with pytest.raises(NotMedia):
        fetch(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", link="/v.mp4?signature=secret")
    assert "secret" not in caplog.text


def test_interim_answers_are_read_past(fetch: Fetch) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    assert fetch(early + reply())[0] == BODY


def test_a_chunked_answer_with_a_length_is_chunked(fetch: Fetch) -> None:
    wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert fetch(reply(wire, "Transfer-Encoding: chunked", length="7"))[0] == BODY


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=80).map(lambda odd: b"HTTP/1.1 200 OK\r\n" + odd + b"\r\n\r\n" + BODY[:99]),
        st.binary(max_size=40).map(lambda odd: b"HTTP/1.1 200 OK\r\nContent-Length: " + odd + b"\r\n\r\n" + BODY[:99]),
        st.binary(max_size=40).map(lambda odd: b"HTTP/1.1 302 Found\r\nLocation: " + odd + b"\r\n\r\n"),
    )
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_wire_brings_ends_as_a_file_or_an_error_of_ours(host: Host, tmp_path: Path, wire: bytes) -> None:
    host.answers = [wire]
    path = tmp_path / "v.mp4"
    try:
        download(
            host.url + "/v.mp4",
            path,
            max_bytes=10**6,
            deadline_s=5,
            idle_timeout_s=5,
            trusted_origins=frozenset({host.url}),
        )
    except MediaError:
        assert not path.exists()
    path.unlink(missing_ok=True)
