"""Interrupted downloads: gone on with where that is safe, and fetched from the first byte everywhere else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from media_pipeline.errors import Cancelled, DiskFull, DownloadFailed, DownloadTimeout, DownloadTooLarge, NotMedia
from media_pipeline.fetch import parts
from media_pipeline.fetch.download import download
from tests.providers.raw_server import Server

BODY = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 4000
TENTH = len(BODY) // 10
OWNER = "task_0123"


class Host:
    """A file host with ranges; `cut` bytes of each body go out, then the connection ends. Set it up to be worse."""

    def __init__(self) -> None:
        self.body = BODY
        self.etag: str | None = '"one"'
        self.cut: int | None = None
        self.ranges: list[str | None] = []
        self.if_ranges: list[str | None] = []
        self.on_range: Callable[[bytes, int], bytes] | None = None  # the answer to (body, first byte)
        self.length = True
        self.sent = 0
        self.server = Server(self._serve)
        self.url = self.server.url

    def _serve(self, connection: socket, request: bytes) -> None:
        asked = _header(request, "Range")
        self.ranges.append(asked)
        self.if_ranges.append(_header(request, "If-Range"))
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
        if asked and self.on_range:
            connection.sendall(self.on_range(self.body, start))
            return
        is_rest = bool(asked) and self.if_ranges[-1] == self.etag
        head = f"HTTP/1.1 {'206 Partial Content' if is_rest else '200 OK'}\r\n"
        start = start if is_rest else 0
        if is_rest:
            head += f"Content-Range: bytes {start}-{len(self.body) - 1}/{len(self.body)}\r\n"
        if self.etag is not None:
            head += f"ETag: {self.etag}\r\n"
        if self.length:
            head += f"Content-Length: {len(self.body) - start}\r\n"
        body = self.body[start:] if self.cut is None else self.body[start : start + self.cut]
        self.sent += len(body)
        connection.sendall(head.encode() + b"\r\n" + body)


def _header(request: bytes, name: str) -> str | None:
    match = re.search(rf"(?mi)^{name}: (.*?)\r$", request.decode("latin-1"))
    return match[1] if match else None


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.server.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def fetch(host: Host, root: Path, *, path: str = "/v.mp4?signature=1", job: str = "gen_1", **more: Any) -> bytes:
    """One claim's fetch, as the stage does it."""
    options: dict[str, Any] = {"max_bytes": 10**8, "deadline_s": 20, "idle_timeout_s": 5}
    with parts.hold(root, OWNER, job=job, name="source.mp4") as part:
        trusted = frozenset({host.url})
        download(host.url + path, part.path, trusted_origins=trusted, part=part, **(options | more))
        part.give_up()
        return part.path.read_bytes()


def interrupted(host: Host, root: Path, *, at: int = TENTH) -> None:
    """A fetch of which so many bytes came."""
    host.cut = at
    with pytest.raises(DownloadFailed):
        fetch(host, root)
    host.cut = None


def test_a_file_that_is_cut_at_every_tenth_comes_once(host: Host, root: Path) -> None:
    host.cut = TENTH
    for tries in range(1, 20):
        try:
            assert fetch(host, root, path=f"/v.mp4?signature={tries}") == BODY
            break
        except DownloadFailed:
            assert len(list(root.iterdir())) == 1
    assert tries == 11
    assert host.sent == len(BODY)
    assert host.ranges == [None] + [f"bytes={TENTH * n}-" for n in range(1, 11)]
    assert set(host.if_ranges[1:]) == {'"one"'}
    assert not list(root.iterdir())


@pytest.mark.parametrize("length", [True, False])
def test_a_part_is_gone_on_with_also_where_no_length_is_told(host: Host, root: Path, length: bool) -> None:
    host.length = length
    if length:
        interrupted(host, root)
    else:  # only time can end it
        with pytest.raises(LookupError):
            fetch(host, root, on_progress=stop_at(TENTH))
    host.length = True
    assert fetch(host, root) == BODY
    assert host.ranges[-1] is not None


def stop_at(size: int) -> Callable[[int, int | None], None]:
    def progress(so_far: int, total: int | None) -> None:
        if so_far >= size:
            raise LookupError("interrupted")

    return progress


NOT_KEPT = {
    "no ETag": None,
    "a weak ETag": 'W/"one"',
    "no quotes": "one",
    "an empty ETag": '""',
    "two ETags": '"one", "two"',
    "a quote inside": '"on"e"',
    "a very long one": '"' + "e" * 400 + '"',
}


@pytest.mark.parametrize("etag", NOT_KEPT.values(), ids=NOT_KEPT.keys())
def test_without_a_strong_etag_it_begins_anew(host: Host, root: Path, etag: str | None) -> None:
    host.etag = etag
    interrupted(host, root)
    assert not list(root.iterdir())
    assert fetch(host, root) == BODY
    assert host.ranges == [None, None]


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "\r\n")).encode() + body


def part_of(first: int, total: int, body: bytes, *, last: int | None = None, etag: str = 'ETag: "one"') -> bytes:
    end = first + len(body) - 1 if last is None else last
    return answer("206 Partial Content", f"Content-Range: bytes {first}-{end}/{total}", etag, body=body)


OTHER = bytes(len(BODY))
ODD_RESTS: dict[str, Callable[[bytes, int], bytes]] = {
    "the whole file": lambda body, start: answer("200 OK", 'ETag: "one"', body=body),
    "416": lambda body, start: answer("416 Range Not Satisfiable", f"Content-Range: bytes */{len(body)}"),
    "400": lambda body, start: answer("400 Bad Request"),
    "403": lambda body, start: answer("403 Forbidden"),
    "412": lambda body, start: answer("412 Precondition Failed"),
    "a later beginning": lambda body, start: part_of(start + 1, len(body), OTHER[start + 1 :]),
    "an earlier beginning": lambda body, start: part_of(0, len(body), OTHER),
    "another length": lambda body, start: part_of(start, len(body) + 1, OTHER[start:] + b"x"),
    "an end beyond the length": lambda body, start: part_of(start, len(body), OTHER[start:], last=len(body)),
    "an end before the beginning": lambda body, start: part_of(start, len(body), b"", last=start - 1),
    "a length unknown": lambda body, start: answer(
        "206 Partial", f"Content-Range: bytes {start}-{len(body) - 1}/*", 'ETag: "one"', body=OTHER[start:]
    ),
    "no range": lambda body, start: answer("206 Partial Content", 'ETag: "one"', body=OTHER[start:]),
    "an endless range": lambda body, start: answer(
        "206 Partial", f"Content-Range: bytes {start}-{'9' * 5000}/{'9' * 5000}", 'ETag: "one"', body=OTHER[start:]
    ),
    "several parts": lambda body, start: answer(
        "206 Partial", "Content-Type: multipart/byteranges; boundary=x", 'ETag: "one"', body=OTHER[start:]
    ),
    "a coding": lambda body, start: answer(
        "206 Partial",
        f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}",
        'ETag: "one"',
        "Content-Encoding: gzip",
        body=OTHER[start:],
    ),
    "another ETag": lambda body, start: part_of(start, len(body), OTHER[start:], etag='ETag: "two"'),
    "a weak ETag": lambda body, start: part_of(start, len(body), OTHER[start:], etag='ETag: W/"one"'),
    "no ETag": lambda body, start: part_of(start, len(body), OTHER[start:], etag="X: y"),
}


@pytest.mark.parametrize("rest", ODD_RESTS.values(), ids=ODD_RESTS.keys())
def test_whatever_is_not_surely_the_rest_is_not_added(
    host: Host, root: Path, rest: Callable[[bytes, int], bytes]
) -> None:
    interrupted(host, root)
    host.on_range = rest
    assert fetch(host, root) == BODY
    assert host.ranges[1] == f"bytes={TENTH}-"
    assert host.ranges[2:] in ([], [None])  # in the same fetch
    assert not list(root.iterdir())


def test_a_rest_that_is_shorter_than_asked_for_is_added(host: Host, root: Path) -> None:
    interrupted(host, root)
    host.on_range = lambda body, start: part_of(start, len(body), body[start : start + TENTH])
    with pytest.raises(DownloadFailed, match="bytes arrived"):
        fetch(host, root)
    host.on_range = None
    assert fetch(host, root) == BODY
    assert host.ranges[-1] == f"bytes={2 * TENTH}-"


def test_a_part_grew_only_if_the_next_fetch_has_more_to_go_on_with(host: Host, root: Path) -> None:
    grew: list[bool] = []

    def once(cut: int) -> None:
        host.cut = cut
        trusted = frozenset({host.url})
        with parts.hold(root, OWNER, job="gen_1", name="source.mp4") as part:
            with pytest.raises(DownloadFailed):
                download(host.url + "/v", part.path, max_bytes=10**8, deadline_s=9, trusted_origins=trusted, part=part)
            grew.append(part.grew)

    once(TENTH)
    once(TENTH)
    once(0)
    host.on_range = lambda body, start: answer("503 Busy")
    once(TENTH)
    host.on_range = None
    host.etag = '"two"'  # from the first byte again, and not further than before
    once(2 * TENTH)
    once(TENTH)
    host.etag = None
    once(5 * TENTH)
    assert grew == [True, True, False, False, False, True, False]


def test_a_file_that_changed_is_fetched_anew(host: Host, root: Path) -> None:
    interrupted(host, root)
    host.etag, host.body = '"two"', BODY[::-1]
    assert fetch(host, root) == BODY[::-1]
    assert host.ranges == [None, f"bytes={TENTH}-"]


@pytest.mark.parametrize("more", [{"path": "/other.mp4"}, {"job": "gen_2"}])
def test_another_files_part_is_not_gone_on_with(host: Host, root: Path, more: dict[str, str]) -> None:
    interrupted(host, root)
    assert fetch(host, root, **more) == BODY
    assert host.ranges == [None, None]


def test_a_host_that_fails_whenever_it_is_asked_for_a_rest_is_asked_for_all(host: Host, root: Path) -> None:
    interrupted(host, root)
    host.on_range = lambda body, start: answer("500 Oh")
    for _ in range(parts.MOST_REFUSALS):
        with pytest.raises(DownloadFailed):
            fetch(host, root)
    assert fetch(host, root) == BODY
    assert host.ranges[-1] is None


def test_trouble_of_the_host_costs_nothing_of_the_part(host: Host, root: Path) -> None:
    interrupted(host, root)
    host.on_range = lambda body, start: answer("503 Busy")
    with pytest.raises(DownloadFailed):
        fetch(host, root)
    host.on_range = None
    assert fetch(host, root) == BODY
    assert host.ranges[-1] == f"bytes={TENTH}-"


# --- what is kept --------------------------------------------------------------------------------------------------


def the_part(root: Path) -> Path:
    (folder,) = root.iterdir()
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda known: known.update(boot="another start of the machine"),
        lambda known: known.update(job="gen_9"),
        lambda known: known.pop("known"),
        lambda known: known["known"].update(etag="one"),
        lambda known: known["known"].update(etag=None),
        lambda known: known["known"].update(total=TENTH - 1),
        lambda known: known["known"].update(total="many"),
        lambda known: known["known"].update(place=7),
        lambda known: known["known"].update(more=1),
    ],
)
def test_a_part_that_says_anything_odd_is_not_trusted(
    host: Host, root: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    interrupted(host, root)
    path = the_part(root) / "known.json"
    known = json.loads(path.read_text())
    change(known)
    path.write_text(json.dumps(known))
    assert fetch(host, root) == BODY
    assert host.ranges == [None, None]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
def test_half_of_what_is_known_is_nothing(host: Host, root: Path, text: str) -> None:
    interrupted(host, root)
    (the_part(root) / "known.json").write_text(text)
    assert fetch(host, root) == BODY
    assert host.ranges == [None, None]


def test_bytes_that_are_stored_under_another_name_too_are_never_written_to(host: Host, root: Path) -> None:
    interrupted(host, root)
    stored = root.parent / "stored.mp4"
    os.link(the_part(root) / "bytes", stored)
    assert fetch(host, root) == BODY
    assert stored.read_bytes() == BODY[:TENTH]


@pytest.mark.parametrize("name", ["bytes", "source.mp4"])
def test_a_file_that_was_complete_when_its_writer_died_costs_a_byte(host: Host, root: Path, name: str) -> None:
    interrupted(host, root)
    folder = the_part(root)
    (folder / "bytes").unlink()
    (folder / name).write_bytes(BODY)
    host.sent = 0
    assert fetch(host, root) == BODY
    assert host.sent == 1


@pytest.mark.parametrize(
    ("body", "more", "error"),
    [
        (BODY, {"max_bytes": 1000}, DownloadTooLarge),
        (BODY, {"reserve_bytes": 10**18}, DiskFull),
    ],
)
def test_what_is_no_part_of_a_video_is_not_kept(
    host: Host, root: Path, body: bytes, more: dict[str, Any], error: type[Exception]
) -> None:
    interrupted(host, root)
    host.on_range = lambda _, start: answer("200 OK", 'ETag: "two"', body=body)
    with pytest.raises(error):
        fetch(host, root, **more)
    assert not list(root.iterdir())


@pytest.mark.parametrize("size", [3, 300, 300_000])
@pytest.mark.parametrize("etag", ['ETag: "two"', "X: y"])
def test_a_page_in_between_costs_nothing_of_a_part(host: Host, root: Path, size: int, etag: str) -> None:
    interrupted(host, root)
    host.on_range = lambda _, start: answer("200 OK", etag, body=b"<html>" * size)
    with pytest.raises(NotMedia):
        fetch(host, root)
    host.on_range = lambda _, start: answer("200 OK", etag)
    with pytest.raises(NotMedia):
        fetch(host, root)
    host.on_range = None
    assert fetch(host, root) == BODY
    assert host.ranges[1:] == [f"bytes={TENTH}-"] * 3


def test_what_came_before_the_deadline_or_a_stop_is_kept(host: Host, root: Path) -> None:
    silent = threading.Event()

    def serve(connection: socket, request: bytes) -> None:
        start = f'HTTP/1.1 200 OK\r\nETag: "one"\r\nContent-Length: {len(BODY)}\r\n\r\n'.encode()
        connection.sendall(start + BODY[:TENTH])
        silent.wait(60)

    host.server.behave = serve
    with pytest.raises(DownloadTimeout):
        fetch(host, root, deadline_s=0.4)
    host.server.behave = host._serve
    host.cut = TENTH
    stop = threading.Event()
    with pytest.raises(Cancelled):
        fetch(host, root, cancelled=stop, on_progress=lambda *_: stop.set())
    silent.set()
    host.cut = None
    assert fetch(host, root) == BODY
    assert host.ranges[0] == f"bytes={TENTH}-"
    assert host.ranges[1] is not None


# --- who may write -------------------------------------------------------------------------------------------------


def test_the_part_of_a_living_writer_is_left_alone(host: Host, root: Path) -> None:
    """A frozen worker wakes up after another took its task over: both end with a whole file of their own."""
    interrupted(host, root)
    with parts.hold(root, OWNER, job="gen_1", name="source.mp4") as frozen:
        assert fetch(host, root) == BODY
        assert host.ranges == [None, None]
        download(host.url + "/v.mp4", frozen.path, max_bytes=10**8, deadline_s=20, part=frozen,
                 trusted_origins=frozenset({host.url}))  # fmt: skip
        assert host.ranges[-1] == f"bytes={TENTH}-"
        assert frozen.path.read_bytes() == BODY
        frozen.give_up()
    assert not list(root.iterdir())


def test_many_at_once_never_share_a_part(root: Path) -> None:
    for _ in range(3):
        with parts.hold(root, OWNER, job="gen_1", name="source.mp4") as left:
            left.begin(parts.Known('"one"', 10, "host/v.mp4"))
            left.bytes_path.write_bytes(b"12345")
    held: list[Path] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        with parts.hold(root, OWNER, job="gen_1", name="source.mp4") as part:
            held.append(part.path.parent)
            barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(held)) == 8


CHILD = """
import os, signal, sys
from pathlib import Path
from media_pipeline.fetch import parts
from media_pipeline.fetch.download import download

url, root, die_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def progress(size, total):
    if size >= die_at:
        os.kill(os.getpid(), signal.SIGKILL)

with parts.hold(root, "task_0123", job="gen_1", name="source.mp4") as part:
    download(url + "/v.mp4", part.path, max_bytes=10**8, deadline_s=20, part=part, on_progress=progress,
             trusted_origins=frozenset({url}))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("die_at", [1, TENTH, len(BODY) // 2, len(BODY), len(BODY) + 1])
def test_kill_9_at_any_byte_leaves_a_part_that_can_be_gone_on_with(host: Host, root: Path, die_at: int) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, host.url, str(root), str(die_at)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    left = sum(path.stat().st_size for path in root.glob("*/bytes")) or sum(
        path.stat().st_size for path in root.glob("*/source.mp4")
    )
    assert left or die_at <= 256 * 1024  # the first bytes are judged before they are written
    host.sent = 0
    assert fetch(host, root) == BODY
    assert host.sent == len(BODY) - min(left, len(BODY) - 1)
    assert not list(root.iterdir())


def test_without_locks_there_is_nothing_to_go_on_with(host: Host, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("media_pipeline.fetch.parts.fcntl.flock", no_locks)
    interrupted(host, root)
    assert fetch(host, root) == BODY
    assert host.ranges == [None, None]


def test_a_sweep_takes_what_nobody_needs_and_nobody_writes_to(host: Host, root: Path) -> None:
    interrupted(host, root)
    (root / "task_0123-7-abc").mkdir()
    assert parts.owners(root) == {OWNER}
    assert parts.sweep(root, {"task_of_another"}) == 0
    with parts.hold(root, OWNER, job="gen_1", name="source.mp4"):
        assert parts.sweep(root, {OWNER}) == 0
    assert parts.sweep(root, {OWNER}) == 1
    assert [path.name for path in root.iterdir()] == ["task_0123-7-abc"]
    assert parts.sweep(root / "absent", {OWNER}) == 0


def test_a_part_is_of_one_file(host: Host, root: Path) -> None:
    with (
        parts.hold(root, OWNER, job="gen_1", name="source.mp4") as part,
        pytest.raises(ValueError, match="one file"),
    ):
        download(host.url, root / "other.mp4", max_bytes=1, deadline_s=1, part=part)
