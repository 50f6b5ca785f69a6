"""manage.py cancel_tasks and retry_tasks: what they choose, what they say, and their exit codes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.factories import accepted, admitted, age, claimed, make_task, make_user, reload
from video.actions import cancel
from video.attempts import records, task_moves
from video.audit.actors import Unaudited, of_command
from video.credits import ledger
from video.models import AuditRecord, CreditEntry, Generation, Stage, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db


def run(name: str, *args: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    out = io.StringIO()
    code = 0
    try:
        call_command(name, *args, stdout=out, stderr=out)
    except SystemExit as err:
        code = int(err.code or 0)
    except CommandError as err:
        code = err.returncode
        out.write(str(err))
    return code, out.getvalue()


def as_json(name: str, *args: str) -> tuple[int, dict[str, Any]]:
    code, said = run(name, *args, "--json")
    return code, json.loads(said)


def ids(found: dict[str, Any]) -> list[str]:
    return [one["id"] for one in found["tasks"]]


def failed(user: Any = None, *, model: str = "gen4.5", code: str = "download_failed") -> VideoTask:
    """A task whose video is ready at the provider, and that failed before it was fetched."""
    task = make_task(user, model_requested=model)
    generation = accepted(task, f"job-of-{task.pk}")
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert task_moves.fail(claim, code=code, message="It failed.")
    return reload(task)


class TestCancelTasks:
    def test_named_ones_are_cancelled_without_a_question(self) -> None:
        waiting, rendering, other = make_task(), make_task(), make_task()
        accepted(rendering)
        code, found = as_json("cancel_tasks", waiting.pk, rendering.pk, waiting.pk)
        assert (code, found["done"], found["refused"], found["left"], found["simulated"]) == (0, 2, 0, 0, True)
        assert [(one["outcome"], one["refund"], one["asksProvider"]) for one in found["tasks"]] == [
            ("cancelled", "refunded", False),
            ("cancelled", "pending", True),
        ]
        assert [reload(task).status for task in (waiting, rendering, other)] == ["cancelled", "cancelled", "pending"]
        who = of_command().words
        assert TaskEvent.objects.filter(outcome="cancelled", worker=who).count() == 2
        assert {one.object_id for one in AuditRecord.objects.filter(action="cancel", via="command")} == {
            waiting.pk,
            rendering.pk,
        }

    def test_says_per_task_what_happened(self) -> None:
        task, over = make_task(), failed()
        code, said = run("cancel_tasks", task.pk, over.pk)
        assert code == 1
        for part in (
            task.pk,
            "in generate; refunded",
            over.pk,
            "can't be cancelled any more",
            "1 cancelled, 1 refused.",
        ):
            assert part in said, part

    def test_again_it_was_cancelled_before(self) -> None:
        task = make_task()
        run("cancel_tasks", task.pk)
        code, found = as_json("cancel_tasks", task.pk)
        assert (code, found["tasks"][0]["outcome"]) == (0, "cancelled before")

    def test_filters_must_all_hold(self) -> None:
        user, other = make_user(), make_user()
        old, young, theirs = make_task(user), make_task(user), make_task(other)
        accepted(young)
        VideoTask.objects.filter(pk=old.pk).update(created_at="2026-01-01T00:00:00Z")
        name = user.get_username()
        both = [old.pk, young.pk]
        assert ids(as_json("cancel_tasks", "--user", name, "--dry-run")[1]) == both
        assert ids(as_json("cancel_tasks", "--user", name, "--stage", "poll", "--dry-run")[1]) == [young.pk]
        assert ids(as_json("cancel_tasks", "--user", name, "--older-than", "2h", "--dry-run")[1]) == [old.pk]
        assert ids(as_json("cancel_tasks", "--status", "pending", "--dry-run")[1]) == [old.pk, theirs.pk]

    def test_a_dry_run_changes_nothing(self) -> None:
        task = make_task()
        code, said = run("cancel_tasks", task.pk, "--dry-run")
        assert code == 0
        assert "would be cancelled" in said
        assert "Nothing was changed" in said
        assert reload(task).status == "pending"

    def test_many_are_asked_about(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task = make_task()
        asked: list[str] = []
        monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
        assert run("cancel_tasks", "--status", "pending") == (2, "Nothing was cancelled.")
        assert asked == ["Cancel 1 task? [y/N] "]
        assert reload(task).status == "pending"
        monkeypatch.setattr("builtins.input", lambda question: "y")
        assert run("cancel_tasks", "--status", "pending")[0] == 0
        assert reload(task).status == "cancelled"

    def test_nobody_is_there_to_be_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task = make_task()

        def nobody(question: str) -> str:
            raise EOFError

        monkeypatch.setattr("builtins.input", nobody)
        code, said = run("cancel_tasks", "--status", "pending")
        assert (code, "--yes" in said, reload(task).status) == (2, True, "pending")
        assert run("cancel_tasks", "--status", "pending", "--yes")[0] == 0
        assert reload(task).status == "cancelled"

    @pytest.mark.parametrize("name", ["cancel_tasks", "retry_tasks"])
    def test_wrong_usage_is_2(self, name: str) -> None:
        task = make_task()
        for args, part in (
            ([], "Name tasks, or choose them"),
            ([task.pk, "--stage", "poll"], "not both"),
            (["task_nope"], "There is no task task_nope."),
            (["--user", "nobody-at-all"], "There is no user nobody-at-all."),
        ):
            code, said = run(name, *args)
            assert (code, part in said) == (2, True), said
        assert reload(task).status == "pending"

    def test_nothing_to_do_is_0(self) -> None:
        code, said = run("cancel_tasks", "--status", "running", "--yes")
        assert (code, said.strip()) == (0, "No task matches.")

    def test_an_interrupted_run_says_what_was_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tasks = [make_task(), make_task(), make_task()]
        real = cancel.cancel

        def once(task_id: str, **more: Any) -> Any:
            if task_id != tasks[0].pk:
                raise KeyboardInterrupt
            return real(task_id, **more)

        monkeypatch.setattr(cancel, "cancel", once)
        code, said = run("cancel_tasks", *[task.pk for task in tasks])
        assert (code, "1 cancelled; 2 left as they were." in said) == (130, True)


class TestRetryTasks:
    def test_named_ones_go_on(self) -> None:
        task = failed()
        code, found = as_json("retry_tasks", task.pk)
        assert code == 0
        assert found["tasks"] == [
            {
                "id": task.pk, "ok": True, "outcome": "goes on", "message": "at download; run 2, 10 credits",
                "stage": "download", "run": 2, "debited": 10, "granted": 0,
            }
        ]  # fmt: skip
        assert reload(task).status == "running"

    def test_filters_choose_failed_ones_only(self) -> None:
        user = make_user()
        timeout, pika = failed(user, code="timeout"), failed(model="pika-2.2")
        cancel.cancel(make_task(user).pk, by=Unaudited("x"))
        VideoTask.objects.filter(pk=pika.pk).update(finished_at="2026-01-01T00:00:00Z")
        assert ids(as_json("retry_tasks", "--failed", "--dry-run")[1]) == [timeout.pk, pika.pk]
        assert ids(as_json("retry_tasks", "--since", "2h", "--dry-run")[1]) == [timeout.pk]
        assert ids(as_json("retry_tasks", "--provider", "pika", "--dry-run")[1]) == [pika.pk]
        assert ids(as_json("retry_tasks", "--error", "timeout", "--dry-run")[1]) == [timeout.pk]
        assert ids(as_json("retry_tasks", "--stage", "poll", "--dry-run")[1]) == [timeout.pk, pika.pk]
        assert ids(as_json("retry_tasks", "--user", user.get_username(), "--dry-run")[1]) == [timeout.pk]
        assert ids(as_json("retry_tasks", "--error", "timeout", "--provider", "pika", "--dry-run")[1]) == []
        assert reload(timeout).status == "failed"

    def test_a_dry_run_says_where_they_would_go_on_and_at_what_cost(self) -> None:
        task = failed()
        code, said = run("retry_tasks", task.pk, "--dry-run")
        assert (code, "would go on" in said, "at download; run 2, 10 credits" in said) == (0, True, True)
        _, said = run("retry_tasks", task.pk, "--dry-run", "--regenerate", "--free")
        assert "in line for a new attempt; run 2, 10 credits, granted for it" in said
        assert reload(task).status == "failed"

    def test_free_grants_what_it_costs(self) -> None:
        user = make_user(10)
        task = failed(user)
        make_task(user)
        for args in ((), ("--dry-run",)):
            code, found = as_json("retry_tasks", task.pk, *args)
            assert (code, found["tasks"][0]["code"]) == (1, "insufficient_credits")
        assert as_json("retry_tasks", task.pk, "--free")[0] == 0
        assert CreditEntry.objects.filter(task=task, kind="grant").count() == 1
        assert ledger.balance(user.pk) == 0

    def test_one_that_is_refused_stops_no_other(self) -> None:
        unsettled = make_task()
        generation = admitted(unsettled)
        claim = claimed(unsettled)
        records.mark_sent(claim, generation)
        task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.")
        age(unsettled.pk, 0)
        good = failed()
        code, found = as_json("retry_tasks", "--failed")
        assert (code, found["done"], found["refused"]) == (1, 1, 1)
        assert [one.get("code") for one in found["tasks"]] == ["attempt_unsettled", None]
        assert reload(good).status == "running"

    def test_regenerate_makes_it_anew(self) -> None:
        task = failed(code="source_gone")
        assert as_json("retry_tasks", task.pk)[1]["tasks"][0]["code"] == "source_gone"
        assert as_json("retry_tasks", task.pk, "--regenerate")[1]["tasks"][0]["stage"] == "generate"
