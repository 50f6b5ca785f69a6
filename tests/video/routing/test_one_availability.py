"""Each state of a model, an account and a key, at every place that says whether a job may start: all say the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from providers.api_keys import ApiKey
from tests.factories import admitted, make_task
from tests.video.conftest import client_of
from tests.video.presence import everybody
from video.actions.retry import retry
from video.actions.task_rows import ActionRefused
from video.attempts import configured_keys
from video.audit.actors import Unaudited
from video.engine.claims import Stage
from video.infra import toolkit
from video.models import CreditEntry, ModelSetting, ProviderAccount, ProviderKey, VideoTask
from video.monitoring import providers, users
from video.routing import health
from video.scheduling import admission, estimates

MODEL = "gen4.5"
REFUSED, FREE = "refused", ""


@dataclass
class World:
    """What a state changes."""

    user: AbstractBaseUser
    settings: Settings

    def account(self, **values: Any) -> None:
        ProviderAccount.objects.filter(model=MODEL).update(**values)

    def keys(self, **values: Any) -> None:
        ProviderKey.objects.filter(provider="runway").update(**values)

    def fill(self) -> None:
        for _ in range(ProviderAccount.objects.filter(model=MODEL).count()):
            admitted(make_task())

    def faults(self, user_id: int) -> None:
        for _ in range(self.settings.CIRCUIT_FAULTS):
            health.note_fault(MODEL, "runway", "no answer", user_id)


def soon() -> Any:
    return timezone.now() + timedelta(minutes=5)


def full(world: World) -> None:
    world.account(slots=1)
    world.fill()


def full_as_lowered(world: World) -> None:
    world.account(slots=9, lowered_slots=1, lowered_until=soon())
    world.fill()


def no_key(world: World) -> None:
    world.settings.PROVIDER_KEYS = {**world.settings.PROVIDER_KEYS, "runway": ()}


# State → (how it comes, what is said of it, whether an order of the model is refused).
STATES: dict[str, tuple[Callable[[World], Any], str, bool]] = {
    "free": (lambda world: None, FREE, False),
    "switched off": (
        lambda world: ModelSetting.objects.create(model=MODEL, enabled=False),
        "switched off by the operator",
        True,
    ),
    "no key": (no_key, "no key configured for Runway", True),
    "circuit open": (lambda world: world.faults(health.NOBODYS), "circuit open after", False),
    "circuit open for this user": (lambda world: world.faults(world.user.pk), "circuit open after", False),
    "key drained": (lambda world: world.keys(state="draining"), "its key takes no new jobs", False),
    "key in quarantine": (
        lambda world: world.keys(state="quarantined", refusals=3, retry_at=soon()),
        "its key was refused",
        False,
    ),
    "key refused": (lambda world: world.keys(refusals=1, retry_at=soon()), "its key was refused a moment ago", False),
    "account refused": (
        lambda world: world.account(refusals=1, retry_at=soon()),
        "the provider refused it a moment ago",
        False,
    ),
    "out of credits": (lambda world: world.account(closed_reason="out_of_credits"), "out of credits", False),
    "forbidden": (lambda world: world.account(closed_reason="model_forbidden"), "may not use this model", False),
    "cools down": (lambda world: world.account(cooldown_until=soon()), "asked to wait", False),
    "limit of none": (lambda world: world.account(slots_override=0), "its limit is 0", False),
    "full": (full, "every slot is taken", False),
    "full as lowered": (full_as_lowered, "every slot is taken", False),
}
#: Where a slot comes free by itself as jobs end.
MOVES = {"free", "full", "full as lowered"}


@pytest.fixture
def world(user: AbstractBaseUser, settings: Settings) -> World:
    configured_keys.sync()
    everybody()
    return World(user, settings)


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest, world: World) -> str:
    STATES[request.param][0](world)
    estimates._cache.clear()
    return str(request.param)


def post(api: Client, path: str) -> Any:
    order = {"prompt": "A cat", "model": MODEL, "fallback": False}
    return api.post(f"/api/video/{path}", order, content_type="application/json")


def test_every_place_says_the_same(api: Client, world: World, state: str) -> None:
    _, said, is_refused = STATES[state]
    listed = {one["id"]: one["availability"] for one in api.get("/api/models").json()["data"]["models"]}[MODEL]
    assert listed["available"] is (said == FREE)
    assert said in (listed["reason"] or "")
    assert (listed["freeSlots"] > 0) is (said == FREE)

    quoted, created = post(api, "quote"), post(api, "create")
    if is_refused:
        assert quoted.status_code == created.status_code == 400
        assert quoted.json() == created.json()
        assert said in quoted.json()["error"]["message"]
        assert not CreditEntry.objects.filter(kind="debit").exists()
        return
    assert quoted.json()["data"]["startsNow"] is (said == FREE)
    assert quoted.json()["data"]["waitsFor"] == listed["reason"]
    assert created.status_code == 201

    task_id = created.json()["data"]["taskId"]
    status = api.get("/api/video/status", {"taskId": task_id}).json()["data"]
    assert ("expectedWait" in status) is (state in MOVES)
    assert users.word(world.user.pk, waits=True) == "busy"
    assert admission.admit() == ([(task_id, Stage.GENERATE)] if said == FREE else [])


def test_the_admin_and_the_figures_say_it_of_each_account(admin_user: Any, world: World, state: str) -> None:
    said = STATES[state][1]
    mine = [one for one in providers.account_states() if one.row.model == MODEL]
    of_one_user = state == "circuit open for this user"
    assert all(one.is_open is (state in MOVES or of_one_user) for one in mine)
    assert all((one.free > 0) is (said == FREE or of_one_user) for one in mine)
    page = client_of(admin_user)
    page.force_login(admin_user)
    shown = page.get("/admin/video/provideraccount/", {"former": "all"}).content.decode()
    words = {"no key": "no key is configured", "forbidden": "closed: model forbidden", "full": "open, full"}
    words |= {"full as lowered": "open, full", "free": "open", "circuit open for this user": "open"}
    assert words.get(state, said) in shown


def test_a_retry_is_refused_where_a_create_is(world: World, state: str) -> None:
    task = make_task(world.user) if state == "free" else None
    if task is None:
        ModelSetting.objects.filter(model=MODEL).update(enabled=True)
        keys, world.settings.PROVIDER_KEYS = world.settings.PROVIDER_KEYS, {"runway": (ApiKey("one"),)}
        task = make_task(world.user)
        world.settings.PROVIDER_KEYS = keys
        ModelSetting.objects.filter(model=MODEL).update(enabled=False)
    VideoTask.objects.filter(pk=task.pk).update(status="cancelled", admit_at=None, finished_at=timezone.now())
    if STATES[state][2]:
        with pytest.raises(ActionRefused, match=STATES[state][1]):
            retry(task.pk, by=Unaudited("a test"))
    else:
        assert retry(task.pk, by=Unaudited("a test")).stage is Stage.GENERATE


def test_a_model_that_is_off_is_no_obstacle_while_another_may_run_the_order(api: Client, world: World) -> None:
    ModelSetting.objects.create(model=MODEL, enabled=False)
    order = {"prompt": "A cat", "model": MODEL}
    made = api.post("/api/video/create", order, content_type="application/json")
    assert made.status_code == 201
    admission.admit()
    assert VideoTask.objects.get().generations.get().model != MODEL


def test_a_replay_is_answered_though_its_model_is_off_by_now(api: Client, world: World) -> None:
    order = {"prompt": "A cat", "model": MODEL, "fallback": False}

    def create() -> Any:
        return api.post("/api/video/create", order, content_type="application/json", HTTP_IDEMPOTENCY_KEY="k")

    first = create()
    ModelSetting.objects.create(model=MODEL, enabled=False)
    assert (create().status_code, create().json()["data"]["taskId"]) == (200, first.json()["data"]["taskId"])


def test_a_key_that_speaks_an_api_without_the_model_is_none_of_it(api: Client, settings: Settings) -> None:
    settings.PROVIDER_KEYS = {"runway": (), "pika": (), "kling": (ApiKey("accessKey:secretKey"),)}
    toolkit.toolkit.cache_clear()
    try:
        order = {"prompt": "A cat", "model": "kling-3.0-turbo", "fallback": False}
        answers = [
            api.post(f"/api/video/{path}", order, content_type="application/json") for path in ("quote", "create")
        ]
        assert [one.status_code for one in answers] == [400, 400]
        assert answers[0].json() == answers[1].json()
        assert "an API without this model" in answers[0].json()["error"]["message"]
    finally:
        toolkit.toolkit.cache_clear()


def test_the_expected_wait_grows_while_the_jobs_of_now_take_longer_than_usual(api: Client, world: World) -> None:
    full(world)
    waiting = make_task(world.user)
    estimates._cache.clear()
    usual = api.get("/api/video/status", {"taskId": waiting.pk}).json()["data"]["expectedWait"]
    from video.models import Generation

    Generation.objects.update(planned_at=timezone.now() - timedelta(seconds=20 * usual))
    estimates._cache.clear()
    assert api.get("/api/video/status", {"taskId": waiting.pk}).json()["data"]["expectedWait"] >= 20 * usual


@pytest.mark.django_db
def test_what_is_known_of_all_is_read_by_one_statement(django_assert_num_queries: Any) -> None:
    from video.routing import availability

    with django_assert_num_queries(1):
        availability.read()
