"""A 1xx answer before the real one costs nothing: it is read past, for a submit, a read and a wave of reads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from providers.contract import HttpReply, HttpRequest
from providers.errors import ProviderDown, SubmissionUnknown
from providers.http import Sender
from providers.http_batch import BatchReader
from providers.interim import MOST_INTERIM_ANSWERS
from tests.providers.raw_server import KEY, OK, Server, answer, drip, get
from tests.providers.simulator.client import start

Serve = Callable[..., Server]

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 3\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UNKNOWN = b"HTTP/1.1 199 Whatever\r\n\r\n"
FORBIDDEN = b"HTTP/1.0 103 Early Hints\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"
BEFORE = {
    "one 103": EARLY,
    "one 102": PROCESSING,
    "several": CONTINUE + PROCESSING + EARLY + EARLY + CONTINUE,
    "as many as are read": EARLY * MOST_INTERIM_ANSWERS,
    "one that nobody defined": UNKNOWN,
}


def post(url: str) -> HttpRequest:
    return HttpRequest("POST", url + "/v1/text_to_video", {"Authorization": f"Bearer {KEY}"}, json={"a": 1})


def submit(url: str, deadline_s: float) -> HttpReply:
    return Sender(url).submit(post(url), deadline_s=deadline_s)


def read(url: str, deadline_s: float) -> HttpReply:
    return Sender(url).read(get(url), deadline_s=deadline_s)


def read_in_a_wave(url: str, deadline_s: float) -> HttpReply:
    (found,) = BatchReader(url).read_many([get(url)], deadline_s=deadline_s)
    if isinstance(found, ProviderDown):
        raise found
    return found


CALLS = pytest.mark.parametrize("call", [submit, read, read_in_a_wave])
Call = Callable[[str, float], HttpReply]


@CALLS
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("real", [OK, REFUSED], ids=["ok", "refused"])
def test_the_real_answer_is_read(serve: Serve, call: Call, before: str, real: bytes) -> None:
    server = serve(answer(BEFORE[before] + real))
    reply = call(server.url, 30)
    alone = call(serve(answer(real)).url, 30)
    assert (reply.status, reply.headers, reply.body) == (alone.status, alone.headers, alone.body)
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", [submit, read])
def test_headers_that_no_interim_answer_may_have_cost_no_paid_job(serve: Serve, call: Call) -> None:
    assert call(serve(answer(FORBIDDEN + OK)).url, 30).json() == {"id": "j1"}


@CALLS
def test_the_real_answer_may_come_much_later_and_in_pieces(serve: Serve, call: Call) -> None:
    assert call(serve(drip(EARLY + OK, every_s=0.001)).url, 30).json() == {"id": "j1"}


def test_a_kept_alive_connection_gives_each_request_its_own_answer(serve: Serve) -> None:
    numbers = itertools.count()

    def behave(connection: Any, _: bytes) -> None:
        body = b'{"n":%d}' % next(numbers)
        connection.sendall(EARLY + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    server = serve(behave, keep_alive=True)
    sender, wave = Sender(server.url), BatchReader(server.url, connections=1)
    assert [sender.read(get(server.url), deadline_s=30).json() for _ in range(5)] == [{"n": n} for n in range(5)]
    assert server.connections == 1
    found = wave.read_many([get(server.url)] * 5, deadline_s=30)
    assert sorted(reply.json()["n"] for reply in found if isinstance(reply, HttpReply)) == [5, 6, 7, 8, 9]
    assert server.connections == 2


def test_interim_answers_over_tls() -> None:
    process, url = start("--tls", "--canned")
    assert process.stdout is not None
    with process:
        sender = Sender(url, ca_bundle=process.stdout.readline().split()[-1])
        headers = {"Authorization": f"Bearer {KEY}", "X-Runway-Version": "2024-11-06"}
        prompt = "early [[sim interim=102,103,103 poll_interim=103 render=60]]"
        order = {"model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 5}
        made = sender.submit(HttpRequest("POST", f"{url}/v1/text_to_video", headers, json=order), deadline_s=60)
        assert made.status == 200
        look = HttpRequest("GET", f"{url}/v1/tasks/{made.json()['id']}", headers)
        for _ in range(2):
            assert sender.read(look, deadline_s=60).json()["id"] == made.json()["id"]
        process.terminate()


@CALLS
def test_switching_protocols_is_no_answer(serve: Serve, call: Call) -> None:
    server = serve(answer(SWITCH + OK))
    with pytest.raises(SubmissionUnknown if call is submit else ProviderDown):
        call(server.url, 30)
    assert len(server.requests) == 1


@CALLS
@pytest.mark.parametrize("then", [b"", b"HTTP/1.1 103 Early"], ids=["nothing", "half of one"])
def test_an_interim_answer_and_then_none_is_unknown(serve: Serve, call: Call, then: bytes) -> None:
    with pytest.raises(SubmissionUnknown if call is submit else ProviderDown):
        call(serve(answer(EARLY + then)).url, 30)


@pytest.mark.parametrize("call", [submit, read])
@pytest.mark.parametrize("each", [EARLY, CONTINUE], ids=["103", "100"])
def test_interim_answers_without_end_are_given_up_by_their_number(serve: Serve, call: Call, each: bytes) -> None:
    expected = SubmissionUnknown if call is submit else ProviderDown
    with pytest.raises(expected, match="TooManyInterimAnswers"):
        call(serve(answer(each * (MOST_INTERIM_ANSWERS + 1) + OK)).url, 600)


@CALLS
@pytest.mark.parametrize("pause_s", [0.01, 0], ids=["slow", "a flood"])
def test_interim_answers_without_end_are_given_up_with_the_deadline(serve: Serve, call: Call, pause_s: float) -> None:
    def behave(connection: Any, _: bytes) -> None:
        while True:
            connection.sendall(EARLY)
            time.sleep(pause_s)

    started = time.monotonic()
    with pytest.raises(SubmissionUnknown if call is submit else ProviderDown):
        call(serve(behave).url, 0.5)
    assert time.monotonic() - started < 20


@CALLS
def test_an_interim_answer_with_endless_headers_is_given_up(serve: Serve, call: Call) -> None:
    started = time.monotonic()
    with pytest.raises(SubmissionUnknown if call is submit else ProviderDown):
        call(serve(answer(b"HTTP/1.1 103 Early Hints\r\n" + b"X: y\r\n" * 200_000)).url, 5)
    assert time.monotonic() - started < 20
