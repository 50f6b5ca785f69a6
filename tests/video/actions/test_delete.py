"""Delete a task: nothing of what its user wrote is left anywhere, and its facts and its money are."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, connection, transaction

from media_pipeline.errors import StorageDown
from providers.contract import JobState, JobStatus
from providers.errors import JobFailed
from tests.factories import accepted, claimed, make_task, reload
from tests.video.storing import before_save, files, put, saved
from tests.video.traces import tables_with
from video.actions import cancel, create, retry
from video.actions.delete import delete
from video.actions.task_rows import ActionRefused, NoSuchTask, TaskDeleted
from video.attempts import provider_calls, reconcile, records, task_moves
from video.audit.actors import Unaudited
from video.credits import audit
from video.engine import transitions
from video.models import CreditEntry, FailureText, Generation, Stage, TaskEvent, VideoTask
from video.models.order import Order
from video.pipeline import media_stages, runner, wakes
from video.processes import retention

pytestmark = pytest.mark.django_db
WORD = "zebrafinch"  # in the prompt, the picture's address, and what providers say
TEXTS: dict[str, Any] = {
    "prompt": f"A {WORD} sings",
    "negative_prompt": f"no {WORD}",
    "image_url": f"https://images.example/{WORD}.png",
    "model_requested": "pika-2.2",
}


def failed(user: AbstractBaseUser, **order: Any) -> VideoTask:
    """A task whose provider has said why not, and repeats the prompt."""
    task = make_task(user, **{**TEXTS, **order})
    generation = accepted(task, f"job-of-{task.pk}")
    message = f"not allowed: {TEXTS['prompt']}"
    records.record_ended(generation.pk, Generation.State.FAILED, message=message, provider_status=WORD)
    assert task_moves.fail(claimed(task, Stage.POLL), code="moderation", message=message, detail=message)
    return reload(task)


def test_nothing_that_was_written_is_left_in_any_table(user: AbstractBaseUser) -> None:
    tasks = [saved(user, **TEXTS), failed(user), cancelled(user)]
    order = Order(duration_s=5, aspect_ratio="16:9", fallback=False, **TEXTS)
    keyed, _ = create.create(user.pk, order, idempotency_key=f"{WORD}-1")
    cancel.cancel(keyed.pk, by=Unaudited("its user"))
    assert tables_with(WORD) == {"video_videotask", "video_generation", "video_taskevent"}
    for task in (*tasks, keyed):
        assert delete(task.pk, user_id=user.pk).changed
    assert tables_with(WORD) == set()
    assert tables_with(order.fingerprint()) == set()
    assert tables_with(user.get_username()) == {"auth_user"}
    assert files(tasks[0]) == []


def cancelled(user: AbstractBaseUser) -> VideoTask:
    task = make_task(user, **TEXTS)
    cancel.cancel(task.pk, by=Unaudited(user.get_username()))
    return reload(task)


def test_the_facts_and_the_money_stay(user: AbstractBaseUser) -> None:
    task = saved(user)
    facts = ("status", "stage", "run", "duration_s", "aspect_ratio", "model_requested", "video_id", "video_bytes")
    before = [getattr(task, name) for name in facts]
    generation = Generation.objects.get(task=task)
    delete(task.pk)
    found = reload(task)
    assert [getattr(found, name) for name in facts] == before
    after = Generation.objects.get(task=task)
    assert (after.job_id, after.model, after.expected_usd) == (
        generation.job_id,
        generation.model,
        generation.expected_usd,
    )
    assert TaskEvent.objects.filter(task=task).count() > 5
    assert CreditEntry.objects.filter(task=task).count() == 1
    assert audit.find() == []


def test_a_second_run_changes_nothing(user: AbstractBaseUser) -> None:
    task = saved(user)
    assert delete(task.pk).changed
    gone_at = reload(task).gone_at
    again = delete(task.pk)
    assert (again.changed, again.files_left) == (False, False)
    assert reload(task).gone_at == gone_at


def test_a_task_under_way_is_refused_and_left_alone(user: AbstractBaseUser) -> None:
    task = make_task(user)
    with pytest.raises(ActionRefused) as caught:
        delete(task.pk)
    assert caught.value.code == "task_active"
    assert reload(task).prompt


def test_anothers_task_is_not_there(user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
    task = saved(user)
    with pytest.raises(NoSuchTask):
        delete(task.pk, user_id=stranger.pk)
    assert reload(task).prompt


def test_it_can_be_neither_cancelled_nor_retried_nor_revived(user: AbstractBaseUser) -> None:
    for task in (failed(user), cancelled(user), saved(user)):
        delete(task.pk)
        with pytest.raises(TaskDeleted):
            cancel.cancel(task.pk, by=Unaudited("its user"))
        for anew in (False, True):
            with pytest.raises(TaskDeleted):
                retry.retry(task.pk, by=Unaudited("its user"), regenerate=anew)
    late = failed(user)
    delete(late.pk)
    assert not transitions.revive(late.pk, 1, Generation.objects.get(task=late).pk)
    assert reload(late).status == "failed"


def test_an_expired_video_can_be_deleted_too(user: AbstractBaseUser) -> None:
    task = saved(user, expires_in_s=1, **TEXTS)
    VideoTask.objects.filter(pk=task.pk).update(expires_at="2026-01-01T00:00:00Z")
    assert retention.sweep() == 1
    delete(task.pk)
    assert tables_with(WORD) == set()


class TestAnOpenJob:
    """A task that was cancelled and deleted, whose job the provider still has."""

    @pytest.fixture
    def generation(self, user: AbstractBaseUser) -> Generation:
        task = make_task(
            user, **{**TEXTS, "negative_prompt": "", "model_requested": "kling-2.5-turbo"}
        )  # paid for unless it fails
        generation = accepted(task, f"job-of-{task.pk}")
        Generation.objects.filter(pk=generation.pk).update(job_urls={"status": "https://queue.example/1"})
        cancel.cancel(task.pk, by=Unaudited("its user"))
        delete(task.pk)
        return Generation.objects.get(pk=generation.pk)

    def test_is_polled_where_it_was(self, generation: Generation) -> None:
        job = provider_calls._job(generation)
        assert job.image_to_video
        assert job.urls == {"status": "https://queue.example/1"}

    def test_leaves_no_word_of_its_end_and_still_brings_the_refund(
        self, generation: Generation, monkeypatch: pytest.MonkeyPatch, user: AbstractBaseUser
    ) -> None:
        said = f"nobody knows {TEXTS['prompt']}"
        error = JobFailed(said, another_model_could=False, is_known=False, signature=said, user_message=said)
        status = JobStatus(JobState.FAILED, error=error, provider_status=WORD)
        monkeypatch.setattr(provider_calls, "_poll_with_one_key", lambda asked: {one.pk: status for one in asked})
        reconcile.reconcile()
        found = Generation.objects.get(pk=generation.pk)
        assert (found.state, found.error_message, found.job_urls) == ("failed", "", {})
        assert tables_with(WORD) == set()
        assert FailureText.objects.count() == 0
        assert set(CreditEntry.objects.filter(task=generation.task_id).values_list("kind", flat=True)) == {
            "debit",
            "refund",
        }


@pytest.mark.parametrize("error", [StorageDown("503"), PermissionError(13, "Permission denied")])
def test_a_storage_that_is_away_or_only_to_be_read_keeps_nobody_from_it(
    user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    task = saved(user, **TEXTS)

    def down(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("media_pipeline.storage.base.MediaStorage.delete", down)
        assert delete(task.pk).files_left
    assert tables_with(WORD) == set()
    assert len(files(task)) == 2
    assert retention.sweep() == 1
    assert files(task) == []


def test_the_work_files_of_a_failed_task_go_at_once(user: AbstractBaseUser) -> None:
    task = before_save(user)
    put(f"work/{task.pk}/9-late.mp4", b"a late worker's")
    task_moves.fail(claimed(task, Stage.SAVE), code="timeout", message="Too long.")
    assert len(files(task)) == 4
    delete(task.pk)
    assert files(task) == []
    assert not reload(task).has_work_files


def test_a_worker_that_comes_late_leaves_no_file(user: AbstractBaseUser) -> None:
    """It saves in the moment in which its task is cancelled and deleted."""
    task = before_save(user)
    claim = claimed(task, Stage.SAVE)
    cancel.cancel(task.pk, by=Unaudited("its user"))
    outcome = media_stages.save(claim)
    delete(task.pk)
    held = runner.apply(claim, outcome)
    wakes.send(wakes.after(Stage.SAVE, outcome, task_id=task.pk, held=held))
    assert not held
    assert files(task) == []


def test_the_database_takes_no_row_that_is_deleted_and_still_tells(user: AbstractBaseUser) -> None:
    task = saved(user)
    for columns in (
        "gone_why = 'deleted', gone_at = now()",
        "gone_why = 'lost', gone_at = now()",
        "gone_why = 'expired'",
        "gone_at = now()",
    ):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE video_videotask SET {columns} WHERE id = %s", [task.pk])
