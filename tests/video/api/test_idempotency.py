"""`Idempotency-Key` on calls that change something: done once, and answered as the first time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client

from tests.factories import make_task, make_user
from tests.video.conftest import client_of
from video.actions import cancel, delete, erase_user
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import AnsweredCall, TaskEvent, VideoTask
from video.processes import periodic
from video.web import idempotency

JSON = "application/json"
CANCEL, RETRY = "/api/video/cancel", "/api/video/retry"


def post(client: Client, path: str, body: dict[str, Any], key: str | None = "k") -> Any:
    return client.post(path, body, content_type=JSON, **({} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}))


def code(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def cancelled(user: AbstractBaseUser) -> VideoTask:
    task = make_task(user)
    cancel.cancel(task.pk, by=Unaudited("them"))
    return task


@pytest.mark.django_db
class TestOneKey:
    def test_a_repeated_retry_is_one_and_has_the_same_answer(self, api: Client, user: AbstractBaseUser) -> None:
        task = cancelled(user)
        first, again = (post(api, RETRY, {"taskId": task.pk}) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.content == again.content
        assert "Idempotency-Replayed" not in first
        assert again["Idempotency-Replayed"] == "true"
        assert again["Cache-Control"] == "no-store"
        assert VideoTask.objects.get(pk=task.pk).run == 2
        assert ledger.balance(user.pk) == 990

    def test_a_late_repeat_of_a_cancel_does_not_cancel_the_retry(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        first = post(api, CANCEL, {"taskId": task.pk})
        post(api, RETRY, {"taskId": task.pk})
        assert post(api, CANCEL, {"taskId": task.pk}).content == first.content
        assert VideoTask.objects.get(pk=task.pk).is_active

    def test_another_body_is_refused(self, api: Client, user: AbstractBaseUser) -> None:
        task = cancelled(user)
        assert post(api, RETRY, {"taskId": task.pk}).status_code == 200
        assert code(post(api, RETRY, {"taskId": cancelled(user).pk})) == (409, "idempotency_key_reused")

    def test_a_refusal_leaves_the_key_free(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        assert code(post(api, RETRY, {"taskId": task.pk})) == (409, "not_retryable")
        assert code(post(api, RETRY, {"taskId": "x"})) == (404, "not_found")
        cancel.cancel(task.pk, by=Unaudited("them"))
        assert post(api, RETRY, {"taskId": task.pk}).status_code == 200
        assert AnsweredCall.objects.count() == 1

    def test_what_changes_nothing_keeps_nothing(self, api: Client, user: AbstractBaseUser) -> None:
        assert post(api, CANCEL, {"taskId": cancelled(user).pk}).status_code == 200
        assert not AnsweredCall.objects.exists()

    def test_users_and_calls_are_apart(self, api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
        for owner in (user, stranger):
            task = make_task(owner)
            client = client_of(owner)
            assert post(client, CANCEL, {"taskId": task.pk}).status_code == 200
            assert post(client, RETRY, {"taskId": task.pk}).status_code == 200
        assert AnsweredCall.objects.count() == 4

    def test_is_free_after_a_day(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        post(api, CANCEL, {"taskId": task.pk})
        day_over()
        assert post(api, CANCEL, {"taskId": make_task(user).pk}).status_code == 200
        assert AnsweredCall.objects.count() == 1

    def test_stays_good_while_the_secret_is_changed(self, api: Client, user: AbstractBaseUser, settings: Any) -> None:
        task = cancelled(user)
        before, settings.SECRET_KEY = settings.SECRET_KEY, "s" * 50
        settings.SECRET_KEY_FALLBACKS = [before]
        client = client_of(user)
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = before, []
        assert post(client, RETRY, {"taskId": task.pk}).status_code == 200
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "s" * 50, [before]
        assert post(client, RETRY, {"taskId": task.pk})["Idempotency-Replayed"] == "true"

    @pytest.mark.parametrize("key", ["", "a b", "é", "k" * 256])
    def test_an_odd_one_is_refused(self, api: Client, user: AbstractBaseUser, key: str) -> None:
        for path in (CANCEL, RETRY, "/api/video/batch"):
            body = {"orders": [{"prompt": "A cat"}]} if path.endswith("batch") else {"taskId": make_task(user).pk}
            reply = post(api, path, body, key)
            assert reply.json()["error"]["details"][0]["field"] == "Idempotency-Key"

    @pytest.mark.parametrize("blank", ["", "  "])
    def test_a_blank_one_is_refused_by_each_call_that_takes_one(
        self, api: Client, user: AbstractBaseUser, blank: str
    ) -> None:
        of_task = {"taskId": make_task(user).pk}
        bodies = {
            CANCEL: of_task,
            RETRY: of_task,
            "/api/video/render": {**of_task, "aspectRatio": "9:16"},
            "/api/video/create": {"prompt": "A cat"},
            "/api/video/batch": {"orders": [{"prompt": "A cat"}]},
        }
        before = VideoTask.objects.count()
        for path, body in bodies.items():
            reply = post(api, path, body, blank)
            assert code(reply) == (400, "invalid_request"), path
            assert reply.json()["error"]["message"].startswith("Idempotency-Key: is blank"), path
        assert VideoTask.objects.count() == before


def day_over() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_answeredcall SET answered_at = answered_at - interval '25 hours', "
            "expires_at = expires_at - interval '25 hours'"
        )


@pytest.mark.django_db
class TestAnAnswer:
    def test_goes_after_a_day(self, api: Client, user: AbstractBaseUser) -> None:
        post(api, CANCEL, {"taskId": make_task(user).pk})
        assert idempotency.sweep() == 0
        day_over()
        assert ("answered_calls", idempotency.sweep) in [(name, job) for name, _, job in periodic.PERIODIC]
        assert idempotency.sweep() == 1

    def test_goes_with_its_task(self, api: Client, user: AbstractBaseUser) -> None:
        task, other = make_task(user), make_task(user)
        post(api, CANCEL, {"taskId": task.pk})
        post(api, CANCEL, {"taskId": other.pk}, "other")
        delete.delete(task.pk)
        assert [call.key for call in AnsweredCall.objects.all()] == ["other"]

    def test_goes_with_its_user(self, api: Client, user: AbstractBaseUser) -> None:
        post(api, "/api/video/batch", {"orders": [{"prompt": "A cat"}]})
        assert AnsweredCall.objects.filter(user=user).exists()
        erase_user.work(user.pk, for_s=60)
        assert not AnsweredCall.objects.filter(user=user).exists()

    def test_says_nothing_of_a_guessed_body(self, api: Client) -> None:
        post(api, "/api/video/batch", {"orders": [{"prompt": "canary"}]})
        call = AnsweredCall.objects.get()
        assert "canary" not in call.answer
        assert len(call.request_hash) == 64


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_twenty_with_one_key_are_one(self) -> None:
        user = make_user()
        task = cancelled(user)
        replies: list[Any] = []
        clients = [client_of(user) for _ in range(20)]
        together = threading.Barrier(20)

        def call(client: Client) -> None:
            together.wait(60)
            try:
                replies.append(post(client, RETRY, {"taskId": task.pk}))
            finally:
                connection.close()

        threads = [threading.Thread(target=call, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(replies) == 20
        done = [reply for reply in replies if reply.status_code == 200]
        assert len({reply.content for reply in done}) == 1
        assert {code(reply) for reply in replies if reply not in done} <= {(409, "idempotency_key_in_use")}
        assert VideoTask.objects.get().run == 2
        assert TaskEvent.objects.filter(outcome="resumed").count() == 1
        assert ledger.balance(user.pk) == 990

    def test_while_the_first_is_under_way_and_after_it_has_died(self) -> None:
        """Another connection does it, and ends in the middle: what it did is undone, and the key is free."""
        user = make_user()
        task, client = cancelled(user), client_of(user)
        begun, may_die = threading.Event(), threading.Event()

        def dies() -> None:
            def work() -> Any:
                TaskEvent.objects.all().delete()
                begun.set()
                may_die.wait(60)
                connection.connection.close()  # as the process's end does
                raise ConnectionError

            try:
                with pytest.raises(Exception):  # noqa: B017 - whatever Django makes of it
                    idempotency.once(user.pk, "api-retry", "k", {"taskId": task.pk}, work, str)
            finally:
                connection.close()

        thread = threading.Thread(target=dies)
        thread.start()
        assert begun.wait(60)
        busy = post(client, RETRY, {"taskId": task.pk})
        assert code(busy) == (409, "idempotency_key_in_use")
        assert busy["Retry-After"] == "1"
        may_die.set()
        thread.join(60)
        assert TaskEvent.objects.exists()
        assert post(client, RETRY, {"taskId": task.pk}).status_code == 200
