"""Jobs that operators ask for: all that match and nothing else, each item once, whatever dies in the middle."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from media_pipeline.storage import object_keys
from tests.factories import accepted, claimed, make_task, make_user, reload
from tests.video.racing import together
from video import ids
from video.actions import cancel, jobs
from video.actions.jobs import JobRefused, Kind
from video.actions.task_filters import InvalidSelection
from video.attempts import records, task_moves
from video.audit.actors import Actor
from video.credits import ledger
from video.engine import jobs as rows
from video.infra.toolkit import toolkit
from video.models import AuditRecord, CreditEntry, Generation, OperatorJob, Stage, TaskEvent, VideoTask
from video.processes import operator_jobs

pytestmark = pytest.mark.django_db
ANN = Actor("ann", AuditRecord.Via.ADMIN, "10.0.0.1", 7)
State = OperatorJob.State


def failed(user: Any = None, code: str = "generation_failed", job: str = "") -> VideoTask:
    """A task whose only attempt failed, and whose credits came back."""
    task = make_task(user)
    generation = accepted(task, job or f"job-of-{task.pk}")
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, Generation.State.FAILED, code=code, message="It could not be made.")
    assert task_moves.fail(claim, code=code, message="It could not be made.")
    return reload(task)


def ask(kind: Kind, arguments: dict[str, Any], reason: str = "") -> OperatorJob:
    return jobs.ask(kind, arguments, by=ANN.because(reason))[0]


def retry(**filters: str) -> OperatorJob:
    return ask(Kind.RETRY, jobs.of_tasks(Kind.RETRY, filters), "the provider is well again")


def work(stop: threading.Event | None = None) -> bool:
    return operator_jobs.work(stop or threading.Event())


def now(job: OperatorJob) -> OperatorJob:
    return OperatorJob.objects.get(pk=job.pk)


def debits(task: VideoTask) -> int:
    return CreditEntry.objects.filter(task=task, kind="debit").count()


def end_lease() -> None:
    OperatorJob.objects.filter(state=State.RUNNING).update(lease_until=Now() - timedelta(seconds=1))


class TestTasks:
    def test_all_that_match_are_retried_and_no_others(self) -> None:
        user = make_user()
        wanted = [failed(user), failed(user)]
        others = [failed(user, "timeout"), failed(), make_task(user)]
        job = retry(error="generation_failed", user=user.get_username())
        later = failed(user)  # it failed after that was asked
        assert work()
        assert [reload(task).status for task in wanted] == ["running", "running"]
        assert [reload(task).run for task in (*others, later)] == [1, 1, 1, 1]
        done = now(job)
        assert (done.state, done.of, done.done, done.refused) == (State.DONE, 2, 2, 0)
        assert done.summary == "2 tasks retried."
        assert [line["text"].split(":")[0] for line in done.lines] == sorted(task.pk for task in wanted)
        event = TaskEvent.objects.filter(task=wanted[0], outcome="resumed").get()
        assert event.worker == "operator ann"
        record = AuditRecord.objects.get(kind="videotask", object_id=wanted[0].pk)
        assert (record.actor, record.action, record.reason) == ("ann", "retry", "the provider is well again")
        assert not work()

    def test_a_refused_task_keeps_no_other_from_its_turn(self) -> None:
        poor, rich = make_user(10), make_user()
        first, second, third = failed(poor), failed(rich), failed(poor)
        job = retry()
        ledger.debit(poor.pk, 5, task_id=first.pk, run=77)
        work()
        assert [reload(task).run for task in (first, second, third)] == [1, 2, 1]
        assert (now(job).done, now(job).refused, now(job).summary) == (3, 2, "1 task retried, 2 refused.")
        assert "credits" in now(job).lines[0]["text"]

    def test_free_retries_are_granted_and_what_matches_is_cancelled(self) -> None:
        user = make_user(10)
        task = failed(user)
        ask(Kind.RETRY, jobs.of_tasks(Kind.RETRY, {"error": "generation_failed"}, free=True))
        work()
        assert reload(task).run == 2
        assert ledger.balance(user.pk) == 10
        waiting = make_task()
        job = ask(Kind.CANCEL, jobs.of_tasks(Kind.CANCEL, {"stands": "waiting"}))
        new = make_task()
        work()
        assert [reload(one).status for one in (waiting, task, new)] == ["cancelled", "cancelled", "pending"]
        assert now(job).summary == "2 tasks cancelled."

    def test_an_unforeseen_error_of_one_task_undoes_that_task_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = make_task(), make_task()
        real = cancel.cancel

        def breaks(task_id: str, **more: Any) -> Any:
            found = real(task_id, **more)
            if task_id == first.pk:
                raise RuntimeError("a slip")
            return found

        monkeypatch.setattr(cancel, "cancel", breaks)
        job = ask(Kind.CANCEL, jobs.of_tasks(Kind.CANCEL, {}))
        work()
        assert [reload(task).status for task in (first, second)] == ["pending", "cancelled"]
        assert (now(job).done, now(job).refused) == (2, 1)
        assert "RuntimeError" in now(job).lines[0]["text"]

    @pytest.mark.parametrize("point", ["job.item_done", "job.item_committed"])
    def test_who_takes_a_dead_ones_job_over_does_no_task_twice(
        self, point: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks = [failed() for _ in range(4)]
        job = retry()
        reached = []

        def dies(name: str) -> None:
            if name == point:
                reached.append(name)
                if len(reached) == 2:
                    raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(operator_jobs, "failpoint", dies)
            with pytest.raises(SystemExit):
                work()
        assert now(job).state == State.RUNNING
        assert sum(debits(task) == 2 for task in tasks) == now(job).done == (1 if point == "job.item_done" else 2)
        assert not work()  # its lease holds
        end_lease()
        assert work()
        assert [debits(task) for task in tasks] == [2, 2, 2, 2]
        assert (now(job).state, now(job).done, now(job).fence) == (State.DONE, 4, 2)

    def test_who_lost_the_job_writes_nothing_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tasks = [make_task(), make_task()]
        job = ask(Kind.CANCEL, jobs.of_tasks(Kind.CANCEL, {}))

        def stopped(name: str) -> None:
            if name == "job.item_committed":
                jobs.stop(job.pk, by=ANN.because("a slip"))

        monkeypatch.setattr(operator_jobs, "failpoint", stopped)
        work()
        assert (now(job).state, now(job).summary) == (State.STOPPED, "Stopped by ann.")
        assert [reload(task).status for task in tasks] == ["cancelled", "pending"]
        assert not work()
        with pytest.raises(JobRefused, match="ended already"):
            jobs.stop(job.pk, by=ANN)

    def test_a_sweeper_that_stops_lets_another_go_on_at_once(self) -> None:
        task, stop = make_task(), threading.Event()
        job = ask(Kind.CANCEL, jobs.of_tasks(Kind.CANCEL, {}))
        stop.set()
        work(stop)
        assert (now(job).state, now(job).lease_until, now(job).deaths) == (State.RUNNING, None, 0)
        work()
        assert reload(task).status == "cancelled"

    def test_a_job_of_which_sweepers_die_is_given_up(self) -> None:
        job = retry()
        for _ in range(rows.MAX_DEATHS):
            assert rows.claim() is not None
            end_lease()
        work()
        assert now(job).state == State.FAILED
        assert "4 sweepers died" in now(job).summary

    def test_the_lines_of_a_long_job_are_bounded_and_refusals_find_room(self) -> None:
        job = retry()
        claimed = rows.claim()
        assert claimed is not None
        for number in range(0, 300, 50):
            rows.advance(claimed, *(rows.Line(f"{number + one}") for one in range(50)), items=50)
        rows.advance(claimed, *(rows.Line(f"no {one}", ok=False) for one in range(150)), items=150, refused=150)
        kept = now(job).lines
        assert len(kept) == rows.MOST_LINES
        assert [line["text"] for line in kept[99:101]] == ["99", "no 0"]
        assert now(job).done == 450


def test_an_ended_job_is_kept_for_ninety_days() -> None:
    old, new, waiting = ask(Kind.RECONCILE, {}), ask(Kind.CHECK_LEDGER, {}), retry()
    for job, days in ((old, 91), (new, 89)):
        OperatorJob.objects.filter(pk=job.pk).update(state="done", ended_at=Now() - timedelta(days=days))
    assert rows.sweep_old() == 1
    assert set(OperatorJob.objects.values_list("pk", flat=True)) == {new.pk, waiting.pk}


class TestAsking:
    def test_the_same_once_more_is_answered_with_the_open_job(self) -> None:
        first, is_new = jobs.ask(Kind.CHECK_LEDGER, {}, by=ANN)
        again, is_new_again = jobs.ask(Kind.CHECK_LEDGER, {}, by=ANN)
        assert (is_new, is_new_again, again.pk) == (True, False, first.pk)
        assert retry(error="timeout", ended="1h").pk == retry(error="timeout", ended="1h").pk
        assert AuditRecord.objects.filter(kind="operatorjob").count() == 2
        work()
        work()
        assert jobs.ask(Kind.CHECK_LEDGER, {}, by=ANN)[1]

    def test_of_an_erased_user_no_name_is_left(self) -> None:
        user = make_user()
        retry(user=user.get_username())
        kept = ask(Kind.CANCEL, jobs.of_tasks(Kind.CANCEL, {"stands": "off"}), "ann's own words")
        jobs.forget_user(user.pk, user.get_username(), "erased-1")
        jobs.forget_user(ANN.user_id or 0, "ann", "erased-7")
        assert [(one.pk, one.asked_by, one.source, one.reason) for one in OperatorJob.objects.all()] == [
            (kept.pk, "erased-7", "", "")
        ]

    def test_a_filter_that_means_nothing_is_refused(self) -> None:
        for filters in ({"user": "nobody"}, {"ended": "3 years"}, {"ended_after": "soon"}, {"error": "\x00"}):
            with pytest.raises(InvalidSelection):
                jobs.of_tasks(Kind.RETRY, filters)
        with pytest.raises(InvalidSelection, match="1000"):
            jobs.of_tasks(Kind.RETRY, ids=["task_1"] * 1001)


class TestOtherKinds:
    def test_the_ledger_is_verified(self) -> None:
        user = make_user(50)
        job = ask(Kind.CHECK_LEDGER, {})
        work()
        assert now(job).summary.startswith("The ledger is whole: 1 entries in 1 accounts, 50 credits")
        assert (now(job).done, now(job).of) == (5, 5)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_account SET balance = 51 WHERE user_id = %s", [user.pk])
        job = ask(Kind.CHECK_LEDGER, {})
        work()
        assert now(job).summary.startswith("1 difference;")
        assert "The balance is 51, the entries add up to 50" in now(job).lines[0]["text"]

    def test_the_storage_is_cleaned_only_after_a_look(
        self, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.STORAGE_LOCAL_PATH = tmp_path / "storage"
        settings.SCRATCH_PATH = tmp_path / "storage" / ".scratch"
        toolkit.cache_clear()
        storage = toolkit().storage
        with monkeypatch.context() as patch:
            then = time.time_ns() - 2 * 86_400 * 10**9
            patch.setattr(time, "time_ns", lambda: then)
            key = object_keys.video_key(1, ids.video_id())
        path = tmp_path / "file"
        path.write_bytes(b"0" * 100)
        storage.put_file(path, key)
        look = ask(Kind.CLEANUP_STORAGE, jobs.of_cleanup(None))
        with pytest.raises(JobRefused, match="Look first"):
            jobs.of_cleanup(look)
        work()
        assert storage.exists(key)
        assert "1 files seen, 1 thing found, 0.0 MB would be deleted" in now(look).summary
        wet = ask(Kind.CLEANUP_STORAGE, jobs.of_cleanup(now(look)))
        work()
        assert not storage.exists(key)
        assert now(wet).lines[0]["text"].startswith(key)
        OperatorJob.objects.filter(pk=look.pk).update(
            started_at=Now() - timedelta(days=2), ended_at=timezone.now() - timedelta(days=2)
        )
        with pytest.raises(JobRefused, match="more than a day old"):
            jobs.of_cleanup(now(look))
        toolkit.cache_clear()

    def test_open_attempts_are_reconciled_and_keys_are_checked(self) -> None:
        job = ask(Kind.RECONCILE, {})
        work()
        assert now(job).summary == "0 open attempts looked at; 0 open now."
        job = ask(Kind.CHECK_KEYS, jobs.of_check_keys("runway"))
        work()
        assert now(job).state == State.DONE
        assert now(job).lines
        assert all(line["text"].startswith("runway ") for line in now(job).lines)
        job = ask(Kind.CHECK_KEYS, jobs.of_check_keys("runway", "none"))
        work()
        assert now(job).summary == "No such key is configured here."


@pytest.mark.django_db(transaction=True)
def test_of_two_sweepers_at_once_each_does_what_the_other_does_not() -> None:
    tasks = [failed() for _ in range(6)]
    all_of_them = [retry(), ask(Kind.CHECK_LEDGER, {})]
    together(0, work, work)
    while work():
        pass
    assert [debits(task) for task in tasks] == [2] * 6
    assert [now(job).state for job in all_of_them] == [State.DONE, State.DONE]
    assert [now(job).fence for job in all_of_them] == [1, 1]


@pytest.mark.django_db(transaction=True)
def test_a_lease_that_ran_out_too_early_lets_no_task_be_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sweeper was suspended within an item; the second waits for its lock, and goes on behind it."""
    tasks = [failed() for _ in range(4)]
    job = retry()
    entered, result = threading.Event(), operator_jobs._result

    def slow(task_id: str, act: Any) -> Any:
        line = result(task_id, act)
        if not entered.is_set():
            entered.set()
            with connection.cursor() as cursor:  # in the same transaction: its own lease is over when it commits
                cursor.execute(
                    "UPDATE video_operatorjob SET lease_until = now() - interval '1 hour', fence = fence WHERE id = %s",
                    [job.pk],
                )
        return line

    monkeypatch.setattr(operator_jobs, "_result", slow)
    monkeypatch.setattr(rows, "LEASE_S", 0.0)
    together(0, work, lambda: entered.wait(10) and [work() for _ in range(50)])
    while work():
        pass
    assert [debits(task) for task in tasks] == [2] * 4
    assert now(job).done == 4
