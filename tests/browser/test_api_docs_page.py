"""The page of the API's document in a real browser, and a call that is tried on it with a Bearer token."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.browser.complaints import complaints_of
from tests.factories import access_token, make_user


def test_every_call_is_shown_and_can_be_tried_with_a_token(page: Page, live_server: Any) -> None:
    complaints = complaints_of(page)
    page.goto(f"{live_server.url}/api/docs")
    page.locator("#operations-Models-models_get").wait_for()
    assert page.locator(".opblock").count() > 20
    page.locator("button.authorize").click()
    page.locator(".auth-container input[type=text]").first.fill(access_token(make_user()))
    page.locator(".auth-container button.authorize").first.click()
    page.locator("button.btn-done").first.click()
    page.locator("#operations-Models-models_get .opblock-summary").click()
    page.locator("#operations-Models-models_get button.execute").click()
    reply = page.locator("#operations-Models-models_get .live-responses-table .response").first
    reply.wait_for()
    assert "200" in reply.inner_text()
    assert "gen4.5" in reply.inner_text()
    assert complaints == []
