"""An operator says in the admin what a provider's failure text means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from providers.contract import JobState, JobStatus
from providers.errors import JobFailed
from tests.factories import OLGA, accepted, make_task
from video.attempts import failure_texts, observe
from video.models import AuditRecord, FailureText

pytestmark = pytest.mark.django_db
LIST = "/admin/video/failuretext/"


def staff(name: str, *codenames: str) -> Client:
    user = get_user_model().objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return staff("olga", "view_failuretext", "change_failuretext")


@pytest.fixture
def viewer() -> Client:
    return staff("victor", "view_failuretext")


def seen(signature: str = "odd code") -> FailureText:
    """A text with which a job ended."""
    error = JobFailed(f"Said <b>{signature}</b>", another_model_could=True, is_known=False, signature=signature)
    observe.note(accepted(make_task(), f"job {signature}"), JobStatus(JobState.FAILED, "FAILED", error=error))
    return FailureText.objects.get(signature=signature)


def page(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def one(row: FailureText) -> str:
    return f"{LIST}{row.pk}/change/"


def test_the_list_has_what_is_not_decided_first(operator: Client) -> None:
    first, second = seen("first"), seen("second")
    failure_texts.decide(second.pk, "another_model", by=replace(OLGA, name="nora"))
    text = page(operator, LIST)
    assert text.index("Said &lt;b&gt;first") < text.index("Said &lt;b&gt;second")
    for part in ("not decided", "this model failed; another may try", "nora", "gen4.5", first.last_task):
        assert part in text, part


def test_a_page_has_a_select_for_the_meaning_and_nothing_else_to_change(operator: Client) -> None:
    row = seen()
    text = page(operator, one(row))
    assert text.count("<select") == 1
    for label in FailureText.Meaning.labels:
        assert label in text
    assert 'name="signature"' not in text


def test_a_decision_keeps_who_made_it_and_when(operator: Client) -> None:
    row = seen()
    answer = operator.post(one(row), {"meaning": "moderation", "count": "7", "signature": "forged"}, follow=True)
    assert answer.status_code == 200
    row.refresh_from_db()
    assert (row.meaning, row.decided_by, row.count, row.signature) == ("moderation", "olga", 1, "odd code")
    assert row.decided_at is not None
    assert AuditRecord.objects.get(object_id=str(row.pk)).actor == "olga"
    operator.post(one(row), {"meaning": ""})
    row.refresh_from_db()
    assert (row.meaning, row.decided_by, row.decided_at) == ("", "", None)


def test_a_page_that_is_saved_without_a_change_takes_nobodys_decision(operator: Client) -> None:
    row = failure_texts.decide(seen().pk, "failed", by=replace(OLGA, name="nora"))
    operator.post(one(row), {"meaning": "failed"})
    row.refresh_from_db()
    assert row.decided_by == "nora"


def test_an_unknown_meaning_is_refused(operator: Client) -> None:
    row = seen()
    assert "Select a valid choice" in operator.post(one(row), {"meaning": "fine"}).content.decode()
    row.refresh_from_db()
    assert row.meaning == ""


@pytest.mark.parametrize("action", failure_texts.MEANINGS)
def test_many_are_decided_by_one_action(operator: Client, action: str) -> None:
    rows = [seen(name) for name in ("a", "b")]
    body = {"action": action, "_selected_action": [row.pk for row in rows]}
    assert "Decided for 2 texts" in operator.post(LIST, body, follow=True).content.decode()
    assert set(FailureText.objects.values_list("meaning", "decided_by")) == {(action, "olga")}
    assert AuditRecord.objects.filter(action="decide").count() == 2


def test_nothing_is_decided_for_the_row_that_stands_for_many(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_texts, "MOST_OF_A_PROVIDER", 0)
    error = JobFailed("x", another_model_could=True, is_known=False, signature="x")
    observe.note(accepted(make_task()), JobStatus(JobState.FAILED, "FAILED", error=error))
    row = FailureText.objects.get()
    assert "<select" not in page(operator, one(row))
    body = {"action": "another_model", "_selected_action": [row.pk]}
    assert "stands for many texts" in operator.post(LIST, body, follow=True).content.decode()
    row.refresh_from_db()
    assert row.meaning == ""


def test_who_may_only_look_decides_nothing(viewer: Client) -> None:
    row = seen()
    assert "<select" not in page(viewer, one(row))
    assert viewer.post(one(row), {"meaning": "another_model"}).status_code == 403
    viewer.post(LIST, {"action": "another_model", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert row.meaning == ""


def test_staff_without_a_permission_see_nothing(client: Client) -> None:
    row = seen()
    nobody = staff("nobody")
    for url in (LIST, one(row)):
        assert nobody.get(url).status_code == 403
        assert client.get(url).status_code == 302


def test_rows_are_made_by_code_only_and_forgotten_by_those_who_may_delete(operator: Client) -> None:
    row = seen()
    assert operator.get(f"{LIST}add/").status_code == 403
    assert operator.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    deleting = staff("della", "view_failuretext", "delete_failuretext")
    assert deleting.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not FailureText.objects.exists()


def test_the_list_needs_as_many_queries_for_many_as_for_one(
    operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    seen("0")
    with django_assert_max_num_queries(9) as captured:
        page(operator, LIST)
    for number in range(1, 5):
        seen(str(number))
    with django_assert_max_num_queries(len(captured.captured_queries)):
        page(operator, LIST)
