"""Posting to a URL from outside: what is sent, what becomes of it, and who is never connected to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from media_pipeline.fetch.post import Posted, Problem, post
from tests.receiver import DRIP, DROP, HANG, Receiver, busy_for, receiving, redirect_to


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def send(receiver: Receiver) -> Callable[..., Posted]:
    def send(url: str = receiver.url, **more: Any) -> Posted:
        options = {"deadline_s": 10.0, "trusted_origins": frozenset({f"http://{receiver.host}"}), **more}
        return post(url, b'{"a": 1}', {"Content-Type": "application/json"}, **options)

    return send


def test_the_body_arrives_as_it_is_and_carries_nothing_of_ours(send: Callable[..., Posted], receiver: Receiver) -> None:
    assert send() == Posted(204)
    (got,) = receiver.got
    assert (got.target, got.body) == ("/hook?token=of-its-owner", b'{"a": 1}')
    assert got.headers == {
        "host": receiver.host,
        "user-agent": "Reelworks",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
        "content-type": "application/json",
        "content-length": "8",
    }


@pytest.mark.parametrize("status", [200, 302, 400, 410, 500])
def test_any_status_is_the_answer(send: Callable[..., Posted], receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    assert send().status == status


def test_a_redirect_is_not_followed(send: Callable[..., Posted], receiver: Receiver) -> None:
    receiver.answers = [redirect_to(f"http://{receiver.host}/elsewhere"), 204]
    assert send().status == 307
    assert len(receiver.got) == receiver.connections == 1


def test_a_pause_that_is_asked_for_is_told(send: Callable[..., Posted], receiver: Receiver) -> None:
    receiver.answers = [busy_for(90)]
    assert send() == Posted(503, retry_after_s=90)


@pytest.mark.parametrize("answer", [HANG, DRIP])
def test_the_time_is_over_for_a_receiver_that_is_silent_or_drips(
    send: Callable[..., Posted], receiver: Receiver, answer: str
) -> None:
    receiver.answers = [answer]
    assert send(deadline_s=0.3) == Posted(None, Problem.TIMEOUT, "no answer within 0.3 s")


def test_an_answer_without_an_end_is_not_waited_for(send: Callable[..., Posted], receiver: Receiver) -> None:
    receiver.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx"]
    assert send().status == 200


@pytest.mark.parametrize(
    "answer",
    [DROP, b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 200 + b"\r\n", b"HTTP/1.1 99 No\r\n\r\n"],
)
def test_what_is_no_answer_is_told_without_the_url(
    send: Callable[..., Posted], receiver: Receiver, answer: str | bytes
) -> None:
    receiver.answers = [answer]
    found = send()
    assert (found.status, found.problem) == (None, Problem.UNREACHABLE)
    assert "token" not in found.detail


def test_nobody_listens(send: Callable[..., Posted], receiver: Receiver) -> None:
    receiver.stop()
    assert send() == Posted(None, Problem.UNREACHABLE, "the receiver refuses the connection (ConnectionRefusedError)")


#: Hosts that lead to this machine, to a local network, to a cloud's metadata, or nowhere: as they may be written.
FORBIDDEN_HOSTS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.0x1",
    "0177.0.0.1",
    "0177.0.0.01",
    "0",
    "0.0.0.0",
    "0.0.0.1",
    "00000000.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "localhost.localdomain.local",
    "10.0.0.1",
    "10.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "metadata.google.internal",
    "instance-data.internal",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2001:0:7f00:1::]",
    "[2001:db8::1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2620:1::5efe:7f00:1]",
    "service",
    "db.internal",
    "printer.local",
    "router.lan",
    "intranet.corp",
    "nas.home.arpa",
    "hidden.onion",
    "%31%32%37.0.0.1",
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1:22",
    "example.com:22",
    "example.com:80",
    "example.com\\@127.0.0.1",
    "example.com#@127.0.0.1",
    "xn--.example",
    "-.example.com",
]
#: What a public name may resolve to, and is then not connected to: (answers of its DNS).
FORBIDDEN_ANSWERS = [
    ["127.0.0.1"],
    ["10.0.0.1"],
    ["169.254.169.254"],
    ["0.0.0.0"],
    ["::1"],
    ["::ffff:127.0.0.1"],
    ["fd00::1"],
    ["fe80::1"],
    ["64:ff9b::7f00:1"],
    ["100.64.0.1"],
    ["127.0.0.1", "::1", "192.168.1.1"],
]


@pytest.fixture
def every_dial(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Whoever connects, wherever to, reaches the receiver; returns where they were connected to."""
    dialled: list[tuple[str, int]] = []
    real, there = socket.create_connection, ("127.0.0.1", receiver.port)

    def connect(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        dialled.append(address)
        return real(there, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", connect)
    return dialled


def of_this_name(*answers: str) -> Callable[[str, int], list[str]]:
    """The DNS of a public name."""
    return lambda host, port: list(answers)


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_none_of_these_hosts_is_connected_to(receiver: Receiver, every_dial: list[tuple[str, int]], host: str) -> None:
    """Whatever its name resolves to: a name that is refused by its looks is not even looked up."""
    found = post(f"https://{host}/hook", b"{}", {}, deadline_s=5, resolver=of_this_name("127.0.0.1"))
    assert (found.status, found.problem) == (None, Problem.FORBIDDEN)
    assert (every_dial, receiver.connections) == ([], 0)


@pytest.mark.parametrize("answers", FORBIDDEN_ANSWERS, ids=lambda answers: ",".join(answers))
def test_a_public_name_of_a_private_address_is_not_connected_to(
    receiver: Receiver, every_dial: list[tuple[str, int]], answers: list[str]
) -> None:
    found = post("https://hooks.example.com/", b"{}", {}, deadline_s=5, resolver=of_this_name(*answers))
    assert found.problem == Problem.FORBIDDEN
    assert (every_dial, receiver.connections) == ([], 0)


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "gopher", "ws"])
def test_no_scheme_but_https_connects(receiver: Receiver, every_dial: list[tuple[str, int]], scheme: str) -> None:
    found = post(f"{scheme}://example.com/", b"{}", {}, deadline_s=5, resolver=of_this_name("93.184.216.34"))
    assert found.problem == Problem.FORBIDDEN
    assert (every_dial, receiver.connections) == ([], 0)


def test_a_public_address_is_connected_to_so_the_listener_would_have_seen_the_others(
    receiver: Receiver, every_dial: list[tuple[str, int]]
) -> None:
    found = post("https://example.com/", b"{}", {}, deadline_s=5, resolver=of_this_name("10.0.0.1", "93.184.216.34"))
    assert found.problem == Problem.UNREACHABLE  # the receiver speaks no TLS
    assert every_dial == [("93.184.216.34", 443)]
    assert receiver.connections == 1


def test_a_name_that_changes_its_address_is_dialled_where_it_was_checked(
    receiver: Receiver, every_dial: list[tuple[str, int]]
) -> None:
    """DNS rebinding: public when it is checked, private when it would be asked again."""
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    post("https://example.com/", b"{}", {}, deadline_s=5, resolver=lambda host, port: answers.pop(0))
    assert every_dial == [("93.184.216.34", 443)]
    found = post("https://example.com/", b"{}", {}, deadline_s=5, resolver=lambda host, port: answers.pop(0))
    assert found.problem == Problem.FORBIDDEN
    assert len(every_dial) == 1
