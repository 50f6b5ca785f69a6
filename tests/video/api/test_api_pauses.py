"""Pauses by the API: staff with the permission begin and end them; users read why their videos wait."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.test import Client

from tests.factories import make_task, make_user
from tests.video.conftest import client_of
from video.models import AuditRecord, Pause
from video.routing import availability
from video.scheduling import estimates
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder

pytestmark = pytest.mark.django_db
JSON = "application/json"


def operator(*permissions: str) -> Any:
    user: Any = make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


@pytest.fixture
def ann() -> Client:
    return client_of(operator("pause"))


def ask(client: Client, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
    reply = getattr(client, method)(path, **({} if body is None else {"data": body, "content_type": JSON}), **more)
    return reply.status_code, reply.json().get("data") or reply.json()["error"]


def test_a_pause_from_its_beginning_to_its_end(ann: Client, user: AbstractBaseUser, api: Client) -> None:
    status, made = ask(ann, "post", "/api/pauses", {"model": "gen4.5", "reason": "their bill", "endsIn": 3600})
    assert (status, made["kind"], made["subject"], made["reason"]) == (201, "model", "gen4.5", "their bill")
    assert made["until"] is not None
    assert ask(ann, "post", "/api/pauses", {"model": "gen4.5", "reason": "the bill"})[0] == 200
    assert [one["reason"] for one in ask(ann, "get", "/api/pauses")[1]["pauses"]] == ["the bill"]

    task = make_task(user)
    estimates._cache.clear()
    told = ask(api, "get", f"/api/video/status?taskId={task.pk}")[1]
    assert told["waitsForCode"] == "paused"
    assert told["waitsFor"].startswith("paused by the operators since ")
    assert told["waitsFor"].endswith(": the bill")
    assert made["pausedBy"] not in told["waitsFor"]
    models = {one["id"]: one["availability"] for one in ask(api, "get", "/api/models")[1]["models"]}
    assert (models["gen4.5"]["available"], models["gen4.5"]["reasonCode"]) == (False, "paused")
    quote = ask(api, "post", "/api/video/quote", {"prompt": "A cat", "model": "gen4.5", "fallback": False})[1]
    assert (quote["startsNow"], quote["waitsForCode"]) == (False, "paused")

    status, ended = ask(ann, "delete", f"/api/pauses/{made['id']}", {"reason": "paid"})
    assert (status, ended["endedAt"] is not None) == (200, True)
    assert ask(ann, "delete", f"/api/pauses/{made['id']}")[1]["code"] == "not_paused"
    assert ask(ann, "get", "/api/pauses")[1]["pauses"] == []
    told = AuditRecord.objects.filter(kind="pause").values_list("action", "via", "reason")
    assert list(told.order_by("id")) == [
        ("pause", "api", "their bill"),
        ("pause", "api", "the bill"),
        ("resume", "api", "paid"),
    ]


def test_a_users_pause_is_told_to_that_user_alone(
    user: AbstractBaseUser, stranger: AbstractBaseUser, ann: Client
) -> None:
    ask(ann, "post", "/api/pauses", {"user": user.get_username()})
    own, others = (ask(client_of(one), "get", "/api/models")[1]["models"] for one in (user, stranger))
    assert {one["availability"]["reasonCode"] for one in own} <= {"paused", "no_key"}
    assert "paused" not in {one["availability"]["reasonCode"] for one in others}
    assert ask(client_of(user), "get", "/api/queues/status")[1]["system"] == "paused"


def test_who_may_not_is_refused(user: AbstractBaseUser) -> None:
    pause = Pause.objects.create(kind="everything", paused_by="ann")
    for client in (client_of(user), client_of(operator()), client_of(operator("view_pause"))):
        assert ask(client, "post", "/api/pauses", {"everything": True})[1]["code"] == "forbidden"
        assert ask(client, "delete", f"/api/pauses/{pause.pk}")[1]["code"] == "forbidden"
    assert ask(client_of(user), "get", "/api/pauses")[1]["code"] == "forbidden"
    assert ask(client_of(operator("view_pause")), "get", "/api/pauses")[0] == 200
    # An API key of an operator needs its scope as well.
    boss = operator("pause")
    for scope, status in (("create", 403), ("manage", 200)):
        text = api_keys.make(boss, KeyOrder("a program", (scope,)))[1]
        reply = Client().delete(f"/api/pauses/{pause.pk}", headers={"Authorization": f"Bearer {text}"})
        assert reply.status_code == status
    assert "API key a program" in AuditRecord.objects.get(action="resume").source


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"everything": True, "model": "gen4.5"}, "body"),
        ({"model": "acme"}, "model"),
        ({"provider": "acme"}, "provider"),
        ({"provider": "runway", "account": "nobody"}, "account"),
        ({"user": "nobody"}, "user"),
        ({"everything": True, "endsIn": 1}, "endsIn"),
        ({"everything": "yes"}, "everything"),
        ({"everything": True, "reason": "x" * 201}, "reason"),
    ],
)
def test_what_can_not_be_paused_is_named(ann: Client, body: dict[str, Any], field: str) -> None:
    status, error = ask(ann, "post", "/api/pauses", body)
    assert (status, error["code"], error["details"][0]["field"]) == (400, "invalid_request", field)
    assert not Pause.objects.exists()


def test_there_is_no_such_pause(ann: Client) -> None:
    for wrong in ("1", "x", "9" * 30, "²"):
        assert ask(ann, "delete", f"/api/pauses/{wrong}")[0] == 404


def test_staff_read_each_account_of_a_waiting_task(ann: Client, user: AbstractBaseUser) -> None:
    boss = operator("view_videotask", "view_provideraccount", "pause")
    task = make_task(user)
    ask(client_of(boss), "post", "/api/pauses", {"model": "gen4.5", "endsIn": 600})
    availability.forget_recent()
    now = ask(client_of(boss), "get", f"/api/queues/tasks/{task.pk}")[1]["now"]
    assert {(one["model"], one["reasonCode"]) for one in now["accounts"]} == {("gen4.5", "paused")}
    assert all(one["until"] and one["slots"] > one["slotsInUse"] for one in now["accounts"])
    assert "accounts" not in ask(client_of(user), "get", f"/api/queues/tasks/{task.pk}")[1]["now"]
    told = ask(client_of(boss), "get", "/api/queues/status")[1]
    assert [one["what"] for one in told["pauses"]] == ["model gen4.5"]
