"""`make up` on a port and a provider of the user's choice, and the API as curl would use it."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Page

from providers.api_keys import fingerprint
from tests.browser.conftest import chromium, page  # noqa: F401 - fixtures
from tests.browser.snippet import READY, log_in, run_snippet
from tests.e2e.conftest import Up, processes_of
from tests.system.system import Simulator, until

BODY = {"prompt": "A cat walking in a garden", "duration": 5, "aspectRatio": "16:9"}


def signed_in(up: Up, name: str) -> requests.Session:
    session = requests.Session()
    # Each request on a connection of its own: the server may close one whose body it did not read, or that was idle,
    # in the very moment when the next request is on its way.
    session.headers["Connection"] = "close"
    reply = session.post(
        f"{up.url}/api/auth/login", json={"username": name, "password": "secret-of-the-suite"}, timeout=30
    )
    assert reply.status_code == 200, reply.text
    return session


@pytest.fixture(scope="module")
def alice(up: Up) -> requests.Session:
    return signed_in(up, "alice")


@pytest.fixture(scope="module")
def finished(up: Up, alice: requests.Session) -> dict[str, Any]:
    """The status of a task that has succeeded."""
    made = alice.post(f"{up.url}/api/video/create", json=BODY, timeout=30).json()
    assert made["success"] is True, made
    seen: list[tuple[str, int]] = []

    def ended() -> dict[str, Any] | None:
        data: dict[str, Any] = alice.get(
            f"{up.url}/api/video/status", params={"taskId": made["data"]["taskId"]}, timeout=30
        ).json()["data"]
        seen.append((data["status"], data["progress"]))
        return data if data["status"] in {"success", "failed"} else None

    data: dict[str, Any] = until("the task ends", ended, seconds=60)
    assert {status for status, _ in seen} <= {"pending", "running", "success"}
    assert [progress for _, progress in seen] == sorted(progress for _, progress in seen)
    return data


def test_a_created_task_becomes_a_video_at_the_configured_provider(
    up: Up, finished: dict[str, Any], provider: Simulator
) -> None:
    assert (finished["status"], finished["progress"]) == ("success", 100)
    assert provider.submits(BODY["prompt"])["created"] == 1  # type: ignore[arg-type]


def test_the_links_give_the_files_and_ranges_of_them(up: Up, finished: dict[str, Any]) -> None:
    video = requests.get(finished["result"]["videoUrl"], headers={"Range": "bytes=0-99"}, timeout=30)
    assert (video.status_code, len(video.content)) == (206, 100)
    assert video.headers["Content-Type"] == "video/mp4"
    thumbnail = requests.get(finished["result"]["thumbnailUrl"], timeout=30)
    assert (thumbnail.status_code, thumbnail.headers["Content-Type"]) == (200, "image/jpeg")


def test_a_link_without_a_good_signature_is_forbidden(up: Up, finished: dict[str, Any]) -> None:
    url = finished["result"]["videoUrl"]
    bare = url.split("?")[0]
    for bad in (bare, url[:-2] + ("aa" if not url.endswith("aa") else "bb"), url.replace("expires=", "expires=1")):
        assert requests.get(bad, timeout=30).status_code == 403, bad


def test_another_user_does_not_find_the_task(up: Up, finished: dict[str, Any]) -> None:
    reply = signed_in(up, "bob").get(f"{up.url}/api/video/status", params={"taskId": finished["taskId"]}, timeout=30)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_no_token_is_401_and_no_credits_402(up: Up) -> None:
    assert requests.post(f"{up.url}/api/video/create", json=BODY, timeout=30).status_code == 401
    broke = signed_in(up, "bob").post(f"{up.url}/api/video/create", json=BODY, timeout=30)
    assert (broke.status_code, broke.json()["error"]["code"]) == (402, "insufficient_credits")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "duration": ({"duration": 60}, "duration"),
    "ratio": ({"aspectRatio": "5:1"}, "aspectRatio"),
    "type": ({"duration": "five"}, "duration"),
    "long prompt": ({"prompt": "x" * 1001}, "prompt"),
    "no prompt": ({"prompt": ""}, "prompt"),
    "unknown field": ({"ratio": "16:9"}, "ratio"),
    "private webhook": ({"webhookUrl": "https://localhost"}, "webhookUrl"),
}


@pytest.mark.parametrize(("change", "field"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_names_the_field(up: Up, alice: requests.Session, change: dict[str, Any], field: str) -> None:
    reply = alice.post(f"{up.url}/api/video/create", json={**BODY, **change}, timeout=30)
    assert reply.status_code == 400
    assert field in [detail["field"] for detail in reply.json()["error"]["details"]]


def test_a_body_that_is_no_json_or_too_large_is_refused(up: Up, alice: requests.Session) -> None:
    json_type = {"Content-Type": "application/json"}
    assert alice.post(f"{up.url}/api/video/create", data="{", headers=json_type, timeout=30).status_code == 400
    large = alice.post(f"{up.url}/api/video/create", json={**BODY, "prompt": "x" * 200_000}, timeout=30)
    assert large.status_code == 413


def test_a_post_from_another_site_is_refused(up: Up, alice: requests.Session) -> None:
    url = f"{up.url}/api/video/create"
    form = alice.post(url, data={"prompt": "x"}, headers={"Origin": "https://evil.example"}, timeout=30)
    text = alice.post(
        url, data="{}", headers={"Content-Type": "text/plain", "Sec-Fetch-Site": "same-origin"}, timeout=30
    )
    foreign = alice.post(url, json=BODY, headers={"Origin": "https://evil.example"}, timeout=30)
    assert form.status_code in {403, 415}
    assert text.status_code == 415
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "csrf")


def test_with_a_real_key_nothing_says_simulated_and_no_simulator_runs(up: Up) -> None:
    assert "SIMULATED" not in up.log()
    assert not [line for line in processes_of(up.project) if "providers.simulator" in line]


def test_no_key_and_no_signature_is_in_the_log(up: Up, finished: dict[str, Any]) -> None:
    signature = urlsplit(finished["result"]["videoUrl"]).query
    logs = [up.log(), *(path.read_text(errors="replace") for path in (up.project / ".reelworks/log").iterdir())]
    for log in logs:
        assert "key_e2e" not in log
        assert signature not in log


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_web_server_has_the_fingerprint_of_a_key_and_its_value_nowhere(up: Up, finished: dict[str, Any]) -> None:
    kinds = {"granian": False, "videoQueue": True}
    found = dict.fromkeys(kinds, False)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_text()
            kind = next((kind for kind in kinds if kind in line and "sitter.py" not in line), None)
            if kind and (process / "cwd").readlink() == up.project:
                found[kind] |= b"key_e2e" in memory(process)
                assert kind != "granian" or fingerprint("key_e2e") in (process / "environ").read_text()
    assert found == kinds


def memory(process: Path) -> bytes:
    """All that the process may write to: its heap and its stacks, its environment too."""
    parts = []
    with (process / "mem").open("rb") as mem:
        for line in (process / "maps").read_text().splitlines():
            span, rights = line.split()[:2]
            first, end = (int(number, 16) for number in span.split("-"))
            if rights.startswith("rw"):
                with contextlib.suppress(OSError):
                    mem.seek(first)
                    parts.append(mem.read(end - first))
    return b"".join(parts)


@pytest.mark.browser
def test_the_front_ends_code_runs_as_it_was_written(up: Up, page: Page) -> None:  # noqa: F811 - the fixture
    log_in(page, up.url, "alice", "secret-of-the-suite")
    line = run_snippet(page, up.url)
    assert line.startswith(READY)
    assert urlsplit(line.removeprefix(READY)).path.endswith(".mp4")


def test_a_second_start_finds_the_first_and_says_so(up: Up) -> None:
    second = up.manage("up")
    assert second.returncode != 0
    assert "already running" in second.stderr + second.stdout


def test_ctrl_c_stops_everything_within_ten_seconds(up: Up) -> None:
    """Last in this file: nothing runs afterwards."""
    asked = time.monotonic()
    up.interrupt()
    up.process.wait(15)
    assert time.monotonic() - asked < 10
    until("no process is left", lambda: not processes_of(up.project), seconds=10)
