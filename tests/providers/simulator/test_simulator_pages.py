"""A page in a browser on the simulator's host can't read or change it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.providers.simulator.client import RunwayClient

JSON = {"Content-Type": "application/json"}
OF_PAGES = {
    "a form of another site": {"Origin": "https://evil.example", "Content-Type": "application/x-www-form-urlencoded"},
    "a script of another site": {"Origin": "https://evil.example", **JSON},
    "a sandboxed frame": {"Origin": "null", **JSON},
    "a page on another port": {"Origin": "http://127.0.0.1:3000", **JSON},
    "another site, without an origin": {"Sec-Fetch-Site": "cross-site", **JSON},
    "another port, without an origin": {"Sec-Fetch-Site": "same-site", **JSON},
    "a name that was made to point here": {"Host": "evil.example:8900", "Origin": "http://evil.example:8900", **JSON},
    "such a name, without an origin": {"Host": "evil.example", "Sec-Fetch-Site": "same-origin", **JSON},
    "a host that can't be read": {"Host": "[::1", **JSON},
    "a name that begins like ours": {"Host": "localhost.evil.example", **JSON},
}
CALLS = (
    ("GET", "/_sim/jobs", None),
    ("GET", "/_sim", None),
    ("POST", "/_sim/config", {"advance_s": 3600}),
    ("POST", "/_sim/reset", None),
    ("POST", "/_sim/jobs/x", {"state": "lost"}),
)


def call(client: RunwayClient, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    data = None if body is None else json.dumps(body)
    return client.http.request(method, client.base + path, data=data, headers=headers, timeout=20)


@pytest.mark.parametrize("who", OF_PAGES)
def test_what_a_page_sends_is_refused_and_nothing_changes(client: RunwayClient, who: str) -> None:
    job = client.job(f"seen by {who} [[sim render=60]]")
    before = client.sim("config")
    for method, path, body in CALLS:
        reply = call(client, method, path, body, OF_PAGES[who])
        assert reply.status_code == 403, (method, path, reply.text)
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert client.sim("config") == before
    assert client.sim(f"jobs?id={job}")["count"] == 1


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_body_that_a_form_could_send_is_asked_to_be_json(client: RunwayClient, kind: str) -> None:
    before = client.sim("config")
    reply = call(client, "POST", "/_sim/config", {"advance_s": 3600}, {"Content-Type": kind})
    assert (reply.status_code, "Content-Type: application/json" in reply.json()["error"]) == (415, True)
    assert client.sim("config") == before


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "LOCALHOST:{port}", "sim.localhost:{port}", "[::1]:{port}", "127.9.9.9:1"]
)
def test_programs_may_name_loopback_in_any_way(client: RunwayClient, host: str) -> None:
    headers = {"Host": host.format(port=urlsplit(client.base).port), "Content-Type": "Application/JSON; charset=utf-8"}
    assert call(client, "POST", "/_sim/config", {}, headers).status_code == 200
    assert call(client, "GET", "/_sim/stats", None, headers).status_code == 200


def test_its_own_page_may(client: RunwayClient) -> None:
    headers = {"Origin": client.base, "Sec-Fetch-Site": "same-origin", **JSON}
    assert call(client, "POST", "/_sim/config", {}, headers).status_code == 200
