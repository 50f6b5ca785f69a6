"""Claims and parks: what one task gets alone, many get together, in a fixed number of statements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from providers.contract import HttpReply, HttpRequest, JobState, JobStatus
from providers.errors import Busy, JobFailed, JobNotFound, ProviderDown
from tests.factories import accepted, age, claimed, make_task, park_one, reload
from video.attempts import poll_statistics, provider_calls, task_moves
from video.engine import claims, due, transitions
from video.engine.due import BATCH_SIZE, Due
from video.engine.outcomes import Park
from video.infra.toolkit import toolkit
from video.models import Circuit, Generation, Stage, TaskEvent, VideoTask
from video.pipeline import runner

pytestmark = pytest.mark.django_db

RUNS = JobStatus(JobState.RUNNING, "RUNNING")


@pytest.fixture(autouse=True)
def _no_rests() -> Iterator[None]:
    provider_calls._paused_until.clear()
    yield
    provider_calls._paused_until.clear()


def rendering(count: int, model: str = "gen4.5") -> list[VideoTask]:
    """Tasks whose jobs are at the provider, due in poll."""
    tasks = [make_task(model_requested=model) for _ in range(count)]
    for task in tasks:
        accepted(task, f"job-{task.pk}")
    return tasks


def answering(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, provider_calls.PollAnswer] | None = None
) -> list[list[str]]:
    """Looks are answered so, by task; RUNS for the rest. Returns the tasks of each look."""
    asked: list[list[str]] = []

    def look(group: list[Generation]) -> dict[str, provider_calls.PollAnswer]:
        asked.append([one.task_id for one in group])
        return {one.pk: (said or {}).get(one.task_id, RUNS) for one in group}

    monkeypatch.setattr(provider_calls, "_poll_with_one_key", look)
    return asked


def fields(task: VideoTask) -> dict[str, object]:
    """What a move may have written, without ids and times."""
    row = reload(task)
    names = ("status", "stage", "progress", "fence", "park_reason", "tries", "deaths", "claimed_by", "error_code")
    clocks = ("next_run_at", "lease_until", "claimed_at", "rung_at", "hinted_at")
    return {name: getattr(row, name) for name in names} | {name: getattr(row, name) is not None for name in clocks}


def test_a_wave_claims_and_parks_as_a_task_alone_is_claimed_and_parked() -> None:
    alone, one, other = rendering(3)
    single = claimed(alone, Stage.POLL)
    held = claims.claim(Stage.POLL, [one.pk, other.pk])
    assert {claim.task.pk for claim in held} == {one.pk, other.pk}
    assert fields(one) == fields(other) == fields(alone)
    park = Park(60, "runway: running", progress=30, hint_delay_s=5)
    assert runner.apply(single, park)
    assert claims.park([(claim, park) for claim in held]) == {one.pk, other.pk}
    assert fields(one) == fields(other) == fields(alone)
    events = [
        list(TaskEvent.objects.filter(task=task).values_list("stage", "outcome", "detail", "fence"))
        for task in (alone, one)
    ]
    assert events[0] == events[1]


@pytest.mark.parametrize("why", ["held", "not due", "in another stage", "ended", "not there"])
def test_a_wave_takes_only_what_is_due_and_free(why: str) -> None:
    free, other = rendering(2)
    ids = [free.pk, other.pk]
    if why == "held":
        claimed(other, Stage.POLL)
    elif why == "not due":
        park_one(claimed(other, Stage.POLL), delay_s=60, reason="later")
    elif why == "in another stage":
        transitions.advance(claimed(other, Stage.POLL), Stage.DOWNLOAD)
    elif why == "ended":
        task_moves.fail(claimed(other, Stage.POLL), code="timeout", message="Too long.")
    else:
        ids = [free.pk, "task_nobody"]
    assert [claim.task.pk for claim in claims.claim(Stage.POLL, ids)] == [free.pk]


def test_who_lost_a_task_of_a_wave_parks_the_others_only() -> None:
    kept, lost = rendering(2)
    held = claims.claim(Stage.POLL, [kept.pk, lost.pk])
    age(lost.pk)
    newer = claimed(lost, Stage.POLL)
    assert claims.park([(claim, Park(60, "late")) for claim in held]) == {kept.pk}
    assert reload(lost).fence == newer.fence
    assert reload(lost).lease_until is not None


def test_a_hint_that_came_during_the_look_makes_that_task_due_soon() -> None:
    hinted, other = rendering(2)
    held = claims.claim(Stage.POLL, [hinted.pk, other.pk])
    assert due.hint(hinted.pk)
    claims.park([(claim, Park(600, "running", hint_delay_s=0)) for claim in held])
    assert [claim.task.pk for claim in claims.claim(Stage.POLL, [hinted.pk, other.pk])] == [hinted.pk]


def test_a_wave_where_nothing_changed_costs_as_many_statements_for_forty_as_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch)
    many, (alone,) = rendering(40), rendering(1)
    ids = [task.pk for task in many]
    runner.run_batch([*ids, alone.pk])  # what is usual is measured, the first word of the provider is recorded
    costs, events = [], TaskEvent.objects.count()
    for wave in ([alone.pk], ids):
        for task_id in wave:
            age(task_id)
        with CaptureQueriesContext(connection) as captured:
            assert runner.run_batch(wave) == []
        costs.append(len(captured))
    assert costs == [3, 3]
    assert TaskEvent.objects.count() == events
    assert set(Generation.objects.values_list("polls", flat=True)) == {2}
    assert not claims.claim(Stage.POLL, ids)


def test_an_outage_costs_no_statement_a_job_either(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = rendering(30)
    down = {task.pk: ProviderDown("503") for task in tasks}
    answering(monkeypatch, dict(down))
    poll_statistics.next_look_s(Generation.objects.all()[0], 0)
    with CaptureQueriesContext(connection) as captured:
        runner.run_batch(list(down))
    assert len(captured) <= 4 + 5  # five faults open the circuit; more are not counted
    assert Circuit.objects.get().open_until is not None
    assert set(Generation.objects.values_list("poll_errors", flat=True)) == {1}
    assert {task.status for task in VideoTask.objects.all()} == {"running"}


def test_each_job_of_a_wave_gets_what_its_own_answer_means(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, done, failed, lost, down, odd = rendering(6)
    answering(
        monkeypatch,
        {
            done.pk: JobStatus(JobState.SUCCEEDED, "SUCCEEDED"),
            failed.pk: JobStatus(JobState.FAILED, "FAILED", error=JobFailed("x", another_model_could=False)),
            lost.pk: JobNotFound("404"),
            down.pk: ProviderDown("503"),
            odd.pk: ZeroDivisionError(),  # a reply that the adapter stumbles over
        },
    )
    tasks = (runs, done, failed, lost, down, odd)
    assert runner.run_batch([task.pk for task in tasks]) == [done.pk]
    stands = {task: (reload(task).status, reload(task).stage) for task in tasks}
    assert stands[done] == ("running", "download")
    assert stands[failed] == ("failed", "poll")
    assert {stands[task] for task in (runs, lost, down, odd)} == {("running", "poll")}
    assert reload(odd).tries == 1
    assert not VideoTask.objects.exclude(lease_until=None).exists()


def test_a_task_that_kills_workers_is_set_aside_without_a_look_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadly, other = rendering(2)
    asked = answering(monkeypatch)
    VideoTask.objects.filter(pk=deadly.pk).update(deaths=claims.MAX_CRASHED_CLAIMS)
    runner.run_batch([deadly.pk, other.pk])
    assert asked == [[other.pk]]
    assert (reload(deadly).status, reload(deadly).error_code) == ("failed", "worker_lost")
    assert reload(other).deaths == 0


def test_waves_are_made_by_account_and_who_saw_a_worker_die_goes_alone() -> None:
    polls = [Due(f"a{number}", Stage.POLL, 1, False) for number in range(BATCH_SIZE + 1)]
    polls += [Due("b", Stage.POLL, 2, False), Due("c", Stage.POLL, 1, True), Due("d", Stage.POLL, 2, False)]
    found = [task_ids for stage, task_ids in due.in_batches(polls) if stage is Stage.POLL]
    assert sorted(len(batch) for batch in found) == [1, 1, 2, BATCH_SIZE]
    assert ["b", "d"] in found
    assert ["c"] in found


def test_the_sweeper_rings_a_due_poll_once_in_ten_seconds() -> None:
    first, second = rendering(2), rendering(1, "pika-2.2")
    for task in first + second:
        age(task.pk, 60)
    found = due.enqueue_due(10)
    assert {stage for stage, _ in found} == {Stage.POLL}
    assert sorted(sorted(batch) for _, batch in found) == sorted([sorted(task.pk for task in first), [second[0].pk]])
    assert due.enqueue_due(10) == []
    age(first[0].pk, 60)
    assert due.enqueue_due(10) == [(Stage.POLL, [first[0].pk])]
    assert due.enqueue_due(10) == []


def test_downloads_are_rung_first_and_the_one_whose_video_dies_first_before_all() -> None:
    late, soon, never, poll = rendering(4)
    for task, dies_at in ((late, "2031-01-01T00:00:00Z"), (soon, "2030-01-01T00:00:00Z"), (never, None)):
        transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
        Generation.objects.filter(task=task).update(result_dies_at=dies_at)
    other = make_task()
    accepted(other, "other")
    transitions.advance(claimed(other, Stage.POLL), Stage.DOWNLOAD)
    thumbnail = claimed(other, Stage.DOWNLOAD)
    transitions.advance(thumbnail, Stage.TRANSCODE)
    VideoTask.objects.filter(pk=other.pk).update(stage="thumbnail")
    for task in (late, soon, never, poll, other):
        age(task.pk, 60)
    found = due.enqueue_due(10, [stage for stage in due.BY_SWEEPER if stage is not Stage.POLL])
    assert [task_ids for _, task_ids in found] == [[soon.pk], [late.pk], [never.pk], [other.pk]]


class Reader:
    """A provider that answers waves as a test says; counts requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reply: HttpReply | ProviderDown) -> None:
        self.reply = reply
        self.waves: list[int] = []
        monkeypatch.setattr(toolkit(), "batch_reader", lambda name: self)

    def read_many(self, wanted: list[HttpRequest], *, deadline_s: float) -> list[HttpReply | ProviderDown]:
        if wanted:
            self.waves.append(len(wanted))
        return [self.reply] * len(wanted)


def test_kling_is_asked_for_twenty_jobs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = rendering(45, "kling-2.6")
    reader = Reader(monkeypatch, HttpReply(200, {}, b'{"code": 0, "data": []}'))
    runner.run_batch([task.pk for task in tasks])
    assert reader.waves == [3]
    assert set(Generation.objects.values_list("not_found", flat=True)) == {1}


def test_who_is_told_too_many_for_one_job_asks_for_none_of_that_key_for_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks, others = rendering(3), rendering(2)
    reader = Reader(monkeypatch, HttpReply(429, {"retry-after": "60"}, b"{}"))
    runner.run_batch([task.pk for task in tasks])
    runner.run_batch([task.pk for task in others])
    assert reader.waves == [3]
    assert not claims.claim(Stage.POLL, [task.pk for task in tasks + others])
    assert "left alone" in reload(others[0]).park_reason
    with pytest.raises(Busy):  # who is not in a wave still asks
        provider_calls.poll(Generation.objects.get(task=tasks[0]))


def test_a_wave_that_nobody_answered_spares_the_next_one_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many, others = rendering(2), rendering(provider_calls.FEWEST_FOR_OUT_OF_REACH), rendering(1)
    reader = Reader(monkeypatch, ProviderDown("the time was over"))
    for tasks in (few, many, others):
        runner.run_batch([task.pk for task in tasks])
    assert reader.waves == [2, len(many)]  # two alone prove nothing
    assert Generation.objects.get(task=others[0]).poll_errors == 0
    assert reload(others[0]).status == "running"


def test_a_finished_job_of_fal_is_followed_to_its_result_in_the_same_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = rendering(1, "pika-2.2")
    asked: list[str] = []

    def read_many(wanted: list[HttpRequest], *, deadline_s: float) -> list[HttpReply]:
        asked.extend(request.url for request in wanted)
        done = b'{"video": {"url": "https://cdn.example/v.mp4"}}'
        return [
            HttpReply(200, {}, b'{"status": "COMPLETED"}' if "/status" in request.url else done) for request in wanted
        ]

    monkeypatch.setattr(toolkit(), "batch_reader", lambda name: type("R", (), {"read_many": staticmethod(read_many)}))
    assert runner.run_batch([task.pk]) == [task.pk]
    assert len(asked) == 2
    assert reload(task).stage == "download"


def test_a_wait_that_repeats_itself_is_recorded_once() -> None:
    """What it is called decides, not its words: they may hold a time or a number that changes."""
    (task,) = rendering(1)

    def parked(code: str, reason: str) -> int:
        assert park_one(claimed(task, Stage.POLL), delay_s=0, reason=reason, code=code)
        return TaskEvent.objects.filter(task=task, outcome=TaskEvent.Outcome.PARKED).count()

    assert parked("key_gone", "key 0001 is gone") == 1
    assert parked("key_gone", "key 0001 is gone for a minute") == 1
    assert parked("provider_paused", "left alone") == 2
    assert parked("key_gone", "key 0001 is gone") == 3
    assert parked("", "RUNNING") == 4  # a park without a code is an event of its own
    assert parked("key_gone", "key 0001 is gone") == 5
