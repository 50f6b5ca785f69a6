"""Scripts on pages of FRONTEND_ORIGINS read stored files, and nobody else's do, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page
from pytest_django import Settings

from video.infra import toolkit
from video.web import media

KEY = "7/videos/vid_1.mp4"
READ = """async ([url, headers]) => fetch(url, {headers}).then(
    async (reply) => [reply.status, await reply.text(), reply.headers.get('Content-Range'), reply.headers.get('ETag')],
    (error) => error.name)"""


@pytest.fixture
def stored(tmp_path: Path, settings: Settings) -> Iterator[Path]:
    settings.STORAGE_LOCAL_PATH = tmp_path
    toolkit.toolkit.cache_clear()
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0123456789")
    yield path
    toolkit.toolkit.cache_clear()


@pytest.fixture
def elsewhere(page: Page, other_site: Callable[[str, str], str], settings: Settings, stored: Path) -> Page:
    """A page of another site, which is one of FRONTEND_ORIGINS."""
    address = urlsplit(other_site("127.0.0.1", "<p>a front end</p>"))
    settings.CORS_ALLOWED_ORIGINS = [f"{address.scheme}://{address.netloc}"]
    page.goto(address.geturl())
    return page


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, [200, "0123456789", None, '"vid_1.mp4"']),
        ({"Range": "bytes=2-4"}, [206, "234", "bytes 2-4/10", '"vid_1.mp4"']),
        ({"Range": "bytes=-3", "If-Range": '"vid_1.mp4"'}, [206, "789", "bytes 7-9/10", '"vid_1.mp4"']),
        ({"Range": "bytes=20-30"}, [416, "The file is shorter than that.\n", "bytes */10", None]),
    ],
)
def test_a_page_of_a_front_end_reads_files(
    elsewhere: Page, live_server: Any, headers: dict[str, str], wanted: list[object]
) -> None:
    assert elsewhere.evaluate(READ, [f"{live_server.url}{media.signed_path(KEY)}", headers]) == wanted


def test_a_page_of_a_front_end_reads_why_it_gets_none(elsewhere: Page, live_server: Any) -> None:
    status, sentence, *_ = elsewhere.evaluate(READ, [f"{live_server.url}/storage/{KEY}", {"Range": "bytes=2-"}])
    assert (status, sentence[:26]) == (403, "This link is not valid, or")


def test_another_page_reads_nothing(elsewhere: Page, live_server: Any, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    for headers in ({}, {"Range": "bytes=2-4"}, {"If-Range": "x"}):
        assert elsewhere.evaluate(READ, [f"{live_server.url}{media.signed_path(KEY)}", headers]) == "TypeError"


def test_an_error_is_asked_for_again(elsewhere: Page, live_server: Any, stored: Path) -> None:
    """A browser that kept the 416 would show it for as long as the link is good."""
    asked = [f"{live_server.url}{media.signed_path(KEY)}", {"Range": "bytes=20-22"}]
    assert elsewhere.evaluate(READ, asked)[0] == 416
    stored.write_bytes(b"0123456789" * 3)
    assert elsewhere.evaluate(READ, asked)[:2] == [206, "012"]
