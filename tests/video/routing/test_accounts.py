"""What each refusal does to key and account, and what asking a provider about them does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import responses
from django.db import connection, transaction
from django.utils import timezone

from providers.api_keys import ApiKey
from providers.errors import (
    Busy,
    GatewayAnswer,
    JobFailed,
    KeyRefused,
    ModelForbidden,
    NotSent,
    OutOfCredits,
    ProviderDown,
    ProviderError,
    RequestRejected,
    SubmissionUnknown,
)
from tests.factories import admitted, make_task
from video.attempts import configured_keys
from video.infra.toolkit import toolkit
from video.models import Circuit, Generation, ProviderAccount, ProviderKey
from video.routing import accounts, health
from video.routing.slots import Slot

pytestmark = pytest.mark.django_db

MODEL = "gen4.5"
ONE, TWO = ApiKey("key_of_a_test_one"), ApiKey("key_of_a_test_two")
KLING = ApiKey("key_of_a_test_kling")
FAL = ApiKey("key_of_a_test_fal")
ORGANIZATION = "https://runway.test/v1/organization"
COSTS = "https://kling.test/account/costs"


def calm() -> float:
    return 0.0


@pytest.fixture(autouse=True)
def configure(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the keys, and what groups them; at first one key for each provider."""
    monkeypatch.setattr(accounts, "_pause_s", lambda provider: 0.0)
    settings.PROVIDER_BASE_URLS = {
        "runway": "https://runway.test",
        "pika": "https://pika.test",
        "kling": "https://kling.test",
    }

    def set_keys(
        runway: tuple[ApiKey, ...] = (), pika: tuple[ApiKey, ...] = (), kling: tuple[ApiKey, ...] = (), **groups: Any
    ) -> None:
        settings.PROVIDER_KEYS = {"runway": runway, "pika": pika, "kling": kling}
        settings.KEY_ACCOUNTS = {
            ("runway", key.fingerprint): name for name, members in groups.items() for key in members
        }
        toolkit.cache_clear()
        configured_keys.sync()

    set_keys((ONE,))
    yield set_keys
    toolkit.cache_clear()


@pytest.fixture
def provider() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def generation(model: str = MODEL, state: str = "planned", key: ApiKey = ONE) -> Generation:
    """An attempt that holds a slot of the key's account."""
    account = ProviderAccount.objects.get(
        model=model, account=ProviderKey.objects.get(fingerprint=key.fingerprint).account
    )
    task = make_task(model_requested=model, image_url="https://example.com/cat.png")
    made = Generation.objects.create(
        task=task,
        user_id=task.user_id,
        run=1,
        attempt=1,
        account=account,
        provider=account.provider,
        model=model,
        key_fingerprint=key.fingerprint,
        simulated=True,
    )
    if state == "accepted":
        run(
            "UPDATE video_generation SET state = 'accepted', sent_at = now(), accepted_at = now(), job_id = id "
            "WHERE id = %s",
            made.pk,
        )
    return made


def run(sql: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def row(model: str = MODEL, account: str = ONE.fingerprint) -> ProviderAccount:
    return ProviderAccount.objects.get(model=model, account=account)


def state(key: ApiKey = ONE) -> str:
    return ProviderKey.objects.get(fingerprint=key.fingerprint).state


def cooldown_s(model: str = MODEL) -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM cooldown_until - statement_timestamp())::float8 "
            "FROM video_provideraccount WHERE id = %s",
            [row(model).pk],
        )
        return float(cursor.fetchone()[0] or 0.0)


def pass_time(seconds: float) -> None:
    run(
        "UPDATE video_provideraccount SET cooldown_until = cooldown_until - %s * interval '1 second', "
        "lowered_until = lowered_until - %s * interval '1 second', retry_at = retry_at - %s * interval '1 second', "
        "refused_since = refused_since - %s * interval '1 second'",
        *[seconds] * 4,
    )
    run(
        "UPDATE video_providerkey SET checked_at = checked_at - %s * interval '1 second', "
        "retry_at = retry_at - %s * interval '1 second', refused_since = refused_since - %s * interval '1 second'",
        *[seconds] * 3,
    )


def open_slots() -> list[Slot]:
    with transaction.atomic():
        return list(configured_keys.open_slots())


def opened(model: str = MODEL) -> bool:
    return any(slot.account.model == model for slot in open_slots())


def busy(made: Generation, *, times: int = 1, **more: Any) -> list[int]:
    """Refuse that often, each time right after the cool-down; the lengths of the cool-downs."""
    found = []
    for _ in range(times):
        accounts.note_refusal(made, Busy("slow down", **more), jitter=calm)
        found.append(round(cooldown_s()))
        pass_time(cooldown_s() + 1)
    return found


# --- busy ----------------------------------------------------------------------------------------------------------


def test_busy_waits_as_asked_and_only_on_its_model() -> None:
    accounts.note_refusal(generation(), Busy("slow down", retry_after_s=60), jitter=calm)
    assert 55 < cooldown_s() <= 60
    assert not opened()
    assert opened("gen4_turbo")
    assert row().last_error == "slow down"
    assert state() == "active"


def test_busy_without_a_time_waits_longer_each_time() -> None:
    assert busy(generation(), times=8) == [2, 4, 8, 16, 32, 60, 60, 60]


def test_an_accepted_job_ends_the_row() -> None:
    made = generation()
    assert busy(made, times=3) == [2, 4, 8]
    generation(state="accepted")
    assert busy(made) == [2]


def test_quiet_time_ends_the_row() -> None:
    made = generation()
    busy(made, times=4)
    pass_time(accounts.FORGET_BUSIES_S)
    assert busy(made) == [2]


def test_refusals_that_were_under_way_already_are_no_news() -> None:
    for _ in range(6):
        accounts.note_refusal(generation(), Busy("slow down"), jitter=calm)
    assert round(cooldown_s()) == 2
    assert row().busies == 1


def test_a_shorter_wait_never_cuts_a_longer_one() -> None:
    made = generation()
    accounts.note_refusal(made, Busy("slow down", retry_after_s=120), jitter=calm)
    accounts.note_refusal(made, Busy("slow down", retry_after_s=1), jitter=calm)
    assert cooldown_s() > 100


def test_jitter_only_adds() -> None:
    accounts.note_refusal(generation(), Busy("slow down", retry_after_s=100), jitter=lambda: 1.0)
    assert 100 < cooldown_s() <= 100 * (1 + accounts.JITTER)


@pytest.mark.parametrize(("error", "longest_s"), [(Busy, 3600), (GatewayAnswer, 300)])
def test_an_absurd_wait_is_cut(error: type[Busy], longest_s: float) -> None:
    accounts.note_refusal(generation(), error("slow down", retry_after_s=1e12), jitter=calm)
    assert longest_s - 5 < cooldown_s() <= longest_s


def test_a_proxys_answer_cools_the_account_down_and_says_nothing_of_key_and_model() -> None:
    made = generation()
    for _ in range(10):
        accounts.note_refusal(made, GatewayAnswer("403 with a page of HTML"), jitter=calm)
        pass_time(cooldown_s() + 1)
    assert opened()
    assert state() == "active"
    assert (row().closed_reason, row().refusals, ProviderKey.objects.get().refusals) == ("", 0, 0)


@pytest.mark.parametrize(("sent", "limit"), [(0, 1), (1, 1), (3, 3)])
def test_too_many_at_once_lowers_the_limit_to_what_the_provider_has(sent: int, limit: int) -> None:
    for _ in range(sent):
        generation(state="accepted")
    generation()  # planned: not at the provider yet
    refused = generation()
    refused.provider = "kling"  # whose code it is; each provider has its own
    accounts.note_refusal(refused, Busy("too many", provider_code="1303"), jitter=calm)
    assert row().lowered_slots == limit
    pass_time(30)
    with transaction.atomic():
        [slot] = [slot for slot in configured_keys.open_slots() if slot.account.model == MODEL]
    assert slot.free == 0
    pass_time(accounts.LOWERED_S)
    with transaction.atomic():
        [slot] = [slot for slot in configured_keys.open_slots() if slot.account.model == MODEL]
    assert slot.free > 10


def test_the_code_of_another_provider_lowers_no_limit() -> None:
    accounts.note_refusal(generation(), Busy("too many", provider_code="1303"), jitter=calm)
    assert row().lowered_slots is None


def test_too_fast_lowers_no_limit() -> None:
    accounts.note_refusal(generation(), Busy("too fast", provider_code="1302"), jitter=calm)
    assert row().lowered_slots is None


# --- refused, empty, forbidden -------------------------------------------------------------------------------------


def refuse(error: ProviderError, made: Generation | None = None) -> None:
    """Refuse the submit of a task; of another each time, unless `made` says of which."""
    accounts.note_refusal(made or generation(), error, jitter=calm)


def pauses(error: ProviderError, *, times: int, made: Generation | None = None) -> list[int]:
    """Refuse that often, each time right after the pause; the lengths of the pauses of key or account."""
    found = []
    for _ in range(times):
        refuse(error, made)
        found.append(round(max(retry_s(ProviderKey.objects.get()), retry_s(row()))))
        pass_time(found[-1] + 0.1)
    return found


def retry_s(one: ProviderKey | ProviderAccount) -> float:
    return 0.0 if one.retry_at is None else (one.retry_at - timezone.now()).total_seconds()


@pytest.mark.parametrize("error", [KeyRefused("401"), ModelForbidden("403")])
def test_one_refusal_closes_nothing_and_is_tried_again_within_a_minute(error: ProviderError) -> None:
    refuse(error)
    assert not opened()
    assert state() == "active"
    assert row().closed_reason == ""
    pass_time(accounts.refusals.FIRST_PAUSE_S + accounts.refusals.READ_FIRST_S)
    assert opened()


@pytest.mark.parametrize("error", [KeyRefused("401"), ModelForbidden("403")])
def test_pauses_grow_to_an_hour_where_several_tasks_are_refused(error: ProviderError) -> None:
    assert pauses(error, times=10) == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


@pytest.mark.parametrize("error", [KeyRefused("401"), ModelForbidden("403")])
def test_pauses_stay_short_where_only_one_task_is_refused(error: ProviderError) -> None:
    assert pauses(error, times=5, made=generation()) == [15, 30, 60, 60, 60]
    assert state() == "active"
    assert row().closed_reason == ""


def test_a_key_that_several_tasks_over_minutes_were_refused_with_is_quarantined_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses(KeyRefused("401"), times=4)  # a minute and three quarters
    assert state() == "active"
    pauses(KeyRefused("401"), times=3)
    assert state() == "quarantined"
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_storm_of_refusals_counts_as_one() -> None:
    for _ in range(20):
        refuse(KeyRefused("401"))
    assert ProviderKey.objects.get().refusals == 1
    assert retry_s(ProviderKey.objects.get()) < 16


def test_a_refusal_long_after_the_last_is_a_first_one_again() -> None:
    pauses(KeyRefused("401"), times=8)
    pass_time(accounts.refusals.FORGET_S)
    assert pauses(KeyRefused("401"), times=1) == [15]


def try_of(made: Generation) -> Generation:
    made.is_probe = True
    return made


@pytest.mark.parametrize("error", [KeyRefused("401"), ModelForbidden("403"), OutOfCredits("empty")])
def test_a_job_that_the_provider_takes_opens_what_was_closed(error: ProviderError) -> None:
    pauses(error, times=8)
    assert row().refusals or ProviderKey.objects.get().refusals
    accounts.note_accepted(try_of(generation()))
    assert opened()
    assert state() == "active"
    assert (row().closed_reason, row().refusals, ProviderKey.objects.get().refusals) == ("", 0, 0)


def test_an_accepted_job_that_was_no_try_writes_nothing(django_assert_num_queries: Any) -> None:
    made = generation()
    with django_assert_num_queries(0):
        accounts.note_accepted(made)


def test_the_other_key_of_an_account_goes_on_while_one_is_refused(configure: Any) -> None:
    configure((ONE, TWO), studio=[ONE, TWO])
    refuse(KeyRefused("401"))
    with transaction.atomic():
        assert {key for slot in configured_keys.open_slots() for key in slot.keys} == {TWO.fingerprint}
    assert row(account="studio").closed_reason == ""


def test_a_refused_key_that_is_its_accounts_only_one_closes_all_its_models() -> None:
    refuse(KeyRefused("401"))
    assert not opened()
    assert not opened("gen4_turbo")


def test_a_draining_key_that_is_refused_stays_draining() -> None:
    ProviderKey.objects.update(state="draining")
    accounts.note_refusal(generation(), KeyRefused("401"))
    assert state() == "draining"
    assert ProviderKey.objects.get().last_error == "401"


def test_an_empty_account_is_closed_with_all_its_models_and_told_once(
    configure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configure((ONE, TWO))
    accounts.note_refusal(generation(), OutOfCredits("empty"))
    accounts.note_refusal(generation(), OutOfCredits("empty"))
    closed = ProviderAccount.objects.filter(closed_reason="out_of_credits")
    assert set(closed.values_list("account", flat=True)) == {ONE.fingerprint}
    assert closed.count() == ProviderAccount.objects.filter(account=ONE.fingerprint).count()
    assert state() == "active"
    assert opened()  # on the other account
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_forbidden_model_closes_only_itself_on_that_account(configure: Any) -> None:
    configure((ONE, TWO))
    for _ in range(6):
        refuse(ModelForbidden("no"))
        pass_time(row().refusals and retry_s(row()) + 0.1)
    closed = ProviderAccount.objects.exclude(closed_reason="")
    assert [(one.model, one.account, one.closed_reason) for one in closed] == [
        (MODEL, ONE.fingerprint, "model_forbidden")
    ]


@pytest.mark.parametrize("change", ["key", "address"])
def test_another_key_or_address_forgets_what_was_concluded_from_the_old_one(
    configure: Any, settings: Any, change: str
) -> None:
    configure((ONE,), studio=[ONE])
    for error in (ModelForbidden("404"), KeyRefused("401")):
        for _ in range(8):
            refuse(error)
            pass_time(4000)
    refuse(OutOfCredits("empty"))
    health.note_fault(MODEL, "runway", "down")
    assert row(account="studio").closed_reason
    if change == "key":
        configure((TWO,), studio=[TWO])
    else:
        settings.PROVIDER_BASE_URLS = {**settings.PROVIDER_BASE_URLS, "runway": "https://other.test"}
        configured_keys.sync()
        assert state() == "active"
        assert not Circuit.objects.filter(faults__gt=0).exists()
    assert (row(account="studio").closed_reason, row(account="studio").refusals) == ("", 0)
    assert opened()


@pytest.mark.parametrize(
    "error",
    [
        RequestRejected("bad prompt", code="moderation"),
        RequestRejected("bad"),
        JobFailed("no", another_model_could=True),
        NotSent("no"),
        ProviderDown("no"),
        SubmissionUnknown("no"),
    ],
)
def test_nothing_else_touches_key_or_account(error: ProviderError) -> None:
    made = generation()
    before = [*ProviderKey.objects.values(), *ProviderAccount.objects.order_by("id").values()]
    accounts.note_refusal(made, error)
    assert [*ProviderKey.objects.values(), *ProviderAccount.objects.order_by("id").values()] == before


# --- asking --------------------------------------------------------------------------------------------------------


def organization(balance: Any = 500, **limits: int | None) -> dict[str, Any]:
    return {
        "creditBalance": balance,
        "tier": {"models": {name: {"maxConcurrentGenerations": most} for name, most in limits.items()}},
        "usage": {"models": {}},
    }


def test_a_good_answer_sets_limits_and_balance(provider: responses.RequestsMock) -> None:
    ProviderAccount.objects.update(slots_override=9)
    provider.get(ORGANIZATION, json=organization(1234, **{MODEL: 3, "gen4_turbo": None, "unheard_of": 5}))
    assert configured_keys.refresh(300) == 1
    assert (row().slots, row().slots_override, row().balance, row().balance_unit) == (
        3,
        9,
        Decimal("1234.0000"),
        "credits",
    )
    assert row("gen4_turbo").slots > 100
    assert ProviderKey.objects.get().checked_at is not None
    assert configured_keys.refresh(300) == 0  # young enough
    pass_time(301)
    assert configured_keys.refresh(300) == 1


def test_a_balance_beyond_all_measure_is_cut_to_the_column(provider: responses.RequestsMock) -> None:
    provider.get(ORGANIZATION, json=organization(999_999_999_999, **{MODEL: 10**9}))
    assert configured_keys.refresh(0) == 1
    assert row().balance == accounts.LARGEST_BALANCE
    assert row().slots == accounts.MOST_SLOTS


def test_refused_checks_over_minutes_quarantine_and_a_good_one_brings_back(
    provider: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(KeyRefused("401"))
    refused = provider.get(ORGANIZATION, status=401, json={"error": "no"})
    for _ in range(4):
        pass_time(retry_s(ProviderKey.objects.get()) + 0.1)
        assert configured_keys.refresh(None) == 1
        assert configured_keys.refresh(60) == 0  # in its pause nobody asks
    assert state() == "quarantined"
    assert refused.call_count == 4
    provider.replace(responses.GET, ORGANIZATION, json=organization())
    pass_time(retry_s(ProviderKey.objects.get()) + 0.1)
    assert not opened()  # by a read, not by a job
    assert configured_keys.refresh(60) == 1
    assert state() == "active"
    assert [slot.free for slot in open_slots()] == [slot.free for slot in open_slots() if slot.to_try]  # one job tries
    assert ONE.value not in caplog.text


def test_a_key_of_which_no_read_comes_is_tried_by_a_job(provider: responses.RequestsMock) -> None:
    refuse(KeyRefused("401"))
    provider.get(ORGANIZATION, status=503, body="<html>")
    pass_time(accounts.refusals.FIRST_PAUSE_S)
    assert configured_keys.refresh(None) == 0
    assert not opened()
    pass_time(accounts.refusals.READ_FIRST_S)
    assert opened()


def test_a_draining_key_is_never_activated_by_a_check(provider: responses.RequestsMock) -> None:
    ProviderKey.objects.update(state="draining")
    provider.get(ORGANIZATION, json=organization())
    configured_keys.refresh(0)
    assert state() == "draining"


@pytest.mark.parametrize(("balance", "opens"), [(0, False), (None, False), (1, True)])
def test_an_empty_account_opens_when_it_was_topped_up(
    provider: responses.RequestsMock, balance: int | None, opens: bool
) -> None:
    for _ in range(6):
        refuse(ModelForbidden("no"), generation("gen4_turbo"))
        pass_time(retry_s(row("gen4_turbo")) + 0.1)
    assert row("gen4_turbo").closed_reason == "model_forbidden"
    refuse(OutOfCredits("empty"))
    provider.get(ORGANIZATION, json=organization(balance))
    pass_time(16)
    assert configured_keys.refresh(60) == 1
    assert opened() is opens
    assert row("gen4_turbo").closed_reason == "model_forbidden"  # which money does not change


def test_an_empty_account_is_asked_about_after_growing_pauses(provider: responses.RequestsMock) -> None:
    call = provider.get(ORGANIZATION, json=organization(0))
    accounts.note_refusal(generation(), OutOfCredits("empty"), jitter=calm)
    found = []
    for _ in range(9):
        found.append(round(retry_s(row())))
        assert configured_keys.refresh(60) == 0
        pass_time(found[-1] + 1)
        assert configured_keys.refresh(None) == 1
    assert call.call_count == 9
    assert found[0] == 15
    assert found == sorted(found)
    assert found[-1] > 2000


def test_kling_tells_its_units_and_nothing_of_limits(configure: Any, provider: responses.RequestsMock) -> None:
    configure(kling=(KLING,))
    packs = [{"status": "online", "remaining_quantity": 12.5}, {"status": "expired", "remaining_quantity": 9}]
    provider.get(COSTS, json={"code": 0, "data": {"resource_pack_subscribe_infos": packs}})
    before = set(ProviderAccount.objects.filter(provider="kling").values_list("model", "slots"))
    assert configured_keys.refresh(300) == 1
    mine = ProviderAccount.objects.filter(provider="kling")
    assert set(mine.values_list("model", "slots")) == before
    assert set(mine.values_list("balance", "balance_unit")) == {(Decimal("12.5"), "units")}


def test_fal_is_not_asked_and_an_empty_account_of_it_is_tried_by_one_job(
    configure: Any, provider: responses.RequestsMock
) -> None:
    configure(pika=(FAL,))
    models = list(ProviderAccount.objects.filter(provider="pika").values_list("model", flat=True))
    accounts.note_refusal(generation(models[0], key=FAL), OutOfCredits("locked"))
    configured_keys.refresh(0)
    assert not any(opened(model) for model in models)
    pass_time(20)
    made = admitted(make_task(model_requested=models[0]))
    assert made.is_probe
    assert not any(opened(model) for model in models)  # until it is known how the try ends
    accounts.note_accepted(made)
    assert all(opened(model) for model in models)
    assert len(provider.calls) == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, "oops"), (429, "{}"), (200, "not json"), (302, ""), (200, "[]"), (404, "{}")],
)
def test_an_answer_that_says_nothing_changes_nothing(provider: responses.RequestsMock, status: int, body: str) -> None:
    provider.get(ORGANIZATION, status=status, body=body)
    before = list(ProviderAccount.objects.order_by("id").values())
    assert configured_keys.refresh(0) == 0
    assert list(ProviderAccount.objects.order_by("id").values()) == before
    assert state() == "active"
    assert ProviderKey.objects.get().last_error
    assert ProviderKey.objects.get().checked_at is None


def test_one_unreachable_provider_does_not_keep_the_others_from_being_asked(
    configure: Any, provider: responses.RequestsMock
) -> None:
    configure((ONE, TWO), kling=(KLING,))
    provider.get(ORGANIZATION, json=organization(7))
    provider.get(COSTS, body=ConnectionError("down"))
    assert configured_keys.refresh(0) == 2
    assert row().balance == 7


def test_each_key_of_an_account_is_asked_and_no_call_is_begun_after_the_time_is_over(
    configure: Any, provider: responses.RequestsMock
) -> None:
    configure((ONE, TWO), studio=[ONE, TWO])
    provider.get(ORGANIZATION, json=organization(7))
    assert configured_keys.refresh(0) == 2
    late = accounts.ask([("runway", ONE), ("runway", TWO)], deadline_s=5, budget_s=-1)
    assert late == []


def test_refresh_never_raises_and_shows_no_key(
    provider: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any, reply: Any) -> None:
        raise ValueError(f"something with {ONE.value}")

    provider.get(ORGANIZATION, json=organization())
    monkeypatch.setattr("providers.runway.adapter.Runway.parse_account", broken)
    assert configured_keys.refresh(0) == 0
    assert "ValueError" in ProviderKey.objects.get().last_error
    monkeypatch.setattr(accounts, "ask", broken)
    assert configured_keys.refresh(0) == 0
    assert ONE.value not in caplog.text + json.dumps(list(ProviderKey.objects.values("last_error")))


def test_refresh_says_again_which_keys_are_gone(configure: Any, caplog: pytest.LogCaptureFixture) -> None:
    generation()
    configure()
    caplog.clear()
    assert configured_keys.refresh(0) == 0
    assert "still gone" in caplog.text
    assert ONE.fingerprint in caplog.text


def test_keys_are_asked_outside_any_transaction(
    provider: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth: list[int] = []
    inside = len(connection.savepoint_ids)

    def look(*args: Any, **kwargs: Any) -> list[Any]:
        depth.append(len(connection.savepoint_ids) - inside)
        return []

    monkeypatch.setattr(accounts, "ask", look)
    configured_keys.refresh(0)
    assert depth == [0]
