"""The admin's home says whether it works, what is stuck and why, and how it went; each page opens without its slash."""

from __future__ import annotations

from html import unescape
from xml.etree import ElementTree

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tests.factories import accepted, age, make_task
from tests.video.presence import everybody
from video.admin.account_rows import account_rows
from video.attempts import configured_keys
from video.models import ProviderAccount
from video.monitoring import overview, providers

pytestmark = pytest.mark.django_db


def staff(*codenames: str) -> Client:
    user = get_user_model().objects.create_user(f"staff-{len(codenames)}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


def page(client: Client, url: str = "/admin/") -> str:
    answer = client.get(url)
    assert answer.status_code == 200, answer.status_code
    return unescape(answer.content.decode())


class TestHome:
    def test_tells_what_is_wrong_first_then_what_is_stuck_then_how_it_went(self, operator: Client) -> None:
        configured_keys.sync()
        task = make_task()
        age(task.pk, 900)
        text = page(operator)
        text = text[text.index('id="rw-home"') :]
        parts = (
            "No sweeper gives signs of life.", "The system:", "You can:", "waiting for a slot", "Stuck", task.pk,
            "It has waited for a slot for 15 min", "Videos done", "Failures", "Wait for a slot", "Provider cost",
            "Provider accounts",
        )  # fmt: skip
        places = [text.index(part) for part in parts]
        assert places == sorted(places)

    def test_a_healthy_system(self, operator: Client) -> None:
        configured_keys.sync()
        everybody()
        text = page(operator)
        assert "Nothing is wrong." in text
        assert "Nothing is stuck." in text
        assert text.count("Nothing yet") == 4

    @pytest.mark.parametrize(
        ("asked", "shown"),
        [("", "day"), ("?range=hour", "hour"), ("?range=month", "month"), ("?range=a'b", "day")],
    )
    def test_the_range_of_the_charts_is_a_link(self, operator: Client, asked: str, shown: str) -> None:
        assert f'href="?range={shown}" aria-current="page"' in page(operator, f"/admin/{asked}")

    def test_needs_as_many_statements_for_many_as_for_none(
        self, operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        configured_keys.sync()
        everybody()
        with django_assert_max_num_queries(23) as captured:
            page(operator)
        for number in range(5):
            accepted(make_task(), f"job-{number}")
            age(make_task().pk, 900)
        with django_assert_max_num_queries(len(captured.captured_queries)):
            page(operator)

    def test_follows_by_itself_and_is_kept_by_no_cache(self, operator: Client) -> None:
        answer = operator.get("/admin/")
        assert "no-store" in answer["Cache-Control"]
        text = answer.content.decode()
        assert 'id="rw-home" data-follow="10"' in text
        assert '<noscript><meta http-equiv="refresh"' in text

    def test_who_may_not_see_the_system_is_told_what_they_may_open(self) -> None:
        text = page(staff("view_account", "view_creditentry"))
        main = text[text.index('class="rw-page"') :]
        assert '<a href="/admin/video/account/">Credit accounts</a>' in main
        assert "Webhook" not in main
        assert "rw-tiles" not in text
        assert "You may open nothing else yet" in page(staff())

    def test_who_may_see_it_needs_no_more_than_that(self) -> None:
        client = staff(*(name.partition(".")[2] for name in overview.PERMISSIONS))
        assert "rw-tiles" in page(client)

    def test_strangers_log_in(self) -> None:
        assert Client().get("/admin/")["Location"] == "/admin/login/?next=/admin/"


class TestAccounts:
    def test_are_one_row_each_that_opens_to_its_models(self, operator: Client) -> None:
        configured_keys.sync()
        everybody()
        first = ProviderAccount.objects.filter(provider="runway").order_by("model").first()
        assert first is not None
        ProviderAccount.objects.filter(pk=first.pk).update(closed_reason="no_balance", last_error="no credits left")
        ProviderAccount.objects.filter(provider="runway").update(balance=120, balance_unit="credits")
        accounts = providers.accounts(providers.keys())
        rows = account_rows(accounts)
        assert len(rows) == len({(one.provider, one.account) for one in accounts}) < len(accounts)
        runway = next(one for one in rows if one["provider"] == "runway")
        number = len(runway["models"])
        assert (runway["state"], runway["tone"]) == (f"{number - 1} of {number} models open", "waiting")
        assert runway["why"] == f"{first.model}: closed: no balance: no credits left"
        assert runway["balance"] == "120 credits"
        assert (runway["live"], runway["limit"]) == (0, sum(one["one"].limit for one in runway["models"]))
        for url in ("/admin/", "/admin/queues/"):
            text = page(operator, url)
            assert text.count(f'<details data-key="runway {first.account}">') == 1
            assert "no credits left" in text


class TestSlash:
    @pytest.mark.parametrize("path", ["", "/queues", "/video/videotask", "/video/videotask/task_x/change"])
    def test_an_address_without_its_slash_goes_on(self, operator: Client, path: str) -> None:
        answer = operator.get(f"/admin{path}?a=1")
        assert (answer.status_code, answer["Location"]) == (302, f"/admin{path}/?a=1")

    def test_what_is_not_there_stays_so(self, operator: Client) -> None:
        assert operator.get("/admin/nothing").status_code == 404
        assert operator.get("/admin/nothing/").status_code == 404

    def test_a_post_is_not_sent_on_without_its_body(self, operator: Client) -> None:
        assert operator.post("/admin/queues").status_code == 404

    def test_strangers_are_asked_who_they_are_first(self) -> None:
        for path in ("/admin/queues", "/admin/nothing"):
            assert Client().get(path)["Location"] == f"/admin/login/?next={path}"

    def test_the_api_answers_an_error_as_before(self, client: Client) -> None:
        assert client.get("/api/models/").status_code == 404


def test_the_home_is_well_formed(operator: Client) -> None:
    configured_keys.sync()
    answer = operator.get("/admin/").content.decode()
    box = answer[answer.index('<div class="rw-charts">') : answer.index("<h2>Provider accounts</h2>")]
    assert len(ElementTree.fromstring(box.strip())) == 4
