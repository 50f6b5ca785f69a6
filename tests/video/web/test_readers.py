"""People who do not read what they asked for keep nobody from theirs, on our own server without a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.config.starting import ROOT
from tests.web_server import WebServer, web_server
from video.web import media
from video.web.front import sockets

KEY = "7/videos/vid_1.mp4"
SIZE = 24_000_000
PLAYS_WITHIN_S = 3.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with web_server(tmp_path_factory.mktemp("readers")) as server:
        path = server.store(KEY, b"start of a video")
        with path.open("r+b") as file:
            file.truncate(SIZE)
            file.seek(SIZE - 3)
            file.write(b"end")
        yield server


@contextlib.contextmanager
def players(server: WebServer, number: int, *, slowly: bool = False) -> Iterator[None]:
    """Some who have got the first bytes and then take no more, or a kilobyte now and then."""
    done = threading.Event()
    with contextlib.ExitStack() as opened:
        connections = []
        for _ in range(number):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            head = f"GET {media.signed_path(KEY)} HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=0-\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 206 ")
            connections.append(connection)

        def read() -> None:
            while not done.wait(0.02):
                for each in connections:
                    each.recv(1000)

        reader = threading.Thread(target=read)
        if slowly:
            reader.start()
        try:
            yield
        finally:
            done.set()
            if slowly:
                reader.join()


def watch(server: WebServer) -> float:
    """What a player asks: the start, the end, and all from the start. Seconds until it has the whole video."""
    begun = time.monotonic()
    link = server.url + media.signed_path(KEY)
    assert requests.get(link, headers={"Range": "bytes=0-15"}, timeout=20).content == b"start of a video"
    assert requests.get(link, headers={"Range": "bytes=-3"}, timeout=20).content == b"end"
    whole = requests.get(link, headers={"Range": "bytes=0-"}, timeout=20)
    assert (whole.status_code, len(whole.content)) == (206, SIZE)
    return time.monotonic() - begun


def test_two_galleries_of_six_players_and_a_third_viewer(served: WebServer) -> None:
    with players(served, 6), players(served, 6, slowly=True):
        for _ in range(3):
            assert watch(served) < PLAYS_WITHIN_S


def test_many_who_read_nothing_and_a_viewer(served: WebServer) -> None:
    """Far more than the threads of a server."""
    with players(served, 200):
        assert watch(served) < PLAYS_WITHIN_S
        assert requests.get(f"{served.url}/healthz", timeout=5).ok
        assert requests.get(f"{served.url}/", timeout=5).ok
        assert requests.get(f"{served.url}/storage/{KEY}", timeout=5).status_code == 403


def test_a_reader_who_begins_again_gets_the_rest(served: WebServer) -> None:
    link = served.url + media.signed_path(KEY)
    with players(served, 12):
        etag = requests.head(link, timeout=5).headers["ETag"]
        rest = requests.get(link, headers={"Range": f"bytes={SIZE - 5}-", "If-Range": etag}, timeout=20)
    assert (rest.status_code, rest.content) == (206, b"\0\0end")


def test_a_file_that_is_deleted_while_it_is_read_comes_whole(served: WebServer) -> None:
    path = served.store("7/videos/vid_2.mp4", bytes(SIZE))
    link = served.url + media.signed_path("7/videos/vid_2.mp4")
    with requests.get(link, stream=True, timeout=20) as reply:
        chunks = reply.iter_content(65536)
        got = len(next(chunks))
        path.unlink()
        got += sum(map(len, chunks))
    assert got == SIZE
    assert requests.get(link, timeout=20).status_code == 404


def test_too_few_files_for_so_many_readers_are_told(tmp_path: Path, served: WebServer) -> None:
    with web_server(tmp_path, open_files=1000) as server:
        said = server.log.read_text()
    assert "this process may open 1000 files, so about 500 people" in said
    assert f"raise the limit to {sockets.FILES} " in said
    assert "this process may open" not in served.log.read_text()


def test_the_procfile_and_the_front_know_one_number_of_connections() -> None:
    assert f"--backpressure {sockets.CONNECTIONS} " in (ROOT / "Procfile").read_text()
