"""Users in the admin: what waits of each, and the action that cancels it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.test import Client

from tests.factories import accepted, admitted, make_task, make_user, reload
from tests.video.admin.lists import cells
from tests.video.storing import saved
from video.admin import users
from video.credits import ledger
from video.models import AuditRecord, TaskEvent, UserShare

pytestmark = pytest.mark.django_db
LIST = "/admin/auth/user/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


def act(client: Client, *chosen: AbstractBaseUser, **more: str) -> Any:
    body = {"action": "cancel_what_waits", "_selected_action": [user.pk for user in chosen], **more}
    return client.post(LIST, body, follow=True)


def test_the_list_says_how_many_tasks_of_each_wait(operator: Client, user: AbstractBaseUser) -> None:
    admitted(make_task(user))
    make_task(user)
    text = operator.get(LIST).content.decode()
    assert cells(text, "waiting")[-1] == "1"


def test_the_list_says_what_each_has_stored(operator: Client, user: AbstractBaseUser) -> None:
    saved(user)
    assert "0.0 MB in 1 video" in cells(operator.get(LIST).content.decode(), "stored")


def test_an_operator_sets_how_many_bytes_one_user_may_store(operator: Client, user: AbstractBaseUser) -> None:
    body = {"user": user.pk, "weight": 1, "most_waiting": "", "most_stored_bytes": "-1", "note": ""}
    page = operator.post("/admin/video/usershare/add/", body)
    assert "greater than or equal to 0" in page.content.decode()
    operator.post("/admin/video/usershare/add/", {**body, "most_stored_bytes": 3 * 10**12})
    assert UserShare.objects.get(pk=user.pk).most_stored_bytes == 3 * 10**12


def test_it_asks_first(operator: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    user.is_active = False
    user.save()
    reply = act(operator, user)
    assert "Cancel 1 waiting task?" in reply.content.decode()
    assert "(switched off)" in reply.content.decode()
    assert reload(task).is_active


def test_it_cancels_what_waits_of_the_selected_users_and_nothing_else(
    operator: Client, user: AbstractBaseUser, stranger: AbstractBaseUser
) -> None:
    rendering = make_task(user)
    accepted(rendering)
    waiting, of_other = [make_task(user), make_task(user)], make_task(stranger)
    reply = act(operator, user, confirmed="1")
    assert [str(one) for one in reply.context["messages"]] == ["2 tasks cancelled."]
    assert [reload(task).status for task in waiting] == ["cancelled", "cancelled"]
    assert reload(rendering).is_active
    assert reload(of_other).is_active
    assert ledger.balance(user.pk) == 990
    event = TaskEvent.objects.filter(task=waiting[0]).latest("id")
    assert (event.outcome, event.worker) == ("cancelled", "operator olga")
    assert AuditRecord.objects.filter(action="cancel", kind="videotask").count() == 2


def test_more_than_one_action_does_is_said(
    monkeypatch: pytest.MonkeyPatch, operator: Client, user: AbstractBaseUser
) -> None:
    monkeypatch.setattr(users, "MOST", 1)
    for _ in range(3):
        make_task(user)
    reply = act(operator, user, confirmed="1")
    assert [str(one) for one in reply.context["messages"]] == [
        "1 task cancelled.",
        "2 more tasks wait: run it again.",
    ]


def test_it_needs_the_permission_to_change_tasks(user: AbstractBaseUser) -> None:
    task = make_task(user)
    staff = make_user(0, is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "view_videotask"]))  # type: ignore[attr-defined]
    client = Client()
    client.force_login(staff)
    act(client, user, confirmed="1")
    assert reload(task).is_active
