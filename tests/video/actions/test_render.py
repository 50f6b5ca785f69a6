"""POST /api/video/render: another video of a kept original, without any provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, OperationalError, connection
from django.test import Client
from pytest_django import Settings

from media_pipeline.errors import StorageDown
from media_pipeline.storage.base import MediaStorage
from tests.factories import give_core, make_user, reload
from tests.video.racing import together
from tests.video.storing import days_pass, files, saved, with_extras
from video.actions import cancel, delete, render, retry, task_rows
from video.actions.task_rows import ActionRefused, TaskDeleted
from video.admin import timeline
from video.audit.actors import Unaudited
from video.credits import ledger
from video.infra import failpoints
from video.infra.toolkit import toolkit
from video.models import CreditEntry, Generation, Stage, TaskEvent, VideoTask, WebhookDelivery
from video.pipeline import runner
from video.processes import retention, storage_sweep

pytestmark = pytest.mark.django_db
JSON = "application/json"


@pytest.fixture(autouse=True)
def configured(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    settings.STORAGE_LOCAL_PATH, settings.SCRATCH_PATH = tmp_path / "storage", tmp_path / "scratch"
    settings.KEEP_SOURCE_DAYS = 7
    toolkit.cache_clear()
    yield settings
    toolkit.cache_clear()


def ask(api: Client, task: VideoTask | str, key: str | None = None, **changes: Any) -> Any:
    headers = {"HTTP_IDEMPOTENCY_KEY": key} if key else {}
    body = {"taskId": task if isinstance(task, str) else task.pk, **changes}
    return api.post("/api/video/render", body, content_type=JSON, **headers)


def error(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def made_by(reply: Any) -> VideoTask:
    return VideoTask.objects.get(pk=reply.json()["data"]["taskId"])


def finish(task: VideoTask) -> VideoTask:
    give_core(task.pk)
    for stage in (Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE):
        runner.run_stage(stage, task.pk)
    return reload(task)


def test_it_becomes_a_video_of_its_own(api: Client, user: AbstractBaseUser) -> None:
    first = with_extras(user, prompt="A cat", quality="low")
    balance = ledger.balance(user.pk)
    reply = ask(api, first, resolution="480p", fps=12, extras=["preview"])
    assert reply.status_code == 201
    assert reply.json()["data"] == {"taskId": made_by(reply).pk, "renderOf": first.pk, "status": "running"}
    status = api.get("/api/video/status", {"taskId": made_by(reply).pk}).json()["data"]
    assert (status["status"], status["stage"], status["renderOf"]) == ("running", "transcode", first.pk)
    task = finish(made_by(reply))
    assert (task.status, task.video_height_px, task.quality, task.prompt) == ("success", 480, "low", "A cat")
    assert list(task.extra_files) == ["preview.webp"]
    assert not Generation.objects.filter(task=task).exists()
    assert ledger.balance(user.pk) == balance
    assert (task.source_key, task.original_bytes) == ("", None), "the original is kept once"
    assert reload(first).source_key
    assert api.get("/api/video/status", {"taskId": task.pk}).json()["data"]["result"]["videoUrl"]
    listed = api.get("/api/video/tasks").json()["data"]["tasks"]
    assert {one["taskId"]: one.get("renderOf") for one in listed} == {first.pk: None, task.pk: first.pk}
    details = api.get(f"/api/queues/tasks/{task.pk}").json()["data"]
    assert (details["renderOf"], details["request"]["fps"]) == (first.pk, 12)
    assert details["timeline"][0]["outcome"] == "created"
    assert dict(timeline._asked(task))["A render of"] == first.pk


def test_another_ratio_is_padded_and_nothing_is_cut_off(api: Client, user: AbstractBaseUser) -> None:
    first = with_extras(user)
    task = finish(made_by(ask(api, first, aspectRatio="1:1")))
    assert (task.status, task.is_padded, task.aspect_ratio) == ("success", True, "1:1")
    assert (task.video_width_px, task.video_height_px) == (96, 96)
    as_it_was = finish(made_by(ask(api, first, quality="high")))
    assert (as_it_was.is_padded, as_it_was.video_width_px, as_it_was.video_height_px) == (False, 96, 54)


def test_operators_find_it_by_the_first_task(client: Client) -> None:
    first = saved()
    task, _ = render.render(first.user_id, first.pk, {})
    client.force_login(make_user(is_staff=True, is_superuser=True))
    page = client.get("/admin/video/videotask/", {"q": first.pk})
    assert {one.pk for one in page.context["cl"].result_list} == {first.pk, task.pk}
    assert "a render" in page.content.decode()
    assert first.pk in client.get(f"/admin/video/videotask/{task.pk}/change/").content.decode()


def test_a_render_of_a_render_is_one_of_the_first_task(api: Client, user: AbstractBaseUser) -> None:
    first = with_extras(user)
    second = finish(made_by(ask(api, first, quality="high")))
    third = made_by(ask(api, second, fps=5))
    assert (third.render_of_id, third.fps, third.quality) == (first.pk, 5, "medium")


def test_receiver_and_metadata_are_its_own(api: Client, user: AbstractBaseUser) -> None:
    first = with_extras(user, webhook_url="https://first.example.com/hook")
    VideoTask.objects.filter(pk=first.pk).update(metadata={"project": "spring"})
    plain = finish(made_by(ask(api, first, metadata=None, webhookUrl=None)))
    assert (plain.webhook_url, plain.metadata) == (None, {})
    assert not WebhookDelivery.objects.filter(task_id=plain.pk).exists()
    own = {"metadata": {"shot": "7"}, "webhookUrl": "https://own.example.com/hook"}
    reply = ask(api, first, key="one", **own)
    assert reply.json()["data"]["metadata"] == own["metadata"]
    told = finish(made_by(reply))
    assert [(one.event, one.url) for one in WebhookDelivery.objects.filter(task_id=told.pk)] == [
        ("task.succeeded", own["webhookUrl"])
    ]
    listed = api.get("/api/video/tasks", {"metadata.shot": "7"}).json()["data"]["tasks"]
    assert [one["taskId"] for one in listed] == [told.pk]
    assert made_by(ask(api, first, key="one", **own)) == told
    assert error(ask(api, first, key="one", metadata={"shot": "8"})) == (409, "idempotency_key_reused")
    assert error(ask(api, first, webhookUrl="http://10.0.0.1/")) == (400, "invalid_request")


class TestItIsRefused:
    def test_without_an_original(self, api: Client, user: AbstractBaseUser, configured: Settings) -> None:
        kept = saved(user)
        configured.KEEP_SOURCE_DAYS = 0
        without = saved(user)
        for task in (kept, without):
            assert error(ask(api, task)) == (409, "original_gone")
        configured.KEEP_SOURCE_DAYS = 7
        lost = saved(user)
        toolkit().storage.delete(lost.source_key)
        assert error(ask(api, lost)) == (409, "original_gone")
        expired = saved(user, expires_in_s=1)
        days_pass(expired, 1)
        retention.sweep()
        assert error(ask(api, expired)) == (409, "original_gone")
        assert not VideoTask.objects.filter(render_of__isnull=False).exists()

    def test_for_what_is_not_there_not_ones_own_deleted_or_under_way(
        self, api: Client, user: AbstractBaseUser, client_for: Any, stranger: AbstractBaseUser
    ) -> None:
        task = saved(user)
        assert error(ask(client_for(stranger), task)) == (404, "not_found")
        assert error(ask(api, "task_0")) == (404, "not_found")
        delete.delete(task.pk)
        assert error(ask(api, task)) == (410, "task_deleted")

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"quality": "best"}, "quality"),
            ({"fps": 61}, "fps"),
            ({"cover": 5}, "cover"),
            ({"extras": ["gif"]}, "extras"),
            ({"prompt": "another"}, "prompt"),
            ({"expiresIn": 0}, "expiresIn"),
        ],
    )
    def test_for_what_can_not_be_changed(
        self, api: Client, user: AbstractBaseUser, changes: dict[str, Any], field: str
    ) -> None:
        task = saved(user)
        reply = ask(api, task, **changes)
        assert error(reply) == (400, "invalid_request")
        assert [one["field"] for one in reply.json()["error"]["details"]] == [field]
        assert VideoTask.objects.count() == 1
        assert not [key for key in files(task) if key.startswith("work/") and task.pk not in key]

    def test_without_credits_room_or_storage_and_leaves_nothing(
        self, api: Client, user: AbstractBaseUser, configured: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = saved(user)
        configured.CREDITS_PER_RENDER = 100_000
        assert error(ask(api, task)) == (402, "insufficient_credits")
        configured.CREDITS_PER_RENDER = 0
        configured.MAX_STORED_BYTES_PER_USER = 1
        assert error(ask(api, task)) == (403, "storage_full")
        configured.MAX_STORED_BYTES_PER_USER = 0
        configured.MAX_WAITING_PER_USER = 1
        assert ask(api, task).status_code == 201
        assert error(ask(api, task)) == (429, "too_many_waiting")
        with monkeypatch.context() as patched:

            def down(*_: object) -> None:
                raise StorageDown("503")

            patched.setattr(MediaStorage, "copy", down)
            assert error(ask(api, task)) == (503, "unavailable")
        copies = [key for key in toolkit().storage.list("work") if key.endswith("0-source.mp4")]
        assert len(copies) == VideoTask.objects.filter(render_of=task).count() == 1

    def test_by_the_database_if_it_were_to_ask_a_provider(self) -> None:
        task, _ = render.render((first := saved()).user_id, first.pk, {})
        with pytest.raises(IntegrityError, match="task_render_asks_no_provider"), connection.cursor() as cursor:
            cursor.execute("UPDATE video_videotask SET stage = 'download' WHERE id = %s", [task.pk])


class TestMoney:
    def test_its_price_is_debited_and_comes_back_when_it_fails(
        self, user: AbstractBaseUser, configured: Settings
    ) -> None:
        configured.CREDITS_PER_RENDER = 3
        first = saved(user)
        balance = ledger.balance(user.pk)
        task, _ = render.render(user.pk, first.pk, {})
        assert ledger.balance(user.pk) == balance - 3
        toolkit().storage.delete(task.source_key)
        give_core(task.pk)
        runner.run_stage(Stage.TRANSCODE, task.pk)
        found = reload(task)
        assert (found.status, found.error_code) == ("failed", "source_gone")
        assert ledger.balance(user.pk) == balance
        kinds = CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", flat=True)
        assert list(kinds) == ["debit", "refund"]
        with pytest.raises(ActionRefused, match="render task_"):
            retry.retry(task.pk, by=Unaudited("its user"))

    def test_a_cancel_gives_it_back_and_a_retry_takes_it_again(
        self, user: AbstractBaseUser, configured: Settings
    ) -> None:
        configured.CREDITS_PER_RENDER = 3
        first = with_extras(user)
        balance = ledger.balance(user.pk)
        task, _ = render.render(user.pk, first.pk, {})
        cancel.cancel(task.pk, by=Unaudited("its user"))
        assert ledger.balance(user.pk) == balance
        with pytest.raises(ActionRefused, match="no provider can make it"):
            retry.retry(task.pk, by=Unaudited("somebody"), regenerate=True)
        done = retry.retry(task.pk, by=Unaudited("its user"), user_id=user.pk)
        assert (done.stage, done.debited) == (Stage.TRANSCODE, 3)
        assert finish(task).status == "success"
        assert ledger.balance(user.pk) == balance - 3

    def test_a_retry_without_its_copy_is_refused(self, user: AbstractBaseUser) -> None:
        task, _ = render.render(user.pk, saved(user).pk, {})
        cancel.cancel(task.pk, by=Unaudited("its user"))
        VideoTask.objects.filter(pk=task.pk).update(has_work_files=False)  # as the sweeper does a week later
        with pytest.raises(ActionRefused) as refused:
            retry.retry(task.pk, by=Unaudited("its user"))
        assert refused.value.code == "source_gone"


class TestOneKey:
    def test_stands_for_one_render(self, api: Client, user: AbstractBaseUser) -> None:
        first = saved(user)
        one, same = ask(api, first, "k", fps=24), ask(api, first, "k", fps=24)
        assert (one.status_code, same.status_code) == (201, 200)
        assert same["Idempotency-Replayed"] == "true"
        assert made_by(one) == made_by(same)
        assert error(ask(api, first, "k", fps=25)) == (409, "idempotency_key_reused")
        assert error(ask(api, first, "a b")) == (400, "invalid_request")
        delete.delete(first.pk)
        assert ask(api, first, "k", fps=24).status_code == 200

    def test_whose_row_came_a_moment_earlier_wins(
        self, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other call commits between this one's look and its insert."""
        first = saved(user)
        looked = []
        earlier = task_rows.of_key

        def look(*args: Any) -> VideoTask | None:
            looked.append(args)
            return None if len(looked) == 2 else earlier(*args)

        monkeypatch.setattr(task_rows, "of_key", look)
        one, is_new = render.render(user.pk, first.pk, {}, idempotency_key="k")
        assert is_new
        same, is_new = render.render(user.pk, first.pk, {}, idempotency_key="k")
        assert (same, is_new) == (one, False)
        assert [key for key in toolkit().storage.list("work") if "0-source" in key] == [one.source_key]


class TestADeath:
    def test_after_the_copy_leaves_a_file_that_cleanup_finds(self, user: AbstractBaseUser) -> None:
        first = saved(user)
        failpoints.arm("render.after_copy", "raise")
        try:
            with pytest.raises(failpoints.FailpointError):
                render.render(user.pk, first.pk, {})
        finally:
            failpoints._armed.clear()
        assert VideoTask.objects.count() == 1
        (orphan,) = storage_sweep.find(toolkit().storage, storage_sweep.Seen(), now=4e9)
        assert orphan.key.endswith("/0-source.mp4")

    def test_after_the_commit_leaves_a_task_that_goes_on(self, user: AbstractBaseUser) -> None:
        first = with_extras(user)
        failpoints.arm("render.committed", "raise")
        try:
            with pytest.raises(failpoints.FailpointError):
                render.render(user.pk, first.pk, {})
        finally:
            failpoints._armed.clear()
        assert finish(VideoTask.objects.get(render_of=first)).status == "success"

    def test_an_answer_that_never_came_keeps_the_copy(
        self, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The row may have been written."""
        first = saved(user)
        insert = render._insert

        def lost(*args: Any) -> bool:
            insert(*args)
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(render, "_insert", lost)
        with pytest.raises(OperationalError):
            render.render(user.pk, first.pk, {}, idempotency_key="k")
        task = VideoTask.objects.get(render_of=first)
        assert toolkit().storage.exists(task.source_key)
        assert render.render(user.pk, first.pk, {}, idempotency_key="k") == (task, False)


def test_retention_may_delete_the_original_meanwhile(user: AbstractBaseUser) -> None:
    first = with_extras(user)
    task, _ = render.render(user.pk, first.pk, {})
    days_pass(first, 8)
    assert retention.sweep() == 1
    assert reload(first).source_key == ""
    assert finish(task).status == "success"
    assert retention.sweep() == 0


def test_deleting_the_first_task_leaves_its_renders(user: AbstractBaseUser) -> None:
    first = with_extras(user)
    task, _ = render.render(user.pk, first.pk, {})
    delete.delete(first.pk)
    task = finish(task)
    assert (task.status, task.render_of_id) == ("success", first.pk)
    assert TaskEvent.objects.filter(task=task, outcome="created").count() == 1


def test_a_failed_render_is_not_fetched_again(user: AbstractBaseUser) -> None:
    """Its original is no video at all, and there is no provider who could send it anew."""
    first = saved(user)
    task, _ = render.render(user.pk, first.pk, {})
    for _ in range(3):
        give_core(task.pk)
        VideoTask.objects.filter(pk=task.pk, status="running").update(next_run_at="2026-01-01T00:00:00Z")
        runner.run_stage(Stage.TRANSCODE, task.pk)
    found = reload(task)
    assert (found.status, found.stage, found.error_code) == ("failed", "transcode", "not_a_video")
    assert not Generation.objects.filter(task=task).exists()


@pytest.mark.django_db(transaction=True)
class TestRaces:
    @pytest.mark.parametrize("turn", range(3))
    def test_two_posts_with_one_key(self, turn: int) -> None:
        user = make_user()
        first = saved(user)

        def post() -> Any:
            return render.render(user.pk, first.pk, {}, idempotency_key="k")

        (one, new), (other, also_new) = together(turn, post, post)
        assert (one, sorted([new, also_new])) == (other, [False, True])
        assert [key for key in toolkit().storage.list("work") if "0-source" in key] == [one.source_key]

    @pytest.mark.parametrize("turn", range(3))
    def test_a_render_and_the_deletion_of_its_first_task(self, turn: int) -> None:
        user = make_user()
        first = saved(user, prompt="zebrafinch")
        gone, made = together(turn, lambda: delete.delete(first.pk), lambda: render.render(user.pk, first.pk, {}))
        assert gone.changed
        renders = VideoTask.objects.filter(render_of=first)
        if isinstance(made, ActionRefused | TaskDeleted):
            assert not renders.exists()
            assert not [key for key in toolkit().storage.list("work") if "0-source" in key]
        else:
            assert [one.pk for one in renders] == [made[0].pk]
            assert toolkit().storage.exists(made[0].source_key)
