from __future__ import annotations

import itertools

import pytest
from django.db import IntegrityError, connection, transaction

from tests.factories import accepted, admitted, age, claim_one, claimed, live, make_task, park_one, reload
from video.attempts import records, task_moves
from video.credits import ledger
from video.engine import claims, due, transitions
from video.models import Generation, Stage, Status, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db

ACTIVE_STAGES = [stage for stage in Stage if stage is not Stage.DONE]
ALLOWED = {
    ("generate", "generate"),
    ("generate", "poll"),
    ("poll", "generate"),
    ("poll", "download"),
    ("download", "poll"),
    ("download", "transcode"),
    ("transcode", "download"),
    ("transcode", "thumbnail"),
    ("thumbnail", "transcode"),
    ("thumbnail", "save"),
    ("save", "transcode"),
}


@pytest.mark.parametrize(("stage", "to"), list(itertools.product(Stage, Stage)))
def test_every_move_is_allowed_or_refused_as_the_table_says(stage: Stage, to: Stage) -> None:
    if (stage.value, to.value) in ALLOWED:
        transitions.refuse_illegal(stage, to)
    else:
        with pytest.raises(transitions.IllegalMove):
            transitions.refuse_illegal(stage, to)


STATUS_ALLOWED = {
    ("pending", "running"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("running", "success"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("failed", "running"),
    ("cancelled", "running"),
}


def test_every_change_of_status_is_allowed_or_refused_as_the_table_says() -> None:
    found = {(here.value, to.value) for here in Status for to in Status if to in transitions.STATUS_MOVES[here]}
    assert found == STATUS_ALLOWED
    assert sorted(transitions.statuses_before(Status.CANCELLED)) == ["pending", "running"]
    assert {Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.TRANSCODE} == transitions.RESUMES_AT


def put(task: VideoTask, stage: Stage) -> VideoTask:
    """Stand in that stage, due now."""
    VideoTask.objects.filter(pk=task.pk).update(stage=stage, status="running")
    return reload(task)


@pytest.fixture
def task() -> VideoTask:
    task = make_task()
    admitted(task)
    return reload(task)


@pytest.mark.parametrize("stage", [stage for stage in ACTIVE_STAGES if stage is not Stage.SAVE])
def test_success_is_refused_from_every_stage_but_save(task: VideoTask, stage: Stage) -> None:
    claim = claimed(put(task, stage), stage)
    with pytest.raises(transitions.IllegalMove):
        transitions.succeed(claim, generation_id=None, video_id="vid_1")


@pytest.mark.parametrize("stage", ACTIVE_STAGES)
def test_failure_is_open_from_every_stage_and_refunds(task: VideoTask, stage: Stage) -> None:
    claim = claimed(put(task, stage), stage)
    assert task_moves.fail(claim, code="timeout", message="It took too long.")
    task = reload(task)
    assert (task.status, task.stage, task.error_code) == ("failed", stage, "timeout")
    assert ledger.balance(task.user_id) == 1000
    assert not task_moves.fail(claim, code="timeout", message="It took too long.")
    assert ledger.balance(task.user_id) == 1000


def test_a_stage_that_is_not_due_is_not_claimed(task: VideoTask) -> None:
    age(task.pk, -60)
    assert claim_one(task.pk, Stage.GENERATE) is None


def test_a_stage_that_the_task_is_not_in_is_not_claimed(task: VideoTask) -> None:
    assert claim_one(task.pk, Stage.POLL) is None


def test_a_held_stage_is_not_claimed_until_its_lease_ends(task: VideoTask) -> None:
    first = claimed(task)
    assert claim_one(task.pk, Stage.GENERATE) is None
    age(task.pk)
    second = claimed(task)
    assert second.fence == first.fence + 1


def test_a_waiting_task_is_not_claimed() -> None:
    assert claim_one(make_task().pk, Stage.GENERATE) is None


def test_a_late_worker_can_write_no_progress(task: VideoTask) -> None:
    late = claimed(task)
    age(task.pk)
    winner = claimed(task)
    assert not transitions.advance(late, Stage.POLL)
    assert not park_one(late, delay_s=1, reason="late")
    assert not transitions.wait_for_slot(late, delay_s=1, reason="late")
    assert not task_moves.fail(late, code="late", message="late")
    assert claims.renew_leases([late, winner]) == {(task.pk, winner.fence)}
    assert reload(task).status == "pending"
    assert ledger.balance(task.user_id) == 990


def test_a_late_worker_may_not_send(task: VideoTask) -> None:
    generation = live(task.pk)
    assert generation is not None
    late = claimed(task)
    age(task.pk)
    assert not records.mark_sent(late, generation)  # its lease is over, though nobody took the task yet
    claimed(task)
    assert not records.mark_sent(late, generation)
    generation.refresh_from_db()
    assert generation.state == "planned"
    assert generation.sent_at is None


def test_a_late_worker_still_records_the_job_that_it_paid_for(task: VideoTask) -> None:
    from providers.contract import Submitted

    generation = live(task.pk)
    assert generation is not None
    late = claimed(task)
    assert records.mark_sent(late, generation)
    age(task.pk)
    winner = claimed(task)
    assert task_moves.fail(winner, code="outcome_unknown", message="Nobody knows.")
    assert records.record_accepted(generation.pk, Submitted("job-late"))
    generation.refresh_from_db()
    assert (generation.state, generation.job_id) == ("accepted", "job-late")
    assert generation.look_at is not None  # the task has ended, so it is looked at out of turn


def test_a_claim_clears_the_bell_and_counts_towards_deaths(task: VideoTask) -> None:
    claim = claimed(task)
    assert claim.task.rung_at is None
    assert claim.task.deaths == 1
    park_one(claim, delay_s=0, reason="again")
    assert reload(task).deaths == 0


def test_a_hint_during_the_work_makes_the_park_short() -> None:
    task = make_task()
    accepted(task)
    claim = claimed(task, Stage.POLL)
    due.hint(task.pk)
    park_one(claim, delay_s=600, reason="running", hint_delay_s=0)
    assert claim_one(task.pk, Stage.POLL) is not None


def test_a_hint_makes_an_unheld_task_due_but_no_sooner_than_the_least_interval() -> None:
    task = make_task()
    generation = accepted(task)
    park_one(claimed(task, Stage.POLL), delay_s=600, reason="running")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_generation SET last_polled_at = statement_timestamp() WHERE id = %s", [generation.pk]
        )
    due.hint(task.pk, least_interval_s=60)
    assert claim_one(task.pk, Stage.POLL) is None
    due.hint(task.pk, least_interval_s=0)
    assert claim_one(task.pk, Stage.POLL) is not None


def test_a_hint_changes_nothing_for_a_task_that_has_ended(task: VideoTask) -> None:
    task_moves.fail(claimed(task), code="x", message="x")
    assert not due.hint(task.pk)


def test_only_due_unheld_and_unrung_tasks_are_rung_and_only_once(task: VideoTask) -> None:
    assert (Stage.GENERATE, [task.pk]) not in due.enqueue_due(100)  # rung by admission a moment ago
    assert (Stage.GENERATE, [task.pk]) in due.enqueue_due(100, again_after_s=0)
    assert (Stage.GENERATE, [task.pk]) not in due.enqueue_due(100)
    age(task.pk, 11)
    assert (Stage.GENERATE, [task.pk]) in due.enqueue_due(100)
    claimed(task)
    assert (Stage.GENERATE, [task.pk]) not in due.enqueue_due(100, again_after_s=0)


def test_each_transition_is_one_event_with_its_times(task: VideoTask) -> None:
    generation = live(task.pk)
    assert generation is not None
    claim = claimed(task)
    records.mark_sent(claim, generation)
    transitions.advance(claim, Stage.POLL, detail="runway has the job")
    events = list(TaskEvent.objects.filter(task=task).order_by("id"))
    assert [event.outcome for event in events] == ["created", "admitted", "advanced"]
    assert events[-1].started_at == claim.claimed_at
    assert events[-1].finished_at >= events[-1].started_at
    assert events[-1].fence == claim.fence


def test_a_park_that_changed_nothing_is_not_recorded(task: VideoTask) -> None:
    park_one(claimed(task), delay_s=1, reason="same", record=False)
    assert not TaskEvent.objects.filter(task=task, outcome="parked").exists()


def test_progress_never_falls(task: VideoTask) -> None:
    claim = claimed(task)
    claim.progress = 40
    claims.renew_leases([claim])
    park_one(claim, delay_s=0, reason="x", progress=10)
    assert reload(task).progress == 40


def test_a_planned_attempt_of_a_task_that_ends_gives_its_slot_back(task: VideoTask) -> None:
    task_moves.fail(claimed(task), code="x", message="x")
    assert Generation.objects.get(task=task).state == "rejected"


def test_a_waiting_task_can_fail_with_a_refund() -> None:
    task = make_task()
    assert transitions.fail_waiting(task, code="no_attempt_left", message="All tries failed.")
    assert not transitions.fail_waiting(task, code="no_attempt_left", message="All tries failed.")
    assert reload(task).status == "failed"
    assert ledger.balance(task.user_id) == 1000


def test_a_late_result_revives_a_failed_task_and_leaves_the_refund() -> None:
    task = make_task()
    generation = accepted(task)
    task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    assert transitions.revive(task.pk, 1, generation.pk)
    task = reload(task)
    assert (task.status, task.stage, task.error_code) == ("running", "download", "")
    assert ledger.balance(task.user_id) == 1000
    assert not transitions.revive(task.pk, 1, generation.pk)


def test_a_late_result_of_an_older_run_revives_nothing() -> None:
    task = make_task()
    generation = accepted(task)
    task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    VideoTask.objects.filter(pk=task.pk).update(run=2)
    assert not transitions.revive(task.pk, 1, generation.pk)


BROKEN_ROWS = {
    "a final task with a clock": {"status": "failed", "error_code": "x", "error_message": "x"},
    "an active task without one": {"next_run_at": None},
    "success without a video": {"status": "success", "stage": "done", "progress": 100, "next_run_at": None},
    "an error on a running task": {"status": "running", "error_code": "x"},
    "pending beyond generate": {"stage": "poll"},
    "progress beyond 100": {"progress": 101},
    "an unknown status": {"status": "queued"},
    "an unknown stage": {"stage": "upload"},
    "run zero": {"run": 0},
}


@pytest.mark.parametrize("change", BROKEN_ROWS.values(), ids=BROKEN_ROWS.keys())
def test_the_database_refuses(task: VideoTask, change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        VideoTask.objects.filter(pk=task.pk).update(**change)


def test_the_database_refuses_a_second_live_attempt(task: VideoTask) -> None:
    first = live(task.pk)
    assert first is not None
    with pytest.raises(IntegrityError, match="generation_one_live_a_task"), transaction.atomic():
        Generation.objects.create(
            task=task,
            user_id=task.user_id,
            run=1,
            attempt=2,
            account=first.account,
            provider="runway",
            model="gen4.5",
            key_fingerprint="x",
            simulated=True,
        )


BROKEN_GENERATIONS = {
    "unknown without a time of sending": {"state": "unknown"},
    "accepted without a job": {"state": "accepted"},
    "planned with a job": {"job_id": "job-1"},
    "ended and live": {"state": "rejected"},
    "an unknown state": {"state": "sent"},
}


@pytest.mark.parametrize("change", BROKEN_GENERATIONS.values(), ids=BROKEN_GENERATIONS.keys())
def test_the_database_refuses_a_generation_that_is(task: VideoTask, change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Generation.objects.filter(task=task).update(**change)
