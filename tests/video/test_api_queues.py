"""GET /api/queues/status and /api/queues/tasks/{taskId}: staff see the system, users what is theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, age, claimed, make_task, make_user
from tests.video.conftest import client_of
from tests.video.signs import everybody
from video import figures, keyring, states
from video.models import ProviderAccount, Stage

pytestmark = pytest.mark.django_db
STATUS = "/api/queues/status"


def staff(*codenames: str) -> AbstractBaseUser:
    user = make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


@pytest.fixture
def operator() -> Client:
    return client_of(staff(*(name.partition(".")[2] for name in figures.PERMISSIONS)))


def data(client: Client, url: str = STATUS) -> Any:
    answer = client.get(url)
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    return answer.json()["data"]


class TestWhoSeesWhat:
    def test_nobody_without_a_login(self, client: Client) -> None:
        assert client.get(STATUS).status_code == 401

    def test_staff_with_the_permissions_and_superusers(self, operator: Client) -> None:
        assert data(operator)["scope"] == "system"
        assert data(client_of(get_user_model().objects.create_superuser("root-like")))["scope"] == "system"

    @pytest.mark.parametrize("codenames", [(), ("view_videotask",), ("view_provideraccount",)])
    def test_staff_without_all_of_them_see_their_own(self, codenames: tuple[str, ...]) -> None:
        assert data(client_of(staff(*codenames)))["scope"] == "own"

    def test_permissions_without_staff_are_not_enough(self, user: AbstractBaseUser, api: Client) -> None:
        user.user_permissions.set(Permission.objects.all())
        assert data(api)["scope"] == "own"


class TestSystem:
    def test_tells_everything(self, operator: Client) -> None:
        keyring.sync()
        everybody()
        generation = accepted(make_task())
        waiting = make_task()
        age(waiting.pk, 90)
        found = data(operator)
        assert set(found) == {
            *("scope", "at", "simulated", "healthy", "troubles", "videoQueue", "mediaQueue", "stages", "accounts"),
            *("keys", "circuits", "workers", "openCases"),
        }
        assert found["healthy"] is True
        assert found["troubles"] == []
        queue = found["videoQueue"]
        assert queue["waitingForSlot"]["tasks"] == 1
        assert queue["waitingForSlot"]["oldestTask"] == waiting.pk
        assert queue["waitingForSlot"]["oldestWaitSeconds"] >= 90
        assert (queue["depth"], queue["inFlight"], queue["parked"]) == (1, 0, 0)
        assert found["mediaQueue"]["waitingForCore"] == {"tasks": 0, "oldestWaitSeconds": None, "oldestTask": None}
        assert [one["stage"] for one in found["stages"]] == [
            *("generate", "poll", "download", "transcode", "thumbnail", "save")
        ]
        generate, poll = found["stages"][:2]
        assert (poll["depth"], poll["oldestTask"]) == (1, generation.task_id)
        assert generate["donePerMinute"] == {"last1Min": 1.0, "last5Min": 0.2, "last15Min": 0.07}
        assert generate["durationSeconds"]["p95"] >= generate["workSeconds"]["p50"] >= 0
        account = next(one for one in found["accounts"] if one["model"] == generation.model)
        assert (account["slotsInUse"], account["slots"], account["open"]) == (1, 1000, True)
        key = next(one for one in found["keys"] if one["fingerprint"] == generation.key_fingerprint)
        assert (key["state"], key["jobs"], key["configured"]) == ("active", 1, True)
        worker = next(one for one in found["workers"] if one["queues"] == ["mediaQueue"])
        assert (worker["host"], worker["threads"], worker["alive"], worker["draining"]) == ("one", 2, True, False)
        assert found["openCases"] == {"number": 0, "atStakeUsd": "0", "simulatedUsd": "0", "withoutPrice": 0}

    def test_tells_no_key(self, operator: Client, settings: Any) -> None:
        keyring.sync()
        text = json.dumps(data(operator))
        for keys in settings.PROVIDER_KEYS.values():
            for key in keys:
                assert key.value not in text
                assert key.fingerprint in text

    def test_tells_what_is_wrong_and_what_to_do(self, operator: Client) -> None:
        keyring.sync()
        found = data(operator)
        assert found["healthy"] is False
        sweeper = found["troubles"][0]
        assert (sweeper["code"], sweeper["needsPerson"]) == ("no_sweeper", True)
        assert all(sweeper[part].endswith(".") for part in ("sentence", "system", "operator"))

    def test_costs_as_many_statements_for_many_tasks_as_for_none(self, operator: Client) -> None:
        keyring.sync()
        everybody()

        def statements() -> int:
            with CaptureQueriesContext(connection) as captured:
                data(operator)
            return len(captured)

        few = statements()
        for number in range(5):
            accepted(make_task(), f"job-{number}")
            make_task()
        assert statements() == few <= 13


class TestOwn:
    def test_tells_ones_own_tasks_and_nothing_of_the_system(
        self, api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser
    ) -> None:
        keyring.sync()
        everybody()
        task = make_task(user)
        accepted(task)
        failed = make_task(user)
        accepted(failed, "job-2")
        assert states.fail(claimed(failed, Stage.POLL), code="timeout", message="Too long.")
        for number in range(3):
            accepted(make_task(stranger), f"job-of-stranger-{number}")
        age(make_task(stranger).pk, 900)
        make_task(user)
        found = data(api)
        assert set(found) == {
            *("scope", "simulated", "system", "active", "byStatus", "byStage", "waitingForSlot", "oldestWaitSeconds"),
            *("last24Hours", "balance"),
        }
        assert (found["active"], found["waitingForSlot"]) == (2, 1)
        assert found["oldestWaitSeconds"] < 60
        assert found["byStatus"] == {"pending": 1, "running": 1}
        assert found["byStage"] == {"generate": 1, "poll": 1}
        assert found["last24Hours"] == {"success": 0, "failed": 1, "cancelled": 0}
        assert found["balance"] == 1000 - 2 * 10
        assert found["system"] == "ok"

    def test_tells_how_long_ones_oldest_has_waited(self, api: Client, user: AbstractBaseUser) -> None:
        age(make_task(user).pk, 90)
        age(make_task(user).pk, 30)
        age(make_task(user).pk, -500)
        found = data(api)
        assert found["waitingForSlot"] == 3
        assert 90 <= found["oldestWaitSeconds"] < 150
        assert found["byStatus"] == {"pending": 3, "running": 0}

    def test_somebody_who_has_nothing(self) -> None:
        found = data(client_of(make_user(0)))
        assert (found["active"], found["byStage"], found["oldestWaitSeconds"], found["balance"]) == (0, {}, None, 0)

    def test_the_word_on_the_system(self, api: Client) -> None:
        assert data(api)["system"] == "paused"  # nobody works
        everybody()
        assert data(api)["system"] == "paused"  # no account yet
        keyring.sync()
        assert data(api)["system"] == "ok"
        ProviderAccount.objects.update(slots_override=0)
        assert data(api)["system"] == "busy"
        ProviderAccount.objects.update(closed_reason="out_of_credits")
        assert data(api)["system"] == "paused"

    def test_costs_as_many_statements_for_many_tasks_as_for_none(self, api: Client, user: AbstractBaseUser) -> None:
        keyring.sync()

        def statements() -> int:
            with CaptureQueriesContext(connection) as captured:
                data(api)
            return len(captured)

        few = statements()
        for number in range(5):
            accepted(make_task(user), f"job-{number}")
            make_task(user)
        assert statements() == few <= 9
