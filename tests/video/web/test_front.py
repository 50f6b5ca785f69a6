"""The front, served by granian: no client holds a thread, and none is waited for without an end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from video.web.front import sockets
from video.web.front.bodies import LONGEST_OF_API

ROOT = Path(__file__).resolve().parents[3]
HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
SIZE = 30_000_000  # more than the kernel keeps of an answer that nobody reads


class Served:
    """granian with the front before `front_app`, whose heads may take 1.5 s, as may its bodies."""

    def __init__(self, folder: Path) -> None:
        self.file, self.pipe = folder / "file", folder / "pipe"
        with self.file.open("wb") as made:
            made.write(b"0123456789abcdefghij")
            made.truncate(SIZE)
        os.mkfifo(self.pipe)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        line = next(one for one in (ROOT / "Procfile").read_text().splitlines() if one.startswith("web:"))
        options = line.split("granian ")[1].split(" config.front")[0].replace("30000", "1500")
        options = options.replace('"${HOST:-127.0.0.1}"', "127.0.0.1").replace('"${PORT:-8000}"', str(self.port))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "granian", *options.split(), "tests.video.web.front_app:front"],
                cwd=ROOT,
                env={**os.environ, "FRONT_FILE": str(self.file), "FRONT_PIPE": str(self.pipe)},
                # Fewer than the tests open connections: granian raises the limit itself.
                preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (250, HARD_LIMIT)),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.RequestException):
                if self.get("/healthz").ok:
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def get(self, path: str, **more: Any) -> requests.Response:
        """A connection of its own: the server may close one that was kept alive."""
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=20, **more)

    def post(self, path: str, data: Any, **more: Any) -> requests.Response:
        return requests.post(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=20, **more)

    def says(self, text: str, *, room_bytes: int = 0) -> socket.socket:
        """A connection on which this was sent. `room_bytes`: what its kernel takes that nobody reads; it may be more
        than a file has.
        """
        connection = socket.socket()
        connection.settimeout(20)
        if room_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(text.encode())
        return connection


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("front"))
    try:
        yield made
    finally:
        made.process.terminate()
        assert made.process.wait(30) == 0


def all_of(connection: socket.socket) -> bytes:
    """What is answered until the server closes the connection."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/auth/login", b"application/json"),
        ("/api/video/create", b"application/json"),
        ("/api/video/webhook/kling", b"application/json"),
        ("/admin/", b"text/plain"),
    ],
)
def test_half_sent_bodies_hold_nothing_and_end(served: Served, path: str, kind: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n"
    half = [served.says(f"{head}Content-Length: 100\r\n\r\n{{") for _ in range(32)]
    chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nab" if path.startswith("/api/") else "Content-Length: 9\r\n\r\n"
    half += [served.says(f"{head}{chunked}") for _ in range(32)]
    for _ in range(5):
        assert served.get("/healthz").ok
        assert served.get("/anything").ok
    for connection in half:
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert kind in answer
        assert b"did not arrive within 1.5 s" in answer


def test_silent_and_half_open_connections_end(served: Served) -> None:
    quiet = [served.says("") for _ in range(200)]
    quiet += [served.says("GET / HTTP/1.1\r\nHost: x\r\nA") for _ in range(100)]
    assert served.get("/anything").ok
    assert {all_of(connection) for connection in quiet} == {b""}


def test_a_connection_that_is_kept_alive_and_idle_ends(served: Served) -> None:
    answer = all_of(served.says("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_what_the_front_refuses_itself_names_its_request(served: Served) -> None:
    assert served.get("/api/fails", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert served.get("/api/fails").headers["X-Request-Id"].startswith("req_")


def test_a_body_in_pieces_arrives_whole_with_its_length(served: Served) -> None:
    told = served.post("/api/x", iter([b"a" * 30_000, b"b" * 30_000])).json()
    assert (told["body"], told["CONTENT_LENGTH"]) == (60_000, "60000")
    assert "HTTP_TRANSFER_ENCODING" not in told


def test_a_body_in_pieces_is_received_no_further_than_its_limit(served: Served) -> None:
    endless = (b"a" * 10_000 for _ in range(100_000))
    with contextlib.suppress(requests.ConnectionError):  # the server does not wait for the rest
        answer = served.post("/api/x", endless)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
    assert served.get("/healthz").ok


def test_a_body_that_says_it_is_too_long_is_left_to_the_application(served: Served) -> None:
    head = f"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: {LONGEST_OF_API + 1}\r\n\r\n"
    with served.says(head) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")  # which does not mind here; ours says 413


def test_bodies_have_one_bound_of_memory(served: Served) -> None:
    head = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
    first = served.says(head + "a" * 199_000)
    second = served.says(head + "a" * 199_000)
    answers = {all_of(connection)[9:12] for connection in (first, second)}
    assert b"503" in answers
    assert answers <= {b"408", b"503"}
    assert served.post("/x", b"a" * 200_000).json()["body"] == 200_000  # nothing of them is held any more


def test_a_large_body_is_received_where_it_may_be(served: Served) -> None:
    assert served.post("/api/large", b"a" * 1_000_000).json()["body"] == 1_000_000
    head = "POST /api/large HTTP/1.1\r\nHost: x\r\nContent-Length: 1000002\r\n\r\n"
    with served.says(head) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")  # left to the application, which says 413
    endless = (b"a" * 10_000 for _ in range(100_000))
    with contextlib.suppress(requests.ConnectionError):
        assert served.post("/api/large", endless).status_code == 413


def test_large_bodies_have_a_bound_of_their_own_and_keep_nobody_out(served: Served) -> None:
    head = "POST /api/large HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    first = served.says(head + "a" * 999_000)
    second = served.says(head + "a" * 999_000)
    first.settimeout(20)
    second.settimeout(0.2)
    refused = b""
    while not refused:  # whichever came second
        first, second = second, first
        second.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            refused = second.recv(65536)
    assert refused.startswith(b"HTTP/1.1 503 ")
    for _ in range(20):
        assert served.post("/api/x", b"a" * 60_000).ok
    second.close()
    first.settimeout(20)
    first.sendall(b"a" * 1_000)
    assert b" 200 " in first.recv(65536)
    first.close()
    for _ in range(5):  # the room of each is free once it is answered
        assert served.post("/api/large", b"a" * 1_000_000).ok


@pytest.mark.parametrize("path", ["/api/video/upload", "/api/v1/video/upload", "/v1/videos"])
def test_a_form_of_the_api_in_pieces_needs_a_length(served: Served, path: str) -> None:
    answer = served.post(path, iter([b"a" * 10]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (411, "length_required")


def test_slow_readers_hold_no_thread(served: Served) -> None:
    slow = []
    for _ in range(64):
        slow.append(served.says("GET /file HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert slow[-1].recv(15) == b"HTTP/1.1 200 OK"
    assert len(served.get("/file").content) == SIZE
    for connection in slow:
        connection.close()


def test_a_part_of_a_file_is_sent(served: Served) -> None:
    assert served.get("/part").content == b"56789abcde"
    head = requests.head(f"http://127.0.0.1:{served.port}/part", timeout=20)
    assert (head.headers["Content-Length"], head.content) == ("10", b"")


def test_busy_threads_leave_health_alone_and_the_queue_is_bounded(served: Served) -> None:
    writer = os.open(served.pipe, os.O_RDWR)  # both read from it until it is closed
    busy = [served.says("GET /busy HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(2)]
    waiting: list[socket.socket] = []
    refused = b""
    while not refused:  # as many as may wait, and one more
        connection = served.says("GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.settimeout(0.3)
        try:
            refused = connection.recv(65536)
            connection.close()
        except TimeoutError:
            waiting.append(connection)
        assert len(waiting) <= 8
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b'"overloaded"' in refused
    assert b"retry-after: 2" in refused.lower()
    assert b"content-security-policy: default-src 'none'" in refused.lower()
    assert served.get("/healthz").ok
    assert served.post("/api/auth/login", b"{}").ok  # passwords have threads of their own
    assert served.get("/storage/x").ok  # and so have files
    os.close(writer)
    answers = []
    for connection in busy + waiting:
        connection.settimeout(20)
        with connection:
            answers.append(connection.recv(65536)[9:12])
    assert answers[:2] == [b"200", b"200"]
    assert answers.count(b"200") >= 6  # the machine may be so busy that a refusal came late, too
    assert set(answers) <= {b"200", b"503"}
    assert served.get("/api/x").ok


def test_a_disk_that_hangs_holds_nothing_but_files(served: Served) -> None:
    writer = os.open(served.pipe, os.O_RDWR)
    hanging = [served.says("GET /storage/busy HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(4)]
    for _ in range(3):
        assert served.get("/api/x").ok
    os.close(writer)
    for connection in hanging:
        connection.settimeout(0.2)
        answer = b""
        while not answer:
            try:
                answer = connection.recv(65536)
            except TimeoutError:  # one that came to the pipe after its writer had gone
                os.close(os.open(served.pipe, os.O_RDWR))
        assert answer[9:12] == b"200"
        connection.close()
    assert served.get("/storage/x").ok


def test_the_application_is_told_of_the_request_as_it_was(served: Served) -> None:
    connection = served.says(
        "GET /a%20b%C3%A9?x=%41 HTTP/1.1\r\nHost: x\r\nAccept: a\r\nAccept: b\r\nCookie: c=1\r\nCookie: d=2\r\n"
        "X_Forwarded_Proto: https\r\nConnection: close\r\n\r\n"
    )
    head, _, body = all_of(connection).partition(b"\r\n\r\n")
    told = json.loads(body)
    assert told["PATH_INFO"].encode("latin-1").decode() == "/a bé"
    assert (told["QUERY_STRING"], told["HTTP_HOST"], told["REMOTE_ADDR"]) == ("x=%41", "x", "127.0.0.1")
    assert (told["HTTP_ACCEPT"], told["HTTP_COOKIE"]) == ("a,b", "c=1; d=2")
    assert "HTTP_X_FORWARDED_PROTO" not in told
    assert head.lower().count(b"set-cookie:") == 2


def test_a_header_that_is_no_ascii_is_there_for_the_application(served: Served) -> None:
    """Dropped, an Idempotency-Key in UTF-8 would be no key, and a repeat of its call a second video."""
    told = served.get("/any", headers={"Idempotency-Key": "schlüssel".encode(), "Origin": b"\xff", "X-A": "b"}).json()
    assert told["HTTP_X_A"] == "b"
    assert not told["HTTP_IDEMPOTENCY_KEY"].isascii()
    assert not told["HTTP_ORIGIN"].isascii()


@pytest.mark.parametrize("blank", ["", " ", "   ", "\t"])
def test_a_blank_header_is_there_for_the_application(served: Served, blank: str) -> None:
    """An Idempotency-Key of nothing must be refused, and not be served as if there was none."""
    connection = served.says(f"GET /any HTTP/1.1\r\nHost: x\r\nIdempotency-Key:{blank}\r\nConnection: close\r\n\r\n")
    assert json.loads(all_of(connection).partition(b"\r\n\r\n")[2])["HTTP_IDEMPOTENCY_KEY"] == ""


def test_an_address_is_decoded_once_and_may_be_of_any_script(served: Served) -> None:
    """A proxy that guards /admin/ sees `/%61dmin/` here."""
    told = served.get("/%2561dmin/").json()
    assert told["PATH_INFO"] == "/%61dmin/"
    told = json.loads(
        all_of(served.says("GET /€?x=€ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).partition(b"\r\n\r\n")[2]
    )
    assert (told["PATH_INFO"].encode("latin-1").decode(), told["QUERY_STRING"].encode("latin-1").decode()) == (
        "/€",
        "x=€",
    )


@pytest.mark.parametrize(("path", "kind"), [("/api/fails", "application/json"), ("/storage/fails", "text/plain")])
def test_an_application_that_fails_is_answered_for(served: Served, path: str, kind: str) -> None:
    answer = served.get(path)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (500, "no-store")
    assert answer.headers["Content-Type"].startswith(kind)
    assert served.get("/anything").ok


def test_a_body_whose_sender_has_gone_reaches_no_application(served: Served) -> None:
    connection = served.says("POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    connection.shutdown(socket.SHUT_WR)
    assert b"CONTENT_LENGTH" not in all_of(connection)


FRAMES = {
    "two lengths": ("Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400),
    "a list of lengths": ("Content-Length: 1, 1\r\n\r\na", 400),
    "a length with a sign": ("Content-Length: +5\r\n\r\nabcde", 400),
    "a negative length": ("Content-Length: -1\r\n\r\n", 400),
    "a length beyond any": (f"Content-Length: {10**30}\r\n\r\n", 400),
    "an unknown coding": ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a second coding": ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a folded line": ("A: b\r\n c\r\n\r\n", 400),
    "a blank before the colon": ("A : b\r\n\r\n", 400),
    "NUL": ("A: a\0b\r\n\r\n", 400),
    "a bare CR": ("A: a\rb\r\n\r\n", 400),
    "a head of 1 MB": (f"A: {'a' * 1_000_000}\r\n\r\n", 431),
    "200 lines": ("".join(f"A{number}: b\r\n" for number in range(200)) + "\r\n", 431),
}


@pytest.mark.parametrize("path", ["/api/x", "/x"])
@pytest.mark.parametrize(("rest", "status"), FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_that_two_readers_could_read_differently_is_refused(
    served: Served, path: str, rest: str, status: int
) -> None:
    with served.says("") as connection:
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{rest}".encode())
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


def test_a_form_in_chunks_is_refused(served: Served) -> None:
    assert served.post("/admin/", iter([b"a=1&", b"b=2"])).status_code == 411


@pytest.mark.parametrize("line", [f"GET /{'a' * 100_000} HTTP/1.1", "GET /x", "\x16\x03\x01\x02"])
def test_a_first_line_that_is_none_is_refused(served: Served, line: str) -> None:
    with served.says(f"{line}\r\nHost: x\r\n\r\n") as connection:
        assert connection.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 414")


def test_a_client_that_asks_whether_to_send_is_told_to(served: Served) -> None:
    with served.says("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"a")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_kernel_bounds_clients_who_take_nothing(served: Served) -> None:
    with served.says("GET /file HTTP/1.1\r\nHost: x\r\n\r\n") as stalled:
        stalled.recv(1000)
        told = served.get("/sockets").json()
    assert len(told) >= 3  # the listening one, the one that asks, the one that is stalled
    assert {tuple(one) for one in told} == {(60_000, 128 * 1024, 1)}


def test_bounds_reach_clients_who_are_there_and_nobody_else() -> None:
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        own = opened.enter_context(socket.create_connection(listening.getsockname()))
        accepted = opened.enter_context(listening.accept()[0])
        sockets.bound()
        later = opened.enter_context(socket.create_connection(listening.getsockname()))
        accepted_later = opened.enter_context(listening.accept()[0])
        found = [
            one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            for one in (accepted, accepted_later, own, later)
        ]
    assert found == [60_000, 60_000, 0, 0]


def test_a_client_who_stops_reading_costs_little_memory_of_the_kernel(served: Served) -> None:
    request = "GET /file HTTP/1.1\r\nHost: x\r\n\r\n"
    stalled = [served.says(request, room_bytes=100_000) for _ in range(12)]
    for connection in stalled:
        connection.recv(1000)
    deadline = time.monotonic() + 60
    while len(held := unsent(served.port)) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(held) == 12
    assert max(held) < 512 * 1024  # 4 MB without a bound
    for connection in stalled:
        connection.close()


def unsent(port: int) -> list[int]:
    """Bytes that the kernel holds of answers of this server, for each connection that has some."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = [int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}")]
    return [size for size in own if size]
