"""/api/v1/videos: what the published clients send and read, asked by hand. The clients themselves: tests/system."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from django.utils import timezone

from tests.factories import make_task, make_user
from tests.pictures import picture
from tests.video.storing import saved
from video.models import VideoTask
from video.web import uploads

VIDEOS = "/api/v1/videos"
JSON = "application/json"
SIZE = {"size": "1080x1920"}
pytestmark = pytest.mark.django_db


def make(api: Client, **fields: Any) -> Any:
    headers = fields.pop("headers", {})
    return api.post(VIDEOS, {"model": "auto", "prompt": "A cat", **fields}, content_type=JSON, headers=headers)


def refusal(reply: Any, status: int = 400) -> dict[str, Any]:
    """The error, with our own word for it."""
    assert reply.status_code == status, reply.content
    assert reply["Content-Type"] == JSON
    error = reply.json()["error"]
    assert set(error) == {"code", "message", "metadata"}
    assert error["code"] == status
    return dict(error)


def frames(url: str, kind: str = "first_frame") -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}, "frame_type": kind}]


def test_a_job_is_made_and_asked_for(api: Client, user: AbstractBaseUser) -> None:
    reply = make(api, model="runway/gen4.5", duration=8, aspect_ratio="9:16", resolution="720p", seed=7)
    assert reply.status_code == 202
    task = VideoTask.objects.get()
    assert (task.user_id, task.model_requested, task.duration_s) == (user.pk, "gen4.5", 8)
    assert (task.aspect_ratio, task.resolution, task.seed) == ("9:16", "720p", 7)
    assert reply.json() == {
        "id": task.pk,
        "generation_id": task.pk,
        "polling_url": f"http://testserver{VIDEOS}/{task.pk}",
        "status": "pending",
    }
    assert api.get(f"{VIDEOS}/{task.pk}").json() == reply.json()


def test_a_size_says_shape_and_resolution(api: Client) -> None:
    assert make(api, **SIZE).status_code == 202
    task = VideoTask.objects.get()
    assert (task.aspect_ratio, task.resolution) == ("9:16", "1080p")
    assert make(api, **SIZE, aspect_ratio="9:16", prompt="Another").status_code == 202
    told = refusal(make(api, **SIZE, aspect_ratio="16:9"))
    assert told["metadata"]["details"] == [{"field": "size", "message": "is said twice, and differently"}]


def test_a_first_frame_comes_as_link_or_inside(api: Client) -> None:
    noisy = picture(300, 300, "PNG", compress_level=0)
    uri = "data:image/png;base64," + base64.b64encode(noisy).decode()
    for url, stored in (("https://pictures.example.com/a.png",) * 2, (uri, uploads.address_of(noisy))):
        assert make(api, model="gen4_turbo", frame_images=frames(url)).status_code == 202
        assert VideoTask.objects.filter(image_url=stored).exists()


def test_our_own_fields_come_under_our_name_or_by_headers(api: Client) -> None:
    ours = {"quality": "high", "policy": "cost"}
    assert make(api, provider={"reelworks": ours, "only": ["runway"]}).status_code == 202
    assert make(api, provider={"options": {"reelworks": ours}, "sort": "price"}).status_code == 202
    assert make(api, headers={"x-reelworks-quality": "high", "x-reelworks-policy": "cost"}).status_code == 202
    assert {(one.quality, one.policy) for one in VideoTask.objects.all()} == {("high", "cost")}
    told = refusal(make(api, provider={"reelworks": {"fps": "fast"}}))
    assert told["metadata"]["details"][0]["field"] == "provider.reelworks.fps"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": None}, "model"),
        ({"model": "openai/sora-2"}, "model"),
        ({"model": 5}, "model"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"duration": "5"}, "duration"),
        ({"aspect_ratio": "9:21"}, "aspect_ratio"),
        ({"resolution": "4K"}, "resolution"),
        ({"size": "huge"}, "size"),
        ({"seconds": "5"}, "seconds"),
        ({"colour": "red"}, "colour"),
        ({"previous_job_id": "task_1"}, "previous_job_id"),
        ({"input_references": frames("https://pictures.example.com/a.png")}, "input_references"),
        ({"frame_images": "a"}, "frame_images"),
        ({"frame_images": [{}]}, "frame_images"),
        ({"frame_images": frames("https://pictures.example.com/a.png", "last_frame")}, "frame_images"),
        ({"frame_images": frames("http://127.0.0.1/a.png")}, "frame_images"),
        ({"frame_images": frames("data:image/png;base64,AAAA")}, "frame_images"),
        ({"\ud800": 1}, ""),
        ({"prompt": "\ud800"}, "prompt"),
        ({"seed": 10**400}, "seed"),
        ({"duration": 10**30}, "duration"),
        ({"size": "\ud800"}, "size"),
        ({"model": "\ud800"}, "model"),
        ({"provider": {"reelworks": {"\ud800": 1}}}, ""),
        ({"provider": "runway"}, "provider"),
        ({"provider": {"reelworks": "cheap"}}, "provider.reelworks"),
        ({"provider": {"reelworks": {"colour": "red"}}}, "provider.reelworks.colour"),
    ],
)
def test_what_is_wrong_is_named_in_the_clients_words(api: Client, fields: dict[str, Any], field: str) -> None:
    error = refusal(make(api, **fields))
    assert error["metadata"]["details"][0]["field"] == field
    assert field in error["message"]
    assert not VideoTask.objects.exists()


def test_a_body_may_be_nested_as_deeply_as_it_can_be_read(api: Client) -> None:
    for depth in (10, 700, 900, 960, 990, 2000):
        raw = '{"model": "auto", "prompt": "A cat", "trace": ' + "[" * depth + "]" * depth + "}"
        reply = api.post(VIDEOS, raw, content_type=JSON)
        assert reply.status_code in (202, 400), (depth, reply.content)


def test_notes_for_the_senders_own_records_make_no_difference_but_to_repeats(api: Client) -> None:
    first = make(api, user="u1", session_id="s1", trace={"trace_id": "t"}).json()["id"]
    assert make(api, session_id="s1", user="u1", trace={"trace_id": "t"}).json()["id"] == first
    assert make(api, user="u1", session_id="s2", trace={"trace_id": "t"}).json()["id"] != first


def test_the_same_again_is_the_same_job_while_the_first_is_young(api: Client) -> None:
    first = make(api, duration=8)
    again = make(api, duration=8)
    assert (again.status_code, again.json(), again["Idempotency-Replayed"]) == (202, first.json(), "true")
    VideoTask.objects.update(created_at=timezone.now() - timedelta(seconds=61))
    assert make(api, duration=8).json()["id"] != first.json()["id"]


def test_a_finished_job_has_links_that_need_no_login(api: Client, user: AbstractBaseUser) -> None:
    task = saved(user, expires_in_s=3600)
    shown = api.get(f"{VIDEOS}/{task.pk}").json()
    assert shown["status"] == "completed"
    assert task.expires_at is not None
    assert shown["expires_at"] == int(task.expires_at.timestamp())
    (link,) = shown["unsigned_urls"]
    assert shown["urls"] == [link]
    assert Client().get(link)["Content-Type"] == "video/mp4"
    sent = api.get(f"{VIDEOS}/{task.pk}/content?index=0")
    assert (sent.status_code, sent["Location"]) == (302, link)
    assert refusal(api.get(f"{VIDEOS}/{task.pk}/content?index=1"))["metadata"]["details"][0]["field"] == "index"


def test_how_a_job_can_end_otherwise(api: Client, user: AbstractBaseUser) -> None:
    waiting, cancelled, gone = make_task(user), make_task(user), saved(user)
    api.post("/api/video/cancel", {"taskId": cancelled.pk}, content_type=JSON)
    VideoTask.objects.filter(pk=gone.pk).update(gone_at=timezone.now(), gone_why="expired")
    assert refusal(api.get(f"{VIDEOS}/{waiting.pk}/content"), 409)["metadata"]["code"] == "video_not_ready"
    assert api.get(f"{VIDEOS}/{cancelled.pk}").json()["status"] == "cancelled"
    assert refusal(api.get(f"{VIDEOS}/{cancelled.pk}/content"), 404)
    shown = api.get(f"{VIDEOS}/{gone.pk}").json()
    assert (shown["status"], "unsigned_urls" in shown) == ("expired", False)
    assert refusal(api.get(f"{VIDEOS}/{gone.pk}/content"), 410)["metadata"]["code"] == "video_expired"


def test_models_are_told_with_every_key_that_a_client_needs(api: Client) -> None:
    models = {one["id"]: one for one in api.get(f"{VIDEOS}/models").json()["data"]}
    gen = models["runway/gen4.5"]
    assert gen["supported_durations"] == list(range(2, 11))
    assert gen["supported_frame_images"] == ["first_frame"]
    assert gen["supported_sizes"][:2] == ["1280x720", "720x1280"]
    assert (gen["seed"], gen["generate_audio"]) == (True, False)


def test_strangers_and_nobody(client_for: Any, stranger: AbstractBaseUser, user: AbstractBaseUser) -> None:
    task = saved(user)
    for path in (f"/{task.pk}", f"/{task.pk}/content"):
        assert refusal(client_for(stranger).get(VIDEOS + path), 404)["metadata"]["code"] == "not_found"
    for path in (f"/{task.pk}", f"/{task.pk}/content", "/models"):
        reply = Client().get(VIDEOS + path)
        assert refusal(reply, 401)["metadata"]["code"] == "not_authenticated"
        assert reply["WWW-Authenticate"].startswith("Bearer")
    assert refusal(make(client_for(make_user(credit=0))), 402)["metadata"]["details"] == {"needed": 10, "balance": 0}


def test_what_is_not_there_is_said_in_the_same_shape(api: Client) -> None:
    assert refusal(api.get(VIDEOS), 405)["metadata"]["code"] == "method_not_allowed"
    for path in (f"{VIDEOS}/", f"{VIDEOS}/task_1/other"):
        assert refusal(api.get(path), 404)["metadata"]["code"] == "not_found"
    assert refusal(api.post(VIDEOS, b"[]", content_type=JSON))["metadata"]["code"] == "invalid_request"
    assert refusal(api.post(VIDEOS, b'{"a": "' + b"a" * 70_000 + b'"}', content_type=JSON), 413)
    assert api.get("/api/v1/other").json()["success"] is False
