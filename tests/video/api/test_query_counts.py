"""The two calls that every client makes cost a fixed, small number of SQL statements."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, make_task, make_user
from video.scheduling import estimates

MOST_FOR_CREATE = 3  # its user, its row with the debit, and now and then how long it will take
MOST_FOR_STATUS = 1  # its user, its login and the task
MOST_FOR_EACH = {
    "cancel": 8,
    "retry": 13,
    "keyed": 13,
    "replayed": 5,
    "delete": 11,
    "models": 4,
    "storage": 2,
    "credits": 3,
    "details": 6,
}


def statements(call: Any, status: int) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert call().status_code == status
    return len(captured)


@pytest.mark.django_db(transaction=True)  # so that BEGIN and COMMIT are counted as in production
def test_create_costs_at_most_three_statements_however_full_the_tables_are(
    client_for: Any, order: dict[str, Any]
) -> None:
    user = make_user()
    client = client_for(user)

    def create(**headers: Any) -> Any:
        return client.post("/api/video/create", order, content_type="application/json", **headers)

    estimates._cache.clear()
    cold = statements(create, 201)
    warm = statements(create, 201)
    for _ in range(20):
        make_task(user)
    later = statements(create, 201)
    with_key = statements(lambda: create(HTTP_IDEMPOTENCY_KEY="k"), 201)
    replay = statements(lambda: create(HTTP_IDEMPOTENCY_KEY="k"), 200)
    assert cold <= MOST_FOR_CREATE
    assert warm == later == with_key == cold - 1
    assert replay <= MOST_FOR_CREATE + 1  # the task of before


def test_status_costs_one_statement_whatever_the_task_went_through(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)

    def ask() -> Any:
        return api.get("/api/video/status", {"taskId": task.pk})

    statements(ask, 200)  # the figures of the line, which each process keeps for two seconds
    fresh = statements(ask, 200)
    accepted(task)
    for _ in range(20):
        make_task(user)
    assert fresh == statements(ask, 200) == MOST_FOR_STATUS


def test_what_is_refused_by_its_looks_costs_the_user_only(api: Client) -> None:
    assert statements(lambda: api.get("/api/video/status", {"taskId": "nonsense"}), 404) == 1


def test_without_a_token_the_database_is_not_asked(client: Client) -> None:
    # Without the `db` fixture any statement would raise.
    assert client.get("/api/video/status", {"taskId": "task_1"}).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_the_dialects_cost_a_fixed_number_of_statements(client_for: Any, order: dict[str, Any]) -> None:
    user = make_user()
    client = client_for(user)

    def create(prompt: str) -> Any:
        return client.post("/v1/videos", {"prompt": prompt})

    statements(lambda: create("first"), 200)
    assert statements(lambda: create("second"), 200) == MOST_FOR_CREATE - 1  # its user, and its row with the debit
    statements(lambda: create("second"), 200)
    assert statements(lambda: create("second"), 200) == MOST_FOR_CREATE + 2  # the task of before, as it stands now
    for address in ("/v1/videos", "/api/v1/videos"):
        of_one = f"{address}/{make_task(user).pk}"
        client.get(of_one)  # the figures of the line
        assert statements(lambda one=of_one: client.get(one), 200) == 3  # its user, its status, what was asked for
    for limit in (1, 20):
        make_task(user)
        assert statements(lambda most=limit: client.get("/v1/videos", {"limit": most}), 200) == 3


@pytest.mark.django_db(transaction=True)
def test_a_tool_costs_its_call_and_one_statement_more(client_for: Any) -> None:
    user = make_user()
    client, task = client_for(user), make_task(user)
    call = {"name": "video_status", "arguments": {"taskId": task.pk}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}

    def ask() -> Any:
        return client.post("/mcp", message, content_type="application/json")

    statements(ask, 200)
    assert statements(ask, 200) == MOST_FOR_STATUS + 1


def test_each_other_call_costs_a_fixed_number_too(api: Client, user: AbstractBaseUser) -> None:
    """With the login, and the savepoints that stand for BEGIN and COMMIT here; of a task that waits in line."""
    estimates._cache.clear()
    task, other = make_task(user).pk, make_task(user).pk
    statements(lambda: api.get("/api/video/status", {"taskId": task}), 200)

    def post(path: str, body: dict[str, Any], **headers: Any) -> int:
        return statements(lambda: api.post(path, body, content_type="application/json", **headers), 200)

    counts = {
        "cancel": post("/api/video/cancel", {"taskId": task}),
        "retry": post("/api/video/retry", {"taskId": task}),
        "keyed": post("/api/video/cancel", {"taskId": task}, HTTP_IDEMPOTENCY_KEY="k"),
        "replayed": post("/api/video/cancel", {"taskId": task}, HTTP_IDEMPOTENCY_KEY="k"),
        "delete": statements(lambda: api.delete(f"/api/video/tasks/{task}"), 200),
        "models": statements(lambda: api.get("/api/models"), 200),
        "storage": statements(lambda: api.get("/api/storage"), 200),
        "credits": statements(lambda: api.get("/api/credits"), 200),
        "details": statements(lambda: api.get(f"/api/queues/tasks/{other}"), 200),
    }
    assert {name: count for name, count in counts.items() if count > MOST_FOR_EACH[name]} == {}
