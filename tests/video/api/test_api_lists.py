"""GET /api/video/tasks and GET /api/credits: one's own, newest first, a page at a time."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, claimed, make_task, make_user
from tests.video.conftest import client_of
from video.actions import cancel
from video.attempts import task_moves
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import Stage, VideoTask

pytestmark = pytest.mark.django_db
TASKS, CREDITS = "/api/video/tasks", "/api/credits"


def data(client: Client, url: str, **query: object) -> Any:
    answer = client.get(url, query)
    assert answer.status_code == 200, answer.content
    return answer.json()["data"]


def ids(found: Any) -> list[str]:
    return [task["taskId"] for task in found["tasks"]]


def failed(user: AbstractBaseUser) -> VideoTask:
    task = make_task(user)
    accepted(task, f"job-of-{task.pk}")
    assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    return task


@pytest.mark.parametrize("url", [TASKS, CREDITS])
class TestBoth:
    def test_need_a_login(self, client: Client, url: str) -> None:
        assert client.get(url).status_code == 401

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            *(({"limit": limit}, "limit") for limit in ("0", "101", "-1", "ten", "", "1.5", "٣", "9" * 400)),
            *(
                ({"cursor": cursor}, "cursor")
                for cursor in ("", "x", "-1", "task_", "1;", "٣", "9" * 19, "0" * 10 + "9" * 20)
            ),
            ({"page": "2"}, "page"),
            ({"limit": ["5", "6"]}, "limit"),
        ],
    )
    def test_refuse_what_they_do_not_know(self, api: Client, url: str, query: dict[str, Any], field: str) -> None:
        answer = api.get(url, query)
        assert answer.status_code == 400
        assert answer.json()["error"]["details"][0]["field"] == field

    def test_somebody_who_has_nothing(self, url: str) -> None:
        found = data(client_of(make_user(0)), url)
        assert found["nextCursor"] is None
        assert found.get("tasks", found.get("entries")) == []
        assert found.get("balance", 0) == 0


class TestTasks:
    def test_are_ones_own_the_newest_first(
        self, api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser
    ) -> None:
        first, second = make_task(user, prompt="A boat"), make_task(user)
        make_task(stranger)
        found = data(api, TASKS)
        assert ids(found) == [second.pk, first.pk]
        assert found["tasks"][1] == {
            "taskId": first.pk,
            "status": "pending",
            "progress": 0,
            "stage": "generate",
            "prompt": "A boat",
            "run": 1,
            "createdAt": found["tasks"][1]["createdAt"],
            "finishedAt": None,
        }

    def test_come_a_page_at_a_time_and_none_twice(self, api: Client, user: AbstractBaseUser) -> None:
        made = [make_task(user).pk for _ in range(5)]
        # The same time for all: the id tells them apart.
        VideoTask.objects.update(created_at="2026-01-01T00:00:00Z")
        seen, cursor = [], {}
        while True:
            found = data(api, TASKS, limit=2, **cursor)
            seen.append(ids(found))
            if found["nextCursor"] is None:
                break
            cursor = {"cursor": found["nextCursor"]}
            make_task(user)  # a new one moves no page
        assert seen == [made[:2:-1], made[2:0:-1], made[:1]]

    def test_a_page_that_is_just_full_has_no_next(self, api: Client, user: AbstractBaseUser) -> None:
        for _ in range(2):
            make_task(user)
        assert data(api, TASKS, limit=2)["nextCursor"] is None

    def test_by_status_in_the_words_of_the_api(self, api: Client, user: AbstractBaseUser) -> None:
        bad, gone = failed(user), make_task(user)
        cancel.cancel(gone.pk, by=Unaudited("them"))
        running = make_task(user)
        accepted(running, "job-r")
        waits = make_task(user)
        for status, wanted in (
            ("pending", [waits.pk]),
            ("running", [running.pk]),
            ("failed", [gone.pk, bad.pk]),
            ("success", []),
        ):
            assert ids(data(api, TASKS, status=status)) == wanted
        found = data(api, TASKS, status="failed")["tasks"]
        assert [task["errorCode"] for task in found] == ["cancelled", "timeout"]
        assert all(task["status"] == "failed" and task["finishedAt"] for task in found)
        answer = api.get(TASKS, {"status": "cancelled"})
        assert answer.status_code == 400
        assert answer.json()["error"]["details"] == [
            {"field": "status", "message": "must be one of pending, running, success, failed"}
        ]

    def test_a_strangers_cursor_shows_nothing(
        self, api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser
    ) -> None:
        make_task(user)
        assert ids(data(api, TASKS, cursor=make_task(stranger).pk)) == []

    def test_cost_two_statements(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        for query in ({}, {"cursor": task.pk}, {"status": "pending"}, {"order": "endedAt"}):
            with CaptureQueriesContext(connection) as captured:
                data(api, TASKS, **query)
            assert len(captured) == 2

    def test_cost_one_more_for_a_short_page_of_what_no_index_serves(self, api: Client) -> None:
        for query in ({"status": "failed"}, {"text": "cat"}, {"metadata.a": "b"}, {"metadata.a": "b", "text": "cat"}):
            with CaptureQueriesContext(connection) as captured:
                data(api, TASKS, **query)
            assert len(captured) == 3


class TestCredits:
    def test_tell_the_balance_and_what_made_it(self, api: Client, user: AbstractBaseUser) -> None:
        task = failed(user)
        make_task(user)
        ledger.grant(user.pk, 5, note="for olga's eyes")
        found = data(api, CREDITS)
        assert found["balance"] == 1000 - 10 + 5
        assert [(one["kind"], one["amount"]) for one in found["entries"]] == [
            *(("grant", 5), ("debit", -10), ("refund", 10), ("debit", -10), ("grant", 1000))
        ]
        assert (found["entries"][2]["taskId"], found["entries"][2]["run"]) == (task.pk, 1)
        assert found["entries"][0]["taskId"] is None
        assert sum(one["amount"] for one in found["entries"]) == found["balance"]
        assert set(found["entries"][0]) == {"kind", "amount", "taskId", "run", "at"}

    def test_come_a_page_at_a_time(self, api: Client, user: AbstractBaseUser) -> None:
        for _ in range(4):
            make_task(user)
        first = data(api, CREDITS, limit=3)
        second = data(api, CREDITS, limit=3, cursor=first["nextCursor"])
        assert [len(first["entries"]), len(second["entries"])] == [3, 2]
        assert second["nextCursor"] is None
        assert second["entries"][-1]["kind"] == "grant"

    def test_are_ones_own(self, api: Client, stranger: AbstractBaseUser) -> None:
        for _ in range(3):
            make_task(stranger)
        assert len(data(api, CREDITS)["entries"]) == 1

    def test_cost_three_statements(self, api: Client) -> None:
        with CaptureQueriesContext(connection) as captured:
            data(api, CREDITS)
        assert len(captured) == 3
