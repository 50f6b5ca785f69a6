"""An operator sees open cases in the admin, settles one, attaches a job that was found."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from providers.contract import JobState, JobStatus
from providers.errors import JobNotFound
from tests.factories import accepted, admitted, claimed, make_task
from video.attempts import attach_requests, provider_calls, records, task_moves
from video.models import AuditRecord, Generation, Stage, TaskEvent
from video.processes import periodic, tasks

pytestmark = pytest.mark.django_db
LIST = "/admin/video/generation/open-cases/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


@pytest.fixture
def viewer() -> Client:
    """Staff who may look at everything and change nothing."""
    user = get_user_model().objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def unknown() -> Generation:
    return make_unknown()


def make_unknown() -> Generation:
    """An attempt of which nobody can tell whether its job exists; its task has ended."""
    task = make_task(prompt="A boat of <paper>")
    generation = admitted(task)
    claim = claimed(task)
    assert records.mark_sent(claim, generation)
    records.record_unknown(generation.pk)
    assert task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.", generation_id=generation.pk)
    return Generation.objects.select_related("task__user").get(pk=generation.pk)


def page(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def state(generation: Generation) -> str:
    return Generation.objects.get(pk=generation.pk).state


class TestList:
    def test_says_what_is_at_stake_and_what_happens(self, operator: Client, unknown: Generation) -> None:
        text = page(operator, LIST)
        for part in (
            *(unknown.pk, unknown.task_id, "simulator", unknown.task.user.get_username()),
            *("outcome unknown", "its task has ended; keeps its slot, then is lost", "until 20", "gen4.5", "simulated"),
        ):
            assert part in text, part
        assert "<strong>1</strong> open" in text
        assert f"${unknown.expected_usd:.2f}" in text
        assert "Given up" not in text

    def test_keeps_those_that_were_given_up_apart(self, operator: Client, unknown: Generation) -> None:
        records.record_lost(unknown.pk, code="outcome_unknown")
        text = page(operator, LIST)
        assert "Nothing is open." in text
        assert text.index("Given up in the last 3 days") < text.index(unknown.pk)

    def test_is_linked_from_every_page(self, operator: Client) -> None:
        assert f'href="{LIST}"' in page(operator, "/admin/")

    def test_needs_as_many_queries_for_many_as_for_one(
        self, operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        make_unknown()
        with django_assert_max_num_queries(8) as captured:
            page(operator, LIST)
        for _ in range(4):
            make_unknown()
        with django_assert_max_num_queries(len(captured.captured_queries)):
            page(operator, LIST)


class TestCase:
    def test_shows_everything_that_helps_to_find_the_job(self, operator: Client, unknown: Generation) -> None:
        text = page(operator, f"{LIST}{unknown.pk}/")
        assert "A boat of &lt;paper&gt;" in text
        assert "Attach job" in text
        assert "Settle as lost" in text

    def test_offers_nothing_where_nothing_can_be_done(self, operator: Client) -> None:
        text = page(operator, f"{LIST}{accepted(make_task()).pk}/")
        assert "Attach job" not in text
        assert "Settle as lost" not in text

    def test_that_is_not_there(self, operator: Client) -> None:
        assert operator.get(f"{LIST}gen_nothing/").status_code == 404
        assert operator.post(f"{LIST}gen_nothing/", {"settle": "1"}).status_code == 404


class TestSettle:
    def test_settles_and_logs_who(self, operator: Client, unknown: Generation) -> None:
        answer = operator.post(f"{LIST}{unknown.pk}/", {"settle": "1"}, follow=True)
        assert answer.redirect_chain == [(LIST, 302)]
        assert f"Settled as lost: {unknown.pk}." in answer.content.decode()
        assert state(unknown) == "lost"
        assert TaskEvent.objects.filter(worker="operator olga").count() == 1
        assert AuditRecord.objects.get().action == "settle"

    def test_a_refusal_is_said(self, operator: Client) -> None:
        generation = accepted(make_task())
        answer = operator.post(f"{LIST}{generation.pk}/", {"settle": "1"}, follow=True)
        assert "Its task still runs on this job (stage poll)" in answer.content.decode()
        assert (state(generation), AuditRecord.objects.count()) == ("accepted", 0)

    def test_a_get_changes_nothing(self, operator: Client, unknown: Generation) -> None:
        operator.get(f"{LIST}{unknown.pk}/?settle=1&attach=1&job_id=x")
        assert state(unknown) == "unknown"


class TestAttach:
    def test_a_worker_attaches_what_was_asked_for_and_the_page_follows(
        self, operator: Client, unknown: Generation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = f"{LIST}{unknown.pk}/"
        answer = operator.post(url, {"attach": "1", "job_id": " job-7 "}, follow=True)
        text = answer.content.decode()
        assert "A worker asks Runway about job job-7, as olga wished." in text
        assert 'http-equiv="refresh"' in text
        assert AuditRecord.objects.get().detail == "asked to attach job job-7"
        assert (state(unknown), Generation.objects.get(pk=unknown.pk).job_id) == ("unknown", "")
        monkeypatch.setattr(provider_calls, "poll", lambda probe: JobStatus(JobState.RUNNING, "RUNNING"))
        tasks.look(unknown.pk)
        assert Generation.objects.get(pk=unknown.pk).job_id == "job-7"
        assert TaskEvent.objects.filter(worker="operator olga").count() == 1
        assert "A worker asks" not in page(operator, url)

    def test_a_lost_message_costs_seconds(
        self, operator: Client, unknown: Generation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(provider_calls, "poll", lambda probe: JobStatus(JobState.RUNNING, "RUNNING"))
        operator.post(f"{LIST}{unknown.pk}/", {"attach": "1", "job_id": "job-7"})
        assert "attach" in [name for name, _, _ in periodic.PERIODIC]
        assert attach_requests.take_up_all() == 1
        assert attach_requests.take_up_all() == 0
        assert Generation.objects.get(pk=unknown.pk).job_id == "job-7"

    def test_what_the_provider_does_not_know_is_said_and_another_id_may_follow(
        self, operator: Client, unknown: Generation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def look(probe: Generation) -> JobStatus:
            raise JobNotFound("no such task")

        monkeypatch.setattr(provider_calls, "poll", look)
        url = f"{LIST}{unknown.pk}/"
        operator.post(url, {"attach": "1", "job_id": "job-wrong"})
        assert attach_requests.take_up(unknown.pk)
        text = page(operator, url)
        assert "Job job-wrong was not attached, as olga had asked for: Runway knows no job job-wrong" in text
        assert 'http-equiv="refresh"' not in text
        assert not attach_requests.take_up(unknown.pk)
        assert "about job job-8" in operator.post(url, {"attach": "1", "job_id": "job-8"}, follow=True).content.decode()

    @pytest.mark.parametrize(
        ("job_id", "sentence"),
        [
            ("", "This field is required."),
            ("a b", "letters, digits and"),
            ("x" * 121, "at most 120 characters"),
            ("job-taken", "Job job-taken belongs to attempt gen_"),
        ],
    )
    def test_says_at_the_field_why_not(self, operator: Client, unknown: Generation, job_id: str, sentence: str) -> None:
        accepted(make_task(), "job-taken")
        text = operator.post(f"{LIST}{unknown.pk}/", {"attach": "1", "job_id": job_id}).content.decode()
        assert "Nothing was attached." in text
        assert sentence in text
        assert (state(unknown), AuditRecord.objects.count(), attach_requests.of(unknown.pk)) == ("unknown", 0, None)


class TestRights:
    def test_who_may_only_look(self, viewer: Client, unknown: Generation) -> None:
        assert unknown.pk in page(viewer, LIST)
        text = page(viewer, f"{LIST}{unknown.pk}/")
        assert "Attach job" not in text
        assert "Settle as lost" not in text
        for body in ({"settle": "1"}, {"attach": "1", "job_id": "job-7"}):
            assert viewer.post(f"{LIST}{unknown.pk}/", body).status_code == 403
        assert state(unknown) == "unknown"

    def test_staff_without_any_right(self, unknown: Generation) -> None:
        client = Client()
        client.force_login(get_user_model().objects.create_user("nobody", is_staff=True))
        assert client.get(LIST).status_code == 403
        assert client.get(f"{LIST}{unknown.pk}/").status_code == 403
        assert client.post(f"{LIST}{unknown.pk}/", {"settle": "1"}).status_code == 403

    def test_a_user_and_a_stranger_are_sent_to_the_login(self, client: Client, unknown: Generation) -> None:
        assert client.get(LIST).status_code == 302
        client.force_login(get_user_model().objects.create_user("somebody"))
        assert client.post(f"{LIST}{unknown.pk}/", {"settle": "1"}).status_code == 302
        assert state(unknown) == "unknown"

    def test_a_post_needs_its_csrf_token(self, unknown: Generation) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(get_user_model().objects.create_superuser("root-like"))
        assert client.post(f"{LIST}{unknown.pk}/", {"settle": "1"}).status_code == 403
        assert state(unknown) == "unknown"


def test_a_job_of_an_ended_task_says_when_it_is_looked_at(operator: Client) -> None:
    task = make_task()
    generation = accepted(task)
    assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.", generation_id=generation.pk)
    text = page(operator, LIST)
    assert "looked at now and then; a late video is delivered, in " in text
    assert "job-1" in text
