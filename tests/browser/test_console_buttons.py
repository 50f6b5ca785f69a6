"""The console's buttons, pressed in a browser: what they do is done, said and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from playwright.sync_api import Browser, Page, expect

from tests.browser.complaints import complaints_of
from tests.factories import make_task, make_user
from video.attempts import configured_keys
from video.models import AuditRecord, Circuit, OperatorJob, Pause, ProviderKey, Status, VideoTask
from video.web import roles


@pytest.fixture
def page(chromium: Browser, live_server: Any) -> Iterator[Page]:
    """Of a signed-in operator, who is no superuser."""
    configured_keys.sync()
    operator = get_user_model().objects.create_user("olga")
    roles.keep()
    roles.give(operator, roles.OPERATOR)
    client = Client()
    client.force_login(operator)
    context = chromium.new_context(base_url=str(live_server.url))
    context.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": str(live_server.url)}]
    )
    found = context.new_page()
    found.set_default_timeout(20_000)
    found.on("dialog", lambda dialog: dialog.accept())
    complaints = complaints_of(found)
    yield found
    context.close()
    assert complaints == []


def test_everything_is_paused_and_resumed_from_any_page(page: Page) -> None:
    page.goto("/admin/failures/")
    page.get_by_role("link", name="Pause …").click()
    page.get_by_label("Reason").fill("the provider's bill is wrong")
    page.get_by_role("button", name="Pause", exact=True).click()
    assert Pause.objects.get().ended_at is None
    for address in ("/admin/", "/admin/costs/", "/admin/video/videotask/"):
        page.goto(address)
        expect(page.locator("body")).to_contain_text("the provider's bill is wrong")
    page.goto("/admin/video/pause/")
    page.get_by_role("link", name="Resume …").first.click()
    page.get_by_role("button", name="Resume").click()
    assert Pause.objects.get().ended_at is not None
    assert list(AuditRecord.objects.order_by("id").values_list("actor", "action")) == [
        ("olga", "pause"),
        ("olga", "resume"),
    ]


def test_chosen_tasks_are_cancelled_after_a_preview(page: Page) -> None:
    user = make_user(credit=100)
    tasks = [make_task(user) for _ in range(3)]
    page.goto("/admin/video/videotask/")
    for task in tasks[:2]:
        page.locator(f"input.action-select[value='{task.pk}']").check()
    page.locator("select[name=action]").select_option("cancel_chosen")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("body")).to_contain_text("Cancel 2 tasks?")
    assert not VideoTask.objects.filter(status=Status.CANCELLED).exists()
    page.locator("#content [type=submit]").first.click()
    page.wait_for_url("**/admin/video/videotask/")
    assert VideoTask.objects.filter(status=Status.CANCELLED).count() == 2
    page.goto(f"/admin/video/auditrecord/?kind__exact=videotask&object_id__exact={tasks[0].pk}")
    expect(page.locator("#changelist")).to_contain_text("olga")


def test_the_buttons_of_cards_do_what_the_card_names(page: Page) -> None:
    Circuit.objects.create(model="gen4.5", provider="runway", faults=9, open_until="2999-01-01T00:00Z")
    key = ProviderKey.objects.filter(provider="runway").first() or pytest.fail("no key")
    ProviderKey.objects.filter(pk=key.pk).update(state=ProviderKey.State.QUARANTINED, refusals=9)
    page.goto("/admin/queues/")
    page.get_by_role("button", name="Close the circuit").click()
    expect(page.locator("body")).to_contain_text("Jobs may start with gen4.5 now.")
    assert Circuit.objects.get().faults == 0
    page.get_by_role("button", name="Activate").first.click()
    expect(page.locator("body")).to_contain_text("one job tries it")
    page.goto("/admin/queues/")
    page.get_by_role("button", name="Drain").first.click()
    expect(page.locator("body")).to_contain_text("No new job starts with this key.")
    page.get_by_role("button", name="Check this key now").first.click()
    page.wait_for_url("**/admin/video/operatorjob/*/change/")
    assert OperatorJob.objects.get().kind == OperatorJob.Kind.CHECK_KEYS
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("body")).to_contain_text("Stopped by olga.")
