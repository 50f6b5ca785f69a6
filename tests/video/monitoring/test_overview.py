"""The queues' figures are what the rows say, cost few statements, and name what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries

from config.celery import app
from providers import catalogue
from providers.contract import JobState, JobStatus
from providers.errors import JobFailed
from tests.factories import OLGA, accepted, admitted, age, claimed, make_task, make_user, park_one
from tests.video.presence import everybody, sign
from video.actions import cancel
from video.attempts import configured_keys, failure_texts, observe, poll_records, records, task_moves
from video.audit.actors import Unaudited
from video.engine import transitions
from video.models import (
    Circuit,
    FailureText,
    Generation,
    ProviderAccount,
    ProviderKey,
    Stage,
    TaskEvent,
    VideoTask,
)
from video.monitoring import overview, problems, stages
from video.monitoring.stages import QUEUE_OF, StageFigures
from video.routing import health

pytestmark = pytest.mark.django_db


def of(stage: Stage) -> StageFigures:
    return next(one for one in stages.stages() if one.stage is stage)


def codes(*, needs_person: bool | None = None) -> list[str]:
    return [one.code for one in overview.read().problems if needs_person in {None, one.needs_person}]


def test_each_stage_is_counted_in_the_queue_that_celery_sends_it_to() -> None:
    for stage, queue in QUEUE_OF.items():
        route = app.conf.task_routes.get(f"video.{stage}", {"queue": app.conf.task_default_queue})
        assert route["queue"] == queue
    assert set(QUEUE_OF) == set(Stage) - {Stage.DONE}


class TestStages:
    def test_an_empty_system(self) -> None:
        assert [one.stage for one in stages.stages()] == list(QUEUE_OF)
        assert all(one.due == one.held == one.parked_number == 0 for one in stages.stages())
        assert stages.waiting() == stages.Waiting()

    def test_who_waits_for_a_slot_and_for_how_long(self) -> None:
        first, second, later = make_task(), make_task(), make_task()
        age(first.pk, 600)
        age(second.pk, 60)
        age(later.pk, -600)
        line = stages.waiting()
        assert (line.number, line.later, line.oldest_task) == (2, 1, first.pk)
        assert line.oldest_s is not None
        assert 600 <= line.oldest_s < 660
        assert of(Stage.GENERATE).due == 0  # not admitted, so not in the queue

    def test_a_longer_line_is_counted_to_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stages, "COUNTED", 2)
        for _ in range(3):
            make_task()
        assert stages.waiting().number == 2

    def test_due_held_and_a_lease_that_ran_out(self) -> None:
        due, held, silent = make_task(), make_task(), make_task()
        for task in (due, held, silent):
            admitted(task)
        claimed(held)
        claimed(silent)
        age(silent.pk, 120)
        age(due.pk, 30)
        one = of(Stage.GENERATE)
        assert (one.due, one.held, one.parked_number, one.oldest_task) == (2, 1, 0, silent.pk)
        assert one.oldest_s is not None
        assert 120 <= one.oldest_s < 180

    def test_transcodes_that_wait_for_a_core(self) -> None:
        waits, given, held = make_task(), make_task(), make_task()
        for number, task in enumerate((waits, given, held)):
            to_transcode(task, f"job-{number}")
        claimed(held, Stage.TRANSCODE)
        age(waits.pk, 40)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_videotask SET rung_at = statement_timestamp() WHERE id = %s", [given.pk])
        line = stages.waiting_for_core()
        assert (line.number, line.oldest_task) == (1, waits.pk)
        assert line.oldest_s is not None
        assert 40 <= line.oldest_s < 100
        assert (of(Stage.TRANSCODE).due, of(Stage.TRANSCODE).held) == (2, 1)

    def test_parked_ones_by_what_they_wait_for(self) -> None:
        def parked(reason: str, error_code: str = "") -> Generation:
            task = make_task()
            generation = accepted(task, f"job-{task.pk}")
            assert park_one(claimed(task, Stage.POLL), delay_s=60, reason=reason, error_code=error_code)
            return generation

        parked("runway: running")
        parked("runway: pending")
        failing = parked("HTTP 502", "provider_down")
        poll_records.record_failed_polls([failing.pk])
        missing = parked("the provider does not know the job; asking again")
        records.record_not_found(missing.pk)
        assert of(Stage.POLL).parked == {"rendering": 2, "provider_trouble": 1, "job_not_found": 1}
        configured_keys.sync()
        key = ProviderKey.objects.get(fingerprint=failing.key_fingerprint, provider="runway")
        ProviderKey.objects.filter(pk=key.pk).update(gone_since="2026-01-01T00:00:00Z")
        assert of(Stage.POLL).parked == {"key_gone": 4}

    def test_parked_ones_that_sleep_beyond_their_deadline(self) -> None:
        task = make_task()
        accepted(task)
        assert park_one(claimed(task, Stage.POLL), delay_s=60, reason="rendering")
        assert of(Stage.POLL).overdue == 0
        age(task.pk, 30)
        VideoTask.objects.filter(pk=task.pk).update(deadline_at=Now() - timedelta(seconds=10))
        assert of(Stage.POLL).overdue == 1
        assert "overdue" in codes(needs_person=True)

    def test_parked_before_the_provider_has_the_job(self) -> None:
        unknown, unreachable, other = make_task(), make_task(), make_task()
        generation = admitted(unknown)
        claim = claimed(unknown)
        assert records.mark_sent(claim, generation)
        assert park_one(claim, delay_s=60, reason="look-up 1 of 3 by our reference")
        for task, code in ((unreachable, "provider_unreachable"), (other, "")):
            assert park_one(claimed(task), delay_s=60, reason=f"words of {task.pk}", error_code=code)
        assert of(Stage.GENERATE).parked == {"outcome_unknown": 1, "provider_unreachable": 1, "waiting": 1}

    def test_moves_a_minute_and_how_long_a_stage_took(self) -> None:
        task = make_task()
        accepted(task)
        assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
        other = make_task()
        accepted(other, "job-2")
        assert task_moves.fail(claimed(other, Stage.POLL), code="timeout", message="Too long.")
        # Entered poll 300 s before it left it; the last claim took 2 s.
        set_ages(task, Stage.GENERATE, "advanced", finished_s=400)
        set_ages(task, Stage.POLL, "advanced", started_s=102, finished_s=100)
        set_ages(other, Stage.GENERATE, "advanced", finished_s=3600)
        set_ages(other, Stage.POLL, "failed", finished_s=30)
        one = of(Stage.POLL)
        assert one.done.per_min == pytest.approx((0, 1 / 5, 1 / 15))
        assert one.failed.per_min == pytest.approx((1, 1 / 5, 1 / 15))
        assert (one.through.p50_s, one.through.p95_s) == pytest.approx((300, 300), abs=5)
        assert one.work.p50_s == pytest.approx(2, abs=0.5)
        assert one.sample == 1
        assert of(Stage.GENERATE).done.per_min == pytest.approx((0, 0, 1 / 15))  # the other's is an hour old

    def test_percentiles_are_of_the_latest_moves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stages, "SAMPLE", 2)
        for number in range(3):
            task = make_task()
            accepted(task, f"job-{number}")
            set_ages(task, Stage.GENERATE, "advanced", started_s=60 + 10**number, finished_s=60 - number)
        assert of(Stage.GENERATE).sample == 2
        assert of(Stage.GENERATE).work.p50_s == pytest.approx(56.5, abs=2)  # of 11 and 102


def set_ages(task: VideoTask, stage: Stage, outcome: str, *, finished_s: float, started_s: float | None = None) -> None:
    """Move one event of a task into the past."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_taskevent SET finished_at = statement_timestamp() - %s * interval '1 second',
                started_at = statement_timestamp() - %s * interval '1 second'
            WHERE task_id = %s AND stage = %s AND outcome = %s
            """,
            [finished_s, finished_s if started_s is None else started_s, task.pk, stage, outcome],
        )
        assert cursor.rowcount == 1


class TestProviders:
    def test_accounts_say_what_is_in_use_and_why_nothing_starts(self) -> None:
        configured_keys.sync()
        generation = accepted(make_task())
        ProviderAccount.objects.filter(provider="kling").update(closed_reason="out_of_credits")
        found = overview.read()
        row = next(one for one in found.accounts if one.model == "gen4.5")
        assert (row.live, row.open, row.free, row.state) == (1, True, row.limit - 1, "open")
        assert row.account == generation.account.account
        kling = next(one for one in found.accounts if one.provider == "kling")
        assert (kling.open, kling.free, kling.state) == (False, 0, "closed: out of credits")

    def test_a_cool_down_that_is_over_is_none(self) -> None:
        configured_keys.sync()
        set_cooldown(-5)
        assert all(one.cooldown_s is None for one in overview.read().accounts)
        set_cooldown(50)
        row = overview.read().accounts[0]
        assert row.cooldown_s is not None
        assert 0 < row.cooldown_s <= 50
        assert (row.open, row.free, row.state) == (False, 0, "cools down")

    def test_keys_that_are_not_configured_are_not_shown_unless_jobs_hang_on_them(self) -> None:
        configured_keys.sync()
        ProviderKey.objects.create(provider="runway", fingerprint="old", account="old")
        gone = ProviderKey.objects.create(provider="runway", fingerprint="gone", account="gone")
        ProviderKey.objects.filter(pk=gone.pk).update(gone_since="2026-01-01T00:00:00Z")
        names = {one.fingerprint for one in overview.read().keys}
        assert "gone" in names
        assert "old" not in names

    def test_a_circuit_by_its_state(self) -> None:
        model = catalogue.MODELS[0]
        for _ in range(5):
            health.note_fault(model.id, model.provider, "HTTP 500")
        (one,) = overview.read().circuits
        assert (one.model, one.state, one.faults) == (model.id, "open", 5)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_circuit SET open_until = statement_timestamp() - interval '1 second'")
        assert overview.read().circuits[0].state == "half_open"
        assert health.take_probe(model.id)
        assert overview.read().circuits[0].state == "probing"
        Circuit.objects.update(open_until=None, probing_since=None)
        assert overview.read().circuits[0].state == "closed"

    def test_a_circuit_that_keeps_out_one_user(self) -> None:
        model = catalogue.MODELS[0]
        for _ in range(5):
            health.note_fault(model.id, model.provider, "HTTP 500", 7)
        found = overview.read()
        assert found.circuits[0].state == "one_user"
        said = " ".join(problem.sentence for problem in found.problems)
        assert "of the one user whose jobs failed" in said
        health.note_fault(model.id, model.provider, "HTTP 500", 8)
        assert overview.read().circuits[0].state == "open"


def set_cooldown(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_provideraccount SET cooldown_until = statement_timestamp() + %s * interval '1 second'",
            [seconds],
        )


class TestTrouble:
    @pytest.fixture(autouse=True)
    def _all_there(self) -> Iterator[None]:
        configured_keys.sync()
        everybody()
        return

    def test_none_in_a_healthy_system(self) -> None:
        accepted(make_task())
        assert codes() == []

    def test_nobody_works(self) -> None:
        sign("two:1", "videoQueue", age_s=300)
        overview.read()  # a dead one beside a living one is no trouble
        assert codes() == []
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_workersign SET seen_at = seen_at - interval '100 seconds'")
        found = overview.read()
        assert [one.code for one in found.problems] == ["no_sweeper", "no_worker", "no_worker"]
        assert found.needs_person
        assert "one:2, was seen 1 min " in found.problems[1].sentence

    def test_a_worker_that_stops_does_not_count(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_workersign SET draining = true WHERE queues = 'mediaQueue'")
        (one,) = overview.read().problems
        assert one.code == "no_worker"
        assert "about to stop" in one.sentence

    def test_webhooks_wait_and_nobody_sends_them(self) -> None:
        task = make_task(webhook_url="https://example.com/hook")
        cancel.cancel(task.pk, by=Unaudited("its owner"))
        (one,) = overview.read().problems
        assert (one.code, one.needs_person) == ("no_worker", True)
        assert one.sentence == "1 webhook is due, and no worker takes work from webhookQueue."
        sign("one:4", "webhookQueue")
        assert codes() == []

    def test_due_and_unheard(self) -> None:
        task = make_task()
        admitted(task)
        age(task.pk, 50)
        assert codes() == []
        age(task.pk, 50)
        (one,) = overview.read().problems
        assert (one.code, one.needs_person) == ("unheard", True)
        assert "1 in generate are due, the oldest for 1 min " in one.sentence

    def test_due_while_others_move_is_only_slow(self) -> None:
        late = make_task()
        admitted(late)
        age(late.pk, 100)
        assert codes() == ["unheard"]
        accepted(make_task())
        assert codes() == ["behind"]

    def test_due_while_all_threads_are_at_work_is_only_slow(self) -> None:
        tasks = [make_task() for _ in range(3)]
        for number, task in enumerate(tasks):
            to_transcode(task, f"job-{number}")
        for task in tasks[:2]:
            claimed(task, Stage.TRANSCODE)
        age(tasks[2].pk, 100)
        (one,) = overview.read().problems
        assert (one.code, one.needs_person) == ("behind", False)
        assert "2 of 2 threads are at work" in one.sentence

    def test_a_full_disk_is_said_once_a_system(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_workersign SET disk_low = true, disk_free_bytes = 300000000")
        (one,) = overview.read().problems
        assert (one.code, one.needs_person) == ("disk_low", True)
        assert "0.3 GB" in one.sentence

    @pytest.mark.parametrize("code", ["storage_down", "storage_refused"])
    def test_a_storage_that_tasks_wait_for(self, code: str) -> None:
        for number in range(2):
            task = make_task()
            to_transcode(task, f"job-{number}")
            claim = claimed(task, Stage.TRANSCODE)
            assert park_one(claim, delay_s=60, reason="the storage answered", error_code=code)
        (one,) = overview.read().problems
        assert (one.code, one.needs_person) == (code, True)
        assert "2 tasks can't store or read a file" in one.sentence

    def test_keys_and_accounts(self) -> None:
        key = ProviderKey.objects.filter(provider="kling").get()
        ProviderKey.objects.filter(pk=key.pk).update(state="quarantined")
        ProviderAccount.objects.filter(provider="pika").update(closed_reason="out_of_credits")
        ProviderAccount.objects.filter(model="gen4.5").update(closed_reason="model_forbidden")
        found = {one.code: one for one in overview.read().problems}
        assert set(found) == {"key_refused", "account_closed"}
        assert codes().count("account_closed") == 2  # one account with all its models, and one model
        assert "simulator" in found["key_refused"].sentence
        make_task()
        ProviderAccount.objects.update(closed_reason="out_of_credits")
        assert "nothing_open" in codes(needs_person=True)

    def test_a_gone_key(self) -> None:
        generation = accepted(make_task())
        ProviderKey.objects.filter(fingerprint=generation.key_fingerprint).update(gone_since="2026-01-01T00:00:00Z")
        sentences = [one.sentence for one in overview.read().problems if one.code == "key_gone"]
        assert any("runway is gone from the settings while 1 job hangs on it" in sentence for sentence in sentences)

    def test_an_open_circuit_and_an_open_case_need_nobody(self) -> None:
        model = catalogue.MODELS[-1]
        for _ in range(5):
            health.note_fault(model.id, model.provider, "HTTP 500")
        task = make_task()
        generation = admitted(task)
        claim = claimed(task)
        assert records.mark_sent(claim, generation)
        records.record_unknown(generation.pk)
        assert task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.")
        found = overview.read()
        assert {one.code for one in found.problems} == {"circuit_open", "open_cases"}
        assert not found.needs_person
        assert "simulated) at stake" in next(one for one in found.problems if one.code == "open_cases").sentence

    def test_more_failures_than_videos(self) -> None:
        for number in range(problems.FEWEST_FAILED):
            assert codes(needs_person=True) == []
            task = make_task()
            accepted(task, f"job-{number}")
            assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
        one, _ = overview.read().problems  # their jobs are still open at the provider
        assert one.code == "many_failures"
        assert "5 tasks failed in the last five minutes and 0 were finished; most failed in poll" in one.sentence

    def test_failures_that_nobody_understands_need_a_person_until_they_are_decided(self) -> None:
        for signature in ("one", "two", "two"):
            error = JobFailed("x", another_model_could=True, is_known=False, signature=signature)
            generation = accepted(make_task(), f"job-{Generation.objects.count()}")
            observe.note(generation, JobStatus(JobState.FAILED, "FAILED", error=error))
        (found,) = (one for one in overview.read().problems if one.code == "failure_not_understood")
        assert found.needs_person
        assert found.sentence == "2 failure texts of runway are not understood; 3 jobs ended so."
        for row in FailureText.objects.all():
            failure_texts.decide(row.pk, "failed", by=OLGA)
        assert "failure_not_understood" not in codes()

    def test_what_needs_a_person_comes_first(self) -> None:
        model = catalogue.MODELS[0]
        for _ in range(5):
            health.note_fault(model.id, model.provider, "HTTP 500")
        TaskEvent.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM video_workersign WHERE kind = 'sweeper'")
        assert codes() == ["no_sweeper", "circuit_open"]


def to_transcode(task: VideoTask, job_id: str) -> None:
    generation = accepted(task, job_id)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED, provider_status="SUCCEEDED")
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE)


def test_the_whole_costs_as_many_statements_for_many_as_for_none(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    configured_keys.sync()
    with django_assert_max_num_queries(17) as captured:
        overview.read()
    few = len(captured.captured_queries)
    fill()
    with django_assert_max_num_queries(few):
        overview.read()


def fill() -> None:
    """Something in every part."""
    everybody()
    user = make_user()
    for number in range(6):
        task = make_task(user)
        accepted(task, f"job-{number}")
        if number % 2:
            assert park_one(claimed(task, Stage.POLL), delay_s=60, reason="runway: running")
        else:
            assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
        make_task(user)
    for model in catalogue.MODELS[:2]:
        for _ in range(5):
            health.note_fault(model.id, model.provider, "HTTP 500")
