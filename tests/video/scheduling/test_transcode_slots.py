"""Cores are shared like slots: transcodes wait in the database until one is free and it is their turn."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection

from tests.factories import accepted, age, claim_one, claimed, make_task, make_user, park_one, reload
from tests.video.scheduling.test_fair_share import fill, plan_of, rows_read
from video.actions import cancel, retry
from video.attempts import records, task_moves
from video.audit.actors import Unaudited
from video.engine import dispatch, transitions
from video.engine.claims import Claim
from video.engine.outcomes import Advance, Outcome, Park
from video.models import Generation, Stage, UserShare, VideoTask, WorkerSign
from video.pipeline import runner
from video.processes import sweeper
from video.scheduling import fair_share, transcode_slots

pytestmark = pytest.mark.django_db


def media_worker(threads: int = 2, name: str = "here:1", queues: str = "mediaQueue", **more: object) -> None:
    """A live worker's sign."""
    WorkerSign.objects.create(name=name, kind="worker", host=name.split(":")[0], queues=queues, threads=threads, **more)


def downloading(user: AbstractBaseUser | None = None, number: int = 0) -> VideoTask:
    """A task whose job has ended well and whose download is due."""
    task = make_task(user)
    generation = accepted(task, f"job-{task.pk}")
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    return reload(task)


def waiting(user: AbstractBaseUser | None = None) -> VideoTask:
    """A task that waits for a core."""
    task = downloading(user)
    assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE, source_key="work/x/source.mp4")
    return reload(task)


def admit() -> list[str]:
    return [task_id for task_id, _ in transcode_slots.grant()]


def users_of(task_ids: list[str]) -> Counter[int]:
    return Counter(VideoTask.objects.get(pk=task_id).user_id for task_id in task_ids)


def end_transcodes(task_ids: list[str]) -> None:
    """Their transcode and thumbnail are done, and the core is free."""
    for task_id in task_ids:
        task = VideoTask.objects.get(pk=task_id)
        assert transitions.advance(claimed(task, Stage.TRANSCODE), Stage.THUMBNAIL)
        assert transitions.advance(claimed(task, Stage.THUMBNAIL), Stage.SAVE)


def silence(task_id: str) -> None:
    """Ten seconds pass, and nobody has heard the bell."""
    age(task_id, transcode_slots.RESEND_S + 1)


# --- how many ------------------------------------------------------------------------------------------------------


def test_as_many_transcodes_are_rung_as_there_are_cores_and_the_others_wait() -> None:
    media_worker(2)
    tasks = [waiting() for _ in range(3)]
    assert [task.park_reason for task in tasks] == [transitions.WAITS_FOR_CORE] * 3
    assert admit() == [tasks[0].pk, tasks[1].pk]
    assert admit() == []
    assert reload(tasks[0]).park_reason == ""
    claim = claimed(tasks[0], Stage.TRANSCODE)  # at work now, no longer only rung
    assert admit() == []
    assert transitions.advance(claim, Stage.THUMBNAIL)
    assert admit() == []  # the thumbnail keeps the core
    assert transitions.advance(claimed(tasks[0], Stage.THUMBNAIL), Stage.SAVE)
    assert admit() == [tasks[2].pk]


def test_cores_of_several_hosts_add_up_and_only_of_live_media_workers_that_take_work() -> None:
    media_worker(1)
    media_worker(1, "there:1", queues="mediaQueue,videoQueue")
    media_worker(5, "video:1", queues="videoQueue")
    media_worker(5, "stopping:1", draining=True)
    media_worker(5, "dead:1")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE video_workersign SET seen_at = seen_at - interval '21 s' WHERE host = 'dead'")
    WorkerSign.objects.create(name="sweeper:1", kind="sweeper", host="sweeper", queues="mediaQueue", threads=5)
    for _ in range(4):
        waiting()
    assert len(admit()) == 2


def test_without_a_media_worker_nothing_is_rung() -> None:
    task = waiting()
    assert admit() == []
    media_worker(1)
    assert admit() == [task.pk]


def test_the_core_of_a_dead_worker_is_free_when_its_lease_has_run_out() -> None:
    media_worker(1)
    doomed, other = waiting(), waiting()
    assert admit() == [doomed.pk]
    claimed(doomed, Stage.TRANSCODE)
    assert admit() == []
    age(doomed.pk)
    given = admit()
    assert len(given) == 1
    assert {doomed.pk, other.pk} >= set(given)


def test_a_bell_that_nobody_heard_frees_the_core_and_the_task_is_rung_again() -> None:
    media_worker(1)
    task = waiting()
    assert admit() == [task.pk]
    assert admit() == []
    silence(task.pk)
    assert admit() == [task.pk]


def test_a_bell_that_was_rung_twice_starts_no_transcode_before_its_turn() -> None:
    media_worker(1)
    first, second = waiting(), waiting()
    assert admit() == [first.pk]
    assert claim_one(second.pk, Stage.TRANSCODE) is None
    claim = claim_one(first.pk, Stage.TRANSCODE)
    assert claim is not None
    assert park_one(claim, delay_s=0, reason="again")
    assert claim_one(first.pk, Stage.TRANSCODE) is None  # in line anew


@pytest.mark.parametrize("outcome", [Park(60, "later"), Advance(Stage.DOWNLOAD)])
def test_a_transcode_that_ends_otherwise_gives_its_core_back(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    media_worker(1)
    task, other = waiting(), waiting()
    assert admit() == [task.pk]
    rung: list[str] = []
    monkeypatch.setattr(dispatch, "resume", lambda task_id, stage, **_: rung.append(f"{task_id} {stage}") or True)
    monkeypatch.setitem(runner.WORK, Stage.TRANSCODE, lambda claim: outcome)
    assert runner.run_stage(Stage.TRANSCODE, task.pk) is False
    assert reload(task).core_at is None
    assert f"{other.pk} transcode" in rung


def test_a_cancelled_transcode_gives_its_core_back() -> None:
    media_worker(1)
    task, other = waiting(), waiting()
    admit()
    claimed(task, Stage.TRANSCODE)
    cancel.cancel(task.pk, by=Unaudited("test"))
    assert admit() == [other.pk]


# --- whose turn ------------------------------------------------------------------------------------------------------


def test_one_users_backlog_does_not_hold_up_the_others() -> None:
    media_worker(1)
    long, other = make_user(), make_user()
    for _ in range(4):
        waiting(long)
    late = waiting(other)
    first = admit()
    end_transcodes(first)
    assert admit() == [late.pk]
    end_transcodes([late.pk])
    assert users_of(admit()) == {long.pk: 1}


def test_a_user_of_twice_the_weight_gets_twice_as_many_cores() -> None:
    light, heavy = make_user(), make_user()
    UserShare.objects.create(user=heavy, weight=2)
    for _ in range(6):
        waiting(light)
        waiting(heavy)
    media_worker(6)
    assert users_of(admit()) == {light.pk: 2, heavy.pk: 4}


def test_reruns_come_after_fresh_work_and_priority_counts_within_one_user() -> None:
    media_worker(4)
    user = make_user()
    rerun, low, high = waiting(user), waiting(user), waiting(user)
    VideoTask.objects.filter(pk=rerun.pk).update(rerun=True, priority=100)
    VideoTask.objects.filter(pk=high.pk).update(priority=5)
    assert admit() == [high.pk, low.pk, rerun.pk]


# --- the way past it -----------------------------------------------------------------------------------------------


def after_download(monkeypatch: pytest.MonkeyPatch, task: VideoTask) -> bool:
    """Whether the chain goes on by itself after this download."""

    def download(claim: Claim) -> Outcome:
        return Advance(Stage.TRANSCODE, fields={"source_key": "work/x/source.mp4"})

    monkeypatch.setitem(runner.WORK, Stage.DOWNLOAD, download)
    return runner.run_stage(Stage.DOWNLOAD, task.pk)


def test_after_a_download_the_chain_goes_on_when_a_core_is_free_and_ends_when_none_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    media_worker(1)
    assert after_download(monkeypatch, downloading()) is True
    second = downloading()
    assert after_download(monkeypatch, second) is False
    assert reload(second).rung_at is None
    assert reload(second).park_reason == transitions.WAITS_FOR_CORE


def test_a_download_does_not_overtake_who_waits_for_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[tuple[str, Stage]] = []
    monkeypatch.setattr(dispatch, "resume", lambda task_id, stage, **_: rung.append((task_id, stage)) or True)
    user = make_user()
    older = waiting(user)
    newer = downloading(user)
    media_worker(1)
    assert after_download(monkeypatch, newer) is False
    assert rung == [(older.pk, Stage.TRANSCODE)]


def test_the_end_of_a_thumbnail_rings_the_next_and_its_own_chain_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[tuple[str, Stage]] = []
    monkeypatch.setattr(dispatch, "resume", lambda task_id, stage, **_: rung.append((task_id, stage)) or True)
    monkeypatch.setitem(runner.WORK, Stage.TRANSCODE, lambda claim: Advance(Stage.THUMBNAIL))
    monkeypatch.setitem(runner.WORK, Stage.THUMBNAIL, lambda claim: Advance(Stage.SAVE))
    media_worker(1)
    first, second = waiting(), waiting()
    assert admit() == [first.pk]
    assert runner.run_stage(Stage.TRANSCODE, first.pk) is True
    assert rung == []
    assert runner.run_stage(Stage.THUMBNAIL, first.pk) is True
    assert rung == [(second.pk, Stage.TRANSCODE)]


def test_the_sweeper_rings_no_transcode_past_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[tuple[str, Stage]] = []
    monkeypatch.setattr(dispatch, "resume", lambda task_id, stage, **_: rung.append((task_id, stage)) or True)
    tasks = [waiting() for _ in range(3)]
    sweeper.tick()
    assert rung == []
    media_worker(1)
    sweeper.tick()
    sweeper.tick()
    assert rung == [(tasks[0].pk, Stage.TRANSCODE)]


def test_a_retry_that_goes_on_at_the_transcode_waits_for_a_core(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: object
) -> None:
    rung: list[tuple[str, Stage]] = []
    monkeypatch.setattr(dispatch, "resume", lambda task_id, stage, **_: rung.append((task_id, stage)) or True)
    media_worker(1)
    busy = waiting()
    admit()
    task = waiting()
    task_moves.fail(claimed(task, Stage.TRANSCODE), code="transcode_failed", message="It could not be made.")
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        assert retry.retry(task.pk, by=Unaudited("test")).stage is Stage.TRANSCODE
    assert rung == []
    end_transcodes([busy.pk])
    assert admit() == [task.pk]


# --- many at once, and what it costs -------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_many_that_ask_at_once_never_give_more_cores_than_there_are() -> None:
    media_worker(3)
    user = make_user()
    for _ in range(8):
        waiting(user)
    barrier = threading.Barrier(6)
    given: list[str] = []

    def one() -> None:
        barrier.wait()
        try:
            given.extend(admit())
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 3


def test_admission_to_cores_reads_a_few_rows_by_its_index_however_long_the_line_is() -> None:
    media_worker(2)
    user = make_user()
    fill(user, 20_000)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask
            SET status = 'running', stage = 'transcode', admit_at = NULL, next_run_at = created_at
            """
        )
        cursor.execute("ANALYZE video_videotask")
    params = {"rung": 10, "queue": "mediaQueue", "alive": 20, "resource": "core", "half_life": fair_share.HALF_LIFE_S}
    nodes = plan_of(transcode_slots.WAITING, **params)
    assert "task_waiting_for_core" in {node.get("Index Name") for node in nodes}
    assert rows_read(nodes, "video_videotask") < 100
