"""What a poll says is written alike, whoever asks: the stage of a running task, or reconcile after the task's end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from providers.contract import CancelOutcome, JobState, JobStatus
from providers.errors import JobFailed, JobNotFound
from tests.factories import accepted, claimed, make_task
from video.actions import cancel
from video.attempts import observe, provider_calls, reconcile, records, task_moves
from video.attempts.observe import Meaning
from video.models import Circuit, Generation, Stage, VideoTask
from video.pipeline import runner

pytestmark = pytest.mark.django_db
State = Generation.State
BLOCKED = JobFailed("SAFETY.INPUT.TEXT", another_model_could=False)
BROKEN = JobFailed("INTERNAL.BAD_OUTPUT.CODE01", another_model_could=True)

ENDS = {
    "failed by the model": JobStatus(JobState.FAILED, "FAILED", error=BROKEN),
    "failed by the request": JobStatus(JobState.FAILED, "FAILED", error=BLOCKED),
    "stopped at the provider": JobStatus(JobState.CANCELLED, "CANCELLED"),
}


def by_its_task(task: VideoTask) -> None:
    runner.run_batch([task.pk])


def after_its_task(task: VideoTask) -> None:
    generation = Generation.objects.select_related("task", "account").get(task=task)
    assert task_moves.fail(claimed(task, Stage.POLL), code="x", message="X.", generation_id=generation.pk)
    generation.task.refresh_from_db()
    reconcile.check(generation)


@pytest.mark.parametrize("ask", [by_its_task, after_its_task])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_an_end_keeps_its_code_and_message(
    ask: Callable[[VideoTask], None], end: JobStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = accepted(make_task())
    monkeypatch.setattr(provider_calls, "_poll_with_one_key", lambda group: {one.pk: end for one in group})
    ask(generation.task)
    found = Generation.objects.get(pk=generation.pk)
    assert found.state == end.state.value
    if end.error is None:
        expected = ("generation_cancelled", "The video provider stopped this job.")
    else:
        expected = (end.error.code, end.error.user_message)
    assert (found.error_code, found.error_message) == expected
    faults = sum(circuit.faults for circuit in Circuit.objects.all())
    assert faults == (1 if end.error is BROKEN else 0)


def test_a_job_that_a_cancel_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = accepted(make_task())
    cancel.cancel(generation.task_id, by="its user")
    answers = [JobStatus(JobState.RUNNING, "RUNNING"), JobNotFound("404")]

    def poll(group: list[Generation]) -> dict[str, provider_calls.PollAnswer]:
        answer = answers.pop(0)
        return {one.pk: answer for one in group}

    monkeypatch.setattr(provider_calls, "_poll_with_one_key", poll)
    monkeypatch.setattr(provider_calls, "cancel", lambda generation: CancelOutcome.REQUESTED)
    reconcile.reconcile()
    found = Generation.objects.get(pk=generation.pk)
    assert (found.state, found.error_code) == (State.CANCELLED, "generation_cancelled")
    assert found.error_message == "The job was stopped, since its task was cancelled."


def test_the_third_not_found_over_a_minute_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = accepted(make_task())
    monkeypatch.setattr(records, "NOT_FOUND_SECONDS", 0)
    meanings = [observe.note(generation, JobNotFound("404")).meaning for _ in range(3)]
    assert meanings == [Meaning.NOT_FOUND, Meaning.NOT_FOUND, Meaning.LOST]
    found = Generation.objects.get(pk=generation.pk)
    assert (found.state, found.error_code) == (State.LOST, "job_lost")
    assert found.error_message == "The video provider lost this job."
