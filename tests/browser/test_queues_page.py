"""The page of the queues in a real browser: on a phone, without scripts, and while things happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from playwright.sync_api import Browser, Page

from tests.factories import make_task
from tests.video.presence import everybody
from video.attempts import configured_keys

Open = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, live_server: Any) -> Iterator[Open]:
    """Opens the page for a signed-in operator, in a browser context of its own."""
    configured_keys.sync()
    everybody()
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("olga"))
    session = client.cookies["sessionid"].value
    contexts = []

    def open_it(**options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.add_cookies([{"name": "sessionid", "value": session, "url": str(live_server.url)}])
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(f"{live_server.url}/admin/queues/")
        return page

    yield open_it
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_the_page_sideways(open_page: Open, scheme: str) -> None:
    page = open_page(viewport={"width": 390, "height": 800}, color_scheme=scheme, java_script_enabled=True)
    assert page.get_by_text("Nothing is wrong.").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    colours = page.evaluate(
        """() => { const of = (e) => getComputedStyle(e).backgroundColor;
            return [document.querySelector('#main'), document.querySelector('.rw-q tbody th')].map(of); }"""
    )
    assert colours[0] == colours[1]  # the column that stays put has the theme's own ground


def test_it_needs_no_scripts(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert page.get_by_text("waiting for a slot").is_visible()
    assert page.locator("meta[http-equiv=refresh]").count() == 1


def test_it_follows_by_itself(open_page: Open) -> None:
    page = open_page()
    first = page.locator(".rw-tile strong").first
    assert first.inner_text() == "0"
    make_task()
    page.wait_for_selector(".rw-tile strong:text-is('1')")
