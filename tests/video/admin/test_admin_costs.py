"""The page of costs: what it shows, its links and its CSV, and who may open it."""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, make_task, make_user
from video.attempts import records
from video.models import Generation, VideoTask

pytestmark = pytest.mark.django_db

PAGE = "/admin/costs/"
#: Session, user, the four of the page (with names of users twice), and the page around it.
MOST_STATEMENTS = 10


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", password="x"))
    return client


def ended(name: str, state: str, cost: str) -> None:
    """A task whose only attempt has ended."""
    user = make_user()
    get_user_model().objects.filter(pk=user.pk).update(username=name)
    task = make_task(user)
    generation = accepted(task, f"job-{task.pk}")
    records.record_ended(generation.pk, Generation.State(state), cost=Decimal(cost))
    VideoTask.objects.filter(pk=task.pk).update(
        status="failed" if state == "failed" else "success",
        stage="poll" if state == "failed" else "done",
        progress=5 if state == "failed" else 100,
        video_id=None if state == "failed" else task.pk,
        error_code="timeout" if state == "failed" else "",
        error_message="Late." if state == "failed" else "",
        next_run_at=None,
        finished_at=task.created_at,
    )


def text(reply: Any) -> str:
    assert reply.status_code == 200, reply.content[:300]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", reply.content.decode())))


def test_it_shows_both_sides_and_who_uses_most(operator: Client, settings: Any) -> None:
    settings.CREDIT_USD = Decimal("0.20")
    ended("ann", "succeeded", "60")
    ended("bob", "failed", "40")
    found = text(operator.get(PAGE))
    assert "Charge, USD 1.00" in found
    assert "On failures, USD 0.40 40% of the charge" in found
    assert "Credits earned 20 20 debited, 0 refunded, 0 free" in found
    assert "Margin, USD 3.00 at 0.20 USD a credit" in found
    assert "runway 2 1 1.00" in found
    assert "runway 100 credits" in found
    assert found.index("ann", found.index("Who uses most")) < found.index("bob", found.index("Who uses most"))


def test_each_value_leads_to_its_rows_and_each_filter_away(operator: Client) -> None:
    ended("ann", "succeeded", "60")
    ended("bob", "failed", "40")
    page = operator.get(f"{PAGE}?by=user").content.decode()
    link = unescape(next(one for one in re.findall(r'href="(\?[^"]*)"', page) if "user=bob" in one))
    narrowed = operator.get(f"{PAGE}{link}")
    assert "Charge, USD 0.40" in text(narrowed)
    away = unescape(next(one for one in re.findall(r'href="(\?[^"]*)" title="Show all', narrowed.content.decode())))
    assert "user=" not in away
    for query in ("by=key", "by=day", "by=model,outcome", "since=7d&outcome=failed", "provider=runway&simulated=no"):
        assert operator.get(f"{PAGE}?{query}").status_code == 200


def test_a_wrong_word_is_named_and_the_page_is_there(operator: Client) -> None:
    found = text(operator.get(f"{PAGE}?since=yesterday"))
    assert "since must be a number of days such as 30d" in found
    assert "Who uses most" in found


def test_a_csv_has_no_formula_in_it(operator: Client) -> None:
    for number, name in enumerate(("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "ann")):
        ended(name, "succeeded", str(number))
    reply = operator.get(f"{PAGE}?by=user&format=csv")
    assert reply["Content-Type"].startswith("text/csv")
    assert "attachment" in reply["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.content.decode())))
    assert {row["user"] for row in rows} >= {"'=cmd|' /C calc'!A0", "'+1", "'-1", "'@SUM(A1)", "ann"}
    assert {row["debited"] for row in rows} == {"10"}


def test_it_is_for_those_who_may_see_tasks_and_accounts() -> None:
    user = get_user_model().objects.create_user("viewer", password="x", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(PAGE).status_code == 403
    user.user_permissions.add(*Permission.objects.filter(codename__in=["view_videotask", "view_provideraccount"]))
    assert client.get(PAGE).status_code == 200


def test_it_costs_the_same_statements_however_many_groups_there_are(operator: Client) -> None:
    counts = []
    for names in (["ann"], ["bob", "cid", "dan"]):
        for name in names:
            ended(name, "succeeded", "60")
        with CaptureQueriesContext(connection) as captured:
            operator.get(f"{PAGE}?by=user")
        counts.append(len(captured))
    assert counts[0] == counts[1] <= MOST_STATEMENTS, [one["sql"][:90] for one in captured]
