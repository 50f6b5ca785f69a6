"""Operators drain and activate keys, set limits, switch models and close circuits in the admin."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.factories import admitted, make_task
from video.attempts import configured_keys
from video.models import AuditRecord, Circuit, Generation, ModelSetting, ProviderAccount, ProviderKey
from video.routing import accounts, refusals
from video.scheduling import admission

pytestmark = pytest.mark.django_db
KEYS, ACCOUNTS = "/admin/video/providerkey/", "/admin/video/provideraccount/"
MODELS, CIRCUITS = "/admin/video/modelsetting/", "/admin/video/circuit/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("operator"))
    return client


@pytest.fixture
def viewer() -> Client:
    """Staff who may look at everything and change nothing."""
    user = get_user_model().objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def generation() -> Generation:
    return admitted(make_task())


def text(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, (answer.status_code, answer.headers.get("Location"))
    return answer.content.decode()


def act(client: Client, url: str, action: str, *rows: Any) -> str:
    answer = client.post(url, {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True)
    return answer.content.decode()


class TestKeys:
    def key(self, generation: Generation) -> ProviderKey:
        return ProviderKey.objects.get(fingerprint=generation.key_fingerprint)

    def test_draining_stops_new_jobs_and_says_what_hangs_on_the_key(
        self, operator: Client, generation: Generation
    ) -> None:
        key = self.key(generation)
        page = act(operator, KEYS, "drain", key)
        assert "1 job still under way" in page
        assert "draining: no new jobs" in page
        key.refresh_from_db()
        assert key.state == "draining"
        make_task()
        assert admission.admit() == []
        assert AuditRecord.objects.get(object_id=str(key.pk)).action == "drain"
        assert "already" in act(operator, KEYS, "drain", key)
        assert "may start" in act(operator, KEYS, "activate", key)
        assert len(admission.admit()) == 1

    def test_draining_a_key_without_jobs_says_that_it_may_go(self, operator: Client) -> None:
        configured_keys.sync()
        assert "can be taken away" in act(operator, KEYS, "drain", ProviderKey.objects.first())

    def test_activating_takes_a_quarantine_back(self, operator: Client) -> None:
        configured_keys.sync()
        ProviderKey.objects.update(state="quarantined", last_error="401")
        assert "quarantined: it was refused" in text(operator, KEYS)
        said = act(operator, KEYS, "activate", *ProviderKey.objects.all())
        assert "the provider is asked about it, or one job tries it" in said
        assert set(ProviderKey.objects.values_list("state", "last_error")) == {("active", "401")}

    def test_an_activated_key_gets_one_job_until_that_is_taken(self, operator: Client) -> None:
        """Whatever models wait for it: a key that is still bad costs one task its 401, not each that waits."""
        configured_keys.sync()
        ProviderKey.objects.update(state="quarantined", refusals=5, refused_several=True, retry_at=timezone.now())
        act(operator, KEYS, "activate", *ProviderKey.objects.all())
        for more in ({}, {}, {"image_url": "https://images.example.com/a.png"}):  # of two models
            make_task(**more)
        assert admission.admit() == []  # the provider has a free call, which comes first
        lately = timezone.now() - timedelta(seconds=refusals.READ_FIRST_S + 1)
        ProviderKey.objects.update(retry_at=lately)  # and did not come
        [(first, _)] = admission.admit()
        assert admission.admit() == []
        accounts.note_accepted(Generation.objects.get(task=first))
        assert len(admission.admit()) == 2

    def test_says_which_are_gone_and_which_not_configured(self, operator: Client, settings: Any) -> None:
        configured_keys.sync()
        ProviderKey.objects.filter(provider="runway").update(gone_since=timezone.now())
        settings.PROVIDER_KEYS = {"runway": (), "pika": (), "kling": ()}
        page = text(operator, f"{KEYS}?former=all")
        assert "gone while jobs hang on it" in page
        assert "not configured" in page

    def test_no_page_holds_a_keys_value(self, operator: Client, generation: Generation, settings: Any) -> None:
        pages = "".join(
            text(operator, url)
            for url in (
                KEYS,
                ACCOUNTS,
                f"{KEYS}{self.key(generation).pk}/change/",
                f"{ACCOUNTS}{generation.account_id}/change/",
            )
        )
        for keys in settings.PROVIDER_KEYS.values():
            for key in keys:
                assert key.value not in pages
        assert generation.key_fingerprint in pages

    def test_cannot_be_added_deleted_or_edited(self, operator: Client, generation: Generation) -> None:
        key = self.key(generation)
        assert operator.get(f"{KEYS}add/").status_code == 403
        assert operator.get(f"{KEYS}{key.pk}/delete/").status_code == 403
        operator.post(f"{KEYS}{key.pk}/change/", {"state": "quarantined", "account": "other"})
        before = (key.state, key.account)
        key.refresh_from_db()
        assert (key.state, key.account) == before

    def test_who_may_only_look_gets_no_action(self, viewer: Client, generation: Generation) -> None:
        key = self.key(generation)
        assert "Drain (" not in text(viewer, KEYS)
        act(viewer, KEYS, "drain", key)
        key.refresh_from_db()
        assert key.state == "active"

    def test_the_number_of_statements_does_not_grow_with_the_rows(
        self, operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        configured_keys.sync()
        for number in range(30):
            ProviderKey.objects.create(provider="runway", fingerprint=f"{number:012x}", account=f"{number:012x}")
            ProviderAccount.objects.create(provider="runway", account=f"{number:012x}", model="gen4.5", slots=2)
        for url in (KEYS, ACCOUNTS):
            with django_assert_max_num_queries(9):
                text(operator, url)


class TestAccounts:
    def test_the_limit_is_set_in_the_list(self, operator: Client, generation: Generation) -> None:
        rows = list(ProviderAccount.objects.order_by("provider", "account", "model"))
        form = {
            "form-TOTAL_FORMS": len(rows),
            "form-INITIAL_FORMS": len(rows),
            "_save": "Save",
            **{f"form-{number}-id": row.pk for number, row in enumerate(rows)},
            **{f"form-{number}-slots_override": "" for number in range(len(rows))},
        }
        mine = next(number for number, row in enumerate(rows) if row.pk == generation.account_id)
        form[f"form-{mine}-slots_override"] = 1
        assert operator.post(ACCOUNTS, form).status_code == 302
        assert ProviderAccount.objects.get(pk=generation.account_id).slots_override == 1
        assert ProviderAccount.objects.exclude(slots_override=None).count() == 1
        assert "1 of 1" in text(operator, ACCOUNTS)
        make_task()
        assert admission.admit() == []

    def test_shows_balance_lowered_limit_and_why_nothing_starts(self, operator: Client, generation: Generation) -> None:
        soon = timezone.now() + timedelta(minutes=5)
        ProviderAccount.objects.filter(pk=generation.account_id).update(
            balance=Decimal("1234.5000"), balance_unit="credits", lowered_slots=1, lowered_until=soon
        )
        page = text(operator, ACCOUNTS)
        assert "1234.5 credits" in page
        assert "1 of 1<small>lowered, " in page
        ProviderAccount.objects.filter(pk=generation.account_id).update(cooldown_until=soon)
        assert "asked to wait" in text(operator, ACCOUNTS)
        ProviderKey.objects.update(state="quarantined")
        assert "its key was refused" in text(operator, ACCOUNTS)

    def test_opening_again_takes_back_all_that_holds_it_up(self, operator: Client, generation: Generation) -> None:
        soon = timezone.now() + timedelta(minutes=5)
        ProviderAccount.objects.filter(pk=generation.account_id).update(
            closed_reason="model_forbidden", cooldown_until=soon, busies=4, lowered_slots=1, lowered_until=soon
        )
        act(operator, ACCOUNTS, "open_again", generation.account)
        account = ProviderAccount.objects.get(pk=generation.account_id)
        assert (account.closed_reason, account.cooldown_until, account.busies) == ("", None, 0)
        assert (account.lowered_slots, account.lowered_until) == (None, None)


class TestModelSettings:
    def test_a_model_of_the_catalogue_is_switched_off_and_on(self, operator: Client) -> None:
        page = text(operator, f"{MODELS}add/")
        assert '<option value="gen4.5">' in page
        answer = operator.post(f"{MODELS}add/", {"model": "gen4.5", "price_usd_per_s": "0.05", "quality": 4})
        assert answer.status_code == 302
        setting = ModelSetting.objects.get()
        assert (setting.model, setting.enabled, setting.price_usd_per_s, setting.quality) == (
            "gen4.5",
            False,
            Decimal("0.05"),
            4,
        )
        assert '<option value="gen4.5">' not in text(operator, f"{MODELS}add/")
        answer = operator.post(f"{MODELS}gen4.5/change/", {"enabled": "on", "model": "gen4_turbo"})
        assert answer.status_code == 302
        setting = ModelSetting.objects.get()
        assert (setting.model, setting.enabled, setting.price_usd_per_s) == ("gen4.5", True, None)
        assert "0.12 (catalogue)" in text(operator, MODELS)

    @pytest.mark.parametrize(
        "values",
        [
            {"model": "gen-99"},
            {"model": ""},
            {"model": "gen4.5", "quality": 6},
            {"model": "gen4.5", "speed": 0},
            {"model": "gen4.5", "price_usd_per_s": 0},
            {"model": "gen4.5", "price_usd_per_s": -1},
        ],
    )
    def test_refuses_what_makes_no_sense(self, operator: Client, values: dict[str, Any]) -> None:
        answer = operator.post(f"{MODELS}add/", values)
        assert answer.status_code == 200
        assert "errorlist" in answer.content.decode()
        assert not ModelSetting.objects.exists()

    def test_who_may_only_look_sees_it(self, viewer: Client) -> None:
        ModelSetting.objects.create(model="gen4.5", quality=2)
        assert "gen4.5" in text(viewer, MODELS)
        assert "gen4.5" in text(viewer, f"{MODELS}gen4.5/change/")
        assert viewer.get(f"{MODELS}add/").status_code == 403

    def test_one_that_left_the_catalogue_can_still_be_seen_and_deleted(self, operator: Client) -> None:
        ModelSetting.objects.create(model="gen-1")
        assert "not in the catalogue" in text(operator, MODELS)
        operator.post(f"{MODELS}gen-1/delete/", {"post": "yes"})
        assert not ModelSetting.objects.exists()


class TestCircuits:
    @pytest.fixture
    def circuit(self) -> Circuit:
        return Circuit.objects.create(
            model="gen4.5",
            provider="runway",
            faults=7,
            open_until=timezone.now() + timedelta(minutes=5),
            last_error="503",
        )

    def test_is_closed_by_hand(self, operator: Client, circuit: Circuit) -> None:
        assert "no new jobs" in text(operator, CIRCUITS)
        assert "Closed 1 circuit" in act(operator, CIRCUITS, "close", circuit)
        circuit.refresh_from_db()
        assert (circuit.faults, circuit.open_until, circuit.probing_since) == (0, None, None)
        assert "already" in act(operator, CIRCUITS, "close", circuit)

    def test_shows_a_half_open_one(self, operator: Client, circuit: Circuit) -> None:
        Circuit.objects.update(open_until=timezone.now() - timedelta(seconds=1))
        assert "the next job tries" in text(operator, CIRCUITS)
        Circuit.objects.update(probing_since=timezone.now())
        assert "one job tries" in text(operator, CIRCUITS)

    def test_shows_whose_jobs_failed(self, operator: Client, circuit: Circuit) -> None:
        Circuit.objects.update(fault_users=[31])
        assert "no new jobs of user 31; those of others may go" in text(operator, CIRCUITS)
        assert "user 31" in text(operator, f"{CIRCUITS}gen4.5/change/")
        Circuit.objects.update(is_for_all=True)
        assert "one of others may go" in text(operator, CIRCUITS)
        Circuit.objects.update(open_until=timezone.now() - timedelta(seconds=1), is_for_all=False)
        assert "the next job of user 31 tries" in text(operator, CIRCUITS)
        Circuit.objects.update(fault_users=[31, 0])
        assert "user 31, several at once" in text(operator, f"{CIRCUITS}gen4.5/change/")
        act(operator, CIRCUITS, "close", circuit)
        circuit.refresh_from_db()
        assert (circuit.fault_users, circuit.is_for_all) == ([], False)

    def test_cannot_be_edited_and_not_be_closed_by_who_may_only_look(
        self, operator: Client, viewer: Client, circuit: Circuit
    ) -> None:
        assert operator.post(f"{CIRCUITS}gen4.5/change/", {"faults": 0}).status_code == 403
        assert "Close (" not in text(viewer, CIRCUITS)
        act(viewer, CIRCUITS, "close", circuit)
        circuit.refresh_from_db()
        assert circuit.faults == 7
