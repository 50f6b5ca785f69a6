"""Call-backs of the simulator, signed as the providers sign theirs, against the real web process."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import zlib
from collections.abc import Callable, Iterable
from http.client import HTTPResponse
from typing import Any

import pytest
import requests

from tests.factories import accepted, make_task, reload
from tests.system.system import Simulator, System, until
from video.models import Generation, VideoTask


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def reachable(system: System) -> System:
    """A system that providers can call, and that by itself would look at a job once a minute only."""
    port = free_port()
    system.env.update(
        PUBLIC_BASE_URL=f"http://127.0.0.1:{port}", POLL_INTERVAL_SECONDS="60", CIRCUIT_FAULTS="1000", COOKIE_SECURE="0"
    )
    system.web(port)
    system.worker()
    system.sweeper()
    return system


def ended(task: VideoTask) -> VideoTask:
    found: VideoTask = until(f"{task.pk} ends", lambda: (now := reload(task)).finished_at and now)
    return found


@pytest.mark.parametrize("model", ["pika-2.2", "kling-2.5-turbo"])
def test_a_call_brings_the_video_long_before_the_next_poll(reachable: System, model: str) -> None:
    task = ended(make_task(prompt=f"call {model} [[sim render=1]]", model_requested=model))
    assert task.status == "success"
    assert Generation.objects.get(task=task).polls <= 3


def test_fals_signed_call_settles_a_submit_whose_answer_was_lost(reachable: System, simulator: Simulator) -> None:
    task = ended(make_task(prompt="call lost [[sim lost_reply=1 render=1]]", model_requested="pika-2.2"))
    assert (task.status, task.error_code) == ("success", "")
    assert simulator.submits(task.prompt)["created"] == 1
    assert Generation.objects.get(task=task).state == "succeeded"


def test_a_forged_call_moves_nothing(reachable: System) -> None:
    task = make_task(prompt="call forged [[sim callback=forged render=1]]", model_requested="pika-2.2")
    generation = until("it is accepted", lambda: Generation.objects.filter(task=task, state="accepted").first())
    until("the forged call was refused", lambda: "401" in reachable_log(reachable) or None)
    generation.refresh_from_db()
    assert (generation.state, generation.polls) == ("accepted", 0)


def call_in_pieces(port: int, path: str, pieces: Iterable[bytes], *headers: str) -> tuple[int, dict[str, Any]]:
    """The status and the answer to a chunked POST, as no length is known when it begins."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", "Transfer-Encoding: chunked"]
        connection.sendall("\r\n".join([*lines, *headers, "", ""]).encode())
        with contextlib.suppress(ConnectionError):  # an answer may come before all is sent
            for piece in pieces:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
        reply = HTTPResponse(connection, method="POST")
        reply.begin()
        return reply.status, json.loads(reply.read())


def test_calls_that_are_chunked_and_compressed_are_taken_within_the_limit(system: System) -> None:
    port = free_port()
    system.env.update(COOKIE_SECURE="0")
    system.web(port)
    numbers = itertools.count(893605946402811985)

    def is_taken(
        cut: Callable[[bytes], Iterable[bytes]], *headers: str, pack: Callable[[bytes], bytes] = bytes, path: str = ""
    ) -> bool:
        job = next(numbers)
        generation = accepted(make_task(), str(job))
        Generation.objects.filter(pk=generation.pk).update(provider="kling")
        body = json.dumps({"code": 0, "data": {"task_id": job, "task_status": "succeed"}}).encode()
        status, answer = call_in_pieces(port, f"/api/video/webhook{path}", cut(pack(body)), *headers)
        assert (status, answer["success"]) == (200, True), answer
        return reload(generation.task).hinted_at is not None

    assert is_taken(lambda body: [body])
    assert is_taken(lambda body: [body[at : at + 1] for at in range(len(body))], path="/kling/")
    assert is_taken(lambda body: [body], "Content-Encoding: gzip", pack=gzip.compress)
    assert is_taken(lambda body: [body[:9], body[9:]], "Content-Encoding: deflate", pack=zlib.compress, path="/kling")
    bomb = gzip.compress(b" " * 20_000_000, 9)
    for pieces, headers in (([b" " * 1000] * 66, ()), ([bomb], ("Content-Encoding: gzip",))):
        status, answer = call_in_pieces(port, "/api/video/webhook/kling", pieces, *headers)
        assert (status, answer["error"]["code"]) == (413, "body_too_large")
    status, answer = call_in_pieces(port, "/api/auth/login", [b"{", b"}"], "Content-Type: application/json")
    assert (status, answer["error"]["code"]) == (400, "invalid_request")  # read like any other


def reachable_log(system: System) -> str:
    """What the web process, or the simulator that calls it, says of the call."""
    answers = requests.get(f"{system.simulator.url}/_sim/callbacks", timeout=30).json()["answers"]
    return str(answers)
