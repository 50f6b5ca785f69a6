"""Keys and accounts: who has a free slot, which key is used, and what happens when keys come, go and move."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries

from providers.api_keys import ApiKey, fingerprint
from tests.factories import make_task, make_user
from video.attempts import configured_keys
from video.infra.toolkit import toolkit
from video.models import Generation, ProviderAccount, ProviderKey, VideoTask
from video.routing import slots
from video.routing.slots import Slot

pytestmark = pytest.mark.django_db

MODEL = "gen4.5"
ONE, TWO, THREE = (ApiKey(f"key_of_a_test_{number}") for number in ("one", "two", "three"))
ALERT = "put it back"


@pytest.fixture
def configure(settings: Any) -> Any:
    """Sets Runway's keys, and what groups them."""

    def set_keys(*keys: ApiKey, **groups: list[ApiKey]) -> None:
        settings.PROVIDER_KEYS = {"runway": keys, "pika": (), "kling": ()}
        settings.KEY_ACCOUNTS = {
            ("runway", key.fingerprint): name for name, members in groups.items() for key in members
        }
        toolkit.cache_clear()

    yield set_keys
    toolkit.cache_clear()


def slots_now() -> slots.Slots:
    with transaction.atomic():
        return configured_keys.open_slots()


def slot_of(account: str, model: str = MODEL) -> Slot | None:
    return next((s for s in slots_now() if (s.account.account, s.account.model) == (account, model)), None)


def row(account: str, model: str = MODEL) -> ProviderAccount:
    return ProviderAccount.objects.get(account=account, model=model)


def change(account: str, model: str = MODEL, **values: Any) -> None:
    ProviderAccount.objects.filter(account=account, model=model).update(**values)


def plan(slot: Slot, task: VideoTask | None = None) -> Generation:
    """A live generation on the slot's account, with the key that is its turn."""
    task = task or make_task()
    return Generation.objects.create(
        task=task,
        user_id=task.user_id,
        run=1,
        attempt=1,
        account=slot.account,
        provider=slot.account.provider,
        model=slot.account.model,
        key_fingerprint=slot.take(),
        simulated=True,
    )


def in_minutes(number: int) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp() + %s * interval '1 minute'", [number])
        return cursor.fetchone()[0]


# --- rows ----------------------------------------------------------------------------------------------------------


def test_every_key_gets_a_row_and_every_account_one_for_each_model(configure: Any) -> None:
    configure(ONE, TWO)
    configured_keys.sync()
    configured_keys.sync()
    assert ProviderKey.objects.count() == 2
    assert ProviderAccount.objects.filter(model=MODEL).count() == 2
    assert set(ProviderAccount.objects.values_list("provider", flat=True)) == {"runway"}


def test_no_row_holds_the_value_of_a_key(configure: Any) -> None:
    configure(ONE, TWO, studio=[TWO])
    configured_keys.sync()
    dump = str([*ProviderKey.objects.values(), *ProviderAccount.objects.values()])
    assert "key_of_a_test" not in dump
    assert fingerprint(ONE.value) in dump


def test_an_operators_limit_survives_a_sync(configure: Any) -> None:
    configure(ONE)
    configured_keys.sync()
    change(ONE.fingerprint, slots=7, slots_override=3)
    configured_keys.sync()
    assert (row(ONE.fingerprint).slots, row(ONE.fingerprint).slots_override) == (7, 3)


def test_open_slots_makes_missing_rows_by_itself(configure: Any) -> None:
    configure(ONE)
    assert slot_of(ONE.fingerprint) is not None
    configure(ONE, TWO)
    assert slot_of(TWO.fingerprint) is not None


def test_two_statements_are_enough(configure: Any, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    configure(ONE, TWO, THREE, studio=[ONE, TWO])
    configured_keys.sync()
    with transaction.atomic(), django_assert_max_num_queries(2):
        configured_keys.open_slots()
    with django_assert_max_num_queries(2):
        slots.availability(slots.read())


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({"slots": 5}, 5),
        ({"slots": 5, "slots_override": 9}, 9),
        ({"slots": 5, "slots_override": 1}, 1),
        ({"slots": 5, "lowered_slots": 2, "lowered_until": 10}, 2),
        ({"slots": 5, "lowered_slots": 2, "lowered_until": -1}, 5),
        ({"slots": 5, "slots_override": 1, "lowered_slots": 2, "lowered_until": 10}, 1),
    ],
)
def test_the_limit(configure: Any, values: dict[str, Any], free: int) -> None:
    configure(ONE)
    configured_keys.sync()
    if "lowered_until" in values:
        values = {**values, "lowered_until": in_minutes(values["lowered_until"])}
    change(ONE.fingerprint, **values)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    assert slot.free == free


def test_live_generations_take_slots_and_ended_ones_free_them(configure: Any) -> None:
    configure(ONE)
    configured_keys.sync()
    change(ONE.fingerprint, slots=2)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    generation = plan(slot)
    assert slot.free == 1
    again = slot_of(ONE.fingerprint)
    assert again is not None
    assert again.free == 1
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_generation SET state = 'rejected', ended_at = now() WHERE id = %s", [generation.pk]
        )
    again = slot_of(ONE.fingerprint)
    assert again is not None
    assert again.free == 2


def test_a_limit_that_shrank_below_what_is_live_gives_no_negative_slots(configure: Any) -> None:
    configure(ONE)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    plan(slot)
    plan(slot)
    change(ONE.fingerprint, slots_override=1)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    assert slot.free == 0


def test_keys_of_one_account_share_its_limit_and_the_least_busy_one_is_used(configure: Any) -> None:
    configure(ONE, TWO, THREE, studio=[ONE, TWO])
    configured_keys.sync()
    change("studio", slots=3)
    used = []
    for _ in range(3):
        slot = slot_of("studio")
        assert slot is not None
        used.append(slot.keys[0])
        plan(slot)
    assert used[0] != used[1]
    full = slot_of("studio")
    assert full is not None
    assert full.free == 0
    alone = slot_of(THREE.fingerprint)
    assert alone is not None
    assert alone.keys == [THREE.fingerprint]
    assert alone.free > 0


def test_taking_several_slots_at_once_spreads_them_over_the_keys(configure: Any) -> None:
    configure(ONE, TWO, studio=[ONE, TWO])
    slot = slot_of("studio")
    assert slot is not None
    taken = [slot.take() for _ in range(6)]
    assert taken.count(ONE.fingerprint) == taken.count(TWO.fingerprint) == 3


# --- open and closed -----------------------------------------------------------------------------------------------


def test_a_full_account_is_open(configure: Any) -> None:
    configure(ONE)
    configured_keys.sync()
    change(ONE.fingerprint, slots_override=1)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    plan(slot)
    found = slots_now()
    assert slots.availability(found)[MODEL] is None
    assert slots.availability(found, full="no room")[MODEL] == "no room"
    assert slots.free(found)[MODEL] == 0


def test_an_account_with_a_limit_of_none_is_closed(configure: Any) -> None:
    configure(ONE)
    configured_keys.sync()
    change(ONE.fingerprint, slots_override=0)
    assert slot_of(ONE.fingerprint) is None
    assert str(slots.availability(slots.read())[MODEL]) == "switched off by the operator: its limit is 0 jobs at once"


def test_models_without_a_key_are_not_spoken_of(configure: Any) -> None:
    configure(ONE)
    configured_keys.sync()
    assert MODEL in slots.availability(slots.read())
    assert not any(model.startswith(("pika", "kling")) for model in slots.availability(slots.read()))
    configure()
    assert slots_now() == []
    assert slots.availability(slots.read()) == {}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"closed_reason": "out_of_credits"}, "out of credits"),
        ({"closed_reason": "model_forbidden"}, "the account may not use this model"),
        ({"cooldown_until": 5}, "the provider asked to wait"),
    ],
)
def test_closed_and_cooling_accounts_are_left_out_with_their_reason(
    configure: Any, values: dict[str, Any], reason: str
) -> None:
    configure(ONE, TWO)
    configured_keys.sync()
    if "cooldown_until" in values:
        values = {"cooldown_until": in_minutes(values["cooldown_until"])}
    change(ONE.fingerprint, **values)
    assert slot_of(ONE.fingerprint) is None
    assert slots.availability(slots.read())[MODEL] is None
    change(TWO.fingerprint, **values)
    assert reason in str(slots.availability(slots.read())[MODEL])
    assert slots.availability(slots.read())["gen4_turbo"] is None


def test_a_cool_down_that_is_over_counts_no_more(configure: Any) -> None:
    configure(ONE)
    configured_keys.sync()
    change(ONE.fingerprint, cooldown_until=in_minutes(-1))
    assert slot_of(ONE.fingerprint) is not None


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("draining", "switched off by the operator: its key takes no new jobs"),
        ("quarantined", "its key was refused"),
    ],
)
def test_a_key_that_is_not_active_gets_no_new_job(configure: Any, state: str, reason: str) -> None:
    configure(ONE, TWO, studio=[ONE, TWO])
    configured_keys.sync()
    ProviderKey.objects.filter(fingerprint=ONE.fingerprint).update(state=state)
    slot = slot_of("studio")
    assert slot is not None
    assert slot.keys == [TWO.fingerprint]
    ProviderKey.objects.update(state=state)
    assert slot_of("studio") is None
    assert str(slots.availability(slots.read())[MODEL]) == reason


def test_jobs_of_a_draining_key_still_take_their_accounts_slots(configure: Any) -> None:
    configure(ONE, TWO, studio=[ONE, TWO])
    configured_keys.sync()
    change("studio", slots=2)
    slot = slot_of("studio")
    assert slot is not None
    drained = plan(slot).key_fingerprint
    ProviderKey.objects.filter(fingerprint=drained).update(state="draining")
    slot = slot_of("studio")
    assert slot is not None
    assert slot.free == 1
    assert drained not in slot.keys
    assert toolkit().key("runway", drained) is not None  # for polling


# --- keys that go, come and move -----------------------------------------------------------------------------------


def test_a_key_that_vanished_under_its_jobs_is_told_once_and_forgotten_when_it_is_back(
    configure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configure(ONE, TWO)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    plan(slot)
    configure(TWO)
    configured_keys.sync()
    configured_keys.sync()
    alerts = [record for record in caplog.records if record.levelno == logging.ERROR and ALERT in record.getMessage()]
    assert len(alerts) == 1
    assert ONE.fingerprint in alerts[0].getMessage()
    assert ProviderKey.objects.get(fingerprint=ONE.fingerprint).gone_since is not None
    assert configured_keys.remind_of_gone() == 1
    assert slot_of(ONE.fingerprint) is None

    configure(ONE, TWO)
    assert slot_of(ONE.fingerprint) is not None
    assert ProviderKey.objects.get(fingerprint=ONE.fingerprint).gone_since is None
    assert configured_keys.remind_of_gone() == 0
    assert "is back" in caplog.text


def test_a_key_without_jobs_may_go_quietly(configure: Any, caplog: pytest.LogCaptureFixture) -> None:
    configure(ONE, TWO)
    configured_keys.sync()
    configure(TWO)
    configured_keys.sync()
    assert ProviderKey.objects.get(fingerprint=ONE.fingerprint).gone_since is None
    assert ALERT not in caplog.text


def test_the_alert_ends_with_the_last_job(configure: Any) -> None:
    configure(ONE)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    plan(slot)
    configure(TWO)
    configured_keys.sync()
    assert ProviderKey.objects.filter(gone_since__isnull=False).count() == 1
    with connection.cursor() as cursor:
        cursor.execute("UPDATE video_generation SET state = 'rejected', ended_at = now()")
    configured_keys.sync()
    assert not ProviderKey.objects.filter(gone_since__isnull=False).exists()


def test_simulated_jobs_need_no_key_once_nothing_is_simulated(configure: Any, settings: Any) -> None:
    configure(ONE)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    plan(slot)
    settings.SIMULATE = False
    configure(TWO)
    configured_keys.sync()
    assert not ProviderKey.objects.filter(gone_since__isnull=False).exists()


def test_a_key_that_joins_an_account_takes_its_live_jobs_along(configure: Any) -> None:
    configure(ONE, TWO)
    slot = slot_of(ONE.fingerprint)
    assert slot is not None
    generation = plan(slot)
    configure(ONE, TWO, studio=[ONE, TWO])
    grouped = slot_of("studio")
    assert grouped is not None
    generation.refresh_from_db()
    assert generation.account.account == "studio"
    assert grouped.free == grouped.account.slots - 1
    assert grouped.keys == [TWO.fingerprint, ONE.fingerprint]


# --- at once -------------------------------------------------------------------------------------------------------


def together(number: int, work: Any) -> None:
    barrier = threading.Barrier(number)
    failed: list[BaseException] = []

    def one(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as err:
            failed.append(err)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", [True, False], ids=["no-rows-yet", "rows-are-there"])
def test_callers_at_once_never_exceed_a_limit_nor_deadlock(configure: Any, settings: Any, first: bool) -> None:
    settings.SLOTS_PER_KEY = 4
    configure(ONE, TWO, THREE, studio=[ONE, TWO])
    if not first:
        configured_keys.sync()
    user = make_user(100_000)
    tasks = [[make_task(user) for _ in range(6)] for _ in range(6)]

    def work(index: int) -> None:
        for task in tasks[index]:
            with transaction.atomic():
                for slot in configured_keys.open_slots():
                    if slot.account.model == MODEL and slot.free > 0:
                        plan(slot, task)
                        break

    together(6, work)
    by_account = {
        name: Generation.objects.filter(account__account=name, state="planned").count()
        for name in ("studio", THREE.fingerprint)
    }
    assert by_account == {"studio": 4, THREE.fingerprint: 4}


@pytest.mark.django_db(transaction=True)
def test_syncs_at_once_make_each_row_once(configure: Any) -> None:
    configure(ONE, TWO, THREE)
    together(6, lambda _: configured_keys.sync())
    assert ProviderKey.objects.count() == 3
