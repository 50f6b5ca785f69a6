"""What stands between us and a provider can be played by script: pages, redirects, interim answers, odd headers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.providers.simulator.client import Client, KlingClient, PikaClient, RunwayClient

SUBMIT = (
    b"POST /v1/text_to_video HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nX-Runway-Version: 2024-11-06\r\n"
    b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
)


def exchange(client: RunwayClient, data: bytes) -> list[bytes]:
    """The status lines of everything that comes back, as it was sent."""
    base = urlsplit(client.base)
    with socket.create_connection((base.hostname or "", base.port or 0), timeout=30) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
    return [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def submit(client: RunwayClient, prompt: str) -> list[bytes]:
    body = b'{"model":"gen4.5","promptText":"%b","ratio":"1280:720","duration":2}' % prompt.encode()
    return exchange(client, SUBMIT % (client.key.encode(), len(body), body))


def poll(client: RunwayClient, job_id: str) -> list[bytes]:
    head = f"GET /v1/tasks/{job_id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\n"
    return exchange(client, f"{head}X-Runway-Version: 2024-11-06\r\nConnection: close\r\n\r\n".encode())


@pytest.fixture(params=["runway", "pika", "kling"])
def each(request: pytest.FixtureRequest) -> Client:
    """A client of each dialect in turn."""
    name = {"runway": "client"}.get(request.param, request.param)
    one: Client = request.getfixturevalue(name)
    return one


CREATE: dict[type[Client], Callable[[Any, str], requests.Response]] = {
    RunwayClient: lambda one, prompt: one.create(prompt),
    PikaClient: lambda one, prompt: one.create(prompt),
    KlingClient: lambda one, prompt: one.older(prompt),
}


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_proxys_page_is_one_at_each_provider(each: Client, status: int) -> None:
    prompt = f"page {status} {each.key} [[sim status={status}-htmlx1 retry_after=86400]]"
    reply = CREATE[type(each)](each, prompt)
    assert (reply.status_code, reply.headers["Content-Type"]) == (status, "text/html")
    assert reply.text.startswith("<html>")
    assert reply.headers["Retry-After"] == "86400"
    assert each.submits(prompt)["created"] == 0
    assert CREATE[type(each)](each, prompt).ok


def test_a_page_can_come_at_each_stage(client: RunwayClient) -> None:
    job_id = client.job("pages [[sim poll_status=404-htmlx2 file_status=403-htmlx1 render=0]]")
    looks = [client.poll(job_id) for _ in range(3)]
    assert [look.status_code for look in looks] == [404, 404, 200]
    assert looks[0].text.startswith("<html>")
    link = client.wait(job_id, "SUCCEEDED")["output"][0]
    assert client.download(link).text.startswith("<html>")
    assert client.download(link).status_code == 200
    live = client.job("cancel [[sim cancel=502-html render=60]]")
    assert client.call("DELETE", f"/v1/tasks/{live}").text.startswith("<html>")
    made = "made behind a page [[sim status_after=502-html]]"
    assert client.create(made).text.startswith("<html>")
    assert client.submits(made)["created"] == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_points_to_another_origin_and_makes_no_job(each: Client, status: int) -> None:
    prompt = f"moved {status} {each.key} [[sim redirect={status}x1]]"
    each.http.max_redirects = 0
    with pytest.raises(requests.TooManyRedirects) as caught:
        CREATE[type(each)](each, prompt)
    reply = caught.value.response
    assert reply is not None
    assert reply.status_code == status
    assert reply.headers["Location"].startswith("https://elsewhere.invalid/")
    assert each.submits(prompt)["created"] == 0
    assert CREATE[type(each)](each, prompt).ok


@pytest.mark.parametrize(("answer", "status"), [("307", 307), ("403-html", 403)])
def test_an_outage_can_be_a_proxys(client: RunwayClient, answer: str, status: int) -> None:
    link = client.link("proxied")
    client.sim("config", outage={"answer": answer})
    for url in (f"{client.base}/v1/tasks/x", link):
        reply = client.http.get(url, headers=client.headers, allow_redirects=False, timeout=30)
        assert reply.status_code == status
        assert reply.text.startswith("<html>")
        assert ("Location" in reply.headers) == (status == 307)


@pytest.mark.parametrize("answer", ["503x2", "304", "200", "soon"])
def test_an_outage_that_cannot_be_is_refused(client: RunwayClient, answer: str) -> None:
    reply = client.http.post(f"{client.base}/_sim/config", json={"outage": {"answer": answer}}, timeout=30)
    assert reply.status_code == 400


def test_looks_can_be_redirected(client: RunwayClient) -> None:
    job_id = client.job("moved later [[sim poll_redirect=307x1]]")
    assert poll(client, job_id) == [b"HTTP/1.1 307 Temporary Redirect"]
    assert poll(client, job_id) == [b"HTTP/1.1 200 OK"]


def test_interim_answers_come_before_the_real_one(client: RunwayClient) -> None:
    early, processing, good = b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 102 Processing", b"HTTP/1.1 200 OK"
    prompt = "early [[sim interim=103x1]]"
    assert [submit(client, prompt) for _ in range(2)] == [[early, good], [good]]
    refused = "early and no [[sim interim=102,103x1 status=503x1 hang_before=0.01]]"
    assert submit(client, refused) == [processing, early, b"HTTP/1.1 503 Service Unavailable"]
    late = "early and late [[sim interim=102 hang=0.01]]"
    assert submit(client, late) == [processing, good]
    job_id = client.job("looks [[sim poll_interim=103x2 poll_status=503x1]]")
    assert poll(client, job_id) == [early, b"HTTP/1.1 503 Service Unavailable"]
    assert [poll(client, job_id) for _ in range(2)] == [[early, good], [good]]


@pytest.mark.parametrize("word", ["1e308", "-5", "86400", "nan", "soon;,=", "9" * 80])
def test_retry_after_is_sent_as_it_stands(client: RunwayClient, word: str) -> None:
    reply = client.create(f"wait [[sim status=429 retry_after={word}]]")
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, word)


@pytest.mark.parametrize("ahead_s", [31_536_000, -3600])
def test_retry_after_can_be_a_date(client: RunwayClient, ahead_s: int) -> None:
    job_id = client.job(f"dated [[sim poll_status=429 retry_after=date:{ahead_s:+d}]]")
    said = parsedate_to_datetime(client.poll(job_id).headers["Retry-After"]).timestamp()
    assert abs(said - time.time() - ahead_s) < 30
