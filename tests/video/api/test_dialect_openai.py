"""/v1/videos: what the published client sends and reads, asked by hand. The client itself: tests/system."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from tests.factories import make_task, make_user
from tests.pictures import picture
from tests.video.storing import saved
from video.credits import ledger
from video.models import VideoTask
from video.web import uploads

VIDEOS = "/v1/videos"
JSON = "application/json"
pytestmark = pytest.mark.django_db


def make(api: Client, **fields: Any) -> Any:
    """As the client does it: a form of texts."""
    headers = fields.pop("headers", {})
    return api.post(VIDEOS, {"prompt": "A cat", **fields}, headers=headers)


def refusal(reply: Any, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.content
    assert reply["Content-Type"] == JSON
    assert set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    return dict(reply.json()["error"])


def test_a_form_of_texts_makes_a_video(api: Client, user: AbstractBaseUser) -> None:
    reply = make(api, model="runway/gen4.5", seconds="8", size="1280x720")
    assert reply.status_code == 200
    task = VideoTask.objects.get()
    assert (task.user_id, task.prompt, task.duration_s, task.aspect_ratio) == (user.pk, "A cat", 8, "16:9")
    assert (task.model_requested, task.resolution) == ("gen4.5", "720p")
    assert reply["openai-poll-after-ms"] == "5000"
    shown = reply.json()
    assert abs(shown.pop("created_at") - timezone.now().timestamp()) < 60
    assert shown == {
        "id": task.pk,
        "object": "video",
        "status": "queued",
        "progress": 0,
        "completed_at": None,
        "expires_at": None,
        "model": "gen4.5",
        "prompt": "A cat",
        "seconds": "8",
        "size": "1280x720",
        "remixed_from_video_id": None,
        "error": None,
    }
    again = api.get(f"{VIDEOS}/{task.pk}")
    assert {**again.json(), "created_at": 0} == {**shown, "created_at": 0}


def test_json_says_the_same_with_numbers(api: Client) -> None:
    reply = api.post(VIDEOS, {"prompt": "A cat", "seconds": 8, "size": "1024x1792"}, content_type=JSON)
    assert reply.status_code == 200
    task = VideoTask.objects.get()
    assert (task.duration_s, task.aspect_ratio, task.resolution) == (8, "9:16", "1080p")
    assert reply.json()["size"] == "1080x1920"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gen4.5", "gen4.5"),
        ("Kling", "Kling"),
        ("kling/kling-2.6", "kling-2.6"),
        ("fal-ai/pika/v2.2", "fal-ai/pika/v2.2"),
        ("auto", ""),
        ("reelworks/auto", ""),
    ],
)
def test_a_model_has_many_names(api: Client, name: str, expected: str) -> None:
    assert make(api, model=name).status_code == 200
    assert VideoTask.objects.get().model_requested == expected


def test_headers_say_what_the_dialect_can_not(api: Client) -> None:
    headers = {
        "x-reelworks-policy": "cost",
        "x-reelworks-fallback": "false",
        "x-reelworks-fps": "24",
        "x-reelworks-seed": "007",
        "x-reelworks-quality": "high",
        "x-reelworks-negative-prompt": "dogs",
        "x-reelworks-expires-in": "3600",
    }
    assert make(api, headers=headers, model="pika-2.2").status_code == 200
    task = VideoTask.objects.get()
    assert (task.policy, task.fallback, task.fps, task.quality) == ("cost", False, 24, "high")
    assert (task.negative_prompt, task.expires_in_s, task.seed) == ("dogs", 3600, 7)


def test_headers_say_lists_and_objects_as_json(api: Client) -> None:
    headers = {
        "x-reelworks-metadata": '{"project": "spring"}',
        "x-reelworks-extras": '["hls"]',
        "x-reelworks-cover": "1.5",
        "x-reelworks-negative-prompt": "5",
    }
    first = make(api, headers=headers, model="pika-2.2").json()["id"]
    task = VideoTask.objects.get()
    assert (task.metadata, task.extras, float(task.cover), task.negative_prompt) == (
        {"project": "spring"},
        ["hls"],
        1.5,
        "5",
    )
    assert make(api, headers=headers, model="pika-2.2").json()["id"] == first
    other = {**headers, "x-reelworks-metadata": '{"project": "autumn"}', "x-reelworks-cover": "auto"}
    assert make(api, headers=other, model="pika-2.2").json()["id"] != first
    only_pairs = {**other, "x-reelworks-metadata": '{"project": "winter"}'}
    make(api, headers=only_pairs, model="pika-2.2")
    assert [one.metadata["project"] for one in VideoTask.objects.order_by("created_at")] == [
        "spring",
        "autumn",
        "winter",
    ]


@pytest.mark.parametrize("value", ["NaN", "1e999", "[" * 9000, "[1", '{"a": 1}', "ü"])
@pytest.mark.parametrize("name", ["metadata", "extras", "cover"])
def test_a_header_with_json_that_is_none_is_refused(api: Client, name: str, value: str) -> None:
    assert refusal(make(api, headers={f"x-reelworks-{name}": value}))["param"] == f"x-reelworks-{name}"


def test_a_header_that_nobody_knows_or_that_says_otherwise_is_refused(api: Client) -> None:
    assert refusal(make(api, headers={"x-reelworks-colour": "red"}))["param"] == "x-reelworks-colour"
    assert refusal(make(api, headers={"x-reelworks-fps": "fast"}))["param"] == "x-reelworks-fps"
    told = refusal(make(api, size="1280x720", headers={"x-reelworks-resolution": "1080p"}))
    assert told["param"] == "x-reelworks-resolution"
    assert not VideoTask.objects.exists()


def test_a_picture_comes_as_file_or_as_link(api: Client, user: AbstractBaseUser) -> None:
    png = picture(64, 36)
    reply = make(api, model="gen4_turbo", input_reference=SimpleUploadedFile("cat.png", png, "image/png"))
    assert reply.status_code == 200, reply.content
    first = VideoTask.objects.get()
    assert first.image_url == uploads.address_of(png)
    as_uri = "data:image/png;base64," + base64.b64encode(png).decode()
    for number, reference in enumerate(("https://pictures.example.com/cat.png", as_uri)):
        body = {"prompt": f"A cat {number}", "model": "gen4_turbo", "input_reference": {"image_url": reference}}
        assert api.post(VIDEOS, body, content_type=JSON).status_code == 200
    as_form = make(api, **{"input_reference[image_url]": as_uri}, model="gen4_turbo", seconds="2")
    assert as_form.status_code == 200
    assert VideoTask.objects.filter(image_url=first.image_url).count() == 3


def test_a_large_picture_in_json_is_taken_and_nothing_else_that_is_large(api: Client) -> None:
    noisy = picture(300, 300, "PNG", compress_level=0)
    assert len(noisy) > 200_000
    uri = "data:image/png;base64," + base64.b64encode(noisy).decode()
    body = {"prompt": "A cat", "input_reference": {"image_url": uri}}
    assert api.post(VIDEOS, body, content_type=JSON).status_code == 200
    assert refusal(api.post(VIDEOS, {"prompt": uri}, content_type=JSON), 413)["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": " "}, "prompt"),
        ({"seconds": "four"}, "seconds"),
        ({"seconds": "400"}, "seconds"),
        ({"size": "big"}, "size"),
        ({"size": "1280x100"}, "size"),
        ({"size": "2560x1440"}, "size"),
        ({"model": "sora-2"}, "model"),
        ({"duration": "5"}, "duration"),
        ({"colour": "red"}, "colour"),
        ({"input_reference": "https://pictures.example.com/cat.png"}, "input_reference"),
        ({"input_reference": SimpleUploadedFile("cat.png", b"no picture")}, "input_reference"),
        ({"prompt": SimpleUploadedFile("prompt.txt", b"A cat")}, "prompt"),
        ({"seconds": ["4", "8"]}, "seconds"),
    ],
)
def test_what_is_wrong_is_named_in_the_clients_words(api: Client, fields: dict[str, Any], param: str) -> None:
    error = refusal(make(api, **fields))
    assert error["param"] == param
    assert param in error["message"]
    assert error["type"] == "invalid_request_error"
    assert not VideoTask.objects.exists()


def test_no_credits(client_for: Any) -> None:
    told = refusal(make(client_for(make_user(credit=0))), 402)
    assert told["code"] == "insufficient_credits"


def test_a_finished_video_has_its_facts_and_its_files(api: Client, user: AbstractBaseUser) -> None:
    task = saved(user)
    shown = api.get(f"{VIDEOS}/{task.pk}").json()
    assert (shown["status"], shown["progress"], shown["error"]) == ("completed", 100, None)
    assert shown["completed_at"] >= shown["created_at"]
    for variant, kind in (("video", "video/mp4"), ("thumbnail", "image/jpeg")):
        sent = api.get(f"{VIDEOS}/{task.pk}/content", {"variant": variant}, headers={"Accept": "application/binary"})
        assert sent.status_code == 302
        assert sent["Cache-Control"] == "no-store"
        assert Client().get(sent["Location"])["Content-Type"] == kind
    assert refusal(api.get(f"{VIDEOS}/{task.pk}/content?variant=spritesheet"))["param"] == "variant"


def test_a_video_that_is_not_there_yet_is_not_asked_for_twice(api: Client, user: AbstractBaseUser) -> None:
    reply = api.get(f"{VIDEOS}/{make_task(user).pk}/content")
    assert refusal(reply, 409)["code"] == "video_not_ready"
    assert reply["x-should-retry"] == "false"


def test_a_video_is_deleted_and_one_under_way_cancelled_first(api: Client, user: AbstractBaseUser) -> None:
    for task in (saved(user), make_task(user)):
        reply = api.delete(f"{VIDEOS}/{task.pk}")
        assert reply.json() == {"id": task.pk, "object": "video.deleted", "deleted": True}
        assert refusal(api.get(f"{VIDEOS}/{task.pk}"), 410)["code"] == "task_deleted"
    assert ledger.balance(user.pk) == 990  # that of the finished one


def test_a_cancelled_video_has_failed(api: Client, user: AbstractBaseUser) -> None:
    task = make_task(user)
    assert api.post("/api/video/cancel", {"taskId": task.pk}, content_type=JSON).status_code == 200
    shown = api.get(f"{VIDEOS}/{task.pk}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "cancelled")
    assert refusal(api.get(f"{VIDEOS}/{task.pk}/content"), 404)["code"] == "not_found"


def test_the_list_goes_on_after_an_id_in_both_directions(api: Client, user: AbstractBaseUser) -> None:
    made = [make_task(user, prompt=f"Cat {number}").pk for number in range(5)]
    make_task()
    api.delete(f"{VIDEOS}/{made.pop(2)}")
    for order, expected in (("desc", made[::-1]), ("asc", made)):
        found: list[str] = []
        asked = {"order": order, "limit": "3"}
        while True:
            page = api.get(VIDEOS, asked).json()
            found += [one["id"] for one in page["data"]]
            assert page["object"] == "list"
            assert page["last_id"] == found[-1]
            if not page["has_more"]:
                break
            asked["after"] = page["last_id"]
        assert found == expected
    assert api.get(VIDEOS, {"after": made[-1], "order": "asc"}).json()["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "order=up", "after=task_none", "colour=red", "after=%00"])
def test_a_list_that_is_asked_for_wrongly(api: Client, query: str) -> None:
    assert refusal(api.get(f"{VIDEOS}?{query}"))["param"] == query.partition("=")[0]


def test_strangers_and_nobody(client_for: Any, stranger: AbstractBaseUser, user: AbstractBaseUser) -> None:
    task = saved(user)
    other = client_for(stranger)
    for method, path in (("get", ""), ("get", "/content"), ("delete", "")):
        assert refusal(getattr(other, method)(f"{VIDEOS}/{task.pk}{path}"), 404)["code"] == "not_found"
        reply = getattr(Client(), method)(f"{VIDEOS}/{task.pk}{path}")
        assert refusal(reply, 401)["code"] == "not_authenticated"
        assert reply["WWW-Authenticate"].startswith("Bearer")
    assert refusal(other.get(VIDEOS, {"after": task.pk}))["param"] == "after"
    assert VideoTask.objects.filter(pk=task.pk, gone_why="").exists()


def test_what_is_not_there_is_said_in_the_same_shape(api: Client) -> None:
    for path in ("/v1", "/v1/models", "/v1/videos/", "/v1/videos/task_1/remix", "/v1/videos/edits"):
        assert refusal(api.post(path, {}, content_type=JSON), 405 if path.endswith("edits") else 404)
    assert refusal(api.put(VIDEOS, {}, content_type=JSON), 405)["code"] == "method_not_allowed"
    assert refusal(api.post(VIDEOS, b"{", content_type=JSON))["code"] == "invalid_json"
    assert refusal(api.post(VIDEOS, b"a=b", content_type="text/plain"), 415)["code"] == "unsupported_media_type"
    assert refusal(api.post(VIDEOS, b"--x", content_type="multipart/form-data; boundary=y"))["param"] == "prompt"


# --- repeats ---------------------------------------------------------------------------------------------------------


def age(task_id: str, seconds: float) -> None:
    VideoTask.objects.filter(pk=task_id).update(created_at=timezone.now() - timedelta(seconds=seconds))


def test_the_same_again_is_the_same_video_while_the_first_is_young(api: Client, user: AbstractBaseUser) -> None:
    first = make(api, seconds="8")
    again = api.post(VIDEOS, {"seconds": "8", "prompt": "A cat"}, headers={})
    assert again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    age(first.json()["id"], 61)
    assert make(api, seconds="8").json()["id"] != first.json()["id"]
    assert ledger.balance(user.pk) == 980


def test_a_client_that_says_it_repeats_is_believed_for_longer(api: Client) -> None:
    first = make(api).json()["id"]
    age(first, 1700)
    assert make(api, headers={"x-stainless-retry-count": "2"}).json()["id"] == first
    assert make(api, headers={"x-stainless-retry-count": "0"}).json()["id"] != first


def test_what_differs_in_anything_is_another_video(api: Client, client_for: Any, stranger: AbstractBaseUser) -> None:
    one, other = picture(64, 36), picture(64, 37)
    bodies: list[dict[str, Any]] = [
        {},
        {"seconds": "8"},
        {"headers": {"x-reelworks-fps": "24"}},
        {"input_reference": SimpleUploadedFile("a.png", one)},
        {"input_reference": SimpleUploadedFile("a.png", other)},
    ]
    ids = {make(api, **dict(body)).json()["id"] for body in bodies}
    ids.add(make(client_for(stranger)).json()["id"])
    assert len(ids) == 6
    again = make(api, input_reference=SimpleUploadedFile("renamed.png", one))
    assert again.json()["id"] in ids


def test_twins_are_made_on_purpose_by_a_key_or_without_a_window(api: Client, settings: Any) -> None:
    first = make(api).json()["id"]
    keyed = make(api, headers={"Idempotency-Key": "second"})
    assert keyed.json()["id"] != first
    assert make(api, headers={"Idempotency-Key": "second"}).json()["id"] == keyed.json()["id"]
    told = refusal(make(api, seconds="8", headers={"Idempotency-Key": "second"}), 409)
    assert told["code"] == "idempotency_key_reused"
    assert refusal(make(api, headers={"Idempotency-Key": "a b"}))["param"] == "Idempotency-Key"
    settings.REPEAT_WINDOW_SECONDS = 0
    assert make(api, headers={"x-stainless-retry-count": "1"}).json()["id"] != first


def test_one_that_failed_or_was_cancelled_is_made_again(api: Client) -> None:
    first = make(api).json()["id"]
    api.post("/api/video/cancel", {"taskId": first}, content_type=JSON)
    second = make(api).json()["id"]
    assert second != first
    assert make(api).json()["id"] == second


def test_the_last_credits_are_enough_for_the_answer_to_a_repeat(client_for: Any) -> None:
    api = client_for(make_user(credit=10))
    first = make(api)
    assert make(api).json()["id"] == first.json()["id"]
    age(first.json()["id"], 61)
    assert refusal(make(api), 402)["code"] == "insufficient_credits"


def test_a_body_is_read_as_it_stands(api: Client) -> None:
    raw = json.dumps({"prompt": "A cat"})
    first = api.post(VIDEOS, raw, content_type=JSON).json()["id"]
    assert make(api).json()["id"] == first  # JSON and a form that say the same
