"""GET /api/queues/status and /api/queues/tasks/{taskId}: staff see the system, users what is theirs."""

from __future__ import annotations

import json
from decimal import Decimal
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from providers.contract import JobState, JobStatus
from tests.factories import OLGA, accepted, age, claimed, make_task, make_user, park_one, reload
from tests.video.conftest import client_of
from tests.video.presence import everybody
from video.actions import cancel, retry
from video.api import task_details
from video.attempts import configured_keys, provider_calls, records, task_moves
from video.audit.actors import Unaudited
from video.engine import claims, transitions
from video.models import Generation, ProviderAccount, Stage, TaskEvent, VideoTask
from video.monitoring import overview
from video.pipeline import runner

pytestmark = pytest.mark.django_db
STATUS = "/api/queues/status"


def staff(*codenames: str) -> AbstractBaseUser:
    user = make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


@pytest.fixture
def operator() -> Client:
    return client_of(staff(*(name.partition(".")[2] for name in overview.PERMISSIONS)))


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
        configured_keys.sync()
        everybody()
        generation = accepted(make_task())
        waiting = make_task()
        age(waiting.pk, 90)
        found = data(operator)
        assert set(found) == {
            *(
                "scope",
                "at",
                "simulated",
                "healthy",
                "troubles",
                "stuck",
                "videoQueue",
                "mediaQueue",
                "stages",
                "accounts",
            ),
            *("keys", "circuits", "workers", "openCases", "warnings", "storage", "pauses", "slowRenders"),
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
        configured_keys.sync()
        text = json.dumps(data(operator))
        for keys in settings.PROVIDER_KEYS.values():
            for key in keys:
                assert key.value not in text
                assert key.fingerprint in text

    def test_tells_what_is_wrong_and_what_to_do(self, operator: Client) -> None:
        configured_keys.sync()
        found = data(operator)
        assert found["healthy"] is False
        sweeper = found["troubles"][0]
        assert (sweeper["code"], sweeper["needsPerson"]) == ("no_sweeper", True)
        assert all(sweeper[part].endswith(".") for part in ("sentence", "system", "operator"))

    def test_costs_as_many_statements_for_many_tasks_as_for_none(self, operator: Client) -> None:
        configured_keys.sync()
        everybody()

        def statements() -> int:
            with CaptureQueriesContext(connection) as captured:
                data(operator)
            return len(captured)

        few = statements()
        for number in range(5):
            accepted(make_task(), f"job-{number}")
            make_task()
        assert statements() == few <= 20


class TestOwn:
    def test_tells_ones_own_tasks_and_nothing_of_the_system(
        self, api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser
    ) -> None:
        configured_keys.sync()
        everybody()
        task = make_task(user)
        accepted(task)
        failed = make_task(user)
        accepted(failed, "job-2")
        assert task_moves.fail(claimed(failed, Stage.POLL), code="timeout", message="Too long.")
        for number in range(3):
            accepted(make_task(stranger), f"job-of-stranger-{number}")
        age(make_task(stranger).pk, 900)
        make_task(user)
        found = data(api)
        assert set(found) == {
            *("scope", "simulated", "system", "active", "byStatus", "byStage", "waitingForSlot", "oldestWaitSeconds"),
            *("last24Hours", "balance", "storage"),
        }
        assert (found["active"], found["waitingForSlot"]) == (2, 1)
        assert found["oldestWaitSeconds"] < 60
        assert found["byStatus"] == {"pending": 1, "running": 1}
        assert found["byStage"] == {"generate": 1, "poll": 1}
        assert found["last24Hours"] == {"success": 0, "failed": 1, "cancelled": 0}
        assert found["balance"] == 1000 - 2 * 10
        assert found["system"] == "busy"

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

    def test_the_word_on_the_system(self, api: Client, user: AbstractBaseUser) -> None:
        assert data(api)["system"] == "paused"  # nobody works
        everybody()
        assert data(api)["system"] == "ok"
        configured_keys.sync()
        assert data(api)["system"] == "ok"
        make_task(user)
        assert data(api)["system"] == "busy"  # for this user, whose task waits
        assert data(client_of(make_user()))["system"] == "ok"
        ProviderAccount.objects.update(slots_override=0)
        assert data(api)["system"] == "paused"
        ProviderAccount.objects.update(slots_override=None, closed_reason="out_of_credits")
        assert data(api)["system"] == "paused"

    def test_costs_as_many_statements_for_many_tasks_as_for_none(self, api: Client, user: AbstractBaseUser) -> None:
        configured_keys.sync()

        def statements() -> int:
            with CaptureQueriesContext(connection) as captured:
                data(api)
            return len(captured)

        few = statements()
        for number in range(5):
            accepted(make_task(user), f"job-{number}")
            make_task(user)
        assert statements() == few <= 9


class TestTask:
    """GET /api/queues/tasks/{taskId}"""

    def url(self, task: VideoTask) -> str:
        return f"/api/queues/tasks/{task.pk}"

    def test_is_for_its_owner_and_for_staff(self, api: Client, user: AbstractBaseUser, operator: Client) -> None:
        task = make_task(user)
        for client in (api, operator):
            assert data(client, self.url(task))["taskId"] == task.pk

    def test_of_others_is_not_there(self, client: Client, stranger: AbstractBaseUser, user: AbstractBaseUser) -> None:
        task = make_task(user)
        for other in (client_of(stranger), client_of(staff("view_videotask"))):
            answer = other.get(self.url(task))
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert client.get(self.url(task)).status_code == 401

    @pytest.mark.parametrize("task_id", ["task_0", "nonsense", "task_%00", "task_1/", "gen_1"])
    def test_of_nobody_is_not_there(self, api: Client, operator: Client, task_id: str) -> None:
        for client in (api, operator):
            assert client.get(f"/api/queues/tasks/{task_id}").status_code == 404

    def test_a_waiting_one(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user, prompt="A boat", seed=7)
        found = data(api, self.url(task))
        assert (found["status"], found["stage"], found["progress"], found["run"]) == ("pending", "generate", 0, 1)
        assert found["now"] == {"state": "waitsForSlot", "since": found["createdAt"], "until": None}
        assert found["request"] == {
            "prompt": "A boat",
            "duration": 5,
            "aspectRatio": "16:9",
            "imageUrl": None,
            "model": "gen4.5",
            "policy": "balanced",
            "fallback": False,
            "quality": "medium",
            "resolution": "source",
            "fps": 30,
            "negativePrompt": None,
            "seed": 7,
            "expiresIn": None,
            "sound": None,
            "webhookUrl": None,
            "cover": None,
            "extras": None,
        }
        assert [(one["stage"], one["outcome"]) for one in found["timeline"]] == [("generate", "created")]
        assert found["generations"] == []
        assert found["credits"]["total"] == -10
        assert [entry["kind"] for entry in found["credits"]["runs"][0]["entries"]] == ["debit"]
        assert "result" not in found
        assert "model" not in found
        assert found["position"] == data(api, f"/api/video/status?taskId={task.pk}")["position"]

    def test_a_failed_one_with_its_attempt_and_refund(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        generation = accepted(task)
        records.record_ended(
            generation.pk, Generation.State.FAILED, cost=Decimal(25), code="internal", message="It broke."
        )
        assert task_moves.fail(
            claimed(task, Stage.POLL),
            code="internal",
            message="It broke.",
            detail="HTTP 500 at host-7",
            generation_id=generation.pk,
        )
        found = data(api, self.url(task))
        assert (found["status"], found["error"], found["errorCode"]) == ("failed", "It broke.", "internal")
        assert found["now"] is None
        assert [one["outcome"] for one in found["timeline"]] == ["created", "admitted", "advanced", "failed"]
        last = found["timeline"][-1]
        assert (last["detail"], last["errorCode"], last["generationId"]) == ("It broke.", "internal", generation.pk)
        assert last["seconds"] >= 0
        (attempt,) = found["generations"]
        assert (attempt["provider"], attempt["model"], attempt["state"]) == ("runway", "gen4.5", "failed")
        assert "cost" not in attempt
        get_user_model().objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
        (attempt,) = data(api, self.url(task))["generations"]
        assert attempt["cost"] == {
            "expectedUsd": f"{generation.expected_usd.normalize():f}",
            "expected": None,
            "reported": "25",
            "unit": "credits",
        }
        chosen = [one for one in attempt["candidates"] if one["chosen"]]
        assert [one["model"] for one in chosen] == ["gen4.5"]
        assert all(one["reason"] for one in attempt["candidates"] if not one["chosen"])
        assert [entry["amount"] for entry in found["credits"]["runs"][0]["entries"]] == [-10, 10]
        assert found["credits"]["total"] == 0

    def test_links_when_it_is_done(self, api: Client, user: AbstractBaseUser) -> None:
        task = finished(user)
        found = data(api, self.url(task))
        assert found["status"] == "success"
        assert found["result"] == data(api, f"/api/video/status?taskId={task.pk}")["result"]
        assert f"/storage/{user.pk}/videos/vid_1.mp4?" in found["result"]["videoUrl"]

    def test_workers_keys_and_operators_words_are_for_staff(
        self, api: Client, user: AbstractBaseUser, operator: Client
    ) -> None:
        task = make_task(user)
        generation = accepted(task, "job-77")
        claim = claimed(task, Stage.POLL)
        secret = f"key {generation.key_fingerprint} is gone: put it back"
        assert park_one(claim, delay_s=60, reason=secret)
        TaskEvent.objects.create(
            task=task,
            run=1,
            stage="poll",
            outcome="parked",
            worker="operator olga",
            detail="olga attached job x",
            owner_detail=TaskEvent.BY_OPERATOR,
        )
        all_of_it, own = data(operator, self.url(task)), data(api, self.url(task))
        text = json.dumps(own)
        for hidden in (
            generation.key_fingerprint,
            str(claims.WORKER),
            "olga",
            "job-77",
            "worker",
            generation.account.account,
        ):
            assert hidden not in text, hidden
        assert [one["detail"] for one in own["timeline"][-2:]] == [None, "an operator saw to it"]
        assert [one["detail"] for one in all_of_it["timeline"][-2:]] == [secret, "olga attached job x"]
        assert all_of_it["timeline"][-2]["worker"] == str(claims.WORKER)
        assert all_of_it["now"]["reason"] == secret
        assert all_of_it["user"] == user.get_username()
        assert "user" not in own
        attempt = all_of_it["generations"][0]
        assert (attempt["keyFingerprint"], attempt["jobId"]) == (generation.key_fingerprint, "job-77")

    def test_a_cancel_and_a_retry_are_told_without_who_it_was(
        self, api: Client, user: AbstractBaseUser, operator: Client
    ) -> None:
        task = make_task(user)
        cancel.cancel(task.pk, by=Unaudited("olga"))
        retry.retry(task.pk, by=Unaudited("olga"))
        own, all_of_it = data(api, self.url(task)), data(operator, self.url(task))
        assert [one["detail"] for one in own["timeline"][-2:]] == ["cancelled; refunded", "retried; 10 credits"]
        assert all_of_it["timeline"][-1]["worker"] == "olga"
        assert [(one["run"], len(one["entries"])) for one in own["credits"]["runs"]] == [(1, 2), (2, 1)]
        assert "olga" not in json.dumps(own)

    def test_a_provider_s_own_status_is_told(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        accepted(task)
        said = "runway: running"
        assert park_one(claimed(task, Stage.POLL), delay_s=60, reason=said, owner_detail=said)
        found = data(api, self.url(task))
        assert found["timeline"][-1]["detail"] == "runway: running"
        assert found["now"]["state"] == "parked"
        assert found["now"]["until"] > found["createdAt"]

    def test_what_an_owner_reads_of_an_event_is_what_its_writer_said_for_owners(
        self, api: Client, user: AbstractBaseUser
    ) -> None:
        task = make_task(user)
        generation = accepted(task)
        silent = "newprov: running on host-7"  # words alone, whoever they seem to be from, show nothing
        assert park_one(claimed(task, Stage.POLL), delay_s=0, reason=silent)
        said = "newprov: step_3 OF 7 (warming up)"  # whatever a provider to come says of its job
        assert park_one(claimed(task, Stage.POLL), delay_s=0, reason="anything", owner_detail=said)
        assert transitions.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.", detail="host-7 slept")
        details = [one["detail"] for one in data(api, self.url(task))["timeline"][-3:]]
        assert details == [None, said, "Too long."]
        assert generation.key_fingerprint not in json.dumps(details)

    def test_a_provider_s_status_is_said_for_owners_whatever_its_words(
        self, api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = make_task(user)
        accepted(task)
        status = JobStatus(JobState.RUNNING, "Phase 2/3")
        monkeypatch.setattr(provider_calls, "_poll_with_one_key", lambda asked: {one.pk: status for one in asked})
        runner.run_stage(Stage.POLL, task.pk)
        assert data(api, self.url(task))["timeline"][-1]["detail"] == "runway: phase 2/3"

    def test_an_operator_s_cancel_is_told_as_an_operator_s(self, api: Client, user: AbstractBaseUser) -> None:
        task = make_task(user)
        cancel.cancel(task.pk, by=OLGA)
        assert data(api, self.url(task))["timeline"][-1]["detail"] == "an operator saw to it"

    def test_events_from_before_the_column_say_to_owners_what_they_said(self, user: AbstractBaseUser) -> None:
        task = make_task(user)
        before = [
            ("cancelled", "olga", "cancelled by olga; refunded", "cancelled; refunded"),
            ("parked", "operator olga", "olga attached job x", "an operator saw to it"),
            ("parked", "host:1", "runway: in progress", "runway: in progress"),
            ("parked", "host:1", "key abc is gone: put it back", ""),
            ("admitted", "host:1", "runway gen4.5", "runway gen4.5"),
            ("waiting", "host:1", "key abc is no longer configured", ""),
        ]
        for outcome, worker, detail, _ in before:
            TaskEvent.objects.create(task=task, run=1, stage="poll", outcome=outcome, worker=worker, detail=detail)
        with connection.cursor() as cursor:
            cursor.execute(import_module("video.migrations.0010_owner_detail").OWNER_DETAILS)
        found = TaskEvent.objects.filter(task=task).exclude(outcome="created").order_by("id")
        assert list(found.values_list("owner_detail", flat=True)) == [expected for *_, expected in before]

    def test_what_it_does_now(self, api: Client, user: AbstractBaseUser, operator: Client) -> None:
        task = make_task(user)
        age(task.pk, -500)
        assert data(api, self.url(task))["now"]["until"] is not None
        age(task.pk, 500)
        accepted(task)
        assert data(api, self.url(task))["now"]["state"] == "waitsForWorker"
        claimed(task, Stage.POLL)
        assert data(api, self.url(task))["now"]["state"] == "inWork"
        assert data(operator, self.url(task))["now"]["worker"] == str(claims.WORKER)

    def test_a_long_story_is_cut_at_its_begin(
        self, api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_details, "EVENTS_SHOWN", 2)
        task = make_task(user)
        accepted(task)
        found = data(api, self.url(task))
        assert found["timelineCut"] is True
        assert [one["outcome"] for one in found["timeline"]] == ["admitted", "advanced"]

    def test_costs_as_many_statements_whatever_it_went_through(
        self, api: Client, user: AbstractBaseUser, operator: Client
    ) -> None:
        def statements(client: Client, task: VideoTask) -> int:
            with CaptureQueriesContext(connection) as captured:
                data(client, self.url(task))
            return len(captured)

        waiting, done = make_task(user), finished(user)
        assert statements(api, waiting) == statements(api, done) == 6
        assert statements(operator, waiting) == statements(operator, done) <= 8


def finished(user: AbstractBaseUser) -> VideoTask:
    """A task with a stored video, made by the moves of the state machine."""
    task = make_task(user)
    generation = accepted(task)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED, provider_status="SUCCEEDED")
    way = (Stage.POLL, Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE)
    for stage, to in pairwise(way):
        assert transitions.advance(claimed(task, stage), to, generation_id=generation.pk)
    folder = f"{task.user_id}/videos"
    assert transitions.succeed(
        claimed(task, Stage.SAVE),
        generation_id=generation.pk,
        video_id="vid_1",
        output_key=f"{folder}/vid_1.mp4",
        thumbnail_key=f"{folder}/vid_1_thumb.jpg",
    )
    return reload(task)
