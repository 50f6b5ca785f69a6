"""The process and its HTTP: starts, stops, keys, load, and bytes in odd pieces."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from providers.simulator.server.control import _is_loopback
from tests.providers.simulator.client import RunwayClient, start

LIVE_JOBS = 10_000
CONNECTIONS = 50


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def raw(base: str, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    parts = urlsplit(base)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause_s)
        received = b""
        while data := sock.recv(65536):
            received += data
        return received


def test_only_given_keys_are_good_and_reset_forgets_the_rest() -> None:
    process, base = start("--keys", "good, also-good")
    try:
        good = RunwayClient(base, "good")
        good.job("forgotten on reset [[sim render=99]]")
        assert RunwayClient(base, "also-good").call("GET", "/v1/organization").status_code == 200
        assert RunwayClient(base, "bad").call("GET", "/v1/organization").status_code == 401
        good.sim("reset")
        assert good.sim("stats")["created"] == 0
        assert good.sim("jobs")["count"] == 0
    finally:
        process.terminate()
        process.wait(60)


def test_stops_at_once_and_leaves_no_child_while_everything_is_busy(tmp_path: Path) -> None:
    process, base = start("--data-dir", str(tmp_path))
    client = RunwayClient(base)
    for number in range(4):
        client.job(f"long {number} [[sim render=0]]", duration=10)
    hanging = socket.create_connection((urlsplit(base).hostname, urlsplit(base).port))
    body = json.dumps({"model": "gen4.5", "promptText": "[[sim hang=60]]", "ratio": "1280:720", "duration": 2}).encode()
    head = "POST /v1/text_to_video HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nx-runway-version: 2024-11-06\r\n"
    hanging.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    parent = psutil.Process(process.pid)
    for _ in range(2000):
        if children := parent.children(recursive=True):
            break
        time.sleep(0.02)
    assert children
    began = time.monotonic()
    process.terminate()
    assert process.wait(60) == 0
    assert time.monotonic() - began < 30  # measured: 0.03 s; the job that hangs would take 60
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not list(tmp_path.glob("tmp-*"))
    hanging.close()


def test_ends_with_its_parent() -> None:
    process, _ = start()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_says_what_is_wrong_with_its_arguments() -> None:
    command = [sys.executable, "-m", "providers.simulator", "--fps", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "fps" in done.stderr


def test_requests_in_pieces_in_one_piece_and_in_chunks(client: RunwayClient) -> None:
    assert raw(client.base, *(bytes([byte]) for byte in LAST)).count(b"HTTP/1.1 200 OK") == 1
    assert raw(client.base, GET * 5 + LAST).count(b"HTTP/1.1 200 OK") == 6
    body = b'{"render_seconds": 0.05}'
    chunks = b"%x\r\n%b\r\n%x;ext=1\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    post = b"POST /_sim/config HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(client.base, post, chunks[:9], chunks[9:] + LAST, pause_s=0.01).count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_waits_for_100_continue_gets_it(client: RunwayClient) -> None:
    parts = urlsplit(client.base)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as sock:
        head = b"POST /_sim/config HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        sock.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("bytes_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"431"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_bad_http_is_refused_and_closed(client: RunwayClient, bytes_: bytes, status: bytes) -> None:
    answer = raw(client.base, bytes_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer


def test_other_hosts_have_no_control() -> None:
    assert all(map(_is_loopback, ("127.0.0.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(_is_loopback, ("10.0.0.1", "", "::ffff:10.0.0.1")))


@pytest.mark.scale
def test_ten_thousand_live_jobs_are_all_answered() -> None:
    process, base = start("--canned", "--render-seconds", "2400")
    try:
        created, create_s = asyncio.run(_flood(base, LIVE_JOBS))
        polled, poll_s = asyncio.run(_flood(base, LIVE_JOBS, jobs=created))
        assert len(set(created)) == LIVE_JOBS
        assert sum(view["status"] in ("PENDING", "RUNNING") for view in polled) == LIVE_JOBS
        stats = RunwayClient(base).sim("stats")
        assert stats["live"] == LIVE_JOBS
        assert stats["created"] == LIVE_JOBS
        assert stats["rendered"] <= 1
        usage = psutil.Process(process.pid)
        cpu_s = sum(usage.cpu_times()[:2])
        print(
            f"\n{LIVE_JOBS / create_s:.0f} creates/s, {LIVE_JOBS / poll_s:.0f} polls/s,"
            f" {cpu_s:.2f} s CPU for {2 * LIVE_JOBS} calls, {usage.memory_info().rss / 1e6:.0f} MB"
        )
    finally:
        process.terminate()
        process.wait(60)


def test_ended_jobs_are_forgotten_and_counters_are_not() -> None:
    process, base = start("--canned", "--render-seconds", "0", "--keep-ended", "10")
    try:
        created, _ = asyncio.run(_flood(base, 2_000))
        client = RunwayClient(base, "load")
        assert client.sim("stats")["remembered"] <= 1_010
        kept = client.sim("jobs?limit=1")["jobs"][0]["id"]
        assert client.poll(created[0]).status_code == 404
        assert client.poll(kept).status_code == 200
        assert client.submits("load 0") == {"received": 1, "created": 1, "doubled": 0}
        assert client.sim("submits")["created"] == 2_000
    finally:
        process.terminate()
        process.wait(60)


async def _flood(base: str, calls: int, jobs: list[str] | None = None) -> tuple[list[Any], float]:
    """Creates, or polls of `jobs`, over kept connections, 20 in flight on each; the answers and how long it took."""
    parts = urlsplit(base)
    common = "host: x\r\nauthorization: Bearer load\r\nx-runway-version: 2024-11-06\r\naccept: */*\r\n"

    def call(number: int) -> bytes:
        if jobs is not None:
            return f"GET /v1/tasks/{jobs[number]} HTTP/1.1\r\n{common}\r\n".encode()
        body = json.dumps({"model": "gen4.5", "promptText": f"load {number}", "ratio": "1280:720", "duration": 2})
        more = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        return f"POST /v1/text_to_video HTTP/1.1\r\n{common}{more}".encode()

    async def one_connection(numbers: range) -> list[Any]:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        found = []
        for start_at in range(numbers.start, numbers.stop, 20):
            batch = range(start_at, min(start_at + 20, numbers.stop))
            writer.write(b"".join(map(call, batch)))
            for _ in batch:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                view = json.loads(await reader.readexactly(size))
                found.append(view["id"] if jobs is None else view)
        writer.close()
        return found

    began = time.monotonic()
    share = calls // CONNECTIONS
    shares = [range(number * share, (number + 1) * share) for number in range(CONNECTIONS)]
    done = await asyncio.gather(*map(one_connection, shares))
    return [item for part in done for item in part], time.monotonic() - began
