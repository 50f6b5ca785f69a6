"""/api/webhooks: endpoints, secrets, deliveries, and `webhookUrl` at create."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from tests.video.webhooks.hooks import endpoint_of, pass_time, started
from video.actions import cancel, delete
from video.audit.actors import Unaudited
from video.models import VideoTask, WebhookDelivery, WebhookEndpoint
from video.webhooks import deliveries, endpoints
from video.webhooks.message import EVENTS

pytestmark = pytest.mark.django_db
JSON = "application/json"
URL = "https://hooks.example.com/x?token=1"


def call(api: Client, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    reply = getattr(api, method)(f"/api/webhooks{path}", {} if body is None else body, content_type=JSON)
    assert reply.status_code == status, reply.content
    said = reply.json()
    return said["data"] if status < 300 else said["error"]


def test_an_endpoint_from_its_begin_to_its_end(api: Client) -> None:
    made = call(api, "post", "", {"url": URL, "events": ["task.failed", "task.succeeded"]}, 201)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["url"] == URL
    assert (made["events"], made["enabled"], made["endedAt"]) == (["task.failed", "task.succeeded"], True, None)
    assert api.get("/api/webhooks").json()["data"] == {"endpoints": [made]}
    one = f"/{made['id']}"
    assert api.get(f"/api/webhooks{one}").json()["data"] == made
    assert api.get(f"/api/webhooks{one}/secret").json()["data"] == {"secret": secret, "formerUntil": None}
    changed = call(api, "patch", one, {"url": "https://other.example.com/", "events": [], "enabled": False})
    assert (changed["url"], changed["events"], changed["enabled"]) == ("https://other.example.com/", [], False)
    assert call(api, "delete", one) == {}
    assert call(api, "delete", one, status=404)["code"] == "not_found"
    assert api.get("/api/webhooks").json()["data"] == {"endpoints": []}
    row = WebhookEndpoint.objects.get(pk=made["id"])
    assert (row.url, row.secret, row.end_reason) == ("", "", "deleted")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": None}, "url"),
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://hooks.example.com:8443/"}, "url"),
        ({"url": URL, "events": "task.failed"}, "events"),
        ({"url": URL, "events": ["task.deleted"]}, "events"),
        ({"url": URL, "events": [["task.failed"]]}, "events"),
        ({"url": URL, "description": "x" * 201}, "description"),
        ({"url": URL, "secret": "whsec_x"}, "secret"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(api: Client, body: dict[str, Any], field: str) -> None:
    error = call(api, "post", "", body, 400)
    assert error["code"] == "invalid_request"
    assert [one["field"] for one in error["details"]] == [field]
    assert not WebhookEndpoint.objects.exists()


def test_the_message_lists_the_events(api: Client) -> None:
    message = call(api, "post", "", {"url": URL, "events": ["x"]}, 400)["message"]
    assert all(event in message for event in EVENTS)


def test_endpoints_of_others_are_not_there(api: Client, stranger: AbstractBaseUser) -> None:
    endpoint, _ = endpoint_of(stranger)
    started(stranger)
    delivery = WebhookDelivery.objects.get()
    assert api.get("/api/webhooks").json()["data"] == {"endpoints": []}
    assert api.get("/api/webhooks/deliveries").json()["data"] == {"deliveries": [], "nextCursor": None}
    for method, path, body in (
        ("get", f"/{endpoint.pk}", None),
        ("patch", f"/{endpoint.pk}", {"enabled": False}),
        ("delete", f"/{endpoint.pk}", None),
        ("get", f"/{endpoint.pk}/secret", None),
        ("post", f"/{endpoint.pk}/secret", {}),
        ("get", f"/deliveries/{delivery.pk}", None),
        ("post", f"/deliveries/{delivery.pk}/resend", {}),
    ):
        reply = getattr(api, method)(f"/api/webhooks{path}", *([] if body is None else [body]), content_type=JSON)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found"), path
    endpoint.refresh_from_db()
    assert endpoint.is_live


def test_twenty_endpoints_are_the_most(api: Client, user: AbstractBaseUser) -> None:
    for _ in range(endpoints.MOST_ENDPOINTS):
        endpoint_of(user)
    assert call(api, "post", "", {"url": URL}, 409)["code"] == "too_many_endpoints"


@pytest.mark.parametrize("of_endpoint", [True, False])
def test_a_secret_is_rolled_with_an_overlap(api: Client, user: AbstractBaseUser, of_endpoint: bool) -> None:
    path = f"/{endpoint_of(user)[0].pk}/secret" if of_endpoint else "/secret"
    first = api.get(f"/api/webhooks{path}").json()["data"]["secret"]
    assert api.get(f"/api/webhooks{path}").json()["data"]["secret"] == first
    second = call(api, "post", path, {"overlapHours": 2})
    assert second["secret"] != first
    assert second["formerUntil"]
    assert call(api, "post", path, {}, 409)["code"] == "secret_rolled_lately"  # else the first would end too soon
    assert api.get(f"/api/webhooks{path}").json()["data"]["secret"] == second["secret"]
    pass_time(3 * 3600)
    third = call(api, "post", path, {})
    assert third["formerUntil"]
    last = call(api, "post", path, {"overlapHours": 0})  # a secret that leaked: no earlier one signs
    assert last["formerUntil"] is None
    assert call(api, "post", path, {"overlapHours": 169}, 400)["details"][0]["field"] == "overlapHours"


def test_deliveries_are_listed_shown_with_their_tries_and_sent_again(api: Client, user: AbstractBaseUser) -> None:
    endpoint, _ = endpoint_of(user, URL)
    tasks = [started(user) for _ in range(3)]
    page = api.get("/api/webhooks/deliveries?limit=2").json()["data"]
    rest = api.get(f"/api/webhooks/deliveries?limit=2&cursor={page['nextCursor']}").json()["data"]
    found = [*page["deliveries"], *rest["deliveries"]]
    assert {one["taskId"] for one in found} == {task.pk for task in tasks}
    assert rest["nextCursor"] is None
    assert len(found) == 3
    assert "token" not in str(found)
    one = api.get(f"/api/webhooks/deliveries?task={tasks[0].pk}").json()["data"]["deliveries"][0]
    assert (one["event"], one["state"], one["host"]) == ("task.started", "pending", "hooks.example.com")
    claimed = deliveries.claim(one["id"])
    assert claimed is not None
    deliveries.record(claimed, deliveries.Outcome.GONE, http_status=410)
    shown = api.get(f"/api/webhooks/deliveries/{one['id']}").json()["data"]
    assert shown["state"] == "failed"
    assert shown["data"]["taskId"] == tasks[0].pk
    assert [(log["number"], log["outcome"], log["httpStatus"]) for log in shown["log"]] == [(1, "gone", 410)]
    resend = f"/deliveries/{one['id']}/resend"
    assert call(api, "post", resend, {}, 409)["code"] == "endpoint_off"  # 410 has ended it
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(ended_at=None, end_reason="")
    assert call(api, "post", resend, {})["state"] == "pending"
    assert len(api.get("/api/webhooks/deliveries?state=dropped").json()["data"]["deliveries"]) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=sent", "state"),
        ("cursor=x", "cursor"),
        ("limit=0", "limit"),
        ("user=1", "user"),
        ("state=a&state=b", "state"),
    ],
)
def test_wrong_queries_are_named(api: Client, query: str, field: str) -> None:
    reply = api.get(f"/api/webhooks/deliveries?{query}")
    assert (reply.status_code, reply.json()["error"]["details"][0]["field"]) == (400, field)


def test_a_page_costs_the_same_however_long_it_is(api: Client, user: AbstractBaseUser) -> None:
    def statements(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert api.get(path).status_code == 200
        return len(captured)

    endpoint_of(user)
    for _ in range(5):
        started(user, webhook_url=URL)
    assert statements("/api/webhooks/deliveries") == 2
    assert statements("/api/webhooks") == 2
    assert statements(f"/api/webhooks/deliveries/{WebhookDelivery.objects.all()[0].pk}") == 3


def test_create_takes_a_url_and_costs_no_more_for_it(api: Client, order: dict[str, Any]) -> None:
    def create(**more: Any) -> tuple[Any, int]:
        with CaptureQueriesContext(connection) as captured:
            reply = api.post("/api/video/create", {**order, **more}, content_type=JSON)
        assert reply.status_code == 201, reply.content
        return reply.json()["data"]["taskId"], len(captured)

    create()
    _, without = create()
    task_id, cost = create(webhookUrl="https://bücher.example/x")
    assert cost == without
    task = VideoTask.objects.get(pk=task_id)
    assert task.webhook_url == "https://xn--bcher-kva.example/x"
    shown = api.get(f"/api/queues/tasks/{task_id}").json()["data"]["request"]
    assert shown["webhookUrl"] == task.webhook_url


def test_an_operator_may_allow_a_private_receiver(api: Client, order: dict[str, Any], settings: Settings) -> None:
    settings.WEBHOOK_PRIVATE_HOSTS = ["hooks.internal", "10.0.0.5:8080"]
    settings.PRIVATE_HOSTS_ALLOWED = ["images.internal"]
    for url, status in (
        ("http://hooks.internal/x", 201),
        ("http://10.0.0.5:8080/x", 201),
        ("http://10.0.0.5/x", 400),
        ("http://images.internal/x", 400),
    ):
        reply = api.post("/api/video/create", {**order, "webhookUrl": url}, content_type=JSON)
        assert reply.status_code == status, url


def test_a_deleted_task_forgets_its_url(api: Client, user: AbstractBaseUser) -> None:
    task = started(user, webhook_url=URL)
    cancel.cancel(task.pk, by=Unaudited("test"))
    delete.delete(task.pk)
    task.refresh_from_db()
    assert task.webhook_url is None


@pytest.mark.parametrize("asked", ["endpoint=%00", "endpoint=task_01", "task=%00", "task=x", "state=%00", "cursor=%00"])
def test_deliveries_are_not_asked_for_by_what_is_no_id(api: Client, asked: str) -> None:
    error = call(api, "get", f"/deliveries?{asked}", status=400)
    assert (error["code"], error["details"][0]["field"]) == ("invalid_request", asked.partition("=")[0])
