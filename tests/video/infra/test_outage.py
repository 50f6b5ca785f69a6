"""The database goes away in the middle of something."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from tests.factories import accepted, admitted, claimed, make_task, reload
from video.attempts import records
from video.engine import claims, leases, transitions
from video.engine.claims import Claim
from video.engine.outcomes import Advance, Park
from video.infra import outage
from video.models import Generation, Stage
from video.pipeline import media_stages, provider_stages, runner
from video.processes import sweeper


def away(*_: Any, **__: Any) -> Any:
    raise OperationalError("connection refused")


class Now:
    """A clock that only moves when it is slept on, or told to."""

    def __init__(self) -> None:
        self.s = 1000.0

    def monotonic(self) -> float:
        return self.s

    def sleep(self, seconds: float) -> None:
        self.s += seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    now = Now()
    monkeypatch.setattr(outage, "time", now)
    return now


def test_a_write_is_made_when_the_database_is_back(now: Now) -> None:
    tries: list[float] = []

    def write() -> str:
        tries.append(now.s)
        return away() if len(tries) < 5 else "written"

    assert outage.retry_while_unavailable(write, "a fact") == "written"
    assert len(tries) == 5


def test_a_write_is_given_up_after_a_minute_and_other_errors_at_once(now: Now) -> None:
    with pytest.raises(OperationalError):
        outage.retry_while_unavailable(away, "a fact")
    assert 1060 <= now.s < 1070

    def broken() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        outage.retry_while_unavailable(broken, "a fact")
    assert now.s < 1070


def test_while_it_is_away_one_request_asks_and_the_others_are_refused(
    gate: outage.OutageGate, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def ping() -> None:
        asked.append(now.s)
        assert not gate.lets_through()  # another request, while this one waits for the answer
        away()

    monkeypatch.setattr(outage, "ping", ping)
    assert gate.lets_through()
    gate.close()
    assert not gate.lets_through()
    assert asked == []
    now.sleep(1)
    assert not gate.lets_through()
    assert not gate.lets_through()
    assert len(asked) == 1
    monkeypatch.setattr(outage, "ping", lambda: None)
    now.sleep(1)
    assert gate.lets_through()


def test_a_closed_gate_answers_each_address_in_its_own_shape(gate: outage.OutageGate, client: Client) -> None:
    # Without the `db` fixture any statement would raise.
    gate.close()
    api = client.get("/api/video/status", {"taskId": "task_1"})
    assert (api.status_code, api.json()["error"]["code"], api["Retry-After"]) == (503, "unavailable", "5")
    page = client.get("/admin/")
    assert (page.status_code, page["Retry-After"]) == (503, "5")
    assert b"database" in page.content
    assert client.get("/healthz").status_code == 200


@pytest.mark.django_db
def test_a_stage_that_met_an_absence_is_begun_anew_soon_with_nothing_held_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_task()
    admitted(task)
    monkeypatch.setitem(runner.WORK, Stage.GENERATE, away)
    assert not runner.run_stage(Stage.GENERATE, task.pk)
    task = reload(task)
    assert (task.stage, task.tries, task.deaths, task.lease_until) == ("generate", 0, 0, None)


@pytest.mark.django_db
def test_the_same_for_a_wave_of_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [make_task() for _ in range(2)]
    for n, task in enumerate(tasks):
        accepted(task, f"job-{n}")
    monkeypatch.setattr(provider_stages, "poll", away)
    assert runner.run_batch([task.pk for task in tasks]) == []
    for task in map(reload, tasks):
        assert (task.stage, task.tries, task.deaths, task.lease_until) == ("poll", 0, 0, None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stage", [Stage.GENERATE, Stage.POLL])
def test_a_claim_on_a_connection_that_a_restart_has_cut_is_made_again(
    monkeypatch: pytest.MonkeyPatch, now: Now, stage: Stage
) -> None:
    task = make_task()
    admitted(task) if stage is Stage.GENERATE else accepted(task)
    answers: list[Any] = [away, claims.claim]
    monkeypatch.setattr(claims, "claim", lambda *args: answers.pop(0)(*args))
    monkeypatch.setitem(runner.WORK, Stage.GENERATE, lambda claim: Park(60, "it waits"))
    monkeypatch.setattr(provider_stages, "poll", lambda held: [(claim, lambda: Park(60, "it runs")) for claim in held])
    runner.run_stage(stage, task.pk)
    assert answers == []
    assert reload(task).park_reason in {"it waits", "it runs"}


@pytest.mark.django_db
def test_a_move_whose_answer_was_lost_throws_no_file_away(monkeypatch: pytest.MonkeyPatch, now: Now) -> None:
    """The write was made, the connection broke before its answer: the second try finds the move made."""
    task = make_task()
    generation = accepted(task)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD, has_work_files=True)
    made = Advance(Stage.TRANSCODE, fields={"source_key": "work/x/1-source.mp4"})
    monkeypatch.setitem(runner.WORK, Stage.DOWNLOAD, lambda _claim: made)
    dropped: list[object] = []
    monkeypatch.setattr(media_stages, "drop_what_was_made", dropped.append)
    apply = runner.apply
    answers = iter([True, False])

    def loses_its_first_answer(claim: Claim, outcome: Any) -> bool:
        written = apply(claim, outcome)
        if next(answers):
            raise OperationalError("server closed the connection unexpectedly")
        return written

    monkeypatch.setattr(runner, "apply", loses_its_first_answer)
    monkeypatch.setattr(outage, "connection", type("NoTransaction", (), {"in_atomic_block": False, "close": print}))
    assert not runner.run_stage(Stage.DOWNLOAD, task.pk)
    task = reload(task)
    assert (task.stage, task.source_key) == ("transcode", "work/x/1-source.mp4")
    assert dropped == []


@pytest.mark.django_db
def test_nothing_ends_the_thread_that_renews_the_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error that nobody foresaw, and the leases of all later stages would run out for ever."""
    beaten = threading.Event()
    calls: list[int] = []

    def beat(held: list[Claim]) -> set[tuple[str, int]]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("nobody foresaw this")
        beaten.set()
        return {(claim.task.pk, claim.fence) for claim in held}

    monkeypatch.setattr(leases, "renew_leases", beat)
    monkeypatch.setattr(leases.settings, "STAGE_LEASE_SECONDS", 0.4)
    task = make_task()
    accepted(task)
    claim = claimed(task, Stage.POLL)
    with leases.Heartbeat().keep(claim):
        assert beaten.wait(20)
    assert len(calls) >= 2


@pytest.mark.parametrize("error", [OperationalError("away"), RuntimeError("nobody foresaw this")])
def test_nothing_ends_a_loop_of_the_sweeper(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        if len(turns) < 3:
            raise error
        stop.set()

    sweeper._repeat(stop, 0, turn)
    assert len(turns) == 3
    assert len([record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]) == 1  # said once
