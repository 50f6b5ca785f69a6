from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import connection

from providers.contract import JobState, JobStatus, Submitted
from tests.factories import accepted, admitted, age, claimed, make_task, reload
from video.attempts import poll_records, reconcile, records, task_moves
from video.engine import transitions
from video.models import Generation, Stage, VideoTask

pytestmark = pytest.mark.django_db
State = Generation.State


def sent(task: VideoTask) -> Generation:
    generation = admitted(task)
    assert records.mark_sent(claimed(task), generation)
    generation.refresh_from_db()
    return generation


def test_marking_as_sent_makes_the_task_run() -> None:
    task = make_task()
    generation = sent(task)
    assert (generation.state, generation.sent_at is not None) == ("unknown", True)
    assert reload(task).status == "running"
    assert reload(task).started_at is not None


def test_what_never_left_is_planned_again_and_is_the_same_row() -> None:
    generation = sent(make_task())
    assert records.put_back(generation.pk)
    generation.refresh_from_db()
    assert (generation.state, generation.sent_at) == ("planned", None)
    assert not records.put_back(generation.pk)


def test_a_job_is_accepted_once_and_its_id_stays() -> None:
    generation = sent(make_task())
    assert records.record_accepted(generation.pk, Submitted("job-a", expected_cost=Decimal(60)))
    assert not records.record_accepted(generation.pk, Submitted("job-b"))
    generation.refresh_from_db()
    assert (generation.state, generation.job_id, generation.expected_cost) == ("accepted", "job-a", 60)


def test_an_accepted_job_is_never_rejected_or_put_back() -> None:
    generation = accepted(make_task())
    assert not records.record_rejected(generation.pk, code="x", message="x")
    assert not records.put_back(generation.pk)


def test_a_job_given_up_as_lost_is_adopted_when_its_id_comes_late() -> None:
    generation = sent(make_task())
    assert records.record_lost(generation.pk, code="outcome_unknown")
    assert records.record_accepted(generation.pk, Submitted("job-late"))
    generation.refresh_from_db()
    assert (generation.state, generation.ended_at) == ("accepted", None)


def test_a_late_job_id_beside_a_newer_attempt_is_kept_without_taking_its_place() -> None:
    task = make_task()
    first = sent(task)
    records.record_lost(first.pk, code="outcome_unknown")
    age(task.pk)
    claim = claimed(task)
    transitions.wait_for_slot(claim, delay_s=0, reason="next")
    second = admitted(task)
    assert records.record_accepted(first.pk, Submitted("job-late"))
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, first.job_id) == ("lost", "job-late")
    assert first.look_at is not None
    assert second.state == "planned"


def test_an_end_is_recorded_once_with_what_it_cost() -> None:
    generation = accepted(make_task())
    assert records.record_ended(generation.pk, State.SUCCEEDED, cost=Decimal(60), provider_status="SUCCEEDED")
    assert records.record_ended(generation.pk, State.FAILED) is False
    generation.refresh_from_db()
    assert (generation.state, generation.reported_cost) == ("succeeded", 60)


def test_a_lost_job_may_still_end_by_late_truth() -> None:
    generation = accepted(make_task())
    records.record_lost(generation.pk, code="job_lost")
    assert records.record_ended(generation.pk, State.SUCCEEDED)


@pytest.mark.parametrize("state", [State.PLANNED, State.UNKNOWN, State.ACCEPTED, State.REJECTED, State.LOST])
def test_only_ends_are_recorded_as_ends(state: Generation.State) -> None:
    with pytest.raises(ValueError, match="not a job's end"):
        records.record_ended("gen_x", state)


def test_not_found_counts_after_three_in_a_row_over_a_minute() -> None:
    task = make_task()
    generation = accepted(task)
    assert [records.record_not_found(generation.pk) for _ in range(4)] == [False] * 4
    age(task.pk, 61)
    assert records.record_not_found(generation.pk)


def test_an_answer_in_between_starts_the_count_anew() -> None:
    task = make_task()
    generation = accepted(task)
    for _ in range(3):
        records.record_not_found(generation.pk)
    age(task.pk, 61)
    poll_records.record_polls([(generation.pk, JobStatus(JobState.RUNNING, "RUNNING", 0.5))])
    assert not records.record_not_found(generation.pk)


def test_progress_at_the_provider_never_falls() -> None:
    generation = accepted(make_task())
    for progress in (0.5, 0.2, None):
        poll_records.record_polls([(generation.pk, JobStatus(JobState.RUNNING, "RUNNING", progress))])
    generation.refresh_from_db()
    assert (generation.provider_progress, generation.polls) == (0.5, 3)


def test_failed_looks_are_counted_in_a_row() -> None:
    generation = accepted(make_task())
    assert [poll_records.record_failed_polls([generation.pk]) for _ in range(2)] == [
        {generation.pk: 1},
        {generation.pk: 2},
    ]
    poll_records.record_polls([(generation.pk, JobStatus(JobState.RUNNING, "RUNNING"))])
    assert poll_records.record_failed_polls([generation.pk]) == {generation.pk: 1}


def test_an_unknown_attempt_expires_only_once_its_task_has_ended() -> None:
    task = make_task()
    sent(task)
    age(task.pk, 10_000)
    assert records.expire_unknown({"runway": 1800}) == 0
    claim = claimed(task)
    task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.")
    assert records.expire_unknown({"runway": 1_000_000}) == 0
    assert records.expire_unknown({"runway": 1800}) == 1


def test_the_window_between_the_two_commits_of_sending_is_one_transaction() -> None:
    """Neither the task alone nor the attempt alone is marked."""
    task = make_task()
    generation = admitted(task)
    claim = claimed(task)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_generation SET state = 'rejected', ended_at = now() WHERE id = %s", [generation.pk]
        )
    assert not records.mark_sent(claim, generation)
    assert reload(task).status == "pending"
    assert reload(task).stage == Stage.GENERATE


def test_what_never_left_of_a_task_that_has_ended_gives_its_slot_back() -> None:
    task = make_task()
    generation = sent(task)
    age(task.pk)
    assert task_moves.fail(claimed(task), code="outcome_unknown", message="Nobody knows.")
    assert records.put_back(generation.pk)  # the first worker, which was frozen before the socket
    generation.refresh_from_db()
    assert (generation.state, generation.error_code) == ("rejected", "task_ended")


def test_a_video_seen_by_a_worker_whose_task_has_failed_is_left_to_reconcile_which_delivers_it() -> None:
    task = make_task()
    generation = accepted(task)
    task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    records.record_ended(generation.pk, State.SUCCEEDED)  # … and whoever looked dies right here
    reconcile.reconcile()
    assert (reload(task).status, reload(task).stage) == ("running", "download")
    generation.refresh_from_db()
    assert generation.look_at is None


def test_a_video_seen_just_before_another_worker_fails_its_task_is_delivered_too() -> None:
    task = make_task()
    generation = accepted(task)
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, State.SUCCEEDED)
    task_moves.fail(claim, code="timeout", message="Too long.")
    reconcile.reconcile()
    assert (reload(task).status, reload(task).stage) == ("running", "download")
    task_moves.fail(claimed(task, Stage.DOWNLOAD), code="not_a_video", message="It could not be read.")
    reconcile.reconcile()
    assert reload(task).status == "failed"  # once; a video that can't be used is not fetched for ever
