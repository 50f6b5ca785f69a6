"""How many SQL statements each call of the API costs: a table with a row for each, and none grows with the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import make_task, make_user
from tests.video.api.test_key_scopes import CALLS
from tests.video.conftest import client_of
from tests.video.webhooks.hooks import endpoint_of, started
from video.models import WebhookDelivery
from video.scheduling import estimates
from video.web.logins import api_keys, sessions
from video.web.logins.api_keys import KeyOrder

JSON = "application/json"
ORDER = {"prompt": "A cat"}


class World:
    """One user with `number` of everything: tasks, keys, logins, endpoints, deliveries."""

    def __init__(self, number: int) -> None:
        self.user: AbstractBaseUser = make_user(credit=10_000)
        self.client: Client = client_of(self.user)
        for _ in range(number):
            self.key = api_keys.make(self.user, KeyOrder("a program", ("read",)))[0]
            login = sessions.start(self.user, address="127.0.0.1", user_agent="")
            assert login is not None
            self.login = login.id
            self.endpoint = endpoint_of(self.user)[0].pk
            self.task = started(self.user).pk
            self.waiting = make_task(self.user).pk
        self.delivery = WebhookDelivery.objects.filter(user_id=self.user.pk).earliest("created_at").pk

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        more = {} if body is None else {"data": body, "content_type": JSON}
        return getattr(self.client, method)(path, **more)


Ask = Callable[[World], Any]


def get(path: str) -> Ask:
    return lambda world: world.ask("get", path.format(**vars(world)))


def send(method: str, path: str, body: dict[str, Any] | None = None) -> Ask:
    def ask(world: World) -> Any:
        filled = {key: text.format(**vars(world)) if type(text) is str else text for key, text in (body or {}).items()}
        return world.ask(method, path.format(**vars(world)), filled)

    return ask


#: By call: the most statements, with the login and each BEGIN, SAVEPOINT and COMMIT; and how it is asked.
COSTS: dict[str, tuple[int, Ask]] = {
    "api-create post": (3, send("post", "/api/video/create", ORDER)),
    "api-batch post": (4, send("post", "/api/video/batch", {"orders": [ORDER, ORDER]})),
    "api-status get": (1, get("/api/video/status?taskId={waiting}")),
    "api-events get": (3, get("/api/video/events?taskId={waiting}")),
    "api-cancel post": (10, send("post", "/api/video/cancel", {"taskId": "{waiting}"})),
    "api-retry post": (6, send("post", "/api/video/retry", {"taskId": "{waiting}"})),
    "api-render post": (4, send("post", "/api/video/render", {"taskId": "{waiting}"})),
    "api-quote post": (4, send("post", "/api/video/quote", ORDER)),
    "api-upload post": (1, send("post", "/api/video/upload")),
    "api-models get": (4, get("/api/models")),
    "api-tasks get": (2, get("/api/video/tasks?limit=100")),
    "api-own-task delete": (12, send("delete", "/api/video/tasks/{waiting}")),
    "api-storage get": (2, get("/api/storage")),
    "api-credits get": (3, get("/api/credits?limit=100")),
    "api-usage get": (2, get("/api/usage?by=day,model,outcome")),
    "api-queues get": (6, get("/api/queues/status")),
    "api-queues-task get": (6, get("/api/queues/tasks/{waiting}")),
    "api-pauses get": (1, get("/api/pauses")),  # of staff: one more
    "api-pauses post": (1, send("post", "/api/pauses", {"everything": True})),
    "api-pause delete": (1, send("delete", "/api/pauses/1")),
    "api-hooks get": (2, get("/api/webhooks")),
    "api-hooks post": (6, send("post", "/api/webhooks", {"url": "https://hooks.example.com/y"})),
    "api-hooks-secret get": (4, get("/api/webhooks/secret")),
    "api-hooks-secret post": (9, send("post", "/api/webhooks/secret")),
    "api-hooks-deliveries get": (2, get("/api/webhooks/deliveries?limit=100")),
    "api-hooks-delivery get": (3, get("/api/webhooks/deliveries/{delivery}")),
    "api-hooks-resend post": (5, send("post", "/api/webhooks/deliveries/{delivery}/resend")),
    "api-hooks-endpoint get": (2, get("/api/webhooks/{endpoint}")),
    "api-hooks-endpoint patch": (6, send("patch", "/api/webhooks/{endpoint}", {"description": "x"})),
    "api-hooks-endpoint delete": (6, send("delete", "/api/webhooks/{endpoint}")),
    "api-hooks-endpoint-secret get": (3, get("/api/webhooks/{endpoint}/secret")),
    "api-hooks-endpoint-secret post": (7, send("post", "/api/webhooks/{endpoint}/secret")),
    "api-password post": (6, send("post", "/api/auth/password", {"currentPassword": "x", "newPassword": "y"})),
    "api-account get": (6, get("/api/account")),
    "api-sessions get": (2, get("/api/auth/sessions")),
    "api-session delete": (2, send("delete", "/api/auth/sessions/{login}")),
    "api-keys get": (3, get("/api/keys")),
    "api-keys post": (7, send("post", "/api/keys", {"name": "a", "scopes": ["read"]})),
    "api-key delete": (6, send("delete", "/api/keys/{key}")),
    "api-key-roll post": (8, send("post", "/api/keys/{key}/roll")),
    "openai-videos get": (3, get("/v1/videos?limit=100")),
    "openai-videos post": (3, send("post", "/v1/videos", ORDER)),
    "openai-video get": (3, get("/v1/videos/{waiting}")),
    "openai-video delete": (24, send("delete", "/v1/videos/{waiting}")),
    "openai-content get": (3, get("/v1/videos/{waiting}/content")),
    "openrouter-videos post": (3, send("post", "/api/v1/videos", {"prompt": "A cat", "model": "auto"})),
    "openrouter-models get": (1, get("/api/v1/videos/models")),
    "openrouter-video get": (3, get("/api/v1/videos/{waiting}")),
    "openrouter-content get": (3, get("/api/v1/videos/{waiting}/content")),
}


def test_each_call_has_its_row() -> None:
    assert {call.name for call in CALLS} == set(COSTS)


@pytest.mark.django_db
@pytest.mark.parametrize("name", COSTS)
def test_a_call_costs_no_more_statements_however_many_rows_there_are(name: str) -> None:
    most, ask = COSTS[name]
    counts = []
    for number in (1, 6):
        world = World(number)
        estimates._cache.clear()
        world.client.get("/api/models")  # the figures that each process keeps for two seconds
        world.client.get("/api/video/status", {"taskId": world.waiting})
        with CaptureQueriesContext(connection) as captured:
            reply = ask(world)
        assert reply.status_code < 500, reply.content
        counts.append(len(captured))
    assert counts[0] == counts[1], [str(one["sql"])[:100] for one in captured]
    assert counts[0] <= most, [str(one["sql"])[:100] for one in captured]
