"""GET /api/video/tasks: its filters, orders, pages and fields; and queries that no address takes."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client

from tests.factories import accepted, claimed, make_task, make_user
from video.actions import cancel, create_many
from video.actions.create_many import Wanted
from video.api.views import task_list
from video.attempts import task_moves
from video.audit.actors import Unaudited
from video.models import Stage, VideoTask
from video.models.order import Order

pytestmark = pytest.mark.django_db
TASKS = "/api/video/tasks"


def data(client: Client, **query: object) -> Any:
    answer = client.get(TASKS, query)
    assert answer.status_code == 200, answer.content
    return answer.json()["data"]


def ids(client: Client, **query: object) -> list[str]:
    return [task["taskId"] for task in data(client, **query)["tasks"]]


def all_pages(client: Client, **query: object) -> list[str]:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(50):
        found = data(client, **query, **cursor)
        seen += [task["taskId"] for task in found["tasks"]]
        if found["nextCursor"] is None:
            return seen
        cursor = {"cursor": found["nextCursor"]}
    raise AssertionError("no end")


def made(user: AbstractBaseUser, *prompts: str, **pairs: str) -> list[str]:
    wanted = [Wanted(Order(prompt, 5, "16:9"), ["gen4.5"], pairs) for prompt in prompts]
    return [one.pk for one in create_many.create_many(user.pk, wanted, whole=True) if isinstance(one, VideoTask)]


def put(task_id: str, **columns: Any) -> None:
    with connection.cursor() as cursor:
        sets = ", ".join(f"{name} = %({name})s" for name in columns)
        cursor.execute(f"UPDATE video_videotask SET {sets} WHERE id = %(id)s", {**columns, "id": task_id})


class TestFilters:
    def test_by_metadata_all_pairs_count(self, api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
        both = made(user, "a", project="spring", n="1")
        one = made(user, "b", project="spring")
        made(user, "c", project="autumn")
        made(stranger, "d", project="spring")
        make_task(user)
        assert ids(api, **{"metadata.project": "spring"}) == one + both
        assert ids(api, **{"metadata.project": "spring", "metadata.n": "1"}) == both
        assert ids(api, **{"metadata.project": "spring", "status": "success"}) == []
        assert ids(api, **{"metadata.project": "sprin"}) == []

    def test_by_words_of_the_prompt(self, api: Client, user: AbstractBaseUser) -> None:
        cat, percent = made(user, "A black CAT", "100% dog")
        assert ids(api, text="cat") == [cat]
        assert ids(api, text="% d") == [percent]
        assert ids(api, text="_") == []

    def test_by_model_and_error(self, api: Client, user: AbstractBaseUser) -> None:
        failed, gone, _ = make_task(user), make_task(user), make_task(user)
        accepted(failed, "job")
        assert task_moves.fail(claimed(failed, Stage.POLL), code="timeout", message="Too long.")
        cancel.cancel(gone.pk, by=Unaudited("them"))
        assert ids(api, errorCode="timeout") == [failed.pk]
        assert ids(api, errorCode="cancelled") == [gone.pk]
        assert failed.pk in ids(api, model="gen4.5")
        assert ids(api, model="veo3") == []

    def test_by_more_than_one_status(self, api: Client, user: AbstractBaseUser) -> None:
        waits, gone = make_task(user), make_task(user)
        cancel.cancel(gone.pk, by=Unaudited("them"))
        assert ids(api, status="pending,failed") == [gone.pk, waits.pk]
        assert ids(api, status="pending,running") == [waits.pk]

    def test_by_times_the_end_of_a_span_is_outside(self, api: Client, user: AbstractBaseUser) -> None:
        first, second, third = made(user, "1", "2", "3")
        for hour, task_id in enumerate((first, second, third), 8):
            put(task_id, created_at=f"2026-11-28T{hour:02}:00:00Z")
            cancel.cancel(task_id, by=Unaudited("them"))
            put(task_id, finished_at=f"2026-11-28T{hour + 4:02}:00:00Z")
        span = {"createdAfter": "2026-11-28T08:00:00Z", "createdBefore": "2026-11-28T10:00Z"}
        assert ids(api, **span) == [second, first]
        assert ids(api, createdAfter="2026-11-28T10:00:00+01:00") == [third, second]
        ended = {"endedAfter": "2026-11-28T12:00:00Z", "endedBefore": "2026-11-28T14:00:00Z"}
        for order in ("-createdAt", "-endedAt"):
            assert ids(api, **ended, order=order) == [second, first]
        assert ids(api, endedBefore="2026-11-28T14:00:00Z", createdAfter="2026-11-28T09:00:00Z") == [second]


class TestOrders:
    def test_a_batch_stands_in_its_order(self, api: Client, user: AbstractBaseUser) -> None:
        batch = made(user, *"abcde")
        assert ids(api) == batch[::-1]
        assert ids(api, order="createdAt") == batch

    @pytest.mark.parametrize("order", ["createdAt", "-createdAt", "endedAt", "-endedAt"])
    def test_pages_hold_each_task_once(self, api: Client, user: AbstractBaseUser, order: str) -> None:
        batch = made(user, *"abcdefg")
        ended = sorted(batch[1:], key=lambda one: (batch.index(one) // 3, one))
        for one in batch[1:]:
            cancel.cancel(one, by=Unaudited("them"))
            put(one, finished_at=f"2026-11-28T10:00:{batch.index(one) // 3:02}.000001Z")  # some at one time
        made(make_user(), "theirs")
        expected = batch if order.endswith("createdAt") else ended
        expected = expected[::-1] if order.startswith("-") else expected
        assert all_pages(api, order=order, limit=2) == expected

    def test_a_cursor_is_of_one_order(self, api: Client, user: AbstractBaseUser) -> None:
        batch = made(user, *"ab")
        for one in batch:
            cancel.cancel(one, by=Unaudited("them"))
        cursor = data(api, limit=1)["nextCursor"]
        assert api.get(TASKS, {"cursor": cursor, "order": "endedAt"}).status_code == 400
        cursor = data(api, limit=1, order="endedAt")["nextCursor"]
        assert api.get(TASKS, {"cursor": cursor}).status_code == 400


class TestWhatNoIndexServes:
    def test_is_asked_of_some_tasks_a_page(
        self, api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_list, "LOOKED_AT", 3)
        batch = made(user, "cat", *"abcdefg", "cat", "x")
        first = data(api, text="cat")
        assert [one["taskId"] for one in first["tasks"]] == [batch[-2]]
        second = data(api, text="cat", cursor=first["nextCursor"])
        assert second["tasks"] == []
        assert second["nextCursor"] is not None
        for order in ("createdAt", "-createdAt"):
            assert sorted(all_pages(api, text="cat", order=order)) == sorted([batch[0], batch[-2]])
        for one in batch:
            cancel.cancel(one, by=Unaudited("them"))
        assert sorted(all_pages(api, text="cat", order="endedAt")) == sorted([batch[0], batch[-2]])

    def test_but_pairs_are_found_wherever_they_are(
        self, api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_list, "LOOKED_AT", 3)
        rare = made(user, *"abcde", project="spring")
        made(user, *"fghijk", project="autumn")
        found = data(api, limit=2, **{"metadata.project": "spring"})
        assert [one["taskId"] for one in found["tasks"]] == rare[:2:-1]
        for order in ("createdAt", "-createdAt"):
            assert sorted(all_pages(api, limit=2, order=order, **{"metadata.project": "spring"})) == sorted(rare)
        assert ids(api, text="b", **{"metadata.project": "spring"}) == [rare[1]]


class TestFields:
    def test_only_those_that_are_named(self, api: Client, user: AbstractBaseUser) -> None:
        (task_id,) = made(user, "a", project="spring")
        assert data(api, fields="taskId,metadata,warnings")["tasks"] == [
            {"taskId": task_id, "metadata": {"project": "spring"}}
        ]

    def test_there_are_no_others(self, api: Client, user: AbstractBaseUser) -> None:
        made(user, "a", project="spring")
        assert set(data(api)["tasks"][0]) <= set(task_list.FIELDS)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"order": "prompt"}, "order"),
        ({"order": "--createdAt"}, "order"),
        ({"fields": ""}, "fields"),
        ({"fields": "taskId,secret"}, "fields"),
        ({"status": "pending,"}, "status"),
        ({"status": "cancelled"}, "status"),
        ({"model": ""}, "model"),
        ({"text": "x" * 201}, "text"),
        ({"text": "a\0"}, "text"),
        ({"errorCode": ""}, "errorCode"),
        ({"createdAfter": "yesterday"}, "createdAfter"),
        ({"createdAfter": "2026-11-28T08:00:00"}, "createdAfter"),
        ({"endedBefore": "2026-11-28T08:00:00 01:00"}, "endedBefore"),
        ({"endedAfter": "2026-13-28T08:00:00Z"}, "endedAfter"),
        ({"endedAfter": "0000-01-01T00:00:00Z"}, "endedAfter"),
        ({"metadata.": "x"}, "metadata."),
        ({"metadata.é": "x"}, "metadata.é"),
        ({"metadata.a": ""}, "metadata.a"),
        ({"metadata.a": "x" * 513}, "metadata.a"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata.a": ["x", "y"]}, "metadata.a"),
        ({f"metadata.{number}": "x" for number in range(17)}, "metadata"),
        ({"order": "endedAt", "cursor": "99999999999999999.task_1;"}, "cursor"),
    ],
)
def test_odd_queries_are_refused(api: Client, query: dict[str, Any], field: str) -> None:
    answer = api.get(TASKS, query)
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]["details"][0]["field"] == field


@pytest.mark.parametrize(
    "query",
    [
        {"createdAfter": "2026-11-28T22:11:58-20:24", "createdBefore": "2026-11-28T22:11:58+23:59"},
        {"createdAfter": "0001-01-01T00:00:00+14:00", "endedBefore": "9999-12-31T23:59:59.999999-14:00"},
        {"order": "endedAt", "cursor": "99999999999999999.task_1"},
        {"order": "-endedAt", "cursor": "0.task_1"},
        {"text": "'; DROP TABLE x; --"},
        {"metadata.a": '"}\\'},
    ],
)
def test_the_ends_of_what_may_come(api: Client, query: dict[str, Any]) -> None:
    assert data(api, **query)["tasks"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/video/status?taskId=task_1&taskId=task_2", "taskId"),
        ("/api/video/status?taskId=task_1&Wait=1", "Wait"),
        ("/api/video/events?task=task_1", "task"),
        ("/api/models?page=2", "page"),
        ("/api/storage?a=", "a"),
        ("/api/queues/status?a=1", "a"),
        ("/api/auth/sessions?all=1", "all"),
    ],
)
def test_what_an_address_does_not_take_is_named(api: Client, path: str, field: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == field


def test_a_query_of_a_post_is_refused_before_anything_is_done(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    answer = api.post("/api/video/cancel?dryRun=1", {"taskId": task.pk}, content_type="application/json")
    assert answer.status_code == 400
    assert VideoTask.objects.get(pk=task.pk).is_active
