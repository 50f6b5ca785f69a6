from __future__ import annotations

import itertools
import threading
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from providers import catalogue, errors
from providers.ranking import UNMEASURED, Override
from tests.factories import make_task, make_user
from video.models import Circuit, Generation, ModelSetting, ProviderAccount, VideoTask
from video.routing import health

pytestmark = pytest.mark.django_db
MODEL, PROVIDER = "gen4.5", "runway"
numbers = itertools.count(1)


@pytest.fixture
def task() -> VideoTask:
    """Any task: attempts must belong to one."""
    return make_task(make_user())


def ended(
    task: VideoTask, state: str = "succeeded", code: str = "", *, ago_s: float = 60, took_s: float = 30, **more: Any
) -> Generation:
    """An attempt that ended `ago_s` seconds ago."""
    model = more.get("model", MODEL)
    account, _ = ProviderAccount.objects.get_or_create(
        provider=PROVIDER, account="a", model=model, defaults={"slots": 1}
    )
    number = next(numbers)
    rejected = state == "rejected"
    generation = Generation.objects.create(
        **{
            "task": task,
            "user_id": task.user_id,
            "run": 1,
            "attempt": number,
            "account": account,
            "provider": PROVIDER,
            "model": model,
            "key_fingerprint": "k",
            "simulated": True,
            "state": "planned" if rejected else "unknown",
            "sent_at": None if rejected else "2026-01-01T00:00:00Z",
            **more,
        }
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_generation SET state = %s, error_code = %s, job_id = %s,
                ended_at = statement_timestamp() - %s * interval '1 second',
                accepted_at = statement_timestamp() - %s * interval '1 second'
            WHERE id = %s
            """,
            [state, code, "" if rejected else f"job-{number}", ago_s, ago_s + took_s, generation.pk],
        )
    return generation


def faults(number: int, model: str = MODEL, *, of: int = health.NOBODYS) -> None:
    """So many faults in a row of one user's jobs; by default of such as are no single user's."""
    for _ in range(number):
        health.note_fault(model, PROVIDER, "no answer", of)


def kept_out(*users: int) -> list[int]:
    """Those of these users of whom no job may start now."""
    return [user for user in users if health.snapshot(user)[MODEL].circuit_open]


def tries(*users: int) -> list[int]:
    """Those of these users whose next job would be a probe."""
    return [user for user in users if health.is_half_open(health.snapshot(user)[MODEL])]


def pass_time(seconds: float) -> None:
    """Let that much time pass for every circuit."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_circuit SET open_until = open_until - %(s)s * interval '1 second',
                probing_since = probing_since - %(s)s * interval '1 second'
            """,
            {"s": seconds},
        )


def open_for_s(model: str = MODEL) -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM open_until - statement_timestamp())::float8 FROM video_circuit WHERE model = %s",
            [model],
        )
        return float(cursor.fetchone()[0])


# --- what was measured ---------------------------------------------------------------------------------------------


def test_without_rows_nothing_is_measured_and_nothing_is_open() -> None:
    assert health.snapshot() == {model.id: UNMEASURED for model in catalogue.MODELS}


COUNTS = [
    # state, error code → whether it counts
    ("failed", "generation_failed", True),
    ("failed", "provider_unavailable", True),
    ("lost", "outcome_unknown", True),
    ("lost", "job_lost", True),
    ("rejected", "provider_unreachable", True),
    ("failed", "moderation", False),
    ("failed", "bad_request", False),
    ("rejected", "bad_request", False),
    ("rejected", "moderation", False),
    ("rejected", "task_ended", False),
    ("rejected", "busy", False),
    ("rejected", "key_refused", False),
    ("rejected", "out_of_credits", False),
    ("rejected", "model_forbidden", False),
    ("cancelled", "", False),
    ("cancelled", "timeout", False),
]


@pytest.mark.parametrize(("state", "code", "counts"), COUNTS)
def test_only_the_models_own_failures_count(task: VideoTask, state: str, code: str, counts: bool) -> None:
    ended(task)
    ended(task, state, code)
    found = health.snapshot()[MODEL]
    assert found.samples == (2 if counts else 1)
    assert found.success_rate == (0.5 if counts else 1.0)


def test_render_time_is_the_median_of_the_successes_once_there_are_five(task: VideoTask) -> None:
    for took_s in (10, 20, 30, 400):
        ended(task, took_s=took_s)
    ended(task, "failed", "generation_failed", took_s=1)
    assert health.snapshot()[MODEL].render_p50_s is None
    ended(task, took_s=500)
    assert health.snapshot()[MODEL].render_p50_s == pytest.approx(30)


def test_a_job_of_yesterday_or_of_another_model_says_nothing(task: VideoTask) -> None:
    ended(task, ago_s=24 * 3600 + 60)
    ended(task, model="gen4_turbo")
    found = health.snapshot()
    assert found[MODEL] == UNMEASURED
    assert found["gen4_turbo"].samples == 1


def test_the_last_jobs_count(task: VideoTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SAMPLE", 3)
    for ago_s in (400, 500):
        ended(task, "failed", "generation_failed", ago_s=ago_s)
    for ago_s in (100, 200, 300):
        ended(task, ago_s=ago_s)
        ended(task, "rejected", "busy", ago_s=ago_s - 50)
    found = health.snapshot()[MODEL]
    assert (found.samples, found.success_rate) == (3, 1.0)


def test_simulated_and_real_jobs_are_never_mixed(task: VideoTask, settings: Settings) -> None:
    ended(task)
    ended(task, "failed", "generation_failed", simulated=False)
    assert health.snapshot()[MODEL].success_rate == 1.0
    settings.SIMULATE = False
    assert health.snapshot()[MODEL].success_rate == 0.0


def test_a_snapshot_is_one_statement_however_many_rows(task: VideoTask, django_assert_num_queries: Any) -> None:
    for _ in range(5):
        ended(task)
    faults(1)
    with django_assert_num_queries(1):
        health.snapshot()


# --- circuits ------------------------------------------------------------------------------------------------------


def test_the_fifth_fault_in_a_row_opens_the_circuit_for_a_minute() -> None:
    faults(4)
    assert not health.snapshot()[MODEL].circuit_open
    faults(1)
    found = health.snapshot()[MODEL]
    assert (found.circuit_open, found.recent_faults) == (True, 5)
    assert 55 < open_for_s() <= 60
    assert Circuit.objects.get().last_error == "no answer"
    assert not health.take_probe(MODEL)
    assert not health.snapshot()["gen4_turbo"].circuit_open


def test_a_success_in_between_starts_the_count_again() -> None:
    faults(4)
    health.note_success(MODEL, PROVIDER)
    faults(4)
    assert not health.snapshot()[MODEL].circuit_open
    assert health.snapshot()[MODEL].recent_faults == 4


def test_an_open_circuit_is_moved_by_nothing_but_time() -> None:
    faults(50)
    health.note_success(MODEL, PROVIDER)
    assert health.snapshot()[MODEL].recent_faults == 5
    assert 55 < open_for_s() <= 60


def test_each_fault_of_a_probe_doubles_the_time_up_to_a_quarter_of_an_hour() -> None:
    faults(5)
    spans = []
    for _ in range(6):
        spans.append(round(open_for_s(), -1))
        pass_time(901)
        assert health.take_probe(MODEL)
        faults(1)
        assert health.snapshot()[MODEL].circuit_open
    assert spans == [60, 120, 240, 480, 900, 900]


def test_a_circuit_that_failed_for_weeks_still_opens() -> None:
    faults(5)
    Circuit.objects.update(faults=2_000_000, open_until="2026-01-01T00:00:00Z")
    faults(1)
    assert 895 < open_for_s() <= 900


def test_a_half_open_circuit_lets_exactly_one_through() -> None:
    faults(5)
    pass_time(61)
    half = health.snapshot()[MODEL]
    assert health.is_half_open(half)
    assert not half.circuit_open
    assert [health.take_probe(MODEL) for _ in range(3)] == [True, False, False]
    assert kept_out(health.NOBODYS) == [health.NOBODYS]
    assert not tries(health.NOBODYS)


def test_the_probes_success_closes_it() -> None:
    faults(5)
    pass_time(61)
    assert health.take_probe(MODEL)
    health.note_success(MODEL, PROVIDER)
    assert health.snapshot()[MODEL].recent_faults == 0
    assert [health.take_probe(MODEL) for _ in range(2)] == [True, True]
    faults(4)
    assert not health.snapshot()[MODEL].circuit_open


def test_a_probe_that_says_nothing_is_forgotten() -> None:
    faults(5)
    pass_time(61)
    assert health.take_probe(MODEL)
    pass_time(health.PROBE_S + 1)
    assert health.take_probe(MODEL)
    assert not health.take_probe(MODEL)
    health.give_back_probe(MODEL)
    assert health.take_probe(MODEL)


def test_a_model_without_faults_needs_no_probe() -> None:
    assert health.take_probe(MODEL)
    assert not Circuit.objects.exists()
    faults(1)
    assert [health.take_probe(MODEL) for _ in range(2)] == [True, True]


def test_each_note_is_one_statement(django_assert_num_queries: Any) -> None:
    for call in (
        lambda: health.note_fault(MODEL, PROVIDER, "x" * 1000),
        lambda: health.note_success(MODEL, PROVIDER),
        lambda: health.take_probe(MODEL),
        lambda: health.give_back_probe(MODEL),
    ):
        with django_assert_num_queries(1):
            call()


@pytest.mark.django_db(transaction=True)
def test_of_many_who_ask_at_once_one_gets_the_probe() -> None:
    faults(5)
    pass_time(61)
    together, won = threading.Barrier(8), []

    def ask() -> None:
        together.wait()
        try:
            won.append(health.take_probe(MODEL))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


# --- witnesses -----------------------------------------------------------------------------------------------------

ONE, TWO, THREE = 11, 12, 13


def test_faults_of_one_user_alone_open_it_for_that_user_alone() -> None:
    faults(45, of=ONE)
    assert kept_out(ONE, TWO, health.ANOTHER_USER) == [ONE]
    assert not tries(ONE, TWO)
    assert [health.take_probe(MODEL, user) for user in (ONE, TWO, TWO, THREE)] == [False, True, True, True]
    assert health.read().kept_out() == [(ONE, MODEL)]
    assert health.snapshot(TWO)[MODEL].recent_faults == 0
    assert 55 < open_for_s() <= 60


def test_an_installation_with_one_user_has_a_circuit_with_all_that_belongs_to_it() -> None:
    faults(5, of=ONE)
    spans = []
    for _ in range(6):
        spans.append(round(open_for_s(), -1))
        assert kept_out(ONE) == [ONE]
        pass_time(901)
        assert tries(ONE, TWO) == [ONE]
        assert [health.take_probe(MODEL, ONE) for _ in range(2)] == [True, False]
        faults(1, of=ONE)
    assert spans == [60, 120, 240, 480, 900, 900]
    pass_time(901)
    assert health.take_probe(MODEL, ONE)
    health.note_success(MODEL, PROVIDER, ONE)
    assert not Circuit.objects.exclude(faults=0, open_until=None, fault_users=[], probing_users=[]).exists()


def test_a_fault_of_another_user_opens_it_for_everybody() -> None:
    faults(5, of=ONE)
    faults(1, of=TWO)
    assert kept_out(ONE, TWO, THREE) == [ONE, TWO, THREE]
    assert Circuit.objects.get().faults == 5  # it opened once
    assert 55 < open_for_s() <= 60
    assert health.read().kept_out() == []


def test_faults_of_several_in_a_row_open_it_for_everybody() -> None:
    faults(1, of=TWO)
    faults(3, of=ONE)
    assert not kept_out(ONE, TWO, THREE)
    faults(1, of=ONE)
    assert kept_out(ONE, TWO, THREE) == [ONE, TWO, THREE]


@pytest.mark.parametrize("setting", [1, 2])
def test_with_a_small_setting_one_user_still_keeps_out_nobody_else(settings: Settings, setting: int) -> None:
    settings.CIRCUIT_FAULTS = setting
    faults(setting, of=ONE)
    assert kept_out(ONE, TWO) == [ONE]
    faults(1, of=TWO)
    assert kept_out(ONE, TWO, THREE) == [ONE, TWO, THREE]
    faults(setting, "gen4_turbo")
    assert health.snapshot()["gen4_turbo"].circuit_open


def test_a_success_of_another_user_clears_the_one_who_was_kept_out() -> None:
    faults(5, of=ONE)
    health.note_success(MODEL, PROVIDER, ONE)  # sent before it opened
    assert kept_out(ONE) == [ONE]
    health.note_success(MODEL, PROVIDER, TWO)
    assert not kept_out(ONE)
    faults(4, of=ONE)
    assert not kept_out(ONE)


def open_for_all() -> None:
    faults(4, of=ONE)
    faults(1, of=TWO)


def test_a_success_does_not_close_what_is_open_for_everybody() -> None:
    open_for_all()
    health.note_success(MODEL, PROVIDER, THREE)
    assert kept_out(ONE, TWO, THREE) == [ONE, TWO, THREE]


def test_one_users_job_is_not_the_only_probe() -> None:
    open_for_all()
    pass_time(61)
    assert tries(ONE, TWO, THREE) == [ONE, TWO, THREE]
    assert [health.take_probe(MODEL, ONE) for _ in range(2)] == [True, False]
    assert tries(ONE, TWO, THREE) == [TWO, THREE]
    assert health.read().kept_out() == [(ONE, MODEL)]
    assert [health.take_probe(MODEL, user) for user in (TWO, TWO, THREE)] == [True, False, False]
    assert kept_out(ONE, TWO, THREE) == [ONE, TWO, THREE]
    health.note_success(MODEL, PROVIDER, TWO)
    assert not kept_out(ONE, TWO, THREE)


def test_the_fault_of_one_users_probe_leaves_the_probe_of_another() -> None:
    open_for_all()
    pass_time(61)
    for user in (ONE, TWO):
        assert health.take_probe(MODEL, user)
    faults(1, of=ONE)
    assert kept_out(ONE, TWO, THREE) == [ONE, TWO]  # TWO's is under way
    assert tries(THREE) == [THREE]
    assert [health.take_probe(MODEL, user) for user in (ONE, TWO, THREE)] == [False, False, True]
    health.note_success(MODEL, PROVIDER, TWO)
    assert not kept_out(ONE, TWO, THREE)


def test_when_the_probes_of_two_users_fail_it_opens_once_more_and_for_longer() -> None:
    open_for_all()
    for seconds in (120, 240):
        pass_time(901)
        for user in (ONE, THREE):
            assert health.take_probe(MODEL, user)
            faults(1, of=user)
        assert kept_out(ONE, TWO, THREE) == [ONE, TWO, THREE]
        assert seconds - 5 < open_for_s() <= seconds


def test_only_who_has_a_probe_gives_it_back() -> None:
    open_for_all()
    pass_time(61)
    for user in (ONE, TWO):
        assert health.take_probe(MODEL, user)
    health.give_back_probe(MODEL, THREE)
    assert not health.take_probe(MODEL, THREE)
    health.give_back_probe(MODEL, ONE)
    assert [health.take_probe(MODEL, user) for user in (TWO, THREE)] == [False, True]


def test_what_befell_jobs_of_many_users_at_once_needs_no_second_witness() -> None:
    faults(4, of=ONE)
    faults(1)
    assert kept_out(ONE, TWO) == [ONE, TWO]


@pytest.mark.django_db(transaction=True)
def test_faults_at_the_same_moment_are_all_counted_and_open_it_once() -> None:
    together = threading.Barrier(8)

    def fail() -> None:
        together.wait()
        try:
            faults(1)
        finally:
            connection.close()

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Circuit.objects.get().faults == 5
    assert 50 < open_for_s() <= 60


FAULTS = [
    (errors.SubmissionUnknown("x"), True),
    (errors.NotSent("x"), True),
    (errors.ProviderDown("x"), True),
    (errors.JobFailed("x", another_model_could=True), True),
    (errors.JobFailed("x", another_model_could=False), False),
    (errors.JobFailed("x", another_model_could=True, is_known=False), False),
    (errors.JobFailed("x", another_model_could=True, may_be_the_request=True), False),
    (errors.DuplicateReference("x"), False),
    (errors.RequestRejected("x"), False),
    (errors.RequestRejected("x", code="moderation"), False),
    (errors.KeyRefused("x"), False),
    (errors.OutOfCredits("x"), False),
    (errors.ModelForbidden("x"), False),
    (errors.Busy("x"), False),
    (errors.JobNotFound("x"), False),
]


@pytest.mark.parametrize(("error", "fault"), FAULTS, ids=lambda value: type(value).__name__)
def test_only_the_providers_own_trouble_is_a_fault(error: errors.ProviderError, fault: bool) -> None:
    assert health.is_fault(error) is fault


def test_overrides_are_what_operators_set(django_assert_num_queries: Any) -> None:
    ModelSetting.objects.create(model="gen4.5", enabled=False)
    ModelSetting.objects.create(model="kling-2.6", price_usd_per_s=Decimal("0.0300"), quality=5, speed=1)
    with django_assert_num_queries(1):
        found = health.read().overrides
    assert found == {
        "gen4.5": Override(enabled=False),
        "kling-2.6": Override(price_usd_per_s=Decimal("0.03"), quality=5, speed=1),
    }
