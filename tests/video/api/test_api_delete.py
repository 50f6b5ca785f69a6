"""DELETE /api/video/tasks/{taskId}, GET /api/storage, and `expiresIn`."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from pytest_django import Settings

from tests.factories import make_task, reload
from tests.video.storing import THUMBNAIL, VIDEO, saved
from video.actions import cancel
from video.audit.actors import Unaudited
from video.models import TaskEvent, UserShare, VideoTask
from video.scheduling import storage_quota

pytestmark = pytest.mark.django_db
JSON = "application/json"


def delete(client: Client, task: VideoTask) -> Any:
    return client.delete(f"/api/video/tasks/{task.pk}")


def code(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def test_the_owner_deletes_a_task_and_nothing_of_it_is_shown_any_more(api: Client, user: AbstractBaseUser) -> None:
    task, other = saved(user), saved(user)
    link = api.get("/api/video/status", {"taskId": task.pk}).json()["data"]["result"]["videoUrl"]
    reply = delete(api, task)
    assert reply.status_code == 200
    assert reply["Cache-Control"] == "no-store"
    assert reply.json() == {"success": True, "data": {"taskId": task.pk, "deleted": True, "filesLeft": False}}
    assert api.get(link.removeprefix("http://testserver")).status_code == 404
    for url in (
        f"/api/video/status?taskId={task.pk}",
        f"/api/queues/tasks/{task.pk}",
        f"/api/video/events?taskId={task.pk}",
    ):
        assert code(api.get(url)) == (410, "task_deleted")
    for url in ("/api/video/cancel", "/api/video/retry"):
        assert code(api.post(url, {"taskId": task.pk}, content_type=JSON)) == (410, "task_deleted")
    for query in ("", "?status=success"):
        listed = api.get(f"/api/video/tasks{query}").json()["data"]["tasks"]
        assert [one["taskId"] for one in listed] == [other.pk]
    entries = api.get("/api/credits").json()["data"]["entries"]
    assert task.pk in {one["taskId"] for one in entries}  # the ledger stays
    assert delete(api, task).json() == reply.json()  # safe to repeat


def test_what_others_have_is_not_there_and_stays(api: Client, stranger: AbstractBaseUser) -> None:
    task = saved(stranger)
    assert code(delete(api, task)) == (404, "not_found")
    assert code(api.delete("/api/video/tasks/nonsense")) == (404, "not_found")
    assert reload(task).prompt


def test_a_task_under_way_is_to_be_cancelled_first(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    assert code(delete(api, task)) == (409, "task_active")
    cancel.cancel(task.pk, by=Unaudited("its user"))
    assert delete(api, task).status_code == 200


def test_staff_still_see_the_facts(
    user: AbstractBaseUser, client: Client, django_user_model: Any, client_for: Any
) -> None:
    task = saved(user)
    staff = django_user_model.objects.create_superuser("olga")
    delete(client_for(user), task)
    shown = client_for(staff).get(f"/api/queues/tasks/{task.pk}").json()["data"]
    assert shown["gone"]["code"] == "task_deleted"
    assert shown["request"]["prompt"] == ""
    client.force_login(staff)
    page = client.get(f"/admin/video/videotask/{task.pk}/change/").content.decode()
    assert "deleted by its owner" in page


def test_a_stream_of_all_tasks_passes_over_deleted_ones(api: Client, user: AbstractBaseUser) -> None:
    task = saved(user)
    delete(api, task)
    TaskEvent.objects.create(task=task, run=1, stage="done", outcome="succeeded")
    assert task.pk.encode() not in api.get("/api/video/events", HTTP_LAST_EVENT_ID="0").content


class TestExpiresIn:
    def create(self, api: Client, order: dict[str, Any], value: object) -> Any:
        return api.post("/api/video/create", {**order, "expiresIn": value}, content_type=JSON)

    def test_is_taken_and_shown(self, api: Client, order: dict[str, Any]) -> None:
        reply = self.create(api, order, 3600)
        assert reply.status_code == 201
        task_id = reply.json()["data"]["taskId"]
        assert VideoTask.objects.get(pk=task_id).expires_in_s == 3600
        assert api.get(f"/api/queues/tasks/{task_id}").json()["data"]["request"]["expiresIn"] == 3600
        assert self.create(api, order, None).status_code == 201

    @pytest.mark.parametrize("value", [0, -1, 1.5, "60", True, 10**12, [60]])
    def test_is_a_whole_number_of_seconds(self, api: Client, order: dict[str, Any], value: object) -> None:
        reply = self.create(api, order, value)
        assert code(reply) == (400, "invalid_request")
        assert [one["field"] for one in reply.json()["error"]["details"]] == ["expiresIn"]

    def test_is_never_longer_than_the_operator_keeps_videos(
        self, api: Client, order: dict[str, Any], settings: Settings
    ) -> None:
        settings.KEEP_VIDEOS_DAYS = 0.5
        assert self.create(api, order, 43_200).status_code == 201
        reply = self.create(api, order, 43_201)
        assert reply.json()["error"]["details"] == [
            {"field": "expiresIn", "message": "must be at most 43200 seconds: no video is kept for longer here"}
        ]


class TestQuota:
    def create(self, api: Client, order: dict[str, Any], **headers: Any) -> Any:
        return api.post("/api/video/create", order, content_type=JSON, **headers)

    def test_what_is_stored_is_shown(self, api: Client, user: AbstractBaseUser, settings: Settings) -> None:
        assert api.get("/api/storage").json()["data"] == {"usedBytes": 0, "limitBytes": None, "videos": 0}
        saved(user)
        settings.MAX_STORED_BYTES_PER_USER = 1000
        bytes_each = len(VIDEO) + len(THUMBNAIL)
        assert api.get("/api/storage").json()["data"] == {"usedBytes": bytes_each, "limitBytes": 1000, "videos": 1}
        shown = api.get("/api/queues/status").json()["data"]
        assert shown["storage"] == {"usedBytes": bytes_each, "limitBytes": 1000, "videos": 1}

    def test_a_create_is_refused_once_it_is_used_up_and_a_delete_makes_room(
        self, api: Client, user: AbstractBaseUser, order: dict[str, Any], settings: Settings
    ) -> None:
        task = saved(user)
        settings.MAX_STORED_BYTES_PER_USER = len(VIDEO) + len(THUMBNAIL)
        reply = self.create(api, order)
        assert code(reply) == (403, "storage_full")
        assert reply.json()["error"]["details"] == {"usedBytes": 30, "limitBytes": 30}
        assert VideoTask.objects.filter(user=user).count() == 1
        assert api.get("/api/credits").json()["data"]["balance"] == 990
        delete(api, task)
        assert self.create(api, order).status_code == 201

    def test_tasks_under_way_count_as_the_mean_of_what_is_stored(
        self, api: Client, user: AbstractBaseUser, order: dict[str, Any], settings: Settings
    ) -> None:
        saved(user)
        settings.MAX_STORED_BYTES_PER_USER = 3 * 30
        assert [self.create(api, order).status_code for _ in range(3)] == [201, 201, 403]

    def test_without_a_video_they_count_as_a_large_one(
        self, api: Client, order: dict[str, Any], settings: Settings
    ) -> None:
        settings.MAX_STORED_BYTES_PER_USER = storage_quota.EXPECTED_BYTES
        assert [self.create(api, order).status_code for _ in range(2)] == [201, 403]

    def test_an_operator_may_give_one_user_another_limit(
        self, api: Client, user: AbstractBaseUser, order: dict[str, Any], settings: Settings
    ) -> None:
        saved(user)
        settings.MAX_STORED_BYTES_PER_USER = 1
        UserShare.objects.create(user=user, most_stored_bytes=0)
        assert self.create(api, order).status_code == 201
        UserShare.objects.update(most_stored_bytes=2)
        settings.MAX_STORED_BYTES_PER_USER = 0
        assert code(self.create(api, order)) == (403, "storage_full")

    def test_a_repeated_create_still_finds_its_task(
        self, api: Client, user: AbstractBaseUser, order: dict[str, Any], settings: Settings
    ) -> None:
        first = self.create(api, order, HTTP_IDEMPOTENCY_KEY="k").json()["data"]["taskId"]
        saved(user)
        settings.MAX_STORED_BYTES_PER_USER = 1
        again = self.create(api, order, HTTP_IDEMPOTENCY_KEY="k")
        assert (again.status_code, again.json()["data"]["taskId"]) == (200, first)

    def test_a_retry_that_makes_a_new_video_is_refused_and_an_operators_is_not(
        self, api: Client, user: AbstractBaseUser, settings: Settings
    ) -> None:
        saved(user)
        task = make_task(user)
        cancel.cancel(task.pk, by=Unaudited("its user"))
        settings.MAX_STORED_BYTES_PER_USER = 1
        assert code(api.post("/api/video/retry", {"taskId": task.pk}, content_type=JSON)) == (403, "storage_full")
        call_command("retry_tasks", task.pk)
        assert reload(task).is_active

    def test_a_command_says_it_too(self, user: AbstractBaseUser, settings: Settings) -> None:
        saved(user)
        settings.MAX_STORED_BYTES_PER_USER = 1
        with pytest.raises(CommandError, match=r"Nothing was made\. Your stored videos"):
            call_command("generate", "A cat", user=user.get_username())

    def test_a_video_that_is_paid_for_is_stored_all_the_same(self, user: AbstractBaseUser, settings: Settings) -> None:
        settings.MAX_STORED_BYTES_PER_USER = 40
        UserShare.objects.create(user=user, most_stored_bytes=0)
        tasks = [saved(user), saved(user)]
        assert [reload(task).status for task in tasks] == ["success", "success"]


def test_the_count_of_bytes_is_what_the_rows_add_up_to_whatever_wrote_them(user: AbstractBaseUser) -> None:
    first, second = saved(user), saved(user)

    def counted() -> tuple[int, int]:
        use = storage_quota.of_user(user.pk)
        return use.bytes, use.videos

    assert counted() == (60, 2)
    VideoTask.objects.filter(pk=first.pk).update(video_bytes=1000)
    assert counted() == (1000 + len(THUMBNAIL) + 30, 2)
    VideoTask.objects.filter(pk=first.pk).update(output_key="")
    assert counted() == (30, 1)
    VideoTask.objects.filter(pk=second.pk).update(fence=77)
    assert counted() == (30, 1)
