"""A failure that no adapter knows asks no other vendor, is listed, and means what an operator says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from providers import errors
from providers.contract import JobState, JobStatus
from providers.errors import JobFailed
from tests.factories import OLGA, accepted, claimed, make_task, make_user, reload
from video.actions import cancel
from video.attempts import failure_texts, observe, provider_calls, task_moves
from video.attempts.failure_texts import ECHO, NO_TEXT, OTHER, DecisionRefused, hide_echo
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import Circuit, FailureText, Generation, Stage, VideoTask
from video.pipeline import runner

pytestmark = pytest.mark.django_db
PROMPT = "A lighthouse in a storm, seen from the sea"
Meaning = FailureText.Meaning


def unknown(message: str = "Runway: odd (NEW.CODE)", signature: str = "runway new.code") -> JobStatus:
    """A job's end with words that are in no table."""
    error = JobFailed(message, another_model_could=True, is_known=False, signature=signature)
    return JobStatus(JobState.FAILED, "FAILED", error=error)


Ends = Callable[[JobStatus], None]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """From now on the provider answers each look so."""

    def set_answer(answer: JobStatus) -> None:
        monkeypatch.setattr(provider_calls, "_poll_with_one_key", lambda group: {one.pk: answer for one in group})

    return set_answer


def after_a_look(**order: object) -> VideoTask:
    """A task that may fall back, after the look at its first job."""
    task = make_task(prompt=PROMPT, fallback=True, **order)
    accepted(task, f"job-{task.pk}")
    runner.run_stage(Stage.POLL, task.pk)
    return reload(task)


def only() -> FailureText:
    return FailureText.objects.get()


# --- what a task does ----------------------------------------------------------------------------------------------


def test_not_decided_the_task_ends_with_its_refund_and_asks_nobody_else(ends: Ends) -> None:
    ends(unknown())
    task = after_a_look()
    assert (task.status, task.stage, task.error_code) == ("failed", "poll", "generation_failed")
    assert task.error_message == "The video provider could not make this video."
    assert ledger.balance(task.user_id) == 1000
    (attempt,) = Generation.objects.filter(task=task)
    assert (attempt.state, attempt.another_model_could) == ("failed", False)
    assert "not understood" in task.events.get(outcome="failed").detail
    assert not Circuit.objects.exclude(faults=0).exists()
    row = only()
    assert (row.provider, row.signature, row.count, row.meaning) == ("runway", "runway new.code", 1, "")
    assert (row.sample, row.model, row.last_task) == ("Runway: odd (NEW.CODE)", "gen4.5", task.pk)


@pytest.mark.parametrize(
    ("meaning", "status", "code", "sentence"),
    [
        (Meaning.ANOTHER_MODEL, "running", "", ""),
        (Meaning.FAILED, "failed", "generation_failed", JobFailed.user_message),
        (Meaning.MODERATION, "failed", "moderation", errors.REFUSED_BY_SAFETY),
        (Meaning.BAD_REQUEST, "failed", "bad_request", errors.RequestRejected.user_message),
    ],
)
def test_decided_the_next_task_does_as_the_operator_said(
    ends: Ends, meaning: str, status: str, code: str, sentence: str
) -> None:
    ends(unknown())
    first = after_a_look()
    failure_texts.decide(only().pk, meaning, by=OLGA)
    task = after_a_look()
    assert (task.status, task.error_code, task.error_message) == (status, code, sentence)
    assert (task.admit_at is not None) == (meaning == Meaning.ANOTHER_MODEL)  # it waits for a slot of another model
    assert (only().count, only().last_task) == (2, task.pk)
    assert reload(first).status == "failed"
    faults = sum(circuit.faults for circuit in Circuit.objects.all())
    assert faults == (1 if meaning == Meaning.ANOTHER_MODEL else 0)


def test_the_decision_holds_for_the_text_and_the_provider_that_it_was_made_for(ends: Ends) -> None:
    ends(unknown())
    after_a_look()
    failure_texts.decide(only().pk, Meaning.ANOTHER_MODEL, by=OLGA)
    FailureText.objects.update(provider="kling")
    assert after_a_look().status == "failed"
    ends(unknown(signature="runway other.code"))
    assert after_a_look().status == "failed"
    assert FailureText.objects.filter(meaning="").count() == 2


def test_a_worker_that_dies_after_the_record_does_not_open_the_way_to_another_vendor(ends: Ends) -> None:
    task = make_task(fallback=True)
    generation = accepted(task)
    observe.note(generation, unknown())  # and the worker is gone before it moved the task
    runner.run_stage(Stage.POLL, task.pk)
    task = reload(task)
    assert (task.status, task.error_code) == ("failed", "generation_failed")
    assert ledger.balance(task.user_id) == 1000


def test_a_worker_that_dies_after_the_record_keeps_the_way_that_was_decided(ends: Ends) -> None:
    ends(unknown())
    after_a_look()
    failure_texts.decide(only().pk, Meaning.ANOTHER_MODEL, by=OLGA)
    task = make_task(fallback=True)
    observe.note(accepted(task), unknown())
    runner.run_stage(Stage.POLL, task.pk)
    assert reload(task).status == "running"
    assert reload(task).admit_at is not None


def test_the_same_end_noted_twice_counts_once() -> None:
    generation = accepted(make_task())
    seen = [observe.note(generation, unknown()) for _ in range(3)]
    assert only().count == 1
    assert {(one.code, one.another_model_could) for one in seen} == {("generation_failed", False)}


def test_an_end_that_comes_after_its_task_is_listed_too() -> None:
    task = make_task()
    generation = accepted(task)
    assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    observe.note(Generation.objects.get(pk=generation.pk), unknown())
    assert only().last_task == task.pk


def test_a_cancelled_task_keeps_its_word_and_its_credits_by_the_providers_rule() -> None:
    generation = accepted(make_task())
    cancel.cancel(generation.task_id, by=Unaudited("its user"))
    observe.note(Generation.objects.get(pk=generation.pk), replace(unknown(), cost=None))
    assert VideoTask.objects.get().status == "cancelled"
    assert only().count == 1


def test_a_known_failure_costs_no_statement_more(ends: Ends) -> None:
    def statements(answer: JobStatus) -> list[str]:
        generation = accepted(make_task(), f"job-{time.monotonic_ns()}")
        with CaptureQueriesContext(
            connection,
        ) as captured:
            observe.note(generation, answer)
        return [query["sql"] for query in captured.captured_queries]

    known = replace(unknown(), error=JobFailed("x", another_model_could=False))
    assert not any("failuretext" in sql for sql in statements(known))
    assert sum("failuretext" in sql for sql in statements(unknown())) == 2


def test_an_end_and_its_count_are_written_together_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = accepted(make_task())
    monkeypatch.setattr(failure_texts, "MOST_OF_A_PROVIDER", "many")  # a mistake in the counting statement
    with pytest.raises(DataError):
        observe.note(generation, unknown())
    assert Generation.objects.get(pk=generation.pk).state == "accepted"
    assert not FailureText.objects.exists()


# --- what is kept --------------------------------------------------------------------------------------------------


def test_nothing_of_the_prompt_is_kept(ends: Ends) -> None:
    said = f"We can't show a LIGHTHOUSE  in a storm, seen from the sea: {PROMPT}"
    ends(unknown(message=said, signature=said.lower()))
    after_a_look()
    row = only()
    assert row.sample == f"We can't show {ECHO}: {ECHO}"
    assert row.signature == f"we can't show {ECHO}: {ECHO}"


def test_neither_a_key_nor_a_signed_link_is_kept(ends: Ends) -> None:
    ends(unknown(message="Key key_0123456789abcdef0123 at https://a.example/x.png?sig=SECRET is odd"))
    after_a_look()
    assert "0123456789" not in only().sample
    assert "SECRET" not in only().sample


@pytest.mark.parametrize("signature", ["", "  ", OTHER])
def test_a_failure_without_a_word_has_a_row_of_its_own(ends: Ends, signature: str) -> None:
    ends(unknown(signature=signature))
    after_a_look()
    assert only().signature == NO_TEXT


def test_a_text_of_any_length_and_kind_is_kept_in_bounds() -> None:
    observe.note(
        accepted(make_task()),
        unknown(message="\x00\ud800'; DROP " + "很" * 5000, signature="\x00 %s %(x)s 很" * 500),
    )
    assert (len(only().sample), len(only().signature)) == (300, 200)
    assert only().sample.isprintable()


def test_a_code_that_the_prompt_has_too_stays_readable(ends: Ends) -> None:
    error = JobFailed(
        "Runway: the lighthouse in a storm is odd (SOME_NEW_CODE)",
        another_model_could=False,
        is_known=False,
        signature="runway: some_new_code",
        provider_code="SOME_NEW_CODE",
    )
    ends(JobStatus(JobState.FAILED, "FAILED", error=error))
    task = make_task(prompt=f"{PROMPT} fail=some_new_code")
    accepted(task)
    runner.run_stage(Stage.POLL, task.pk)
    assert (only().signature, only().sample) == (error.signature, f"Runway: the{ECHO} is odd (SOME_NEW_CODE)")


def test_a_hostile_provider_fills_a_bounded_number_of_rows(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_texts, "MOST_OF_A_PROVIDER", 3)
    for number in range(6):
        ends(unknown(message=f"text {number}", signature=f"text {number}"))
        after_a_look()
    ends(unknown(signature="text 0"))
    after_a_look()
    found = {row.signature: (row.count, row.sample) for row in FailureText.objects.order_by("pk")}
    assert {name: number for name, (number, _) in found.items()} == {"text 0": 2, "text 1": 1, "text 2": 1, OTHER: 3}
    assert found[OTHER][1] == ""
    assert failure_texts.MOST_OF_A_PROVIDER == 3


def test_the_row_for_the_rest_decides_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_texts, "MOST_OF_A_PROVIDER", 0)
    ends(unknown())
    after_a_look()
    with pytest.raises(DecisionRefused, match="stands for many texts"):
        failure_texts.decide(only().pk, Meaning.ANOTHER_MODEL, by=OLGA)
    failure_texts.forget(only().pk, by=OLGA)
    monkeypatch.undo()
    ends(unknown())
    after_a_look()
    assert only().signature == "runway new.code"


ECHOES = [
    # the text, the prompt, what is shown
    ("Refused: a red fox jumps high", "A red fox jumps high over it", f"Refused: {ECHO}"),
    ("Refused: a red fox", "a red fox", f"Refused: {ECHO}"),
    ("Internal error 5", "An internal lamp", "Internal error 5"),
    ("Internal error", "cat", "Internal error"),
    ("内容违规:一只红色的狐狸跳过栅栏", "一只红色的狐狸跳过栅栏,电影感", f"内容违规:{ECHO}"),
    ("内容违规", "一只红色的狐狸", "内容违规"),
    ("The İstanbul boats sail", "the İstanbul boats sail", ECHO),
    ("", "a red fox jumps", ""),
    ("no words", "", "no words"),
]


@pytest.mark.parametrize(("text", "prompt", "shown"), ECHOES)
def test_what_a_text_repeats_of_the_prompt_is_hidden(text: str, prompt: str, shown: str) -> None:
    assert hide_echo(text, prompt) == shown


def test_hiding_takes_time_in_proportion_whatever_the_texts_hold() -> None:
    began = time.process_time()
    hide_echo("a" * 1200, "a" * 10_000)
    hide_echo("很" * 1200, "很" * 10_000)
    assert time.process_time() - began < 1


# --- decisions -----------------------------------------------------------------------------------------------------


def test_a_decision_names_who_made_it_and_when_and_can_be_taken_back(ends: Ends) -> None:
    ends(unknown())
    after_a_look()
    decided = failure_texts.decide(only().pk, Meaning.FAILED, by=OLGA)
    assert (decided.meaning, decided.decided_by) == ("failed", "olga")
    assert decided.decided_at is not None
    assert failure_texts.undecided() == {}
    open_again = failure_texts.decide(only().pk, "", by=OLGA)
    assert (open_again.meaning, open_again.decided_by, open_again.decided_at) == ("", "", None)
    assert failure_texts.undecided() == {"runway": failure_texts.Undecided(1, 1)}


def test_what_cannot_be_decided_is_refused(ends: Ends) -> None:
    ends(unknown())
    after_a_look()
    with pytest.raises(DecisionRefused, match="one of moderation, bad_request, another_model, failed"):
        failure_texts.decide(only().pk, "fine", by=OLGA)
    for act in (
        lambda: failure_texts.decide(10**9, Meaning.FAILED, by=OLGA),
        lambda: failure_texts.forget(10**9, by=OLGA),
    ):
        with pytest.raises(DecisionRefused, match="There is no failure text 1000000000"):
            act()


@pytest.mark.parametrize("columns", [{"meaning": "fine"}, {"meaning": "failed"}, {"decided_by": "olga"}])
def test_the_table_holds_no_decision_of_nobody(columns: dict[str, str]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        FailureText.objects.create(provider="kling", signature="x", **columns)


def test_what_is_not_decided_is_listed_first() -> None:
    user = make_user()
    for signature in ("a", "b", "c"):
        generation = accepted(make_task(user), f"job-{signature}")
        observe.note(generation, unknown(signature=signature))
    failure_texts.decide(FailureText.objects.get(signature="c").pk, Meaning.FAILED, by=OLGA)
    assert [row.signature for row in failure_texts.listed()] == ["b", "a", "c"]
