"""Event streams and statuses that wait, through the web server: no thread is held, and nothing is missed."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth.models import AbstractBaseUser
from rest_framework_simplejwt.tokens import AccessToken

from tests.factories import make_task, make_user
from tests.system.system import Process, Simulator, System, running, until
from video.models import TaskEvent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Web:
    """The web server, and one user's calls of it."""

    def __init__(self, system: System) -> None:
        self.port = free_port()
        self.process: Process = system.web(self.port)
        self.user: AbstractBaseUser = make_user(credit=1000)
        self.headers = {"Authorization": f"Bearer {AccessToken.for_user(self.user)}"}

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(
            f"http://127.0.0.1:{self.port}/api/video/{path}", headers=self.headers | headers, timeout=30
        )

    def cancel(self, task_id: str) -> None:
        address = f"http://127.0.0.1:{self.port}/api/video/cancel"
        assert requests.post(address, json={"taskId": task_id}, headers=self.headers, timeout=30).ok

    @contextmanager
    def events(self, query: str = "", **headers: str) -> Iterator[Iterator[tuple[int, dict[str, Any]]]]:
        """(id, status) of each event as it comes, until the server ends the stream."""
        address = f"http://127.0.0.1:{self.port}/api/video/events{query}"
        with requests.get(address, headers=self.headers | headers, stream=True, timeout=30) as answer:
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
            yield _parsed(answer.iter_lines(chunk_size=1, decode_unicode=True))


def _parsed(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            yield number, json.loads(line[6:])


@pytest.fixture(scope="module")
def web(database: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running(tmp_path_factory.mktemp("events"), simulator) as system:
        yield Web(system)


def test_a_task_is_followed_to_its_end(web: Web) -> None:
    task = make_task(web.user, "followed")
    with web.events(f"?taskId={task.pk}") as events:
        _, first = next(events)
        assert first == web.get(f"status?taskId={task.pk}").json()["data"]
        assert (first["status"], first["position"]) == ("pending", 1)
        web.cancel(task.pk)
        number, last = next(events)
        assert (last["status"], last["errorCode"]) == ("failed", "cancelled")
        assert next(events, None) is None  # the server ends the stream of a task that has ended
    again = web.get(f"events?taskId={task.pk}", **{"Last-Event-ID": str(number)})
    assert (again.status_code, again.content) == (204, b"")


def test_all_tasks_of_one_user_are_followed_and_nobody_elses(web: Web) -> None:
    mine, other = make_task(web.user, "mine"), make_task(make_user(credit=100), "not mine")
    with web.events() as events:
        assert next(events)[1]["taskId"] == mine.pk
        TaskEvent.objects.create(task=other, run=1, stage="generate", outcome="parked")
        later = make_task(web.user, "later")
        assert next(events)[1]["taskId"] == later.pk
        web.cancel(mine.pk)
        number, ended = next(events)
        assert (ended["taskId"], ended["status"]) == (mine.pk, "failed")
    web.cancel(later.pk)
    with web.events(**{"Last-Event-ID": str(number)}) as events:  # what ended meanwhile is told
        assert next(events)[1]["taskId"] == later.pk
    assert web.get(f"events?taskId={other.pk}").status_code == 404


def test_a_change_between_the_look_and_the_stream_is_not_missed(web: Web) -> None:
    """Streams that begin as their task ends: each tells of the end."""
    tasks = [make_task(web.user, f"race {number}") for number in range(20)]

    def follow(task_id: str) -> str:
        with web.events(f"?taskId={task_id}") as events:
            return [status for _, status in events][-1]["status"]

    with ThreadPoolExecutor(40) as pool:
        followed = [pool.submit(follow, task.pk) for task in tasks]
        for task in tasks:
            pool.submit(web.cancel, task.pk)
        assert {one.result(timeout=60) for one in followed} == {"failed"}


def test_a_status_may_wait_for_the_change(web: Web) -> None:
    task = make_task(web.user, "waited for")
    with ThreadPoolExecutor(64) as pool:  # more than there are threads
        waiting = [pool.submit(web.get, f"status?taskId={task.pk}&wait=20") for _ in range(64)]
        begun = time.monotonic()
        while not all(one.running() for one in waiting):
            assert time.monotonic() < begun + 20
        assert web.get("status?taskId=" + task.pk).json()["data"]["status"] == "pending"
        web.cancel(task.pk)
        answers = [one.result(timeout=60) for one in waiting]
    assert {answer.json()["data"]["status"] for answer in answers} == {"failed"}
    assert time.monotonic() - begun < 20  # the change woke them


def test_an_assistants_question_waits_as_well(web: Web) -> None:
    """It is a POST, whose body is asked again when the task has changed."""
    task = make_task(web.user, "waited for by an assistant")
    call = {"name": "video_status", "arguments": {"taskId": task.pk, "wait": 20}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}

    def ask(number: int) -> str:
        address = f"http://127.0.0.1:{web.port}/mcp"
        told = requests.post(address, json={**message, "id": number}, headers=web.headers, timeout=60).json()
        assert told["id"] == number
        return str(told["result"]["structuredContent"]["status"])

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, number) for number in range(8)]
        until("all are asked", lambda: all(one.running() for one in waiting))
        assert web.get(f"status?taskId={task.pk}").json()["data"]["status"] == "pending"
        web.cancel(task.pk)
        assert {one.result(timeout=60) for one in waiting} == {"failed"}


def test_a_status_that_has_waited_long_enough_is_answered_as_it_is(web: Web) -> None:
    task = make_task(web.user, "nothing happens")
    assert web.get(f"status?taskId={task.pk}&wait=1").json()["data"]["status"] == "pending"
    web.cancel(task.pk)
    assert web.get(f"status?taskId={task.pk}&wait=60").json()["data"]["status"] == "failed"  # at once


@pytest.mark.parametrize(
    ("path", "headers", "field"),
    [
        ("status?taskId=task_1&wait=x", {}, "wait"),
        ("status?taskId=task_1&wait=61", {}, "wait"),
        ("status?taskId=task_1&wait=-1", {}, "wait"),
        ("events", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("events", {"Last-Event-ID": "9" * 19}, "Last-Event-ID"),
    ],
)
def test_a_wrong_value_is_named(web: Web, path: str, headers: dict[str, str], field: str) -> None:
    answer = web.get(path, **headers)
    assert (answer.status_code, answer.json()["error"]["details"][0]["field"]) == (400, field)


def test_a_stream_needs_a_login(web: Web) -> None:
    assert requests.get(f"http://127.0.0.1:{web.port}/api/video/events", timeout=30).status_code == 401


def test_streams_hold_no_thread_and_end_with_the_server(web: Web, system: System) -> None:
    other = Web(system)
    task = make_task(other.user, "many listeners")
    request = f"GET /api/video/events?taskId={task.pk} HTTP/1.1\r\nHost: 127.0.0.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in other.headers.items()
    )
    listening = []
    for _ in range(100):
        listening.append(socket.create_connection(("127.0.0.1", other.port), timeout=30))
        listening[-1].sendall(f"{request}\r\n".encode())
        assert b"200 OK" in listening[-1].recv(4096)
    assert other.get(f"status?taskId={task.pk}").ok
    other.process.signal(signal.SIGTERM)
    until("the server has ended", lambda: not other.process.alive, seconds=30)
    assert other.process.returncode == 0
    for connection in listening:
        with connection:
            while connection.recv(65536):
                pass


def test_a_job_is_told_stage_by_stage(web: Web, system: System) -> None:
    system.worker()
    system.sweeper()
    task = make_task(web.user, "stage by stage")
    with web.events(f"?taskId={task.pk}") as events:
        told = [status for _, status in events]
    assert told[-1]["status"] == "success"
    assert set(told[-1]["result"]) == {"videoUrl", "thumbnailUrl"}
    assert [one["progress"] for one in told] == sorted(one["progress"] for one in told)
    assert Path(told[-1]["result"]["videoUrl"].split("?")[0]).suffix == ".mp4"
