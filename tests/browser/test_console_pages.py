"""Every page of the admin in a real browser: light and dark, wide and as a phone shows it, and by axe-core's rules.

axe-core comes with the other packages of tests/clients (npm ci).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from playwright.sync_api import Browser, Page

from tests.browser.complaints import complaints_of
from tests.factories import accepted, age, claimed, make_task, make_user, park_one
from tests.video.presence import everybody
from tests.video.webhooks.hooks import endpoint_of, started
from video.actions import erase_user
from video.attempts import configured_keys
from video.audit import actors
from video.models import FailureText, Generation, HourFigures, ModelSetting, ProviderAccount, Stage, UserShare
from video.monitoring import trends
from video.routing import health
from video.web.logins import api_keys, sessions
from video.web.logins.api_keys import KeyOrder

pytestmark = pytest.mark.scale  # a minute of a browser's work

AXE = Path(__file__).resolve().parents[1] / "clients" / "node_modules" / "axe-core" / "axe.min.js"

#: Beside the lists, and the first row and the form of each.
OTHERS = (
    "/admin/?range=hour",
    "/admin/video/account/grant/?users=ann",
    "/admin/password_change/",
    "/admin/second-factor/",
    "/admin/video/",
)
#: What is left of an address is the kind of its page: a list, a form, …
KIND = re.compile(r"/admin/\w+/\w+/([^/]+/(?=change))?")
#: Serious and critical findings, in words. The sidebar is the same on each page, and looked at once.
RULES = """async ([only, sidebar]) => {
    const what = sidebar ? document : { exclude: [['#nav-sidebar']] };
    const options = { resultTypes: ['violations'], preload: false };
    if (only) options.runOnly = { type: 'rule', values: only };
    const found = await axe.run(what, options);
    const why = (node) => [...node.any, ...node.all, ...node.none].map((each) => each.message).join('; ');
    const bad = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    return bad.flatMap((one) => one.nodes.map(
        (node) => `${one.id}: ${node.target.join(' ')} ${node.html.slice(0, 200)} ${why(node).slice(0, 200)}`));
}"""
#: What is wider than the window, or cut by a box that can't be scrolled.
CUT = """() => {
    const found = [];
    if (document.documentElement.scrollWidth > innerWidth) found.push('the page');
    for (const each of document.querySelectorAll('table, pre, input, select, textarea, .rw-badge')) {
        const place = each.getBoundingClientRect();
        if (!place.width || !place.height || getComputedStyle(each).position === 'absolute') continue;
        let scrolled = false;
        for (let box = each.parentElement; box && !scrolled; box = box.parentElement) {
            const style = getComputedStyle(box);
            if (['auto', 'scroll'].includes(style.overflowX)) scrolled = true;
            else if (style.overflowX === 'hidden' && place.right > box.getBoundingClientRect().right + 1) break;
        }
        if (!scrolled && place.right > innerWidth + 1) found.push(`${each.localName} ${each.id || each.className}`);
    }
    return found;
}"""


@pytest.fixture
def operator(settings: Any) -> Client:
    """A superuser, in a system that has one of everything."""
    settings.ADMIN_SECOND_FACTOR = "optional"
    configured_keys.sync()
    everybody()
    user = make_user(credit=1000)
    parked, lost = make_task(user), make_task(user)
    accepted(parked, "job-parked")
    assert park_one(claimed(parked, Stage.POLL), delay_s=600, reason="runway: HTTP 500, " + "and so on " * 20)
    Generation.objects.filter(task=parked).update(poll_errors=3)
    accepted(lost, "job-lost")
    Generation.objects.filter(task=lost).update(state="lost", ended_at="2026-11-28T00:00:00Z")
    endpoint_of(user)
    started(user, webhook_url="https://tasks.example.com/hook")
    age(make_task(user).pk, 1200)
    api_keys.make(user, KeyOrder("a program", ("read",)))
    sessions.start(user, address="127.0.0.1", user_agent="a browser")
    UserShare.objects.create(user=user, weight=2)
    ModelSetting.objects.create(model="gen4.5", note="dear")
    FailureText.objects.create(provider="runway", signature="odd", sample="odd", model="gen4.5", last_task=parked.pk)
    health.note_fault("gen4.5", "runway", "HTTP 500")
    ProviderAccount.objects.filter(model="veo3.1").update(closed_reason="no_balance", last_error="no credits are left")
    erase_user.ask(make_user().pk, by=actors.of_command())
    trends.keep_hours()
    HourFigures.objects.update(videos=7, failures=1, waits=5, waited_s=50, longest_wait_s=20, cost_usd={"runway": "2"})
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("olga", password="olga-pass-123"))
    return client


@pytest.fixture
def page(chromium: Browser, live_server: Any, operator: Client) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    context.add_cookies([{"name": "sessionid", "value": operator.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.set_default_timeout(20_000)
    yield page
    context.close()


def addresses(client: Client) -> list[str]:
    """Of every page that the sidebar leads to, and of those behind it."""
    groups = client.get("/admin/").context["sidebar_navigation"]
    lists = [str(item["link"]) for group in groups for item in group["items"]]
    found = [*OTHERS, *lists]
    for address in lists:
        answer = client.get(address)
        rows = getattr((answer.context or {}).get("cl"), "result_list", None)
        if rows is None:
            continue
        if row := next(iter(rows), None):
            found.append(f"{address}{_quoted(row.pk)}/change/")
        if answer.context["cl"].model_admin.has_add_permission(answer.wsgi_request):
            found.append(f"{address}add/")
    case = Generation.objects.filter(state="lost").first()
    assert case is not None
    history = f"/admin/video/videotask/{_quoted(case.task_id)}/history/"
    return [*found, history, f"/admin/video/generation/open-cases/{case.pk}/"]


def _quoted(pk: Any) -> str:
    return str(pk).replace("_", "_5F")


def looked_at(page: Page, *, sidebar: bool, dark: bool) -> list[str]:
    """What is wrong with the page as it is shown now, wide, as on a phone, and in the dark."""
    page.evaluate(AXE.read_text())
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    found = page.evaluate(RULES, [None, sidebar])
    found += [f"{one} is cut at 1440 px" for one in page.evaluate(CUT)]
    page.evaluate("document.documentElement.classList.add('dark')")
    if dark:
        found += [f"dark: {one}" for one in page.evaluate(RULES, [["color-contrast"], sidebar])]
    page.set_viewport_size({"width": 390, "height": 800})
    found += [f"{one} is cut at 390 px" for one in page.evaluate(CUT)]
    page.set_viewport_size({"width": 1440, "height": 900})
    return found


def test_every_page_is_readable_reachable_and_whole(page: Page, live_server: Any, operator: Client) -> None:
    if not AXE.is_file():
        why = "needs npm ci in tests/clients; TESTS_REQUIRE_NPM=1 makes that a failure"
        (pytest.fail if os.environ.get("TESTS_REQUIRE_NPM") == "1" else pytest.skip)(why)
    complaints, wrong, kinds = complaints_of(page), [], set[str]()
    found = addresses(operator)
    assert len(found) > 45, found
    for address in found:
        answer = page.goto(f"{live_server.url}{address}")
        assert answer is not None
        assert answer.status == 200, address
        wrong += [f"{address}: {one}" for one in complaints]
        # Colours are the same on each list and on each form of unfold; a page of ours has its own.
        kind = "ours" if page.locator(".rw-page, .rw-q, .rw").count() else KIND.sub("", address)
        first = kind == "ours" or kind not in kinds
        kinds.add(kind)
        wrong += [f"{address}: {one}" for one in looked_at(page, sidebar=address == found[0], dark=first)]
        complaints.clear()  # axe writes styles of its own while it measures
    assert not wrong, "\n".join(wrong)


def test_home_follows_without_losing_what_its_reader_does(page: Page, live_server: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 500})
    page.clock.install()
    page.goto(f"{live_server.url}/admin/")
    number = int(page.locator(".rw-tile strong").first.inner_text())
    account = page.locator(".rw-accounts details", has_text="no credits are left")
    account.locator("summary").click()
    table = account.locator(".rw-scroll")
    table.evaluate("(box) => { box.scrollLeft = 40; }")
    account.locator("summary").focus()
    place = page.evaluate("scrollY")
    assert place > 0
    make_task()
    page.clock.fast_forward(11_000)
    page.wait_for_function(f"() => document.querySelector('.rw-tile strong').textContent == '{number + 1}'")
    has_focus = page.evaluate("() => [document.activeElement.localName, document.activeElement.textContent]")
    assert has_focus[0] == "summary"
    assert "no credits are left" in has_focus[1]
    assert account.evaluate("(each) => each.open")
    assert page.evaluate("scrollY") == place
    assert table.evaluate("(box) => box.scrollLeft") == 40


def test_home_rests_while_its_tab_is_hidden(page: Page, live_server: Any) -> None:
    page.clock.install()
    page.goto(f"{live_server.url}/admin/")
    page.evaluate("() => Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true })")
    page.evaluate("() => { window.away = true; }")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.fast_forward(120_000)
    page.evaluate("() => new Promise((done) => queueMicrotask(done))")
    assert asked == []
    with page.expect_request("**/admin/"):
        page.evaluate("() => { window.away = false; document.dispatchEvent(new Event('visibilitychange')); }")


def test_filters_open_and_close_by_keyboard(page: Page, live_server: Any) -> None:
    page.goto(f"{live_server.url}/admin/video/generation/")
    button = page.get_by_role("button", name="Filters")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.closest('#changelist-filter')")
    assert button.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.getAttribute('aria-controls') == 'changelist-filter'")
    assert not page.locator("#changelist-filter").is_visible()
