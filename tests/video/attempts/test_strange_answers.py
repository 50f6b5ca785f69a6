"""Whatever a provider answers, it is written down or refused for its own task, and no neighbour in a batch suffers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import HttpReply, HttpRequest, JobState, JobStatus, Submitted
from providers.errors import Busy, ProviderDown, SubmissionUnknown
from providers.untrusted import LARGEST_COST
from tests.factories import accepted, admitted, age, claimed, live, make_task, reload
from tests.providers.strange import REPLIES, TEXTS
from video.actions import cancel
from video.attempts import clamped, observe, poll_records, provider_calls, reconcile, records
from video.audit.actors import Unaudited
from video.engine import claims, transitions
from video.engine.outcomes import LONGEST_WAIT_S, Park
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, TaskEvent, VideoTask
from video.pipeline import runner

pytestmark = pytest.mark.django_db

MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo"}
RUNS = {
    "runway": b'{"id": "%s", "status": "RUNNING"}',
    "pika": b'{"request_id": "%s", "status": "IN_PROGRESS"}',
    "kling": b'{"code": 0, "data": [{"id": "%s", "status": "processing"}]}',
}
FLOATS = st.one_of(st.floats(), st.sampled_from([1e308, -1e308, math.inf, math.nan]))
EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    provider_calls._paused_until.clear()
    yield
    provider_calls._paused_until.clear()


@contextmanager
def undone() -> Iterator[None]:
    """What an answer closes, and the slots that it takes, are as before afterwards."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def in_poll(model: str, number: int = 1) -> list[VideoTask]:
    tasks = [make_task(model_requested=model) for _ in range(number)]
    for task in tasks:
        accepted(task, f"job-{task.pk}")
    return tasks


def is_settled(task: VideoTask) -> bool:
    """Whether its worker left it with a word: the next one does not find a crash."""
    row = reload(task)
    return row.lease_until is None and row.deaths == 0


@pytest.mark.parametrize("provider", MODELS)
def test_a_strange_answer_to_one_poll_leaves_its_neighbours_as_they_are(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """Each job is asked about by a request of its own here; the adapters read the answers."""
    before, after = in_poll(MODELS[provider], 2)
    monkeypatch.setattr(type(toolkit().provider(provider)), "jobs_per_poll", lambda self, key: 1)

    @EXAMPLES
    @given(reply=REPLIES)
    @undone()
    def holds(reply: HttpReply) -> None:
        (strange,) = in_poll(MODELS[provider])

        def read_many(wanted: Sequence[HttpRequest], *, deadline_s: float) -> list[HttpReply | ProviderDown]:
            if len(wanted) != 3:  # the results of those that are ready
                return [reply for _ in wanted]
            good = [HttpReply(200, {}, RUNS[provider] % f"job-{task.pk}".encode()) for task in (before, after)]
            return [
                good[0] if before.pk in _said(one) else good[1] if after.pk in _said(one) else reply for one in wanted
            ]

        provider_calls._paused_until.clear()
        monkeypatch.setattr(toolkit().batch_reader(provider), "read_many", read_many, raising=False)
        for task in (before, after):
            age(task.pk)
        polls = Generation.objects.get(task=before).polls
        runner.run_batch([before.pk, strange.pk, after.pk])
        assert all(map(is_settled, (before, strange, after)))
        for task in (before, after):
            row = reload(task)
            assert (row.status, row.stage, Generation.objects.get(task=task).polls) == ("running", "poll", polls + 1)
        row = reload(strange)
        if row.next_run_at is not None:
            assert row.claimed_at is not None
            assert (row.next_run_at - row.claimed_at).total_seconds() <= provider_calls.LONGEST_PAUSE_S + 60

    holds()


def _said(request: HttpRequest) -> str:
    return f"{request.url} {request.params}"


@pytest.mark.parametrize("provider", MODELS)
def test_a_strange_answer_to_a_submit_is_settled_like_any_other(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    @EXAMPLES
    @given(reply=REPLIES)
    @undone()
    def holds(reply: HttpReply) -> None:
        task = make_task(model_requested=MODELS[provider])
        monkeypatch.setattr(
            provider_calls.Submission,
            "send",
            lambda self: self._provider.parse_submit(reply),
        )
        admitted(task)
        runner.run_stage(Stage.GENERATE, task.pk)
        assert is_settled(task)
        assert Generation.objects.get(task=task).state != "planned"

    holds()


@EXAMPLES
@given(
    delay_s=FLOATS,
    hint_delay_s=FLOATS,
    progress=st.integers(),
    reason=TEXTS,
    owner_detail=TEXTS,
    code=TEXTS,
    error_code=TEXTS,
)
def test_any_park_is_written_and_its_neighbour_too(**fields: object) -> None:
    good, strange = in_poll(MODELS["runway"], 2)
    park = Park(**fields)  # type: ignore[arg-type]
    held = [(claimed(good, Stage.POLL), Park(5, "rendering")), (claimed(strange, Stage.POLL), park)]
    assert claims.park(held) == {good.pk, strange.pk}
    row = reload(strange)
    assert row.next_run_at is not None
    assert row.claimed_at is not None
    assert 0 <= (row.next_run_at - row.claimed_at).total_seconds() <= LONGEST_WAIT_S + 60
    assert 0 <= row.progress <= 99


@EXAMPLES
@given(word=TEXTS, progress=st.one_of(st.none(), FLOATS, st.integers(), st.just(10**400)))
def test_any_poll_is_written_and_its_neighbour_too(word: str, progress: float | None) -> None:
    good, strange = (Generation.objects.get(task=task) for task in in_poll(MODELS["runway"], 2))
    said = [
        (good.pk, JobStatus(JobState.RUNNING, "RUNNING", 0.5)),
        (strange.pk, JobStatus(JobState.RUNNING, word, progress)),
    ]
    poll_records.record_polls(said)
    for generation in (good, strange):
        generation.refresh_from_db()
    assert (good.provider_status, good.provider_progress, strange.polls) == ("RUNNING", 0.5, 1)
    assert strange.provider_progress is None or 0 <= strange.provider_progress <= 1


@EXAMPLES
@given(progress=st.integers())
def test_any_progress_is_renewed_with_the_lease(progress: int) -> None:
    good, strange = (claimed(task, Stage.POLL) for task in in_poll(MODELS["runway"], 2))
    strange.progress = progress
    assert len(claims.renew_leases([good, strange])) == 2


@EXAMPLES
@given(code=TEXTS, message=TEXTS, detail=TEXTS)
def test_any_end_is_written(code: str, message: str, detail: str) -> None:
    (task,) = in_poll(MODELS["runway"])
    assert transitions.fail(claimed(task, Stage.POLL), code=code or "x", message=message, detail=detail)
    assert reload(task).error_message


def answering(monkeypatch: pytest.MonkeyPatch, status: JobStatus) -> None:
    """Runway's adapter lets this through, whatever was answered."""
    read = lambda self, reply, jobs: {jobs[0].job_id: status}  # noqa: E731
    monkeypatch.setattr(type(toolkit().provider("runway")), "read_poll", read)
    reader = toolkit().batch_reader("runway")
    monkeypatch.setattr(reader, "read_many", lambda wanted, deadline_s: [HttpReply(200) for _ in wanted], raising=False)


def warnings_of(task: VideoTask) -> list[str]:
    """What operators read of amounts, and the owner does not."""
    found = TaskEvent.objects.filter(task=task, error_code=clamped.CODE)
    assert set(found.values_list("owner_detail", flat=True)) <= {""}
    return list(found.order_by("id").values_list("detail", flat=True))


BEYOND = "runway told a {} beyond all bounds: the largest that is kept was noted instead"
COSTS = {
    "1E+8": LARGEST_COST,
    "99999999.99995": LARGEST_COST,
    "1E+400": LARGEST_COST,
    "Infinity": LARGEST_COST,
    "99999999.9999": LARGEST_COST,
    **dict.fromkeys(["NaN", "sNaN", "-Infinity", "-1"]),
    "-0": Decimal(0),
}


@pytest.mark.parametrize("cost", COSTS)
def test_a_cost_beyond_its_column_is_its_bound_with_a_warning_and_what_is_no_amount_is_not_told(
    monkeypatch: pytest.MonkeyPatch, cost: str, caplog: pytest.LogCaptureFixture
) -> None:
    (task,) = in_poll(MODELS["runway"])
    status = JobStatus(
        JobState.SUCCEEDED, "SUCCEEDED", cost=Decimal(cost), result_url="https://example.com/a.mp4", progress=math.nan
    )
    answering(monkeypatch, status)
    runner.run_stage(Stage.POLL, task.pk)
    generation = Generation.objects.get(task=task)
    assert (generation.state, reload(task).stage) == ("succeeded", "download")
    assert generation.reported_cost == COSTS[cost]
    is_clamped = COSTS[cost] == LARGEST_COST != Decimal(cost)
    assert warnings_of(task) == ([BEYOND.format("cost")] if is_clamped else [])
    assert (f"{generation.pk}: {BEYOND.format('cost')}" in caplog.messages) == is_clamped


def test_progress_beyond_its_end_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that counts percent where it told shares."""
    (task,) = in_poll(MODELS["runway"])
    answering(monkeypatch, JobStatus(JobState.RUNNING, "RUNNING", progress=42.0))
    for _ in range(3):
        age(task.pk)
        runner.run_stage(Stage.POLL, task.pk)
    assert Generation.objects.get(task=task).provider_progress == 1
    assert warnings_of(task) == [BEYOND.format("progress")]
    assert is_settled(task)


@pytest.mark.parametrize("told", ["1e400", "Infinity", "100000000", '"' + "9" * 5000 + '"', "1" + "0" * 5000])
def test_an_expected_cost_beyond_its_column_loses_no_paid_job(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    task = make_task(model_requested=MODELS["runway"])
    body = f'{{"id": "job-9", "estimatedCost": {{"credits": {told}}}}}'.encode()
    monkeypatch.setattr(toolkit().sender("runway"), "submit", lambda *a, **k: HttpReply(200, {}, body), raising=False)
    generation = admitted(task)
    runner.run_stage(Stage.GENERATE, task.pk)
    generation.refresh_from_db()
    assert (generation.state, generation.job_id, generation.expected_cost) == ("accepted", "job-9", LARGEST_COST)
    assert warnings_of(task) == [BEYOND.format("expected cost")]


JOB_IDS = ["", "  ", "a\0b", "\ud800", "x" * 121, "a b", "a\u202eb", "a\u200bb", ".", "..", "\x1b[31m", "x" * 1_000_000]


@pytest.mark.parametrize("job_id", JOB_IDS, ids=range(len(JOB_IDS)))
@pytest.mark.parametrize("provider", MODELS)
def test_a_job_id_that_no_row_holds_leaves_the_outcome_unknown(provider: str, job_id: str) -> None:
    """In one place for all adapters, whatever they read."""
    adapter = toolkit().provider(provider)

    class Careless(type(adapter)):  # type: ignore[misc]
        def read_submit(self, reply: HttpReply) -> Submitted:
            return Submitted(job_id)

        def read_lookup(self, reply: HttpReply, reference: str) -> Submitted:
            return Submitted(job_id)

    careless = Careless(adapter.base_url)
    with pytest.raises(SubmissionUnknown, match="without a job id that a row holds"):
        careless.parse_submit(HttpReply(200))
    with pytest.raises(ProviderDown):
        careless.parse_lookup(HttpReply(200), "gen_1")


def test_what_a_submit_says_beside_its_id_can_fail_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {"status": "https://example.com/\0", "cancel": "https://example.com/c"}
    runway = toolkit().provider("runway")
    told = Submitted(" job-1 ", urls, Decimal("1E+12"))
    monkeypatch.setattr(type(runway), "read_submit", lambda self, reply: told)
    assert runway.parse_submit(HttpReply(200)) == Submitted(
        "job-1", {"cancel": "https://example.com/c"}, LARGEST_COST, clamped=("expected cost",)
    )


def test_an_answer_with_the_job_of_another_attempt_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache on the way gave an older answer once more."""
    first = make_task()
    accepted(first, "job-1")
    second = make_task()
    generation = admitted(second)
    monkeypatch.setattr(provider_calls.Submission, "send", lambda self: Submitted("job-1"))
    runner.run_stage(Stage.GENERATE, second.pk)
    generation.refresh_from_db()
    assert (generation.state, generation.job_id) == ("unknown", "")
    assert reload(second).error_code == "outcome_unknown"
    assert live(first.pk) is not None


def test_a_poll_that_fails_with_any_wait_is_asked_again_within_minutes() -> None:
    assert [provider_calls.asked_wait_s(Busy("429", retry_after_s=one)) for one in (None, math.nan, -1, 7, 1e308)] == [
        *(0, 0, 0, 7, provider_calls.LONGEST_PAUSE_S),
    ]


def test_a_look_up_that_names_the_job_of_another_attempt_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(make_task(), "job-1")
    generation = admitted(make_task(model_requested=MODELS["kling"]))
    Generation.objects.filter(task__generations__job_id="job-1").update(provider="kling")
    task = generation.task
    assert records.mark_sent(claimed(task), generation)
    monkeypatch.setattr(provider_calls, "look_up", lambda generation: Submitted("job-1"))
    with pytest.raises(ProviderDown, match="another attempt"):
        observe.look_up(generation)


def test_a_check_that_fails_keeps_no_other_attempt_from_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = in_poll(MODELS["runway"], 3)
    for task in tasks:
        assert cancel.cancel(task.pk, by=Unaudited("its user")).changed
    checked: list[str] = []

    def check(generation: Generation) -> None:
        checked.append(generation.task_id)
        if len(checked) == 1:
            raise ZeroDivisionError

    monkeypatch.setattr(reconcile, "check", check)
    assert reconcile.reconcile() == 3
    assert set(checked) == {task.pk for task in tasks}


def test_an_adapter_that_leaves_a_job_out_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    told, left_out = in_poll(MODELS["kling"], 2)
    runs = JobStatus(JobState.RUNNING, "processing")
    kling = type(toolkit().provider("kling"))
    monkeypatch.setattr(kling, "parse_poll", lambda self, reply, jobs: {f"job-{told.pk}": runs})
    monkeypatch.setattr(
        toolkit().batch_reader("kling"),
        "read_many",
        lambda wanted, deadline_s: [HttpReply(200) for _ in wanted],
        raising=False,
    )
    runner.run_batch([told.pk, left_out.pk])
    assert Generation.objects.get(task=told).provider_status == "processing"
    assert Generation.objects.get(task=left_out).poll_errors == 1
    assert is_settled(told)
    assert is_settled(left_out)
