"""POST /api/video/batch, and cancel and retry of several tasks."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, admitted, make_task, make_user
from tests.pictures import picture
from tests.video.conftest import client_of
from video.actions import cancel, delete
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import CreditEntry, Generation, ModelSetting, TaskEvent, VideoTask
from video.scheduling import estimates

pytestmark = pytest.mark.django_db
BATCH, CANCEL, RETRY, JSON = "/api/video/batch", "/api/video/cancel", "/api/video/retry", "application/json"
GOOD = {"prompt": "A cat", "metadata": {"n": "1"}}


def post(client: Client, path: str, body: Any, **headers: Any) -> Any:
    return client.post(path, body, content_type=JSON, **headers)


def statements(call: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert call().status_code < 300
    return len(captured)


class TestBatch:
    def test_makes_all(self, api: Client, user: AbstractBaseUser) -> None:
        reply = post(api, BATCH, {"orders": [GOOD, {"prompt": "A dog", "duration": 10}]})
        assert reply.status_code == 201
        data = reply.json()["data"]
        assert (data["created"], data["refused"]) == (2, 0)
        first, second = data["tasks"]
        assert first == {
            "index": 0,
            "taskId": first["taskId"],
            "status": "pending",
            "estimatedTime": first["estimatedTime"],
        }
        task = VideoTask.objects.get(pk=second["taskId"])
        assert (task.user_id, task.prompt, task.duration_s, task.metadata) == (user.pk, "A dog", 10, {})
        assert VideoTask.objects.get(pk=first["taskId"]).metadata == {"n": "1"}
        assert ledger.balance(user.pk) == 980

    def test_with_one_key_is_made_once(self, api: Client, user: AbstractBaseUser) -> None:
        body = {"orders": [GOOD] * 3, "mode": "each"}
        first, again = (post(api, BATCH, body, HTTP_IDEMPOTENCY_KEY="k") for _ in range(2))
        assert first.content == again.content
        assert again.status_code == 201
        assert again["Idempotency-Replayed"] == "true"
        other = post(api, BATCH, {"orders": [GOOD] * 4, "mode": "each"}, HTTP_IDEMPOTENCY_KEY="k")
        assert other.json()["error"]["code"] == "idempotency_key_reused"
        assert VideoTask.objects.count() == 3

    @pytest.mark.parametrize("mode", ["all", "each"])
    def test_of_a_hundred_on_a_balance_for_99(self, mode: str) -> None:
        user = make_user(credit=990)
        reply = post(client_of(user), BATCH, {"orders": [GOOD] * 100, "mode": mode})
        if mode == "all":
            assert (reply.status_code, reply.json()["error"]["code"]) == (402, "insufficient_credits")
            assert reply.json()["error"]["details"] == {"needed": 1000, "balance": 990}
            assert not VideoTask.objects.exists()
        else:
            assert reply.status_code == 207
            data = reply.json()["data"]
            assert (data["created"], data["refused"]) == (99, 1)
            assert data["tasks"][99]["refusal"]["code"] == "insufficient_credits"
            assert VideoTask.objects.count() == 99

    def test_says_all_that_is_wrong_with_all(self, api: Client) -> None:
        orders = [GOOD, {"prompt": "", "fps": 0}, {"prompt": "A cat", "model": "nobodys"}]
        reply = post(api, BATCH, {"orders": orders})
        assert reply.status_code == 400
        fields = [one["field"] for one in reply.json()["error"]["details"]]
        assert fields == ["orders[1].prompt", "orders[1].fps", "orders[2].model"]
        assert not VideoTask.objects.exists()

    @pytest.mark.parametrize(
        ("order", "code", "field"),
        [
            ({"prompt": "A cat", "model": "gen4.5", "fallback": False}, "model_unavailable", "model"),
            ({"prompt": "A cat", "imageUrl": "upload://" + "a" * 40}, "no_such_upload", "imageUrl"),
        ],
    )
    def test_says_which_order_can_not_be_made_now(self, api: Client, order: Any, code: str, field: str) -> None:
        ModelSetting.objects.create(model="gen4.5", enabled=False)
        error = post(api, BATCH, {"orders": [GOOD, order]}).json()["error"]
        assert (error["code"], error["details"][0]["field"]) == (code, f"orders[1].{field}")
        assert error["message"].startswith(f"orders[1].{field}: ")
        assert not VideoTask.objects.exists()

    def test_of_nothing_but_wrong_orders_costs_little_to_refuse(self, api: Client) -> None:
        many = {f"prompt_{number}": 1 for number in range(300)}
        reply = post(api, BATCH, {"orders": [many] * 100})
        assert reply.status_code == 400
        assert len(reply.content) <= 4096
        assert len(reply.json()["error"]["details"]) == 20

    def test_of_each_makes_those_that_are_right(self, api: Client) -> None:
        orders = [{"prompt": ""}, GOOD, {"prompt": "A cat", "colour": "red"}]
        data = post(api, BATCH, {"orders": orders, "mode": "each"}).json()["data"]
        assert [one["index"] for one in data["tasks"]] == [0, 1, 2]
        assert [one.get("refusal", {}).get("code") for one in data["tasks"]] == [
            "invalid_request",
            None,
            "invalid_request",
        ]
        assert data["tasks"][2]["refusal"]["details"][0]["field"] == "colour"
        assert VideoTask.objects.get().pk == data["tasks"][1]["taskId"]

    def test_of_each_may_make_none(self, api: Client) -> None:
        reply = post(api, BATCH, {"orders": [{}], "mode": "each"})
        assert (reply.status_code, reply.json()["data"]["created"]) == (207, 0)

    def test_takes_no_picture_itself(self, api: Client) -> None:
        inline = "data:image/png;base64," + base64.b64encode(picture()).decode()
        reply = post(api, BATCH, {"orders": [{"prompt": "A cat", "imageUrl": inline}]})
        (wrong,) = reply.json()["error"]["details"]
        assert wrong["field"] == "orders[0].imageUrl"
        assert "upload" in wrong["message"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "orders"),
            ({"orders": None}, "orders"),
            ({"orders": []}, "orders"),
            ({"orders": {}}, "orders"),
            ({"orders": ["A cat"]}, "orders"),
            ({"orders": [GOOD] * 101}, "orders"),
            ({"orders": [GOOD], "mode": "some"}, "mode"),
            ({"orders": [GOOD], "order": 1}, "order"),
        ],
    )
    def test_odd_bodies_are_refused(self, api: Client, body: Any, field: str) -> None:
        reply = post(api, BATCH, body)
        assert reply.status_code == 400
        assert reply.json()["error"]["details"][0]["field"] == field

    def test_a_body_may_have_a_mebibyte(self, api: Client) -> None:
        long = {"prompt": "a" * 900, "metadata": {f"n{at}": "v" * 500 for at in range(16)}}
        assert post(api, BATCH, {"orders": [long] * 100}).status_code == 201
        reply = post(api, BATCH, {"orders": [{"prompt": "a" * 1024**2}]})
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")

    def test_costs_a_fixed_number_of_statements(self) -> None:
        api = client_of(make_user(credit=10_000))

        def call(number: int, **headers: Any) -> int:
            return statements(lambda: post(api, BATCH, {"orders": [GOOD] * number}, **headers))

        call(1)
        assert call(1) == call(50) == 3  # the login; what is switched off; all tasks
        # And BEGIN and COMMIT, the lock, the look for an earlier answer, the answer.
        assert call(50, HTTP_IDEMPOTENCY_KEY="k") == 8


class TestCancelOfSeveral:
    def test_says_of_each_what_became_of_it(self, api: Client, user: AbstractBaseUser) -> None:
        waits, planned, job = (make_task(user) for _ in range(3))
        stranger = make_task()
        admitted(planned)
        accepted(job)
        before = make_task(user)
        cancel.cancel(before.pk, by=Unaudited("them"))
        deleted = make_task(user)
        cancel.cancel(deleted.pk, by=Unaudited("them"))
        delete.delete(deleted.pk)
        ids = [one.pk for one in (job, waits, stranger, planned, before, deleted)]
        data = post(api, CANCEL, {"taskIds": ids}).json()["data"]
        assert [one["taskId"] for one in data["tasks"]] == ids
        assert [one.get("refund") for one in data["tasks"]] == [
            "pending",
            "refunded",
            None,
            "refunded",
            "refunded",
            None,
        ]
        errors = [one["refusal"]["code"] for one in data["tasks"] if "refusal" in one]
        assert errors == ["not_found", "task_deleted"]
        assert (data["done"], data["refused"]) == (4, 2)
        assert all(one["errorCode"] == "cancelled" for one in data["tasks"] if "refund" in one)
        assert Generation.objects.get(task=job).cancel_wanted_at is not None
        assert Generation.objects.get(task=planned).state == Generation.State.REJECTED
        assert VideoTask.objects.get(pk=stranger.pk).is_active
        refunds = CreditEntry.objects.filter(kind=CreditEntry.Kind.REFUND, account_id=user.pk)
        assert {entry.task_id for entry in refunds} == {waits.pk, planned.pk, before.pk, deleted.pk}
        assert ledger.balance(user.pk) == 990
        assert ledger.differences() == []
        assert TaskEvent.objects.filter(outcome="cancelled", task_id__in=ids).count() == 5

    def test_costs_the_same_for_many(self, api: Client, user: AbstractBaseUser) -> None:
        def call(number: int) -> int:
            tasks = [make_task(user).pk for _ in range(number)]
            estimates._cache.clear()
            return statements(lambda: post(api, CANCEL, {"taskIds": tasks}))

        assert call(1) == call(20) <= 9

    def test_one_key_does_it_once(self, api: Client, user: AbstractBaseUser) -> None:
        body = {"taskIds": [make_task(user).pk, make_task(user).pk]}
        first = post(api, CANCEL, body, HTTP_IDEMPOTENCY_KEY="k")
        assert post(api, RETRY, body).json()["data"]["done"] == 2
        assert post(api, CANCEL, body, HTTP_IDEMPOTENCY_KEY="k").content == first.content
        assert VideoTask.objects.filter(finished_at=None).count() == 2


class TestRetryOfSeveral:
    def test_goes_as_far_as_the_credits(self, client_for: Callable[..., Client]) -> None:
        user = make_user(credit=30)
        tasks = [make_task(user).pk for _ in range(3)]
        cancel.cancel_many(tasks, by=Unaudited("them"), user_id=user.pk)
        make_task(user)
        data = post(client_for(user), RETRY, {"taskIds": [*tasks, "task_none"]}).json()["data"]
        assert [one.get("run") for one in data["tasks"]] == [2, 2, None, None]
        assert [one["refusal"]["code"] for one in data["tasks"] if "run" not in one] == [
            "insufficient_credits",
            "not_found",
        ]
        assert ledger.balance(user.pk) == 0
        assert ledger.differences() == []


@pytest.mark.parametrize("path", [CANCEL, RETRY])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "taskId"),
        ({"taskId": None}, "taskId"),
        ({"taskIds": []}, "taskIds"),
        ({"taskIds": "task_1"}, "taskIds"),
        ({"taskIds": [1]}, "taskIds"),
        ({"taskIds": ["task_\0"]}, "taskIds"),
        ({"taskIds": ["nonsense"]}, "taskIds"),
        ({"taskIds": ["task_1", "task_1"]}, "taskIds"),
        ({"taskIds": [f"task_{at}" for at in range(101)]}, "taskIds"),
        ({"taskIds": ["task_1"], "taskId": "task_1"}, "taskIds"),
    ],
)
def test_odd_lists_of_tasks_are_refused(api: Client, path: str, body: Any, field: str) -> None:
    reply = post(api, path, body)
    assert reply.status_code == 400
    assert reply.json()["error"]["details"][0]["field"] == field
