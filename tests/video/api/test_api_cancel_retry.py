"""POST /api/video/cancel and /api/video/retry. What they do to a task is tested in tests/video/actions."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.test import Client
from pytest_django.fixtures import Settings

from tests.factories import accepted, admitted, claimed, make_task, make_user, reload
from video.actions import cancel, retry
from video.attempts import records, task_moves
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import CreditEntry, Generation, Stage, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db
CANCEL, RETRY = "/api/video/cancel", "/api/video/retry"


def post(client: Client, url: str, body: Any) -> Any:
    return client.post(url, body, content_type="application/json")


def error(reply: Any, status: int, code: str) -> str:
    assert reply.status_code == status, reply.content
    assert reply["Cache-Control"] == "no-store"
    body = reply.json()
    assert body["success"] is False
    assert body["error"]["code"] == code
    return str(body["error"]["message"])


def failed(user: AbstractBaseUser) -> VideoTask:
    """A task whose video is ready at the provider, and that failed before it was fetched."""
    task = make_task(user)
    generation = accepted(task, f"job-of-{task.pk}")
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert task_moves.fail(claim, code="download_failed", message="It could not be fetched.")
    return reload(task)


class TestCancel:
    def test_answers_as_status_and_says_what_becomes_of_the_credits(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        reply = post(api, CANCEL, {"taskId": task.pk})
        assert reply.status_code == 200
        assert reply.json() == {
            "success": True,
            "data": {
                "taskId": task.pk,
                "status": "failed",
                "progress": 0,
                "stage": "generate",
                "error": "This video was cancelled.",
                "errorCode": "cancelled",
                "refund": "refunded",
            },
        }
        assert ledger.balance(user.pk) == 1000
        assert TaskEvent.objects.get(task=task, outcome="cancelled").worker == user.get_username()

    def test_a_job_under_way_has_its_refund_pending(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        accepted(task)
        assert post(api, CANCEL, {"taskId": task.pk}).json()["data"]["refund"] == "pending"

    def test_again_is_the_same_answer(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        first = post(api, CANCEL, {"taskId": task.pk})
        again = post(api, CANCEL, {"taskId": task.pk})
        assert again.status_code == 200
        assert again.json() == first.json()

    def test_one_that_has_failed_is_409(self, api: Client, user: AbstractBaseUser) -> None:
        task = failed(user)
        assert "can't be cancelled any more" in error(post(api, CANCEL, {"taskId": task.pk}), 409, "not_cancellable")
        assert reload(task).error_code == "download_failed"

    @pytest.mark.parametrize("url", [CANCEL, RETRY])
    def test_others_tasks_and_nonsense_are_404(self, api: Client, stranger: AbstractBaseUser, url: str) -> None:
        task = make_task(stranger)
        for task_id in (task.pk, "task_0", "nonsense", "gen_1"):
            error(post(api, url, {"taskId": task_id}), 404, "not_found")
        assert reload(task).status == "pending"

    @pytest.mark.parametrize("url", [CANCEL, RETRY])
    def test_bad_bodies_name_the_field_and_change_nothing(self, api: Client, user: AbstractBaseUser, url: str) -> None:
        task = make_task(user)
        for body, field in (
            ({}, "taskId"),
            ({"taskId": 5}, "taskId"),
            ({"taskId": None}, "taskId"),
            ({"taskId": task.pk, "reason": "x"}, "reason"),
        ):
            reply = post(api, url, body)
            error(reply, 400, "invalid_request")
            assert [detail["field"] for detail in reply.json()["error"]["details"]] == [field]
        assert reload(task).status == "pending"

    @pytest.mark.parametrize("url", [CANCEL, RETRY])
    def test_needs_a_login_and_a_post(self, client: Client, api: Client, url: str) -> None:
        error(post(client, url, {"taskId": "task_1"}), 401, "not_authenticated")
        error(api.get(url), 405, "method_not_allowed")


class TestRetry:
    def test_answers_as_status_and_says_what_it_costs(self, api: Client, user: AbstractBaseUser) -> None:
        task = failed(user)
        reply = post(api, RETRY, {"taskId": task.pk})
        assert reply.status_code == 200
        assert reply.json()["data"] == {
            "taskId": task.pk,
            "status": "running",
            "progress": 70,
            "stage": "download",
            "model": "gen4.5",
            "run": 2,
            "debited": 10,
        }
        assert ledger.balance(user.pk) == 990

    def test_the_second_of_two_is_409(self, api: Client, user: AbstractBaseUser) -> None:
        task = failed(user)
        post(api, RETRY, {"taskId": task.pk})
        assert "under way" in error(post(api, RETRY, {"taskId": task.pk}), 409, "not_retryable")
        assert ledger.balance(user.pk) == 990

    def test_short_of_credits_is_402(self, client_for: Any) -> None:
        user = make_user(10)
        task = failed(user)
        make_task(user)
        api = client_for(user)
        assert "costs 10 credits" in error(post(api, RETRY, {"taskId": task.pk}), 402, "insufficient_credits")
        assert reload(task).status == "failed"

    @pytest.mark.parametrize("limit", ["MAX_WAITING_PER_USER", "MAX_WAITING"])
    def test_into_a_full_line_is_429_and_changes_nothing(
        self, api: Client, user: AbstractBaseUser, settings: Settings, limit: str
    ) -> None:
        setattr(settings, limit, 1)
        task = make_task(user)
        assert cancel.cancel(task.pk, by=Unaudited("its user")).changed
        make_task(user)
        reply = post(api, RETRY, {"taskId": task.pk})
        error(reply, 429, "too_many_waiting")
        assert int(reply["Retry-After"]) >= 1
        assert (reload(task).status, reload(task).run) == ("cancelled", 1)
        assert ledger.balance(user.pk) == 990
        assert retry.retry(task.pk, by=Unaudited("an operator")).run == 2  # who may overfill it

    def test_while_nobody_knows_whether_a_job_exists_it_is_409(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        generation = admitted(task)
        claim = claimed(task)
        records.mark_sent(claim, generation)
        task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.")
        error(post(api, RETRY, {"taskId": task.pk}), 409, "attempt_unsettled")

    def test_a_video_that_is_gone_is_made_anew_only_if_that_is_asked_for(
        self, api: Client, user: AbstractBaseUser
    ) -> None:
        task = failed(user)
        VideoTask.objects.filter(pk=task.pk).update(error_code="source_gone")
        assert "regenerate" in error(post(api, RETRY, {"taskId": task.pk}), 409, "source_gone")
        reply = post(api, RETRY, {"taskId": task.pk, "regenerate": True})
        assert reply.json()["data"]["stage"] == "generate"

    def test_free_is_for_those_who_may_grant_credits(self, client_for: Any) -> None:
        user = make_user(10)
        task = failed(user)
        error(post(client_for(user), RETRY, {"taskId": task.pk, "free": True}), 403, "forbidden")
        assert reload(task).status == "failed"
        user.user_permissions.add(Permission.objects.get(codename="add_creditentry"))  # type: ignore[attr-defined]
        reply = post(client_for(user), RETRY, {"taskId": task.pk, "free": True})
        assert reply.json()["data"]["debited"] == 0
        assert CreditEntry.objects.filter(task=task, kind="grant").count() == 1
        assert ledger.balance(user.pk) == 10

    def test_a_flag_that_is_none_is_400(self, api: Client, user: AbstractBaseUser) -> None:
        task = failed(user)
        error(post(api, RETRY, {"taskId": task.pk, "regenerate": "yes"}), 400, "invalid_request")
