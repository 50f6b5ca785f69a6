"""Waves of reads against real sockets on loopback: by the same rules as single ones."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from providers.contract import HttpReply, HttpRequest
from providers.errors import ForeignOrigin, ProviderDown
from providers.http import Sender
from providers.http_batch import BatchReader
from tests.providers.raw_server import KEY, OK, Server, answer, drip, free_port, get

Serve = Callable[..., Server]


def single(url: str, request: HttpRequest, deadline_s: float) -> HttpReply | ProviderDown:
    """What `Sender.read` makes of it."""
    try:
        return Sender(url).read(request, deadline_s=deadline_s)
    except ProviderDown as err:
        return err


def batch(url: str, *requests: HttpRequest, deadline_s: float = 30) -> list[HttpReply | ProviderDown]:
    return BatchReader(url).read_many(requests, deadline_s=deadline_s)


ANSWERS: dict[str, Callable[[Any, bytes], None]] = {
    "ok": answer(OK),
    "redirect": answer(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    "not found": answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"),
    "busy": answer(b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"),
    "server error": answer(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 3\r\n\r\nbad"),
    "until close": answer(b"HTTP/1.1 200 OK\r\n\r\n" + OK[-11:]),
    "chunked": answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "a long header": answer(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 30_000 + b"\r\nContent-Length: 2\r\n\r\n{}"),
    "closed": lambda connection, _: None,
    "silent": lambda connection, _: time.sleep(40),
    "no http": answer(b"nonsense\r\n\r\n"),
    "short": answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
    "a bad chunk": answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "bad gzip": answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
    "too long": answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1200000\r\n\r\n" + b" " * 1_200_000),
    "dripping headers": drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000),
    "dripping body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + b" " * 4000),
}
TIMED = {"silent", "dripping headers", "dripping body"}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_wave_makes_of_an_answer_what_a_single_read_makes_of_it(serve: Serve, name: str) -> None:
    server = serve(ANSWERS[name])
    deadline_s = 0.5 if name in TIMED else 30
    alone = single(server.url, get(server.url), deadline_s)
    (together,) = batch(server.url, get(server.url), deadline_s=deadline_s)
    assert type(together) is type(alone)
    if isinstance(alone, HttpReply):
        assert isinstance(together, HttpReply)
        assert (together.status, together.headers, together.body) == (alone.status, alone.headers, alone.body)
        assert together.retry_after_s() == alone.retry_after_s()
    else:
        assert together.args[0].startswith("the read failed: GET http://127.0.0.1:")  # type: ignore[union-attr]
        if name in TIMED | {"too long"}:
            assert str(together) == str(alone)


def test_a_refused_connection_and_a_name_that_does_not_exist_are_provider_down() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid"):
        (found,) = batch(url, get(url))
        assert type(found) is ProviderDown


def test_each_request_has_its_own_outcome_in_the_order_of_asking(serve: Serve) -> None:
    def behave(connection: Any, received: bytes) -> None:
        if b"/bad" not in received:
            connection.sendall(OK)

    server = serve(behave)
    found = batch(server.url, *(get(server.url, f"/{'bad' if n % 3 == 0 else 'good'}/{n}") for n in range(30)))
    assert [isinstance(one, ProviderDown) for one in found] == [n % 3 == 0 for n in range(30)]


def test_a_wave_is_asked_at_once_on_few_connections_that_the_next_one_uses_again(serve: Serve) -> None:
    together = threading.Barrier(4)

    def behave(connection: Any, received: bytes) -> None:
        if b"/first" in received:
            together.wait(30)  # breaks, and nothing is answered, unless four are here at once
        connection.sendall(OK)

    server = serve(behave, keep_alive=True)
    reader = BatchReader(server.url, connections=4)
    for path in ("/first", "/second"):
        found = reader.read_many([get(server.url, path)] * 40, deadline_s=60)
        assert all(isinstance(one, HttpReply) for one in found)
    assert server.connections == 4


def test_the_deadline_is_for_the_whole_wave_and_what_was_answered_before_it_counts(serve: Serve) -> None:
    server = serve(lambda c, r: time.sleep(40) if b"/slow" in r else c.sendall(OK))
    reader = BatchReader(server.url, connections=2)
    started = time.monotonic()
    found = reader.read_many([get(server.url), *[get(server.url, "/slow")] * 20], deadline_s=1)
    assert time.monotonic() - started < 20
    assert isinstance(found[0], HttpReply)
    assert all("the time was over" in str(one) for one in found[1:])


def test_an_idle_connection_that_was_closed_is_replaced(serve: Serve) -> None:
    def once(connection: Any, received: bytes) -> None:
        if b"second" not in received or len(server.requests) > 2:
            connection.sendall(OK)
        else:
            connection.close()

    server = serve(once, keep_alive=True)
    reader = BatchReader(server.url)
    for path in ("/first", "/second"):
        (found,) = reader.read_many([get(server.url, path)], deadline_s=30)
        assert isinstance(found, HttpReply)
    assert server.connections == 2


def test_it_sends_what_the_adapter_built_and_nothing_of_its_own(serve: Serve) -> None:
    server = serve(answer(OK))
    request = HttpRequest("GET", f"{server.url}/v1/a%2Fb", {"Authorization": "Bearer k"}, params={"task_ids": "a,b ü"})
    sent = []
    for send in (lambda: single(server.url, request, 30), lambda: batch(server.url, request)):
        send()
        head = server.requests[-1].decode().split("\r\n")
        sent.append((head[0], {line.lower() for line in head[1:] if line and not line.startswith("Connection")}))
    assert sent[0] == sent[1]


def test_no_key_goes_to_another_origin(serve: Serve) -> None:
    server, other = serve(answer(OK)), serve(answer(OK))
    found = batch(server.url, get(other.url), get(f"http://127.0.0.1@{other.url[7:]}"), get(server.url))
    assert [type(one) for one in found] == [ForeignOrigin, ForeignOrigin, HttpReply]
    assert not other.requests


def test_proxies_netrc_and_cookies_are_not_for_it(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    server = serve(answer(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")))
    reader = BatchReader(server.url)
    for _ in range(2):
        (found,) = reader.read_many([HttpRequest("GET", server.url)], deadline_s=30)
        assert isinstance(found, HttpReply)
    assert not any(b"uthorization" in sent or b"ookie:" in sent for sent in server.requests)


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\0b", "ключ"])
def test_a_header_that_http_cannot_carry_is_refused_before_the_socket_without_showing_it(
    serve: Serve, value: str
) -> None:
    server = serve(answer(OK))
    (found,) = batch(server.url, HttpRequest("GET", f"{server.url}/v1", {"Authorization": value}))
    assert isinstance(found, ProviderDown)
    assert value not in str(found)
    assert not server.requests


@pytest.mark.parametrize("name", ["closed", "silent", "no http", "short", "too long", "bad gzip"])
def test_errors_show_neither_key_nor_query(serve: Serve, name: str) -> None:
    server = serve(ANSWERS[name])
    (found,) = batch(server.url, get(server.url), deadline_s=0.5)
    shown = f"{found!r} {found.__cause__!r} {found.__context__!r}"  # type: ignore[union-attr]
    assert KEY not in shown
    assert "sig-secret" not in shown


def test_only_reads_that_may_be_repeated_go_in_waves(serve: Serve) -> None:
    server = serve(answer(OK))
    with pytest.raises(ValueError, match="GET"):
        batch(server.url, HttpRequest("DELETE", server.url))
    assert not server.requests


def test_the_child_of_a_fork_has_a_wave_of_its_own(serve: Serve) -> None:
    server = serve(answer(OK), keep_alive=True)
    reader = BatchReader(server.url)
    reader.read_many([get(server.url)], deadline_s=30)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            (found,) = reader.read_many([get(server.url)], deadline_s=30)
            status = 0 if isinstance(found, HttpReply) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.connections == 2
    (found,) = reader.read_many([get(server.url)], deadline_s=30)
    assert isinstance(found, HttpReply)
    assert server.connections == 2
