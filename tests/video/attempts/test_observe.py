"""What a poll says is written alike, whoever asks: the stage of a running task, or reconcile after the task's end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from providers.contract import CancelOutcome, JobState, JobStatus
from providers.errors import JobFailed, JobNotFound, ProviderDown
from tests.factories import accepted, claimed, make_task, make_user
from video.actions import cancel
from video.attempts import observe, provider_calls, reconcile, records, task_moves
from video.attempts.observe import Meaning
from video.audit.actors import Unaudited
from video.models import Circuit, Generation, Stage, VideoTask
from video.pipeline import runner
from video.routing import health

pytestmark = pytest.mark.django_db
State = Generation.State
BLOCKED = JobFailed("SAFETY.INPUT.TEXT", another_model_could=False)
BROKEN = JobFailed("INTERNAL.X", another_model_could=True)
CHECKED = JobFailed("INTERNAL.BAD_OUTPUT.CODE01", another_model_could=True, may_be_the_request=True)

ENDS = {
    "failed by the model": JobStatus(JobState.FAILED, "FAILED", error=BROKEN),
    "failed a check of what was made": JobStatus(JobState.FAILED, "FAILED", error=CHECKED),
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
    users = [user for circuit in Circuit.objects.all() for user in circuit.fault_users]
    assert users == ([generation.user_id] if faults else [])


def test_a_probe_that_fails_by_its_request_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = accepted(make_task())
    Circuit.objects.create(
        model=generation.model,
        provider=generation.provider,
        faults=5,
        fault_users=[generation.user_id, generation.user_id + 1],
        is_for_all=True,
        open_until="2026-01-01T00:00:00Z",
    )
    assert health.take_probe(generation.model, generation.user_id)
    assert not health.take_probe(generation.model, generation.user_id)
    end = JobStatus(JobState.FAILED, "FAILED", error=CHECKED)
    monkeypatch.setattr(provider_calls, "_poll_with_one_key", lambda group: {one.pk: end for one in group})
    by_its_task(generation.task)
    assert Circuit.objects.get().faults == 5
    assert health.take_probe(generation.model, generation.user_id)


def failed_reads(answers: Callable[[Generation], ProviderDown], *users: int) -> None:
    """A look each at jobs of these users, by their place."""
    people = [make_user() for _ in range(max(users) + 1)]
    jobs = [accepted(make_task(people[user]), f"job-{number}") for number, user in enumerate(users)]
    observe.note_failed(jobs, {job.pk: answers(job) for job in jobs})


def test_failed_reads_of_one_users_jobs_are_one_witness() -> None:
    failed_reads(lambda _: ProviderDown("503"), *[0] * 8)
    circuit = Circuit.objects.get()
    assert (circuit.faults, len(circuit.fault_users), circuit.is_for_all) == (5, 1, False)


def test_those_of_others_count_though_one_user_has_many_more() -> None:
    failed_reads(lambda _: ProviderDown("503"), *[0] * 8, 1)
    assert Circuit.objects.get().is_for_all


def test_one_read_for_the_jobs_of_several_is_no_single_users() -> None:
    shared = ProviderDown("503")
    failed_reads(lambda _: shared, 0, 1)
    circuit = Circuit.objects.get()
    assert (circuit.faults, circuit.fault_users) == (1, [health.NOBODYS])


def test_a_job_that_a_cancel_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = accepted(make_task())
    cancel.cancel(generation.task_id, by=Unaudited("its user"))
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
