from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from providers import catalogue
from providers.api_keys import ApiKey
from tests.factories import admitted, age, claim_one, claimed, live, make_task, make_user, park_one, reload
from video.actions import cancel
from video.attempts import records, task_moves
from video.audit.actors import Unaudited
from video.engine import transitions
from video.infra import database
from video.infra.toolkit import toolkit
from video.models import Generation, ProviderAccount, Stage, VideoTask
from video.routing import accounts, health
from video.routing import slots as slots_of_routing
from video.scheduling import admission

pytestmark = pytest.mark.django_db


def slots(number: int, model: str = "gen4.5") -> None:
    """That many slots on the only account of a model."""
    admission.admit()
    with connection.cursor() as cursor:  # the rows exist once somebody was admitted
        cursor.execute("UPDATE video_provideraccount SET slots = %s WHERE model = %s", [number, model])


def test_an_admitted_task_has_a_planned_attempt_and_is_due() -> None:
    task = make_task()
    assert admission.admit() == [(task.pk, Stage.GENERATE)]
    generation = Generation.objects.get(task=task)
    assert (generation.state, generation.provider, generation.model) == ("planned", "runway", "gen4.5")
    assert generation.simulated
    assert generation.candidates
    task = reload(task)
    assert task.admit_at is None
    assert task.next_run_at is not None
    assert task.status == "pending"
    assert admission.admit() == []


def test_the_oldest_get_the_free_slots_and_the_rest_wait() -> None:
    make_task()
    slots(3)
    tasks = [make_task() for _ in range(4)]
    assert [task_id for task_id, _ in admission.admit()] == [tasks[0].pk, tasks[1].pk]
    assert [reload(task).admit_at is None for task in tasks] == [True, True, False, False]


def test_an_unknown_attempt_keeps_its_slot_after_its_task_has_failed() -> None:
    task = make_task()
    slots(1)
    admission.admit()
    generation = live(task.pk)
    assert generation is not None
    claim = claimed(task)
    records.mark_sent(claim, generation)
    task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.")
    waiting = make_task()
    assert admission.admit() == []
    age(task.pk, 10_000)
    assert records.expire_unknown({"runway": 1800}) == 1
    assert admission.admit() == [(waiting.pk, Stage.GENERATE)]


def test_a_task_behind_a_full_model_does_not_hold_up_another_model() -> None:
    make_task()
    slots(1)
    full = make_task()
    image = make_task(image_url="https://example.com/cat.png")
    assert [task_id for task_id, _ in admission.admit()] == [image.pk]
    assert reload(full).admit_at is not None


def test_many_tasks_behind_a_full_model_do_not_hold_up_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "BATCH", 3)
    make_task()
    slots(1)
    for _ in range(4):
        make_task()
    image = make_task(image_url="https://example.com/cat.png")
    assert [task_id for task_id, _ in admission.admit()] == [image.pk]


def test_a_cooling_account_admits_nobody_until_its_time_is_over() -> None:
    generation = admitted(make_task())
    accounts.note_refusal(generation, accounts.Busy("slow down", retry_after_s=60))
    waiting = make_task()
    assert admission.admit() == []
    ProviderAccount.objects.update(cooldown_until=None)
    assert admission.admit() == [(waiting.pk, Stage.GENERATE)]


@pytest.mark.parametrize("error", [accounts.KeyRefused("no"), accounts.OutOfCredits("empty")])
def test_a_refused_key_closes_all_its_models(error: accounts.ProviderError) -> None:
    accounts.note_refusal(admitted(make_task()), error)
    make_task()
    make_task(image_url="https://example.com/cat.png")
    assert admission.admit() == []


def test_a_forbidden_model_closes_only_itself() -> None:
    accounts.note_refusal(admitted(make_task()), accounts.ModelForbidden("no"))
    make_task()
    image = make_task(image_url="https://example.com/cat.png")
    assert [task_id for task_id, _ in admission.admit()] == [image.pk]


def refuse(generation: Generation, error: accounts.ProviderError) -> None:
    """Its submit is refused, and its task waits for a slot again."""
    claim = claimed(VideoTask.objects.get(pk=generation.task_id))
    assert records.mark_sent(claim, generation)
    records.record_rejected(generation.pk, code=error.code, message="")
    accounts.note_refusal(generation, error)
    assert transitions.wait_for_slot(claim, delay_s=0, reason=str(error))


def end_pauses(seconds: float = 1000) -> None:
    """The pauses of keys and accounts are over; those of tasks, which count from their refusals, are not."""
    for table in ("video_providerkey", "video_provideraccount"):
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET retry_at = retry_at - %s * interval '1 second'", [seconds])


REFUSALS = [accounts.KeyRefused("401"), accounts.ModelForbidden("403")]


@pytest.mark.parametrize("error", REFUSALS)
def test_after_the_pause_one_job_tries_and_the_others_start_when_it_was_taken(error: accounts.ProviderError) -> None:
    refuse(admitted(make_task()), error)
    waiting = [make_task() for _ in range(3)]
    assert admission.admit() == []
    end_pauses()
    [(first, _)] = admission.admit()
    assert first == waiting[0].pk
    assert admission.admit() == []
    generation = Generation.objects.get(task_id=first)
    assert generation.is_probe
    accounts.note_accepted(generation)
    assert {task_id for task_id, _ in admission.admit()} == {task.pk for task in waiting[1:]}
    assert not Generation.objects.get(task=waiting[1]).is_probe


@pytest.mark.parametrize("error", REFUSALS)
def test_a_try_that_ends_without_a_verdict_is_followed_by_another(
    error: accounts.ProviderError, django_capture_on_commit_callbacks: Any
) -> None:
    refuse(admitted(make_task()), error)
    first, second = make_task(), make_task()
    end_pauses()
    assert [task_id for task_id, _ in admission.admit()] == [first.pk]
    with django_capture_on_commit_callbacks(execute=True):
        assert cancel.cancel(first.pk, by=Unaudited("its user")).changed
    end_pauses(accounts.refusals.READ_FIRST_S)
    assert [task_id for task_id, _ in admission.admit()] == [second.pk]


@pytest.mark.parametrize("error", [*REFUSALS, accounts.GatewayAnswer("403 of a proxy")])
def test_a_task_that_was_refused_leaves_the_try_to_others_until_its_own_pause_is_over(
    error: accounts.ProviderError,
) -> None:
    odd = make_task()
    refuse(admitted(odd), error)
    other = make_task()
    end_pauses()
    ProviderAccount.objects.update(cooldown_until=None)
    assert [task_id for task_id, _ in admission.admit()] == [other.pk]
    accounts.note_accepted(Generation.objects.get(task=other))
    assert admission.admit() == []
    Generation.objects.filter(task=odd).update(ended_at=Now() - timedelta(seconds=accounts.refusals.FIRST_PAUSE_S))
    assert [task_id for task_id, _ in admission.admit()] == [odd.pk]


def test_a_model_that_no_key_offers_is_never_planned(settings: Any) -> None:
    pair = ApiKey("accessKey:secretKey")  # Kling's older API, which has fewer models
    settings.PROVIDER_KEYS = {"runway": (), "pika": (), "kling": (pair,)}
    toolkit.cache_clear()
    try:
        kling = toolkit().provider("kling")
        missing = [m.id for m in catalogue.MODELS if m.provider == "kling" and not kling.offers(m.id, pair.value)]
        assert missing
        waiting = make_task(model_requested="kling-2.5-turbo")
        VideoTask.objects.filter(pk=waiting.pk).update(eligible_models=missing[:1])  # made with a key that is gone
        assert admission.admit() == []
        assert not Generation.objects.filter(task=waiting).exists()
        assert "an API without this model" in str(slots_of_routing.read().closed[missing[0]])
    finally:
        toolkit.cache_clear()


def test_a_task_that_must_not_be_admitted_yet_waits() -> None:
    task = make_task()
    VideoTask.objects.filter(pk=task.pk).update(admit_at="2100-01-01T00:00:00Z")
    assert admission.admit() == []


def test_attempts_refused_for_the_accounts_sake_are_not_counted() -> None:
    task = make_task()
    for _ in range(admission.MAX_ATTEMPTS + 2):
        generation = admitted(task)
        claim = claimed(task)
        records.mark_sent(claim, generation)
        records.record_rejected(generation.pk, code="busy", message="")
        transitions.wait_for_slot(claim, delay_s=0, reason="busy")
    assert reload(task).is_active
    assert admitted(task).attempt == admission.MAX_ATTEMPTS + 3


def test_attempts_are_bounded_and_the_last_cause_ends_the_task() -> None:
    task = make_task()
    for _ in range(admission.MAX_ATTEMPTS):
        generation = admitted(task)
        claim = claimed(task)
        records.mark_sent(claim, generation)
        records.record_rejected(generation.pk, code="generation_failed", message="It could not be made.")
        transitions.wait_for_slot(claim, delay_s=0, reason="next")
    admission.admit()
    task = reload(task)
    assert (task.status, task.error_code, task.error_message) == (
        "failed",
        "generation_failed",
        "It could not be made.",
    )


@pytest.mark.django_db(transaction=True)
def test_many_admissions_at_once_never_fill_more_slots_than_there_are() -> None:
    user = make_user()
    make_task(user)
    slots(4)
    for _ in range(20):
        make_task(user)
    barrier = threading.Barrier(6)

    def one() -> None:
        barrier.wait()
        try:
            admission.admit()
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Generation.objects.filter(state="planned").count() == 4


def test_no_more_are_admitted_than_workers_can_begin_with_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_READY", 2)
    tasks = [make_task() for _ in range(5)]
    assert len(admission.admit()) == 2
    assert admission.admit() == []
    first = next(task for task in tasks if Generation.objects.filter(task=task).exists())
    claim = claim_one(first.pk, Stage.GENERATE)  # a worker has begun
    assert claim is not None
    assert len(admission.admit()) == 1
    park_one(claim, delay_s=60, reason="out of reach")  # and one that waits for its provider takes nobody's place
    assert admission.admit() == []


@pytest.mark.django_db(transaction=True)
def test_a_bell_during_a_pass_of_admission_does_not_wait_for_it() -> None:
    make_task()
    found: list[list[tuple[str, Stage]]] = []

    def other() -> None:
        try:
            found.append(admission.admit())
        finally:
            connection.close()

    with transaction.atomic():
        assert database.value("SELECT pg_try_advisory_xact_lock(%s)", [admission._LOCK])
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(60)
    assert found == [[]]
    assert len(admission.admit()) == 1


def model_of(task: VideoTask) -> str:
    return Generation.objects.get(task=task).model


def test_a_circuit_of_one_users_faults_delays_that_user_alone() -> None:
    hostile, other = make_user(credit=5000), make_user()
    for _ in range(5):
        health.note_fault("gen4.5", "runway", "no answer", hostile.pk)
    for _ in range(250):  # more than a pass looks at
        make_task(hostile)
    task = make_task(other)
    assert admission.admit() == [(task.pk, Stage.GENERATE)]
    going = make_task(hostile, fallback=True)
    admission.admit()
    assert model_of(going) != "gen4.5"


def test_a_half_open_circuit_lets_through_a_job_each_of_two_users() -> None:
    users = [make_user() for _ in range(3)]
    health.note_fault("gen4.5", "runway", "no answer")
    for _ in range(4):
        health.note_fault("gen4.5", "runway", "no answer", users[0].pk)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE video_circuit SET open_until = statement_timestamp() - interval '1 second'")
    tasks = [make_task(user) for user in users for _ in range(2)]
    begun = {task_id for task_id, _ in admission.admit()}
    assert len(begun) == 2
    assert len({task.user_id for task in tasks if task.pk in begun}) == 2
    assert admission.admit() == []
    health.note_success("gen4.5", "runway", users[1].pk)
    assert len(admission.admit()) == 4
