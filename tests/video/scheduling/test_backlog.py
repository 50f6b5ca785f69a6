"""Back-pressure: full lines are told at create, and nothing new begins where there is no room for it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.test import Client

from tests.factories import accepted, admitted, make_task, make_user, reload
from video.actions import cancel
from video.admin.timeline import waits_for
from video.audit.actors import Unaudited
from video.credits import ledger
from video.engine import workers
from video.models import CreditEntry, Generation, Stage, UserShare, VideoTask, WorkerSign
from video.scheduling import admission, backlog, estimates

pytestmark = pytest.mark.django_db
CREATE = "/api/video/create"
JSON = "application/json"


def refused(reply: Any) -> dict[str, Any]:
    assert reply.status_code == 429, reply.content
    assert 1 <= int(reply["Retry-After"]) <= backlog.LONGEST_S
    error: dict[str, Any] = reply.json()["error"]
    assert error["code"] == "too_many_waiting"
    return error


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MAX_WAITING_PER_USER", 2)


def test_a_user_whose_line_is_full_is_refused_and_nothing_is_made(
    few: None, api: Client, user: AbstractBaseUser, order: dict[str, Any], client_for: Any
) -> None:
    for _ in range(2):
        assert api.post(CREATE, order, content_type=JSON).status_code == 201
    assert "your videos" in refused(api.post(CREATE, order, content_type=JSON))["message"]
    assert VideoTask.objects.filter(user=user).count() == 2
    assert ledger.balance(user.pk) == 1000 - 2 * settings.CREDITS_PER_VIDEO
    assert CreditEntry.objects.filter(kind="debit").count() == 2
    # It is nobody else's trouble, and no longer this user's when one has begun.
    assert client_for(make_user()).post(CREATE, order, content_type=JSON).status_code == 201
    assert admission.admit()
    assert api.post(CREATE, order, content_type=JSON).status_code == 201


def test_what_has_a_slot_or_has_ended_does_not_count(few: None, user: AbstractBaseUser) -> None:
    accepted(make_task(user))
    for _ in range(2):
        make_task(user)
    with pytest.raises(backlog.TooManyWaiting):
        make_task(user)


def test_an_operator_may_give_a_user_another_limit(few: None, user: AbstractBaseUser) -> None:
    share = UserShare.objects.create(user=user, most_waiting=3)
    for _ in range(3):
        make_task(user)
    with pytest.raises(backlog.TooManyWaiting):
        make_task(user)
    share.most_waiting = 0
    share.save()
    other = make_user()
    UserShare.objects.create(user=other, most_waiting=0)
    with pytest.raises(backlog.TooManyWaiting):
        make_task(other)


def test_an_operator_may_bound_what_a_user_has_under_way(
    user: AbstractBaseUser, api: Client, order: dict[str, Any]
) -> None:
    UserShare.objects.create(user=user, most_live=2)
    accepted(make_task(user))  # it has a slot
    headers = {"HTTP_IDEMPOTENCY_KEY": "k"}
    assert api.post(CREATE, order, content_type=JSON, **headers).status_code == 201
    reply = api.post(CREATE, order, content_type=JSON)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "too_many_live")
    assert int(reply["Retry-After"]) > 0
    assert api.post(CREATE, order, content_type=JSON, **headers).status_code == 200
    assert (VideoTask.objects.count(), ledger.balance(user.pk)) == (2, 980)
    make_task(make_user())
    waiting = VideoTask.objects.get(idempotency_key="k")
    cancel.cancel(waiting.pk, by=Unaudited("test"))
    assert api.post(CREATE, order, content_type=JSON).status_code == 201
    reply = api.post("/api/video/retry", {"taskId": waiting.pk}, content_type=JSON)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "too_many_live")
    UserShare.objects.update(most_live=0)
    with pytest.raises(backlog.TooManyLive):
        make_task(user)


def test_the_bound_holds_for_a_retry_that_needs_no_new_attempt(user: AbstractBaseUser, api: Client) -> None:
    task = make_task(user)
    Generation.objects.filter(pk=accepted(task).pk).update(state="succeeded", ended_at=Now())
    cancel.cancel(task.pk, by=Unaudited("test"))
    share = UserShare.objects.create(user=user, most_live=1)
    make_task(user)
    ask = partial(api.post, "/api/video/retry", {"taskId": task.pk}, content_type=JSON)
    reply = ask()
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "too_many_live")
    share.most_live = 2
    share.save()
    assert ask().json()["data"]["stage"] == "download"


def test_a_repeat_of_the_call_that_took_the_last_place_still_gets_its_task(
    few: None, api: Client, order: dict[str, Any]
) -> None:
    api.post(CREATE, order, content_type=JSON)
    first = api.post(CREATE, order, content_type=JSON, HTTP_IDEMPOTENCY_KEY="k")
    again = api.post(CREATE, order, content_type=JSON, HTTP_IDEMPOTENCY_KEY="k")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["data"]["taskId"] == first.json()["data"]["taskId"]
    refused(api.post(CREATE, order, content_type=JSON, HTTP_IDEMPOTENCY_KEY="another"))


def test_a_full_line_of_all_users_refuses_everybody_within_a_second(
    api: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_WAITING", 3)
    for _ in range(3):
        make_task()
    backlog.total.counted_at = float("-inf")  # a second has passed
    assert "all users" in refused(api.post(CREATE, order, content_type=JSON))["message"]
    monkeypatch.setattr(backlog, "COUNTED_FOR_S", 1e9)
    refused(api.post(CREATE, order, content_type=JSON))  # now by the last count
    assert VideoTask.objects.count() == 3
    admission.admit()
    backlog.total.counted_at = float("-inf")
    monkeypatch.setattr(backlog, "COUNTED_FOR_S", 1.0)
    assert api.post(CREATE, order, content_type=JSON).status_code == 201


def test_retry_after_is_when_the_next_of_this_user_probably_begins(user: AbstractBaseUser) -> None:
    model = "gen4.5"
    admission.admit()
    usual_s = estimates.SIMULATED_S
    # With slots to spare the next one begins almost at once; the estimate counts whole slots of usual length.
    assert 1 <= backlog.retry_after_s(user.pk, [model]) <= usual_s


def test_the_command_says_it_too(few: None, user: AbstractBaseUser) -> None:
    for _ in range(2):
        make_task(user)
    with pytest.raises(CommandError, match="Nothing was made"):
        call_command("generate", "A cat", "--user", user.get_username())


# --- room on disk --------------------------------------------------------------------------------------------------


def sign(name: str, *, low: bool, queues: str = "videoQueue", **more: Any) -> WorkerSign:
    return WorkerSign.objects.create(name=name, kind="worker", host=name, queues=queues, disk_low=low, **more)


def test_nothing_new_begins_while_no_worker_has_room_and_it_goes_on_when_one_has() -> None:
    running = make_task()
    admitted(running)
    full = sign("a:1", low=True)
    waiting = make_task()
    assert admission.admit() == []
    assert reload(waiting).admit_at is not None
    assert "room" in waits_for(reload(waiting), reload(waiting).created_at)
    assert reload(running).next_run_at is not None  # what has a slot goes on
    full.disk_low = False
    full.save()
    assert admission.admit() == [(waiting.pk, Stage.GENERATE)]


@pytest.mark.parametrize(
    ("more", "is_held_back"),
    [
        ({"low": False}, False),  # another one has room
        ({"low": False, "queues": "mediaQueue"}, True),  # … but fetches no videos
        ({"low": False, "draining": True}, True),
        ({"low": True}, True),
    ],
)
def test_one_worker_with_room_is_enough(more: dict[str, Any], is_held_back: bool) -> None:
    sign("a:1", low=True)
    sign("b:1", **more)
    assert workers.is_disk_full() is is_held_back


def test_without_a_live_worker_nothing_is_known_of_its_disk() -> None:
    assert not workers.is_disk_full()
    WorkerSign.objects.create(name="s:1", kind="sweeper", host="s", disk_low=True)
    assert not workers.is_disk_full()
