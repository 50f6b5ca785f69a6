"""The second factor in a real browser: on a phone, by the keyboard alone, within the policy."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice
from playwright.sync_api import Browser, Page
from pytest_django import Settings

from video.models import RecoveryCode

NAME, PASSWORD = "olga", "correct horse battery staple"


def shown(key: str) -> str:
    """What an app with this key shows."""
    totp = TOTP(bytes.fromhex(key))
    totp.time = time.time()
    return f"{totp.token():06d}"


def picture(page: Page, name: str) -> None:
    """For whoever wants to look: TESTS_PICTURES names a folder."""
    if folder := os.environ.get("TESTS_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_a_phone_sets_one_up_and_gives_it_without_a_mouse(
    chromium: Browser, live_server: Any, settings: Settings
) -> None:
    settings.ADMIN_SECOND_FACTOR = "required"
    get_user_model().objects.create_superuser(NAME, password=PASSWORD)
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)

    def log_in() -> None:
        page.goto(f"{live_server.url}/admin/queues/")
        page.wait_for_selector("#id_username:focus")
        page.keyboard.type(NAME)
        page.keyboard.press("Tab")
        page.wait_for_selector("#id_password:focus")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector("#id_code:focus")

    log_in()
    qr = page.get_by_role("img", name="The key as a QR code")
    box = qr.bounding_box()
    assert box is not None
    assert box["width"] >= 200
    assert fits(page)
    picture(page, "set-up")
    key = next(found for one in Session.objects.all() if (found := one.get_decoded().get("second_factor_secret")))
    page.keyboard.type(shown(key))
    page.keyboard.press("Enter")
    page.wait_for_selector(".rw-codes")
    codes = page.locator(".rw-codes code").all_inner_texts()
    assert len(codes) == RecoveryCode.objects.count() == 10
    assert fits(page)
    picture(page, "codes")
    page.get_by_role("link", name="I have kept them, go on").press("Enter")
    page.wait_for_url(f"{live_server.url}/admin/queues/")
    page.goto(f"{live_server.url}/admin/second-factor/")
    assert fits(page)
    picture(page, "passed")

    context.clear_cookies()
    log_in()
    page.keyboard.type("123 45")
    page.keyboard.press("Enter")
    page.get_by_text("Six digits from your app").wait_for()
    assert fits(page)
    picture(page, "code")
    page.locator("#id_code").fill(codes[0])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{live_server.url}/admin/queues/")
    assert page.get_by_text("You have 9 recovery codes left.").is_visible()
    assert TOTPDevice.objects.count() == 1
    assert not complaints
    context.close()
