"""An operator sees on one page how the queues do, what is wrong, and where to look further."""

from __future__ import annotations

from html import unescape

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from providers import catalogue
from tests.factories import accepted, admitted, age, claimed, make_task, park_one
from tests.video.presence import everybody, sign
from video.admin.problem_cards import with_code
from video.admin.read_only import short
from video.attempts import configured_keys
from video.models import ProviderAccount, ProviderKey, Stage, VideoTask
from video.monitoring import overview
from video.routing import health

pytestmark = pytest.mark.django_db
PAGE = "/admin/queues/"
LIST = "/admin/video/videotask/"


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


def page(client: Client, url: str = PAGE) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, answer.status_code
    return unescape(answer.content.decode())


class TestPage:
    def test_a_healthy_system(self, operator: Client) -> None:
        configured_keys.sync()
        everybody()
        text = page(operator)
        assert "Nothing is wrong." in text
        assert "You can:" not in text
        assert "None has given a sign of life" not in text
        assert "Circuits with faults" not in text

    def test_an_empty_system_says_what_to_do_first(self, operator: Client) -> None:
        text = page(operator)
        assert "No sweeper gives signs of life." in text
        assert "No key of a provider is in use, so no job can start." in text
        assert "None has given a sign of life in the last hour." in text

    def test_tells_where_everything_is(self, operator: Client) -> None:
        configured_keys.sync()
        everybody()
        parked, due, held = (make_task() for _ in range(3))
        for number, task in enumerate((parked, due, held)):
            generation = accepted(task, f"job-{number}")
        assert park_one(claimed(parked, Stage.POLL), delay_s=60, reason="runway: running")
        claimed(held, Stage.POLL)
        waiting = make_task()
        age(waiting.pk, 90)
        text = page(operator)
        for part in (
            *("rendering", "oldest 1 min 3", "one:3", "mediaQueue", "gen4.5", "3 of 1000", generation.key_fingerprint),
            f'{LIST}?stands=parked&stage__exact=poll"',
            f'{LIST}?stands=waiting"',
            f"{LIST}{due.pk.replace('_', '_5F')}/change/",
        ):
            assert part in text, part

    def test_what_is_wrong_leads_to_where_it_can_be_put_right(self, operator: Client) -> None:
        configured_keys.sync()
        everybody()
        sign("oak:1", "videoQueue", age_s=300)
        ProviderKey.objects.filter(provider="kling").update(state="quarantined", last_error="kling answered <401>")
        ProviderAccount.objects.filter(provider="pika").update(closed_reason="out_of_credits")
        model = catalogue.MODELS[-1]
        for _ in range(5):
            health.note_fault(model.id, model.provider, "HTTP 500")
        answer = operator.get(PAGE).content.decode()
        assert "kling answered &lt;401&gt;" in answer
        for part in (
            *("silent", "closed: out of credits", "quarantined", "Circuits with faults"),
            '<a href="/admin/video/providerkey/">Provider keys</a>',
            '<a href="/admin/video/provideraccount/">Provider accounts</a>',
            '<a href="/admin/video/circuit/">Circuits</a>',
            "<code>manage.py check_providers</code>",
        ):
            assert part in answer, part

    def test_a_key_is_only_its_fingerprint(self, operator: Client, settings: object) -> None:
        configured_keys.sync()
        text = page(operator)
        for keys in settings.PROVIDER_KEYS.values():  # type: ignore[attr-defined]
            assert not any(key.value in text for key in keys)

    def test_says_that_it_is_simulated_and_follows_without_scripts(self, operator: Client) -> None:
        text = page(operator)
        assert "Simulation." in text
        assert '<noscript><meta http-equiv="refresh"' in text

    def test_is_linked_from_the_index(self, operator: Client) -> None:
        assert f'href="{PAGE}"' in page(operator, "/admin/")

    def test_needs_as_many_queries_for_many_as_for_none(
        self, operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        configured_keys.sync()
        everybody()
        with django_assert_max_num_queries(20) as captured:
            page(operator)
        for number in range(5):
            accepted(make_task(), f"job-{number}")
            make_task()
        with django_assert_max_num_queries(len(captured.captured_queries)):
            page(operator)


class TestRights:
    def test_who_may_look_at_tasks_and_accounts(self) -> None:
        client = staff(*(name.partition(".")[2] for name in overview.PERMISSIONS))
        configured_keys.sync()
        ProviderKey.objects.filter(provider="kling").update(state="quarantined")
        text = page(client)
        assert "kling refused key" in text
        assert "/admin/video/providerkey/" not in text  # a page that this reader may not open

    @pytest.mark.parametrize("codename", ["view_videotask", "view_provideraccount"])
    def test_staff_with_half_of_it(self, codename: str) -> None:
        client = staff(codename)
        assert client.get(PAGE).status_code == 403
        assert PAGE not in page(client, "/admin/")

    def test_others_are_sent_to_the_login(self, client: Client) -> None:
        assert client.get(PAGE).status_code == 302
        client.force_login(get_user_model().objects.create_user("somebody"))
        assert client.get(PAGE).status_code == 302


class TestFilter:
    """The list of tasks, by what each does now."""

    @pytest.fixture
    def tasks(self) -> dict[str, VideoTask]:
        found = {name: make_task(prompt=name) for name in ("due", "held", "parked", "silent")}
        for task in found.values():
            admitted(task)
        claimed(found["held"])
        claimed(found["silent"])
        age(found["silent"].pk, 120)
        assert park_one(claimed(found["parked"]), delay_s=60, reason="later")
        return {**found, "waiting": make_task(prompt="waiting")}

    @pytest.mark.parametrize(
        ("stands", "names"),
        [("waiting", {"waiting"}), ("due", {"due", "silent"}), ("held", {"held"}), ("parked", {"parked"})],
    )
    def test_shows_those_alone(
        self, operator: Client, tasks: dict[str, VideoTask], stands: str, names: set[str]
    ) -> None:
        text = page(operator, f"{LIST}?stands={stands}")
        assert {name for name, task in tasks.items() if short(task.pk) in text} == names

    def test_nonsense_shows_all(self, operator: Client, tasks: dict[str, VideoTask]) -> None:
        reply = operator.get(f"{LIST}?stands=everything")
        assert reply.status_code == 302
        text = page(operator, f"{LIST}{reply['Location'].rpartition('/')[2]}")
        assert all(short(task.pk) in text for task in tasks.values())


def test_words_between_backticks_are_code_and_nothing_else_is_markup() -> None:
    assert with_code("Run `a <b>` & see.") == "Run <code>a &lt;b&gt;</code> &amp; see."
    assert with_code("plain") == "plain"


def test_the_page_reads_nothing_more_than_the_figures(operator: Client) -> None:
    with connection.execute_wrapper(_no_writes):
        page(operator)


def _no_writes(execute: object, sql: str, *args: object) -> object:
    assert sql.lstrip().upper().startswith(("SELECT", "WITH")), sql
    return execute(sql, *args)  # type: ignore[operator]
