"""The questions of an operator at night, each answered in the browser within two clicks after the login.

From a seeded system (`manage.py seed_demo`, its rows), as a superuser who logs in by the form. Each answer counts its
clicks from the home page on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model
from playwright.sync_api import Error, Locator, Page, expect

from tests.browser.complaints import complaints_of
from tests.factories import age
from tests.video.presence import everybody
from video.audit import records
from video.audit.actors import of_command
from video.management.demo_data import history, live, present
from video.models import Generation, ProviderKey, Status, VideoTask

MOST_CLICKS = 2
PASSWORD = "a-long-night-of-work"


class Reader:
    """Somebody at the home page, whose clicks are counted."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url, self.clicks = page, url, 0

    def home(self) -> None:
        self.page.goto(f"{self.url}/admin/")
        self.clicks = 0

    def click(self, place: Locator) -> None:
        self.clicks += 1
        place.click()
        self.page.wait_for_load_state()

    def sidebar(self, address: str) -> None:
        """The entry of the sidebar that leads there."""
        self.click(self.page.locator(f"a[href='{address}']:visible").first)

    def sees(self, text: str) -> None:
        expect(self.page.locator("main, #content, body").first).to_contain_text(text)


def seed(tasks: int = 90) -> dict[str, Any]:
    """The made-up system, with one task that is stuck, one bad key, and one act of an operator."""
    everybody()
    history.write(tasks, 1, [], lambda line: None)
    present.write()
    jobs = live.jobs()
    stuck = VideoTask.objects.get(pk__in=jobs, model_requested="veo3.1")
    age(stuck.pk, 6 * 3600)
    key = ProviderKey.objects.filter(provider="kling").exclude(state="draining").order_by("id")[0]
    ProviderKey.objects.filter(pk=key.pk).update(state="quarantined", last_error="Kling answered 401: access denied")
    cancelled = VideoTask.objects.filter(status=Status.CANCELLED).latest("created_at")
    records.record(of_command(), "cancel", "videotask", cancelled.pk, reason="asked for on the phone")
    return {"stuck": stuck, "key": key, "cancelled": cancelled}


def is_it_working(reader: Reader, made: dict[str, Any]) -> None:
    expect(reader.page.locator(".rw-tile").first).to_be_visible()
    expect(reader.page.locator(".rw-problems li, .rw-well").first).to_be_visible()


def what_is_stuck_and_why(reader: Reader, made: dict[str, Any]) -> None:
    task = made["stuck"]
    reader.click(reader.page.locator(f"a[href*='{task.pk[-12:]}']:visible").first)
    reader.sees("veo3.1: the account may not use this model")


def what_do_i_do(reader: Reader, made: dict[str, Any]) -> None:
    """A button, or a link to the page with it, beside the sentence."""
    card = reader.page.locator(".rw-problems li").filter(has=reader.page.locator("a, button, [type=submit]")).first
    expect(card.locator("a, button, [type=submit]").first).to_be_visible()


def what_failed_by_cause(reader: Reader, made: dict[str, Any]) -> None:
    reader.sidebar("/admin/failures/")
    reader.sees("moderation")


def what_it_costs(reader: Reader, made: dict[str, Any]) -> None:
    reader.sidebar("/admin/costs/")
    for provider in ("runway", "pika", "kling"):
        expect(reader.page.get_by_text(provider, exact=False).first).to_be_attached()
    reader.sees("USD")
    reader.sees("credits")


def which_key_is_bad(reader: Reader, made: dict[str, Any]) -> None:
    reader.sidebar("/admin/video/providerkey/")
    row = reader.page.locator("tr").filter(has_text="quarantined").first
    expect(row).to_be_visible()
    expect(row).to_contain_text("access denied")


def who_uses_most(reader: Reader, made: dict[str, Any]) -> None:
    reader.sidebar("/admin/costs/")
    used = reader.page.locator("h2").filter(has_text="Who uses most").locator("xpath=following::table[1]")
    expect(used.locator("tbody tr").first).to_contain_text("studio-north")


def stop_everything(reader: Reader, made: dict[str, Any]) -> None:
    reader.sidebar("/admin/video/pause/")
    expect(
        reader.page.get_by_role("button", name="Pause").or_(reader.page.get_by_role("link", name="Pause")).first
    ).to_be_visible()


def who_did_that(reader: Reader, made: dict[str, Any]) -> None:
    reader.sidebar("/admin/video/auditrecord/")
    reader.sees("asked for on the phone")
    reader.sees(of_command().name)


#: Question, how it is answered, and the name of the page that answers it.
QUESTIONS: list[tuple[str, Callable[[Reader, dict[str, Any]], None]]] = [
    ("Is it working?", is_it_working),
    ("What is stuck, and why?", what_is_stuck_and_why),
    ("What do I do?", what_do_i_do),
    ("What failed last night, by cause?", what_failed_by_cause),
    ("What does it cost, and what did we earn?", what_it_costs),
    ("Which key is bad?", which_key_is_bad),
    ("Who uses most?", who_uses_most),
    ("Stop everything, or one provider, now", stop_everything),
    ("Who did that?", who_did_that),
]


def test_each_question_is_answered_within_two_clicks(page: Page, live_server: Any) -> None:
    get_user_model().objects.create_superuser("olga", password=PASSWORD)
    made = seed()
    page.set_default_timeout(5_000)
    complaints = complaints_of(page)
    page.goto(f"{live_server.url}/admin/login/")
    page.fill("[name=username]", "olga")
    page.fill("[name=password]", PASSWORD)
    page.click("[type=submit]")
    reader, unanswered = Reader(page, str(live_server.url)), []
    for question, answer in QUESTIONS:
        reader.home()
        try:
            answer(reader, made)
        except (AssertionError, Error) as err:  # an answer that is not there, or a link that is not
            unanswered.append(f"{question}: {str(err)[:500]}")
        if reader.clicks > MOST_CLICKS:
            unanswered.append(f"{question}: {reader.clicks} clicks")
    assert not unanswered, "\n".join(unanswered)
    assert not complaints


def test_the_page_of_a_task_answers_where_its_time_went(page: Page, live_server: Any) -> None:
    """In both colours, on a desk and on a phone; its curl call is copied, or selected where there is no clipboard."""
    get_user_model().objects.create_superuser("olga", password=PASSWORD)
    made = seed(tasks=30)
    complaints = complaints_of(page)
    page.goto(f"{live_server.url}/admin/login/")
    page.fill("[name=username]", "olga")
    page.fill("[name=password]", PASSWORD)
    page.click("[type=submit]")
    failed = Generation.objects.filter(state="failed").exclude(last_answer="").latest("ended_at").task_id
    for scheme, width in (("light", 1440), ("dark", 1440), ("light", 390)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{live_server.url}/admin/video/videotask/{failed}/change/")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (scheme, width)
        bars = page.locator(".rw-wf svg")
        assert bars.count() > 0
        assert all(box["width"] > 90 for box in filter(None, (bar.bounding_box() for bar in bars.all())))
    page.goto(f"{live_server.url}/admin/video/videotask/{made['stuck'].pk}/change/")
    expect(page.locator(".rw-wf caption").first).to_contain_text("to now")
    page.goto(f"{live_server.url}/admin/video/videotask/{failed}/change/")
    page.get_by_text("last answer that was not routine").first.click()
    expect(page.locator(".rw-copy pre").first).to_contain_text("HTTP ")
    expect(page.get_by_role("button", name="Cancel …")).to_be_disabled()
    expect(page.locator("#rw-act-1")).to_contain_text("can't be cancelled any more")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("[data-copied]")).to_have_text("Copied.")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain http
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("[data-copied]")).to_contain_text("Selected")
    assert page.evaluate("String(getSelection())").startswith("curl -sS ")
    assert not complaints
