"""manage.py check_ledger finds what the constraints can't see, and says nothing of what is right."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.utils import timezone

from tests.factories import accepted, claimed, make_task, make_user, reload
from video.attempts import task_moves
from video.credits import audit, ledger
from video.engine import transitions
from video.models import Account, CreditEntry, Stage, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db


def check(*args: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    out = io.StringIO()
    try:
        call_command("check_ledger", *args, stdout=out, stderr=out)
    except SystemExit as err:
        return int(err.code or 0), out.getvalue()
    except CommandError as err:
        return err.returncode, f"{out.getvalue()}{err}"
    return 0, out.getvalue()


def failed() -> VideoTask:
    task = make_task()
    accepted(task, f"job-of-{task.pk}")
    assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    return reload(task)


def without_trigger(sql: str, *params: object) -> None:
    """What only somebody with the database's own tools can do."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE video_creditentry DISABLE TRIGGER video_creditentry_append_only")
        cursor.execute(sql, params)
        cursor.execute("ALTER TABLE video_creditentry ENABLE TRIGGER video_creditentry_append_only")


def sentences() -> list[str]:
    return [one.sentence for one in audit.find()]


def next_run(task: VideoTask, *, ended: str) -> None:
    """As a retry leaves it: its run ended so, and another one is paid."""
    TaskEvent.objects.create(task=task, run=task.run, stage="poll", outcome=ended)
    VideoTask.objects.filter(pk=task.pk).update(run=task.run + 1)
    ledger.debit(task.user_id, 10, task_id=task.pk, run=task.run + 1)


class TestWhole:
    def test_an_empty_one(self) -> None:
        assert check() == (0, "The ledger is whole: 0 entries in 0 accounts, 0 credits in all.\n")

    def test_one_with_every_kind_of_end(self) -> None:
        failed()
        make_task()
        delivered_late = failed()
        assert transitions.revive(delivered_late.pk, 1, delivered_late.generations.get().pk)
        cancelled = make_task()
        next_run(cancelled, ended="cancelled")
        retried = failed()
        VideoTask.objects.filter(pk=retried.pk).update(
            status="running",
            stage="generate",
            run=2,
            error_code="",
            error_message="",
            finished_at=None,
            admit_at=timezone.now(),
        )
        ledger.debit(retried.user_id, 10, task_id=retried.pk, run=2)
        code, said = check()
        assert code == 0, said
        found = json.loads(check("--json")[1])
        assert found == {
            "whole": True,
            "accounts": 5,
            "differences": [],
            "entries": CreditEntry.objects.count(),
            "credits": sum(Account.objects.values_list("balance", flat=True)),
        }


class TestDifferences:
    def test_a_balance_that_was_written_past_the_ledger(self) -> None:
        user = make_user(100)
        Account.objects.filter(pk=user.pk).update(balance=500)
        code, said = check()
        assert code == 1
        assert user.get_username() in said
        assert "The balance is 500, the entries add up to 100" in said
        assert "1 difference; 1 entries in 1 accounts, 500 credits in all." in said
        (one,) = json.loads(check("--json")[1])["differences"]
        assert (one["kind"], one["user"], one["taskId"], one["run"]) == ("balance", user.get_username(), None, None)

    def test_a_failed_run_without_its_refund(self) -> None:
        task = failed()
        without_trigger("DELETE FROM video_creditentry WHERE task_id = %s AND kind = 'refund'", task.pk)
        Account.objects.filter(pk=task.user_id).update(balance=990)
        assert sentences() == ["Run 1 failed, and its 10 credits were not given back."]
        code, said = check()
        assert code == 1
        assert task.pk in said

    def test_an_earlier_run_without_its_refund(self) -> None:
        task = make_task()
        next_run(task, ended="failed")
        assert sentences() == ["Run 1 failed, and its 10 credits were not given back."]

    def test_a_refund_without_a_failure(self) -> None:
        task = make_task()
        assert ledger.refund(task.pk, 1)
        assert sentences() == ["Run 1 was refunded, and never failed; the task is pending."]

    def test_a_refund_of_another_sum_or_of_nothing(self) -> None:
        task, other = failed(), failed()
        without_trigger("UPDATE video_creditentry SET amount = 7 WHERE task_id = %s AND kind = 'refund'", task.pk)
        without_trigger("DELETE FROM video_creditentry WHERE task_id = %s AND kind = 'debit'", other.pk)
        Account.objects.filter(pk=task.user_id).update(balance=997)
        Account.objects.filter(pk=other.user_id).update(balance=1010)
        assert sorted(sentences()) == [
            "10 credits were given back for run 1, nothing was debited.",
            "7 credits were given back for run 1, 10 credits were debited.",
        ]

    def test_an_entry_of_a_run_that_never_was_or_of_somebody_else(self) -> None:
        task = make_task()
        ledger.debit(task.user_id, 10, task_id=task.pk, run=3)
        assert sentences() == ["There is a debit for run 3, the task's last run is 1."]
        other, stranger = make_task(), make_user()
        without_trigger("UPDATE video_creditentry SET account_id = %s WHERE task_id = %s", stranger.pk, other.pk)
        Account.objects.filter(pk=stranger.pk).update(balance=990)
        Account.objects.filter(pk=other.user_id).update(balance=1000)
        assert f"The debit stands in the account of user {stranger.pk}, the task belongs to user {other.user_id}." in (
            sentences()
        )


def test_without_the_database_it_exits_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> audit.Extent:
        raise OperationalError("connection refused to db at 10.1.2.3")

    monkeypatch.setattr(audit, "extent", away)
    code, said = check()
    assert code == 2
    assert said == "The database can't be reached, so nothing can be told. (OperationalError)"
