"""The checker finds what is broken in made-up evidence; the mutants prove the same with the whole system."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.chaos import checker
from bench.chaos.checker import Evidence
from bench.chaos.load import Accepted, Api, Load
from bench.chaos.plan import PIKA_WINDOW_S, Job, Script, mark

TASK = "task_1"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def job(job_id: str, begin: float, end: float, phase: str = "failed") -> dict[str, Any]:
    return {"id": job_id, "createdAt": begin, "endAt": end, "phase": phase, "reference": "", "cost": 0, "prompt": ""}


def evidence(jobs: list[dict[str, Any]], *, status: str = "success", **row: Any) -> Evidence:
    """One task with these jobs at the simulator, all of them in the books."""
    one = Job(1, Script("", 1), {}, user=0, twice=False)
    load = Load(Api("", []), [one], rate=1, most_open=1, on_accepted=lambda _count: None)
    load.accepted[1] = Accepted(one, TASK, at=0, status={"status": status})
    found = Evidence(load, Path("/nowhere"), slots=10)
    found.tasks[TASK] = {"id": TASK, "status": status, "run": 1, "prompt": f"{mark(1)} A cat", **row}
    found.generations[TASK] = [
        {"job_id": j["id"], "state": j["phase"], "run": 1, "sent_at": BEGIN, "accepted_at": BEGIN, "ended_at": None}
        for j in jobs
    ]
    found.jobs[mark(1)] = jobs
    found.submits, found.stats = {"doubled": {}, "received": len(jobs)}, {"lanes": []}
    return found


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (job("b", 5, 20), "lived at the same time"),
        (job("b", 10, 20), ""),
        (job("b", 12, 20), ""),
    ],
)
def test_two_jobs_that_lived_at_the_same_time_are_seen(second: dict[str, Any], says: str) -> None:
    breaches = list(checker._provider(evidence([job("a", 0, 10), second])))
    assert [says in breach.text for breach in breaches] == ([True] if says else [])


def test_a_job_after_a_success_is_seen() -> None:
    (breach,) = checker._provider(evidence([job("a", 0, 10, "succeeded"), job("b", 20, 30)]))
    assert (breach.kind, breach.task_id) == ("doubled", TASK)
    assert "after a had succeeded" in breach.text


def test_a_job_that_the_books_do_not_know_is_seen() -> None:
    found = evidence([job("a", 0, 10)])
    found.generations[TASK][0]["job_id"] = "another"
    (breach,) = checker._provider(found)
    assert "exist, the books know of 0 open cases" in breach.text
    found.generations[TASK][0].update(job_id="", state="lost")
    assert list(checker._provider(found)) == []


def test_more_live_jobs_than_slots_are_seen() -> None:
    found = evidence([])
    found.stats = {"lanes": [{"model": "gen4.5", "maxLive": 11}]}
    (breach,) = checker._provider(found)
    assert "11 live jobs, 10 are allowed" in breach.text


def event(outcome: str) -> dict[str, Any]:
    return {"run": 1, "outcome": outcome, "finished_at": BEGIN}


@pytest.mark.parametrize(
    ("status", "outcomes", "state", "allowed"),
    [
        ("success", ["created", "succeeded"], "succeeded", {0}),
        ("failed", ["created", "failed"], "failed", {1}),
        ("success", ["created", "failed", "resumed", "succeeded"], "succeeded", {1}),  # its video came late
        ("cancelled", ["created", "cancelled"], "rejected", {1}),
        ("cancelled", ["created", "cancelled"], "accepted", {0}),  # until its end is known
        ("cancelled", ["created", "cancelled"], "succeeded", {0}),
    ],
)
def test_refunds_follow_the_end_of_the_run(status: str, outcomes: list[str], state: str, allowed: set[int]) -> None:
    found = evidence([job("a", 0, 10)], status=status)
    found.generations[TASK][0]["state"] = state
    found.events[TASK] = [event(outcome) for outcome in outcomes]
    assert checker._refunds(found, TASK, 1) == allowed


@pytest.mark.parametrize(
    ("provider", "cost", "ran_s", "allowed"),
    [
        ("pika", 10, 5.0, {0}),
        ("pika", 0, 0.0, {0, 1}),
        ("pika", 10, 0.2, {0, 1}),  # it began between the look that saw it in the queue and the cancel
        ("runway", 10, 0.2, {0}),  # tells what it charges
    ],
)
def test_a_cancelled_job_that_was_charged_is_not_refunded(
    provider: str, cost: int, ran_s: float, allowed: set[int]
) -> None:
    one = job("a", 0, 10, "cancelled") | {"provider": provider, "cost": cost, "cancelled": True, "runAt": 10 - ran_s}
    found = evidence([one], status="cancelled")
    found.events[TASK] = [event("created"), event("cancelled")]
    found.generations[TASK][0]["ended_at"] = datetime(2026, 1, 2, tzinfo=UTC)
    assert checker._refunds(found, TASK, 1) == allowed


@pytest.mark.parametrize(("found_after_s", "allowed"), [(PIKA_WINDOW_S + 1, {0, 1}), (PIKA_WINDOW_S - 1, {0})])
def test_a_job_that_came_after_it_was_given_up_may_have_been_refunded(found_after_s: float, allowed: set[int]) -> None:
    found = evidence([job("a", 0, 10, "succeeded")], status="cancelled")
    found.events[TASK] = [event("created"), event("cancelled")]
    found.generations[TASK][0]["accepted_at"] = BEGIN + timedelta(seconds=found_after_s)
    assert checker._refunds(found, TASK, 1) == allowed


def test_a_task_that_has_not_ended_and_one_that_failed_without_a_reason_are_seen() -> None:
    unended = evidence([], status="running", stage="poll", park_reason="")
    assert [breach.kind for breach in checker._ends(unended)] == ["lost"]
    failed = evidence([], status="failed", stage="poll", park_reason="")
    failed.load.accepted[1].status = {"status": "failed", "errorCode": "worker_lost"}
    assert [breach.kind for breach in checker._ends(failed)] == ["wrong"]


def test_a_rolling_restart_may_fail_no_task_repeat_no_submit_and_take_no_longer_than_its_grace() -> None:
    found = evidence([job("a", 0, 10, "succeeded")], status="failed")
    found.submits["received"] = 2
    breaches = checker.check_rolling(found, [("web", 1.0), ("media1", 8.0)], [3, 0], grace_s=7.0)
    assert [breach.text for breach in breaches] == [
        "failed: None",
        "1 more submits than tasks",
        "media1 was gone only 8.0 s after SIGTERM",
        "restart 2 met no task",
    ]


def test_an_orderly_rolling_restart_under_load_is_no_breach() -> None:
    found = evidence([job("a", 0, 10, "succeeded")])
    assert checker.check_rolling(found, [("web", 1.0)], [3, 1], grace_s=7.0) == []
