"""The front end's code runs as it stands, and pages of other sites get nowhere, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from playwright.sync_api import Page
from pytest_django import Settings

from tests.browser.snippet import FAILED, READY, log_in, run_snippet
from video.credits import ledger
from video.infra import toolkit
from video.models import VideoTask

NAME, PASSWORD = "ann", "correct horse battery staple"


@pytest.fixture
def site(live_server: Any, settings: Settings, tmp_path: Path) -> Iterator[str]:
    """A running server with one user, and a storage of its own; no worker takes the tasks."""
    user = get_user_model().objects.create_user(NAME, password=PASSWORD)
    ledger.grant(user.pk, 100)
    settings.STORAGE_LOCAL_PATH = tmp_path
    toolkit.toolkit.cache_clear()
    yield str(live_server.url)
    toolkit.toolkit.cache_clear()


def finish(task_id: str, sets: str, *params: object) -> None:
    """Stands in for the workers."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE video_videotask SET admit_at = NULL, finished_at = statement_timestamp(), {sets} WHERE id = %s",
            [*params, task_id],
        )


def test_the_front_ends_code_gets_its_video(page: Page, site: str, tmp_path: Path) -> None:
    log_in(page, site, NAME, PASSWORD)

    def created(answer: dict[str, Any]) -> None:
        assert set(answer["data"]) == {"taskId", "status", "estimatedTime"}
        task = VideoTask.objects.get(pk=answer["data"]["taskId"])
        folder = f"{task.user_id}/videos"
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "vid_1.mp4").write_bytes(b"0123456789")
        finish(
            task.pk,
            "status = 'success', stage = 'done', progress = 100, video_id = 'vid_1', output_key = %s, "
            "thumbnail_key = %s",
            f"{folder}/vid_1.mp4",
            f"{folder}/vid_1_thumb.jpg",
        )

    line = run_snippet(page, site, created=created)
    assert line.startswith(f"{READY}{site}/storage/")
    part = page.evaluate(
        """async (url) => {
            const reply = await fetch(url, {headers: {Range: 'bytes=2-4'}})
            return [reply.status, await reply.text()]
        }""",
        line.removeprefix(READY),
    )
    assert part == [206, "234"]


def test_the_front_ends_code_hears_of_a_failure(page: Page, site: str) -> None:
    log_in(page, site, NAME, PASSWORD)

    def created(answer: dict[str, Any]) -> None:
        finish(
            answer["data"]["taskId"],
            "status = 'failed', error_code = 'moderation', error_message = 'The provider refused this prompt.'",
        )

    assert run_snippet(page, site, created=created) == f"{FAILED}The provider refused this prompt."


def test_scripts_cannot_read_the_cookies(page: Page, site: str) -> None:
    log_in(page, site, NAME, PASSWORD)
    assert {cookie["name"] for cookie in page.context.cookies()} == {"token", "refresh"}
    assert page.evaluate("document.cookie") == ""


JSON_IN_A_FORM = """<form method="post" enctype="text/plain" action="{site}/api/video/create">
  <input name='{{"prompt": "A cat", "x": "' value='"}}'></form><script>document.forms[0].submit()</script>"""
PLAIN_FORM = """<form method="post" action="{site}/api/video/create"><input name="prompt" value="A cat"></form>
  <script>document.forms[0].submit()</script>"""
TEXT_FETCH = """<script>fetch('{site}/api/video/create', {{method: 'POST', mode: 'no-cors', credentials: 'include',
  headers: {{'Content-Type': 'text/plain'}}, body: '{{"prompt": "A cat"}}'}})</script>"""


# localhost shares our site, so the cookie comes along and only the origin gives the page away.
@pytest.mark.parametrize(("host", "status"), [("localhost", 403), ("127.0.0.1", 401)])
@pytest.mark.parametrize("html", [JSON_IN_A_FORM, PLAIN_FORM], ids=["json form", "form"])
def test_other_pages_make_no_video(
    page: Page, site: str, other_site: Callable[[str, str], str], html: str, host: str, status: int
) -> None:
    log_in(page, site, NAME, PASSWORD)
    with page.expect_response("**/api/video/create") as answer:
        page.goto(other_site(host, html.format(site=site)), wait_until="commit")
    assert answer.value.status == status
    assert not VideoTask.objects.exists()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_fetch_of_another_page_makes_no_video_and_is_shown_no_answer(
    page: Page, site: str, other_site: Callable[[str, str], str], host: str
) -> None:
    log_in(page, site, NAME, PASSWORD)
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/create")) as request:
        page.goto(other_site(host, TEXT_FETCH.format(site=site)), wait_until="commit")
    assert "ERR_BLOCKED_BY_RESPONSE" in (request.value.failure or "")  # by our Cross-Origin-Resource-Policy
    assert not VideoTask.objects.exists()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_json_from_another_page_stops_at_the_preflight(
    page: Page, site: str, other_site: Callable[[str, str], str], host: str
) -> None:
    log_in(page, site, NAME, PASSWORD)
    page.goto(other_site(host, "<p>evil</p>"))
    outcome = page.evaluate(
        """async (url) => fetch(url, {method: 'POST', credentials: 'include',
            headers: {'Content-Type': 'application/json'}, body: '{"prompt": "A cat"}'})
            .then((r) => r.status, (e) => e.name)""",
        f"{site}/api/video/create",
    )
    assert outcome == "TypeError"
    assert not VideoTask.objects.exists()


def test_no_other_page_logs_a_visitor_in(page: Page, site: str, other_site: Callable[[str, str], str]) -> None:
    html = f"""<form method="post" enctype="text/plain" action="{site}/api/auth/login"><input
        name='{{"username": "{NAME}", "password": "{PASSWORD}", "x": "' value='"}}'></form>
        <script>document.forms[0].submit()</script>"""
    with page.expect_response("**/api/auth/login") as answer:
        page.goto(other_site("localhost", html), wait_until="commit")
    assert answer.value.status == 403
    assert not page.context.cookies()


def test_the_front_end_of_a_configured_origin_may_call(
    page: Page, site: str, other_site: Callable[[str, str], str], settings: Settings
) -> None:
    address = other_site("localhost", "<p>our front end</p>")
    settings.FRONTEND_ORIGINS = settings.CORS_ALLOWED_ORIGINS = [address.rstrip("/")]
    page.goto(address)
    statuses = page.evaluate(
        """async ([site, username, password]) => {
            const post = (path, body) => fetch(site + path, {method: 'POST', credentials: 'include',
                headers: {'Content-Type': 'application/json', 'Idempotency-Key': 'k'}, body: JSON.stringify(body)})
            return [(await post('/api/auth/login', {username, password})).status,
                (await post('/api/video/create', {prompt: 'A cat'})).status,
                (await post('/api/video/create', {prompt: 'A cat'})).headers.get('Idempotency-Replayed')]
        }""",
        [site, NAME, PASSWORD],
    )
    assert statuses == [200, 201, "true"]
