from __future__ import annotations

from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings
from django.db import connection, transaction

from tests.factories import accepted, admitted, age, claimed, make_task, reload
from video.attempts import records, task_moves
from video.engine import dispatch, transitions
from video.infra import broker
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, VideoTask
from video.pipeline import media_stages
from video.processes import periodic, sweeper

pytestmark = pytest.mark.django_db


@pytest.fixture
def work_file(tmp_path: Path) -> str:
    """A task's id whose download has left a work file, with the task ended as failed."""
    task = make_task()
    generation = accepted(task)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    claim = claimed(task, Stage.POLL)
    assert transitions.advance(claim, Stage.DOWNLOAD, has_work_files=True)
    source = tmp_path / "source.mp4"
    source.write_bytes(b"a video")
    toolkit().storage.put_file(source, f"work/{task.pk}/1-source.mp4")
    task_moves.fail(claimed(task, Stage.DOWNLOAD), code="not_a_video", message="It could not be read.")
    return task.pk


def ended_days_ago(task_id: str, days: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_videotask SET finished_at = finished_at - %s * interval '1 day' WHERE id = %s",
            [days, task_id],
        )


def is_there(task_id: str) -> bool:
    return any((Path(settings.STORAGE_LOCAL_PATH) / "work" / task_id).glob("*"))


def test_work_files_of_a_failed_task_stay_for_a_week(work_file: str) -> None:
    ended_days_ago(work_file, 6.9)
    assert periodic.sweep_work_files() == 0
    assert is_there(work_file)
    ended_days_ago(work_file, 0.2)
    assert periodic.sweep_work_files() == 1
    assert not is_there(work_file)
    assert not VideoTask.objects.get(pk=work_file).has_work_files
    assert periodic.sweep_work_files() == 0


def test_work_files_that_can_not_be_deleted_keep_no_others_from_it(
    work_file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended_days_ago(work_file, 8)

    def refuse(task_id: str) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(media_stages, "drop_work_files", refuse)
        assert periodic.sweep_work_files() == 1
    assert f"a work file of {work_file} can't be deleted" in caplog.text
    assert VideoTask.objects.get(pk=work_file).has_work_files
    periodic.sweep_work_files()
    assert not is_there(work_file)


def test_work_files_of_a_success_that_a_crash_left_go_at_the_next_sweep(work_file: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET status = 'success', stage = 'done', progress = 100, video_id = 'vid_x',
                error_code = '', error_message = '', finished_at = finished_at - interval '1 second' WHERE id = %s
            """,
            [work_file],
        )
    assert periodic.sweep_work_files() == 1
    assert not is_there(work_file)


def test_a_task_that_came_back_to_life_keeps_its_mark(work_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended_days_ago(work_file, 8)
    generation = Generation.objects.get(task_id=work_file)
    monkeypatch.setattr(
        media_stages, "drop_work_files", lambda task_id: transitions.revive(task_id, 1, generation.pk) and None
    )
    periodic.sweep_work_files()
    assert VideoTask.objects.get(pk=work_file).has_work_files


def test_a_tick_rings_what_is_due_and_admits(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[tuple[str, Stage]] = []
    monkeypatch.setattr(sweeper.dispatch, "resume_all", lambda due, **_: rung.extend(due) or len(rung))
    orphan = make_task()
    admitted(orphan)
    claimed(orphan)
    age(orphan.pk)  # its worker never came back
    waiting = make_task()
    sweeper.tick()
    assert set(rung) == {(orphan.pk, Stage.GENERATE), (waiting.pk, Stage.GENERATE)}
    assert reload(waiting).admit_at is None


def test_every_periodic_job_runs_once_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    jobs = tuple((name, every_s, lambda name=name: done.append(name) or 0) for name, every_s, _ in periodic.PERIODIC)
    monkeypatch.setattr(periodic, "PERIODIC", jobs)
    periodic.run_periodic()
    periodic.run_periodic()
    assert done == [name for name, _, _ in jobs]


def test_a_statement_that_the_database_refuses_is_no_absence_of_the_database(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    def refused() -> int:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")
        return 0

    monkeypatch.setattr(
        periodic, "PERIODIC", (("first", 15, refused), ("second", 15, lambda: done.append("second") or 0))
    )
    periodic.run_periodic()
    assert done == ["second"]
    assert "the periodic job first failed" in caplog.text
    assert "division by zero" in caplog.text


def test_no_more_is_rung_than_a_line_at_the_broker_holds_so_that_an_overload_never_fills_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "MOST_IN_QUEUE", 3)
    monkeypatch.setattr(dispatch, "MOST_BATCHES_IN_QUEUE", 1)
    submits, renders = [make_task() for _ in range(4)], [make_task() for _ in range(2)]
    for task in submits:
        admitted(task)
    for number, task in enumerate(renders):
        accepted(task, f"job-{number}")
    lengths = []
    empty_broker()
    try:
        for _ in range(3):  # nobody hears them: without a bound each turn would add copies of all
            for task in submits + renders:
                age(task.pk, 60)
            sweeper.tick()
            lengths.append(lengths_of_lines())
        assert lengths == [[4, 1]] * 3
        empty_broker()  # as if they were heard
        sweeper.tick()
        assert lengths_of_lines() == [4, 1]
    finally:
        empty_broker()


def lengths_of_lines() -> list[int]:
    """Of what is urgent, and of waves."""
    return broker.lengths([broker.sub_queue_of("video.generate", urgent=True), broker.sub_queue_of("video.poll")])


def empty_broker() -> None:
    with current_app.connection_for_write() as connection:
        connection.default_channel.client.flushdb()
