"""POST /api/video/create."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from kombu import Connection
from pytest_django import Settings

from providers import catalogue
from tests.factories import make_user
from video.actions import create
from video.credits import ledger
from video.infra import toolkit
from video.models import CreditEntry, TaskEvent, VideoTask
from video.models.order import SOURCE_FPS, Order, as_json
from video.scheduling import estimates

CREATE = "/api/video/create"
JSON = "application/json"


def post(client: Client, body: dict[str, Any], **headers: Any) -> Any:
    return client.post(CREATE, body, content_type=JSON, **headers)


def nothing_was_made() -> bool:
    debits = CreditEntry.objects.exclude(kind=CreditEntry.Kind.GRANT)
    return not (VideoTask.objects.exists() or TaskEvent.objects.exists() or debits.exists())


def test_create_answers_exactly_as_promised(api: Client, user: AbstractBaseUser, order: dict[str, Any]) -> None:
    reply = post(api, order)
    assert reply.status_code == 201
    task = VideoTask.objects.get()
    assert reply.json() == {
        "success": True,
        "data": {"taskId": task.pk, "status": "pending", "estimatedTime": reply.json()["data"]["estimatedTime"]},
    }
    assert type(reply.json()["data"]["estimatedTime"]) is int
    assert (task.user_id, task.prompt, task.duration_s, task.aspect_ratio) == (user.pk, order["prompt"], 5, "16:9")
    assert (task.quality, task.resolution, task.fps) == ("medium", "source", 30)
    assert ledger.balance(user.pk) == 990


def test_everything_that_can_be_asked_for_is_stored(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {
        "prompt": "  A cat 🐈  ",
        "duration": 10,
        "aspectRatio": "9:16",
        "imageUrl": "https://images.example.com/cat.jpg?size=1",
        "model": "gen4.5",
        "quality": "high",
        "resolution": "720p",
        "fps": 24,
        "seed": 0,
    }
    assert post(api, everything).status_code == 201
    task = VideoTask.objects.get()
    assert task.prompt == "  A cat 🐈  "
    assert (task.duration_s, task.aspect_ratio, task.image_url) == (10, "9:16", everything["imageUrl"])
    assert (task.model_requested, task.quality, task.resolution) == ("gen4.5", "high", "720p")
    assert (task.fps, task.seed) == (24, 0)


def test_the_rate_of_the_source_can_be_kept(api: Client) -> None:
    assert post(api, {"prompt": "A cat", "fps": "source"}).status_code == 201
    task = VideoTask.objects.get()
    assert task.fps == SOURCE_FPS
    assert as_json(task)["fps"] == "source"
    reply = post(api, {"prompt": "A cat", "fps": 61})
    (wrong,) = reply.json()["error"]["details"]
    assert wrong == {"field": "fps", "message": 'must be a whole number from 1 to 60, or "source"'}


def test_only_the_prompt_is_needed_and_null_means_not_given(api: Client) -> None:
    optional = ["duration", "aspectRatio", "imageUrl", "model", "quality", "resolution", "fps", "negativePrompt"]
    for body in ({"prompt": "A cat"}, {"prompt": "A cat", **dict.fromkeys([*optional, "seed"])}):
        assert post(api, body).status_code == 201
    for task in VideoTask.objects.all():
        assert (task.duration_s, task.aspect_ratio, task.image_url, task.model_requested) == (5, "16:9", "", "")


WRONG = [
    # what is wrong, the field that the answer names
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n\t"}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": True}, "prompt"),
    ({"prompt": ["A cat"]}, "prompt"),
    ({"prompt": {"text": "A cat"}}, "prompt"),
    ({"prompt": "a\0b"}, "prompt"),
    ({"prompt": "a\ud800b"}, "prompt"),
    ({"prompt": "a" * 1001, "model": "gen4.5"}, "prompt"),
    ({"prompt": "🐈" * 501, "model": "gen4.5"}, "prompt"),  # Runway counts UTF-16 units
    ({"prompt": "a" * 10_001}, "prompt"),
    ({"duration": "5"}, "duration"),
    ({"duration": 5.0}, "duration"),
    ({"duration": 5.5}, "duration"),
    ({"duration": True}, "duration"),
    ({"duration": 0}, "duration"),
    ({"duration": -5}, "duration"),
    ({"duration": 11, "model": "gen4.5"}, "duration"),
    ({"duration": 16}, "duration"),  # no model makes it
    ({"duration": 10**30}, "duration"),
    ({"duration": [5]}, "duration"),
    ({"aspectRatio": "16/9"}, "aspectRatio"),
    ({"aspectRatio": "1:1", "model": "gen4.5"}, "aspectRatio"),  # makes it from images only
    ({"aspectRatio": ""}, "aspectRatio"),
    ({"aspectRatio": 1.78}, "aspectRatio"),
    ({"aspectRatio": {}}, "aspectRatio"),
    ({"imageUrl": ""}, "imageUrl"),
    ({"imageUrl": "http://images.example.com/a.jpg"}, "imageUrl"),
    ({"imageUrl": "https://127.0.0.1/a.jpg"}, "imageUrl"),
    ({"imageUrl": "https://169.254.169.254/latest/meta-data"}, "imageUrl"),
    ({"imageUrl": "https://localhost/a.jpg"}, "imageUrl"),
    ({"imageUrl": "https://user:pw@example.com/a.jpg"}, "imageUrl"),
    ({"imageUrl": "https://[::1/a.jpg"}, "imageUrl"),
    ({"imageUrl": "file:///etc/passwd"}, "imageUrl"),
    ({"imageUrl": 5}, "imageUrl"),
    ({"model": "runwey-gen3"}, "model"),
    ({"model": ""}, "model"),
    ({"model": 3}, "model"),
    ({"model": "x" * 81}, "model"),
    ({"model": "gen4_turbo"}, "imageUrl"),  # needs an image
    ({"quality": "ultra"}, "quality"),
    ({"quality": "HIGH"}, "quality"),
    ({"quality": 1}, "quality"),
    ({"resolution": "4k"}, "resolution"),
    ({"resolution": 720}, "resolution"),
    ({"fps": 0}, "fps"),
    ({"fps": 61}, "fps"),
    ({"fps": -1}, "fps"),
    ({"fps": 29.97}, "fps"),
    ({"fps": "Source"}, "fps"),
    ({"fps": ["source"]}, "fps"),
    ({"fps": "30"}, "fps"),
    ({"fps": False}, "fps"),
    ({"negativePrompt": "blurry", "model": "gen4.5"}, "negativePrompt"),  # takes none
    ({"negativePrompt": 5}, "negativePrompt"),
    ({"model": "veo3.1", "duration": 4, "negativePrompt": "a" * 1001}, "negativePrompt"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"seed": "1"}, "seed"),
    ({"seed": 1.0}, "seed"),
    ({"policy": "cheapest"}, "policy"),
    ({"policy": "COST"}, "policy"),
    ({"policy": True}, "policy"),
    ({"fallback": "true"}, "fallback"),
    ({"fallback": 1}, "fallback"),
    ({"fallback": []}, "fallback"),
    ({"model": "pika", "duration": 7, "fallback": True}, "duration"),  # a fallback is for failures
    ({"webhookUrl": "http://example.com"}, "webhookUrl"),
    ({"webhookUrl": "https://127.0.0.1/"}, "webhookUrl"),
    ({"webhookUrl": "https://example.com/" + "x" * 2000}, "webhookUrl"),
    ({"priority": 100}, "priority"),
    ({"aspect_ratio": "16:9"}, "aspect_ratio"),
    ({"userId": 1}, "userId"),
    ({"": 1}, ""),
]


@pytest.mark.parametrize(("change", "field"), WRONG, ids=[str(change)[:60] for change, _ in WRONG])
def test_wrong_input_is_named_and_nothing_is_made(
    api: Client, order: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    reply = post(api, {**order, **change})
    assert reply.status_code == 400, reply.content
    error = reply.json()["error"]
    assert error["code"] == "invalid_request"
    assert [one["field"] for one in error["details"]] == [field]
    assert all(one["message"] for one in error["details"])
    assert nothing_was_made()


def test_everything_wrong_is_told_at_once(api: Client) -> None:
    details = post(api, {"duration": "5", "fps": 0, "colour": "red"}).json()["error"]["details"]
    assert {one["field"] for one in details} == {"prompt", "duration", "fps", "colour"}


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"model": "runway-gen-3"}, "runway-gen3"),
        ({"aspect_ratio": "16:9"}, "aspectRatio"),
        ({"promt": "x"}, "prompt"),
        ({"imageURL": "x"}, "imageUrl"),
        ({"duration": 11, "model": "gen4.5"}, "2 to 10"),
        ({"quality": "best"}, "low, medium, high"),
        ({"webhookUrl": "example.com"}, "https://"),
    ],
)
def test_the_message_says_what_would_be_right(
    api: Client, order: dict[str, Any], body: dict[str, Any], hint: str
) -> None:
    assert hint in post(api, {**order, **body}).json()["error"]["details"][0]["message"]


def test_prompt_of_exactly_the_limit_is_taken(api: Client) -> None:
    assert post(api, {"prompt": "🐈" * 500, "model": "gen4.5"}).status_code == 201


def test_an_allowed_private_host_may_hold_images(api: Client, order: dict[str, Any], settings: Settings) -> None:
    settings.PRIVATE_HOSTS_ALLOWED = ["images.internal", "10.0.0.5:8080"]
    for url, status in (
        ("http://images.internal/a.jpg", 201),
        ("http://10.0.0.5:8080/a.jpg", 201),
        ("http://10.0.0.5/a.jpg", 400),
        ("http://other.internal/a.jpg", 400),
    ):
        assert post(api, {**order, "imageUrl": url}).status_code == status, url


def test_a_model_whose_provider_has_no_key_is_unavailable(
    api: Client, order: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROVIDER_KEYS = {**settings.PROVIDER_KEYS, "kling": ()}
    error = post(api, {**order, "model": "kling"}).json()["error"]
    assert error["code"] == "model_unavailable"
    assert error["details"][0]["field"] == "model"
    assert "gen4.5" in error["message"]
    settings.PROVIDER_KEYS = dict.fromkeys(settings.PROVIDER_KEYS, ())
    reply = post(api, order)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "model_unavailable")
    assert nothing_was_made()


def test_a_model_without_an_adapter_is_unavailable(
    api: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolkit, "ADAPTERS", ())
    assert post(api, order).json()["error"]["code"] == "model_unavailable"


# --- credits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [0, 9])
def test_short_of_credits_makes_nothing(
    db: None, client_for: Callable[..., Client], order: dict[str, Any], balance: int
) -> None:
    poor = make_user(credit=balance)
    reply = post(client_for(poor), order)
    assert (reply.status_code, reply.json()["error"]["code"]) == (402, "insufficient_credits")
    assert reply.json()["error"]["details"] == {"needed": 10, "balance": balance}
    assert nothing_was_made()
    assert ledger.balance(poor.pk) == balance


def test_the_last_credits_buy_one_video(db: None, client_for: Callable[..., Client], order: dict[str, Any]) -> None:
    client = client_for(make_user(credit=10))
    assert [post(client, order).status_code for _ in range(2)] == [201, 402]


# --- Idempotency-Key -----------------------------------------------------------------------------------------------


def test_a_replay_answers_the_same_task_and_costs_nothing(
    api: Client, user: AbstractBaseUser, order: dict[str, Any]
) -> None:
    first = post(api, order, HTTP_IDEMPOTENCY_KEY="abc")
    # Spelt otherwise, but the same video.
    again = post(api, {"prompt": order["prompt"], "seed": None}, HTTP_IDEMPOTENCY_KEY="abc")
    assert (first.status_code, again.status_code) == (201, 200)
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert VideoTask.objects.count() == 1
    assert ledger.balance(user.pk) == 990


def test_a_replay_needs_no_credits(db: None, client_for: Callable[..., Client], order: dict[str, Any]) -> None:
    client = client_for(make_user(credit=10))
    assert [post(client, order, HTTP_IDEMPOTENCY_KEY="k").status_code for _ in range(2)] == [201, 200]


def test_a_key_stands_for_one_request(api: Client, order: dict[str, Any]) -> None:
    post(api, order, HTTP_IDEMPOTENCY_KEY="abc")
    reply = post(api, {**order, "duration": 6}, HTTP_IDEMPOTENCY_KEY="abc")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert VideoTask.objects.count() == 1


def test_keys_of_two_users_are_apart(
    api: Client, stranger: AbstractBaseUser, client_for: Callable[..., Client], order: dict[str, Any]
) -> None:
    for client in (api, client_for(stranger)):
        assert post(client, order, HTTP_IDEMPOTENCY_KEY="abc").status_code == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "a\tb", "k" * 256])
def test_odd_keys_are_refused(api: Client, order: dict[str, Any], key: str) -> None:
    reply = post(api, order, HTTP_IDEMPOTENCY_KEY=key)
    assert reply.status_code == 400
    assert reply.json()["error"]["details"][0]["field"] == "Idempotency-Key"
    assert nothing_was_made()


def test_the_longest_key_is_taken(api: Client, order: dict[str, Any]) -> None:
    assert post(api, order, HTTP_IDEMPOTENCY_KEY="k" * 255).status_code == 201


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("credit", [10, 1000])
def test_the_same_post_from_eight_threads_makes_one_task(
    client_for: Callable[..., Client], order: dict[str, Any], credit: int
) -> None:
    user = make_user(credit=credit)
    together = threading.Barrier(8)
    replies: list[Any] = []

    def call() -> None:
        client = client_for(user)
        together.wait()
        try:
            replies.append(post(client, order, HTTP_IDEMPOTENCY_KEY="abc"))
        finally:
            connection.close()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [201]
    assert len({reply.json()["data"]["taskId"] for reply in replies}) == 1
    assert VideoTask.objects.count() == 1
    assert ledger.balance(user.pk) == credit - 10


# --- the bell ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_create_succeeds_while_the_broker_is_down(
    client_for: Callable[..., Client], order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery import current_app

    dead = Connection("redis://127.0.0.1:1/0", transport_options={"socket_connect_timeout": 1})
    send = current_app.send_task
    monkeypatch.setattr(current_app, "send_task", lambda name: send(name, connection=dead, retry=False))
    reply = post(client_for(make_user()), order)
    assert reply.status_code == 201
    assert VideoTask.objects.get().admit_at is not None  # the sweeper finds it


# --- estimatedTime -------------------------------------------------------------------------------------------------


GEN45 = catalogue.find("gen4.5", image=False)


def test_estimate_without_any_measurement_is_the_catalogues(db: None, settings: Settings) -> None:
    assert estimates.expected_seconds(GEN45) == estimates.SIMULATED_S
    settings.SIMULATE = False
    assert estimates.expected_seconds(GEN45) == GEN45.typical_render_s + estimates.OWN_SHARE_S


def finished_in(user: AbstractBaseUser, seconds: float, *, times: int = 1, waited_s: int = 1000) -> None:
    """Successes of gen4.5 that took so long from their slot on, after waiting in line."""
    from tests.factories import accepted, make_task

    for number in range(times):
        task = make_task(user)
        generation = accepted(task, job_id=f"{task.pk}-{number}")
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE video_generation SET state = 'succeeded', ended_at = statement_timestamp(),
                    planned_at = statement_timestamp() - %s * interval '1 second' WHERE id = %s
                """,
                [seconds, generation.pk],
            )
            cursor.execute(
                """
                UPDATE video_videotask SET status = 'success', stage = 'done', progress = 100, next_run_at = NULL,
                    video_id = %s, finished_at = statement_timestamp(),
                    created_at = statement_timestamp() - %s * interval '1 second' WHERE id = %s
                """,
                [f"vid_{task.pk}", seconds + waited_s, task.pk],
            )
    estimates._cache.clear()


def test_estimate_is_the_median_of_what_the_last_ones_took(user: AbstractBaseUser) -> None:
    for seconds in (20, 40, 900):
        finished_in(user, seconds)
    assert estimates.expected_seconds(GEN45) in (40, 41)


def test_two_videos_are_no_measurement(user: AbstractBaseUser) -> None:
    finished_in(user, 500, times=2)
    assert estimates.expected_seconds(GEN45) == estimates.SIMULATED_S


def test_estimate_counts_the_line(user: AbstractBaseUser, settings: Settings) -> None:
    settings.SLOTS_PER_KEY = 2
    for _ in range(4):
        create.create(user.pk, Order(prompt="A cat", duration_s=5, aspect_ratio="16:9"))
    assert estimates.expected_seconds(GEN45, user.pk) == 3 * estimates.SIMULATED_S
    # Somebody else stands behind one of these four only: it is this user's turn once, and then theirs.
    assert estimates.expected_seconds(GEN45) == 1.5 * estimates.SIMULATED_S


def test_estimate_asks_the_database_once_in_thirty_seconds(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        for _ in range(3):
            estimates.expected_seconds(GEN45)
