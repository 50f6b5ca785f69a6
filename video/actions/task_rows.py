"""What cancel, retry and delete share: reading the task and its last attempt, the event, and refusing an action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from providers.untrusted import shortened, storable
from video.audit.actors import Actor, Unaudited, words_of
from video.infra.errors import Refusal
from video.models import CreditEntry, Generation, Stage, TaskEvent, VideoTask
from video.web.idempotency import KeyReused


class ActionRefused(Refusal):
    """The action is not possible now; nothing was changed. `code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NoSuchTask(ActionRefused):
    """There is no such task, or it belongs to another user."""

    def __init__(self, task_id: str) -> None:
        super().__init__("not_found", f"There is no task {task_id}.")


class TaskDeleted(ActionRefused):
    """Its owner has deleted it: nothing is left that could be cancelled, retried or shown."""

    def __init__(self) -> None:
        super().__init__("task_deleted", "This task was deleted: its video, prompt and picture are gone.")


def find(task_id: str, user_id: int | None, *, lock: bool = False) -> VideoTask:
    """The task; of one user only, unless `user_id` is None. `lock`: held until the transaction ends.

    Raises NoSuchTask.
    """
    # no_key: a refund's entry refers to the task, and its writer holds the attempt, so it must not wait for this lock.
    rows = VideoTask.objects.select_for_update(no_key=True) if lock else VideoTask.objects.all()
    rows = rows.filter(pk=task_id)
    task = (rows if user_id is None else rows.filter(user_id=user_id)).first()
    if task is None:
        raise NoSuchTask(task_id)
    return task


def last_attempt(task_id: str, *, lock: bool = False) -> Generation | None:
    """The task's last attempt at a provider. `lock`: waits for a transaction that writes it, and then holds it."""
    rows = Generation.objects.select_for_update(no_key=True) if lock else Generation.objects.all()
    return rows.filter(task_id=task_id).order_by("-attempt").first()


def last_attempts(task_ids: Iterable[str], *, lock: bool = False) -> dict[str, Generation]:
    """The same for several tasks, by their ids; one statement."""
    rows = Generation.objects.select_for_update(no_key=True) if lock else Generation.objects.all()
    return {one.task_id: one for one in rows.filter(task_id__in=list(task_ids)).order_by("task_id", "attempt")}


def of_key(user_id: int, key: str | None, request_hash: str) -> VideoTask | None:
    """The user's task that an Idempotency-Key made. Raises KeyReused when another request made it."""
    if key is None:
        return None
    earlier = VideoTask.objects.filter(user_id=user_id, idempotency_key=key).first()
    if earlier is not None and earlier.request_hash != request_hash:
        raise KeyReused(earlier.pk) from None
    return earlier


def is_refunded(task: VideoTask) -> bool:
    """Whether the debit of the task's present run was given back."""
    return CreditEntry.objects.filter(task=task, run=task.run, kind=CreditEntry.Kind.REFUND).exists()


def refunded(tasks: Mapping[str, VideoTask]) -> set[str]:
    """Ids of those of which the same is true; one statement."""
    refunds = CreditEntry.objects.filter(task_id__in=list(tasks), kind=CreditEntry.Kind.REFUND)
    return {one for one, run in refunds.values_list("task_id", "run") if tasks[one].run == run}


def record_events(events: list[TaskEvent]) -> None:
    """Add them to the timelines, inside the caller's transaction."""
    TaskEvent.objects.bulk_create(events)


def event_of(
    task_id: str,
    run: int,
    attempt: Generation | None,
    stage: Stage,
    outcome: TaskEvent.Outcome,
    *,
    fence: int,
    by: Actor | Unaudited,
    action: str,
    consequence: str,
) -> TaskEvent:
    """An event that is not stored yet. `by` stands in the worker's column.

    `action` ("cancelled") and `consequence` ("10 credits") are what the task's owner reads; by whom is for operators.
    """
    return TaskEvent(
        task_id=task_id,
        run=run,
        generation=attempt,
        stage=stage,
        outcome=outcome,
        fence=fence,
        worker=storable(words_of(by), 120),
        detail=shortened(f"{action} by {words_of(by)}; {consequence}", 300),
        owner_detail=TaskEvent.BY_OPERATOR if isinstance(by, Actor) else shortened(f"{action}; {consequence}", 300),
    )
