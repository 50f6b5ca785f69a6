from __future__ import annotations

import contextlib
import errno
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from media_pipeline.errors import (
    Cancelled,
    DiskFull,
    DownloadFailed,
    DownloadTooLarge,
    ForbiddenAddress,
    LinkExpired,
    MediaTimeout,
)
from media_pipeline.fetch.download import download

BODY = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves what the path asks for; `requests` holds the headers of each request."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.redirect_to = ""
        # Handlers that stall wait for this, so that no test needs a sleep.
        self.closing = threading.Event()
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        getattr(self, "serve_" + self.path.strip("/").partition("?")[0].partition("/")[0])()

    def _head(self, status: int = 200, length: int | None = len(BODY), **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def serve_video(self) -> None:
        self._head(Content_Type="video/mp4; codecs=avc1")
        self.wfile.write(BODY)

    def serve_unmeasured(self) -> None:
        self._head(length=None)
        self.wfile.write(BODY)

    def serve_chunked(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self._head(length=None, Transfer_Encoding="chunked")
        for at in range(0, len(BODY), 100_000):
            piece = BODY[at : at + 100_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def serve_half_chunked(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self._head(length=None, Transfer_Encoding="chunked")
        self.wfile.write(b"%x\r\n%s\r\n" % (1000, BODY[:1000]))
        self.close_connection = True

    def serve_short(self) -> None:
        self._head()
        self.wfile.write(BODY[:-1])

    def serve_zipped(self) -> None:
        self._head(Content_Encoding="gzip")

    def serve_drip(self) -> None:
        self._head()
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def serve_drip_head(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def serve_silence(self) -> None:
        self._head()
        self.wfile.write(BODY[:100])
        self.wfile.flush()
        self.server.closing.wait(120)

    def serve_status(self) -> None:
        self._head(int(self.path.partition("?")[0].split("/")[2]), length=0, Retry_After="7")

    def serve_early(self) -> None:
        count = int(self.path.split("/")[2])
        self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" * count)
        self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        self.serve_unmeasured()

    def serve_endlessly_early(self) -> None:
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    def serve_redirect(self) -> None:
        self._head(302, length=0, Location=self.server.redirect_to)


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    made = Server(context)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.closing.set()
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.requests.clear()
    return shared_server


Fetch = Callable[..., bytes]


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Iterator[Fetch]:
    """`fetch("/video")`: the bytes from the trusted server; afterwards no half file may be there."""

    def run(path: str, **options: Any) -> bytes:
        url = path if "://" in path else server.origin + path
        settings: dict[str, Any] = {"max_bytes": 10**8, "deadline_s": 20, "trusted_origins": frozenset({server.origin})}
        download(url, tmp_path / "in.mp4", **(settings | options))
        return (tmp_path / "in.mp4").read_bytes()

    yield run
    assert not [p.name for p in tmp_path.iterdir() if p.name != "in.mp4"]


@pytest.mark.parametrize("path", ["/video?signature=secret", "/unmeasured", "/chunked", "/early/1", "/early/50"])
def test_whole_file(fetch: Fetch, path: str) -> None:
    seen: list[tuple[int, int | None]] = []
    assert fetch(path, on_progress=lambda size, total: seen.append((size, total))) == BODY
    assert seen[-1] == (len(BODY), len(BODY) if "video" in path else None)


def test_request_carries_nothing_of_ours(fetch: Fetch, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fetch("/video?a=b%20c&d=e")
    ((path, headers),) = server.requests
    assert path == "/video?a=b%20c&d=e"
    assert {name.lower() for name in headers} == {"host", "user-agent", "accept", "accept-encoding"}
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_expired_link(fetch: Fetch, tmp_path: Path, status: int) -> None:
    with pytest.raises(LinkExpired) as caught:
        fetch(f"/status/{status}?signature=secret")
    assert caught.value.http_status == status
    assert "secret" not in str(caught.value)
    assert "status/" not in str(caught.value)
    assert not (tmp_path / "in.mp4").exists()


@pytest.mark.parametrize("status", [204, 206, 408, 418, 429, 500, 503])
def test_other_answers_are_tried_again(fetch: Fetch, status: int) -> None:
    with pytest.raises(DownloadFailed) as caught:
        fetch(f"/status/{status}")
    assert (caught.value.http_status, caught.value.retry_after_s) == (status, 7.0)


@pytest.mark.parametrize("path", ["/short", "/half_chunked", "/zipped", "/early/101"])
def test_not_the_whole_body(fetch: Fetch, tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadFailed):
        fetch(path)
    assert not (tmp_path / "in.mp4").exists()


@pytest.mark.parametrize("path", ["/video", "/unmeasured", "/chunked"])
def test_too_large(fetch: Fetch, tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadTooLarge):
        fetch(path, max_bytes=len(BODY) - 1)
    assert not (tmp_path / "in.mp4").exists()
    assert fetch(path, max_bytes=len(BODY)) == BODY


@pytest.mark.parametrize("path", ["/drip", "/drip_head", "/silence", "/endlessly_early"])
def test_deadline_holds_against_a_slow_server(fetch: Fetch, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(MediaTimeout):
        fetch(path, deadline_s=0.4)
    assert time.monotonic() - started < 20


def test_silence_ends_before_the_deadline(fetch: Fetch) -> None:
    with pytest.raises(DownloadFailed):
        fetch("/silence", idle_timeout_s=0.2)


@pytest.mark.parametrize("path", ["/drip", "/silence"])
def test_cancel_cuts_the_connection(fetch: Fetch, path: str) -> None:
    cancelled = threading.Event()
    fired_at: list[float] = []

    def cancel(*_: object) -> None:
        fired_at.append(time.monotonic())
        cancelled.set()

    with pytest.raises(Cancelled):
        fetch(path, cancelled=cancelled, on_progress=cancel)
    assert time.monotonic() - fired_at[0] < 1.5


def test_full_disk(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(DiskFull):
        fetch("/video")


def test_exception_from_the_callback_leaves_nothing(fetch: Fetch, tmp_path: Path) -> None:
    def lease_lost(*_: object) -> None:
        raise LookupError("lease")

    with pytest.raises(LookupError):
        fetch("/video", on_progress=lease_lost)
    assert not list(tmp_path.iterdir())


def test_nobody_listens(fetch: Fetch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(DownloadFailed):
            fetch(dead + "/video?signature=secret", trusted_origins=frozenset({dead}))


def test_missing_folder_is_not_the_networks_fault(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        download(
            server.origin + "/video",
            tmp_path / "absent" / "in.mp4",
            max_bytes=10**8,
            deadline_s=10,
            trusted_origins=frozenset({server.origin}),
        )


# Where it may go


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/x",
        "https://127.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "file:///etc/passwd",
    ],
)
def test_redirect_to_a_forbidden_place(fetch: Fetch, server: Server, target: str) -> None:
    server.redirect_to = target
    with pytest.raises(ForbiddenAddress):
        fetch("/redirect")
    assert len(server.requests) == 1


def test_redirect_within_the_trusted_origin(fetch: Fetch, server: Server) -> None:
    server.redirect_to = "/video"
    assert fetch("/redirect") == BODY


def test_redirect_to_another_trusted_origin(fetch: Fetch, server: Server) -> None:
    with serving() as other:
        server.redirect_to = other.origin + "/video"
        with pytest.raises(ForbiddenAddress):
            fetch("/redirect")
        assert fetch("/redirect", trusted_origins=frozenset({server.origin, other.origin})) == BODY


def test_redirects_end(fetch: Fetch, server: Server) -> None:
    server.redirect_to = "/redirect"
    with pytest.raises(DownloadFailed, match="redirects"):
        fetch("/redirect")
    assert len(server.requests) == 4


def test_only_the_exact_origin_is_trusted(fetch: Fetch, server: Server) -> None:
    with pytest.raises(ForbiddenAddress):
        fetch("/video", trusted_origins=frozenset({f"http://127.0.0.1:{server.server_port + 1}"}))
    with pytest.raises(ForbiddenAddress):
        fetch("/video", trusted_origins=frozenset())
    assert not server.requests


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["10.0.0.1", "::1"], ["64:ff9b::7f00:1"]])
def test_name_of_a_private_address(fetch: Fetch, answers: list[str]) -> None:
    with pytest.raises(ForbiddenAddress):
        fetch("https://cdn.example.com/x?signature=secret", resolver=lambda host, port: answers)


def test_dials_only_what_it_has_checked(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver is asked once, private answers are skipped, and the public one is dialled as a number."""
    asked: list[tuple[str, int]] = []
    dialled: list[tuple[str, int]] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.1", "93.184.215.14", "93.184.215.14"]

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(DownloadFailed):
        fetch("https://cdn.example.com/x", resolver=resolver)
    assert asked == [("cdn.example.com", 443)]
    assert dialled == [("93.184.215.14", 443)]


def test_unknown_name(fetch: Fetch) -> None:
    def resolver(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(DownloadFailed):
        fetch("https://cdn.example.com/x", resolver=resolver)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")
def test_certificate_is_checked_against_the_name(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            certificate,
            "-subj",
            "/CN=media.test",
            "-addext",
            "subjectAltName=DNS:media.test",
        ],
        check=True,
        capture_output=True,
    )
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=str(certificate))
    with serving(server_side) as server:

        def fetch_from(host: str, context: ssl.SSLContext | None, path: str = "/video", **more: Any) -> bytes:
            place = f"https://{host}:{server.server_port}"
            options: dict[str, Any] = {"max_bytes": 10**8, "deadline_s": 20, "ssl_context": context, **more}
            download(
                place + path,
                tmp_path / "in.mp4",
                trusted_origins=frozenset({place}),
                resolver=lambda host, port: ["127.0.0.1"],
                **options,
            )
            return (tmp_path / "in.mp4").read_bytes()

        assert fetch_from("media.test", trust) == BODY
        with pytest.raises(DownloadFailed, match="SSL"):
            fetch_from("other.test", trust)
        with pytest.raises(DownloadFailed, match="SSL"):
            fetch_from("media.test", None)
        # The lever reaches through TLS.
        with pytest.raises(MediaTimeout):
            fetch_from("media.test", trust, "/silence", deadline_s=0.4)
