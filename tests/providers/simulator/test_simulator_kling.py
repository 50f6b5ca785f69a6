"""The simulator keeps the rules of both of Kling's standards."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from PIL import Image

from tests.providers.simulator.client import KlingClient, running

OLDER, NEWER = "/v1/videos/text2video", "/text-to-video/kling-2.5-turbo"
URL = "https://images.example.com/a.jpg"
PROMPT = {"type": "prompt", "text": "p"}
FIRST, LAST = {"type": "first_frame", "url": URL}, {"type": "last_frame", "url": URL}


def picture(width: int, height: int) -> str:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def token(access: Any = "access", secret: str = "secret", *, alg: str = "HS256", **claims: Any) -> str:
    """A JWT by hand; a claim that is None is left out."""
    now = int(time.time())
    whole = {"iss": access, "exp": now + 1800, "nbf": now - 5} | claims
    payload = {name: value for name, value in whole.items() if value is not None}
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": alg, "typ": "JWT"}, payload)]
    signed = ".".join(parts)
    return f"{signed}.{_encoded(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refusal(reply: requests.Response) -> tuple[int, int]:
    body = reply.json()
    assert set(body) == {"code", "message", "request_id"}
    assert body["message"]
    return reply.status_code, body["code"]


def made(reply: requests.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["code"], body["message"]) == (0, "SUCCEED")
    assert body["request_id"]
    return dict(body["data"])


def shown(client: KlingClient, job_id: str) -> dict[str, Any]:
    return dict(client.sim(f"jobs?id={job_id}")["jobs"][0])


def older_task(client: KlingClient, name: str, family: str = "text2video") -> requests.Response:
    return client.call("GET", f"/v1/videos/{family}/{name}")


# --- who may call ---


@pytest.fixture(scope="module")
def guarded() -> Iterator[KlingClient]:
    """A simulator with one access key, its secret, and one API key."""
    with running("--canned", "--render-seconds", "0.05", "--keys", "access:secret,plain-key") as base:
        yield KlingClient(base, "plain-key")


def as_bearer(client: KlingClient, path: str, bearer: str, **body: Any) -> requests.Response:
    whole = {"model_name": "kling-v2-5-turbo", "prompt": "auth"} | body
    return client.call("POST", path, headers={"Authorization": f"Bearer {bearer}"}, json=whole)


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        (lambda: token(secret="another"), 1000),
        (lambda: token("nobody"), 1002),
        (lambda: token(None), 1002),
        (lambda: token(7), 1002),
        (lambda: token(""), 1002),
        (lambda: token(exp=None), 1002),
        (lambda: token(exp="soon"), 1002),
        (lambda: token(exp=float("nan")), 1002),
        (lambda: token(nbf="now"), 1002),
        (lambda: token(alg="none"), 1002),
        (lambda: token(alg="HS512"), 1002),
        (lambda: token(nbf=time.time() + 60), 1003),
        (lambda: token(exp=time.time() - 1), 1004),
        (lambda: token()[:-4], 1000),
        (lambda: "a.b.c", 1002),
        (lambda: "..", 1002),
        (lambda: "wrong-key", 1002),
    ],
)
def test_a_bad_token_is_401_with_its_code(guarded: KlingClient, bearer: Any, code: int) -> None:
    assert refusal(as_bearer(guarded, OLDER, bearer())) == (401, code)
    assert guarded.sim("submits")["created"] == guarded.sim("submits")["received"]


def test_a_good_token_is_for_the_older_standard_and_the_costs_only(guarded: KlingClient) -> None:
    for bearer in (token(), token(nbf=None), token(exp=time.time() + 5)):
        made(as_bearer(guarded, OLDER, bearer))
    headers = {"Authorization": f"Bearer {token()}"}
    assert made(guarded.call("GET", "/account/costs?start_time=1&end_time=2", headers=headers))
    for method, path in (
        ("POST", NEWER), ("POST", "/image-to-video/kling-2.6"), ("GET", "/tasks?task_ids=1"), ("POST", "/tasks"),
        ("POST", "/account/billing/balance"),
    ):  # fmt: skip
        reply = guarded.call(method, path, headers=headers, json={"prompt": "p"})
        assert refusal(reply) == (401, 1002)
        assert "does not support AK/SK" in reply.json()["message"]


def test_a_plain_key_is_good_on_both_and_a_wrong_one_on_none(guarded: KlingClient) -> None:
    made(guarded.older("plain"))
    made(guarded.newer("plain"))
    assert refusal(as_bearer(guarded, OLDER, "wrong")) == (401, 1002)
    reply = as_bearer(guarded, NEWER, "wrong")
    assert refusal(reply) == (401, 1002)
    assert "does not support AK/SK" in reply.json()["message"]


def test_tokens_of_one_access_key_are_one_account(kling: KlingClient) -> None:
    access = f"access-{kling.key}"
    task_id = made(as_bearer(kling, OLDER, token(access, "any")))["task_id"]
    again = {"Authorization": f"Bearer {token(access, 'any', exp=time.time() + 60)}"}
    assert kling.call("GET", f"{OLDER}/{task_id}", headers=again).status_code == 200
    other = {"Authorization": f"Bearer {token('other-' + access, 'any')}"}
    assert refusal(kling.call("GET", f"{OLDER}/{task_id}", headers=other)) == (400, 1201)


@pytest.mark.parametrize("path", [OLDER, NEWER])
@pytest.mark.parametrize(
    ("header", "code"), [(None, 1001), ("", 1001), ("Bearer", 1002), ("Bearer ", 1002), ("Key k", 1002), ("k", 1002)]
)
def test_the_header_must_be_bearer(kling: KlingClient, path: str, header: str | None, code: int) -> None:
    headers = {} if header is None else {"Authorization": header}
    assert refusal(kling.call("POST", path, headers=headers, json={"prompt": "p"})) == (401, code)


def test_a_disabled_key_is_refused(kling: KlingClient) -> None:
    task_id = made(kling.older("disable me"))["task_id"]
    kling.sim("config", disabled_keys=[shown(kling, task_id)["key"]])
    assert refusal(kling.older("disabled")) == (401, 1002)
    assert refusal(kling.newer("disabled")) == (401, 1002)


# --- the way of a task ---


def test_the_older_standard_from_submit_to_file(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    task = made(kling.older("a fox [[sim render=100]]", external_task_id=name))
    task_id = task["task_id"]
    assert task_id.isdecimal()
    assert len(task_id) == 18
    created = task.pop("created_at")
    assert abs(created / 1000 - time.time()) < 1e7
    assert task == {
        "task_id": task_id, "task_status": "submitted", "task_info": {"external_task_id": name}, "updated_at": created,
    }  # fmt: skip
    view = made(older_task(kling, task_id))
    assert (view["task_status"], view["task_result"], view["updated_at"]) == ("submitted", {}, created)
    kling.sim("config", advance_s=50)
    view = made(older_task(kling, name))
    assert view == {
        "task_id": task_id, "task_status": "processing", "task_status_msg": "", "task_result": {},
        "task_info": {"external_task_id": name}, "created_at": created,
        "updated_at": pytest.approx(created + 5000, abs=2),
    }  # fmt: skip
    kling.sim("config", advance_s=51)
    view = made(older_task(kling, task_id))
    assert (view["task_status"], view["task_status_msg"]) == ("succeed", "")
    assert view["updated_at"] == pytest.approx(created + 100_000, abs=2)
    assert view["final_unit_deduction"] == "1.5"
    assert view["watermark_info"] == {"enabled": False}
    (video,) = view["task_result"]["videos"]
    assert (video["duration"], video["watermark_url"]) == ("5.041", "")
    assert kling.download(video["url"]).headers["content-type"] == "video/mp4"


def test_the_newer_standard_from_submit_to_file(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    options = {"external_task_id": name, "watermark_info": {"enabled": True}}
    task = made(kling.newer("a fox [[sim render=100]]", options=options))
    task_id, created = task["id"], task["create_time"]
    assert task_id.isdecimal()
    assert task == {
        "id": task_id, "status": "submitted", "create_time": created, "update_time": created, "external_id": name,
    }  # fmt: skip
    (view,) = kling.tasks(task_ids=task_id)
    assert view == {**task, "message": "", "outputs": [], "billing": []}
    kling.sim("config", advance_s=50)
    (view,) = kling.tasks(external_task_ids=name)
    assert (view["id"], view["status"], view["outputs"]) == (task_id, "processing", [])
    kling.sim("config", advance_s=51)
    (view,) = kling.tasks(task_ids=task_id)
    assert (view["status"], view["message"], view["external_id"]) == ("succeeded", "", name)
    assert view["billing"] == [{"charge_type": "unit", "amount": "1.5", "package_type": "video"}]
    (output,) = view["outputs"]
    assert (output["type"], output["duration"]) == ("video", "5.041")
    assert output["watermark_url"] == output["url"]
    assert kling.download(output["url"]).headers["content-type"] == "video/mp4"


def test_a_failed_task_is_a_good_answer_and_costs_nothing(kling: KlingClient) -> None:
    for code, text in (
        ("INTERNAL", "Internal error, please try again later"),
        ("risk_control", "Failure to pass the risk control system"),
        ("image_pixel", "Image pixel is invalid"),
        ("some_new_thing", "some new thing"),
    ):
        task_id = made(kling.older(f"older [[sim fail={code}]]"))["task_id"]
        view = kling.wait_older(task_id)
        assert (view["task_status"], view["task_status_msg"], view["task_result"]) == ("failed", text, {})
        assert "final_unit_deduction" not in view
        other_id = made(kling.newer(f"newer [[sim fail={code}]]"))["id"]
        view = kling.wait_newer(other_id)
        assert (view["status"], view["message"], view["outputs"], view["billing"]) == ("failed", text, [], [])
        assert shown(kling, task_id)["cost"] == shown(kling, other_id)["cost"] == 0


@pytest.mark.parametrize(("size", "text"), [((299, 400), "Image pixel is invalid"), ((300, 751), "aspect ratio")])
def test_a_picture_out_of_bounds_fails_the_task_later(kling: KlingClient, size: tuple[int, int], text: str) -> None:
    view = kling.wait_older(made(kling.older("x", "image2video", image=picture(*size)))["task_id"], "image2video")
    assert text in view["task_status_msg"]
    contents = [PROMPT, {"type": "first_frame", "url": picture(*size)}]
    view = kling.wait_newer(made(kling.newer("", "image-to-video/kling-2.6", contents=contents))["id"])
    assert text in view["message"]


def test_there_is_no_cancel_no_delete_and_no_other_method(kling: KlingClient) -> None:
    task_id = made(kling.older("stay [[sim render=60]]"))["task_id"]
    for method, path in (
        ("DELETE", f"{OLDER}/{task_id}"), ("PUT", f"{OLDER}/{task_id}/cancel"), ("PUT", OLDER), ("GET", NEWER),
        ("DELETE", f"/tasks?task_ids={task_id}"), ("POST", "/account/costs"), ("GET", "/account/billing/balance"),
    ):  # fmt: skip
        assert refusal(kling.call(method, path)) == (404, 1202)
    for path in ("/v1/videos/lip-sync", "/text-to-video/kling-9", "/image-to-video/", "/account/other"):
        assert refusal(kling.call("POST", path, json={"prompt": "p"})) == (404, 1203)
    assert not shown(kling, task_id)["ended"]


# --- what a create body may say ---

V16, V21, V25, V26, V3 = "kling-v1-6", "kling-v2-1", "kling-v2-5-turbo", "kling-v2-6", "kling-v3"
IMAGE = {"image": URL}


@pytest.mark.parametrize(
    ("family", "body", "units"),
    [
        ("text2video", {}, 1.5),
        ("text2video", {"mode": "pro", "duration": "10"}, 5),
        ("text2video", {"aspect_ratio": "9:16", "negative_prompt": "n" * 2500, "prompt": "p" * 2500}, 1.5),
        ("text2video", {"unknown": 1, "seed": 4}, 1.5),
        ("text2video", {"model_name": V16, "cfg_scale": 0.5}, 2),
        ("text2video", {"model_name": V16, "mode": "pro"}, 3.5),
        ("text2video", {"model_name": "kling-v2-master"}, 10),
        ("text2video", {"model_name": "kling-v2-1-master", "mode": "pro", "duration": "10"}, 20),
        ("text2video", {"model_name": V26}, 1.5),
        ("text2video", {"model_name": V26, "mode": "pro", "sound": "on"}, 5),
        ("text2video", {"model_name": V3, "duration": "3"}, 1.8),
        ("text2video", {"model_name": V3, "mode": "pro", "duration": "15", "sound": "on"}, 18),
        ("text2video", {"model_name": V3, "mode": "4k"}, 15),
        ("text2video", {"model_name": V3, "prompt": None, "multi_shot": True}, 3),
        ("image2video", IMAGE, 1.5),
        ("image2video", {**IMAGE, "aspect_ratio": "nonsense"}, 1.5),  # it follows the picture
        ("image2video", {**IMAGE, "model_name": "kling-v1-5"}, 2),
        ("image2video", {**IMAGE, "model_name": V21, "mode": "pro", "image_tail": URL}, 3.5),
        ("image2video", {"image_tail": URL, "mode": "pro"}, 2.5),
        ("image2video", {**IMAGE, "model_name": V3, "image_tail": URL}, 3),
    ],
)
def test_what_the_older_standard_takes(kling: KlingClient, family: str, body: dict[str, Any], units: float) -> None:
    body = {"prompt": "good", **body}
    task_id = made(kling.older(body.pop("prompt"), family, **body))["task_id"]
    assert kling.wait_older(task_id, family)["final_unit_deduction"] == f"{units:g}"
    assert shown(kling, task_id)["cost"] == pytest.approx(units)
    assert shown(kling, task_id)["model"] == body.get("model_name", V25)


@pytest.mark.parametrize(
    ("family", "body", "text"),
    [
        ("text2video", {"prompt": None}, "prompt"),
        ("text2video", {"prompt": ""}, "prompt"),
        ("text2video", {"prompt": 5}, "prompt"),
        ("text2video", {"prompt": "p" * 2501}, "prompt cannot exceed 2500"),
        ("text2video", {"negative_prompt": "n" * 2501}, "negative_prompt cannot exceed 2500"),
        ("text2video", {"duration": 5}, "duration"),
        ("text2video", {"duration": "7"}, "duration"),
        ("text2video", {"duration": "5.0"}, "duration"),
        ("text2video", {"model_name": V3, "duration": "2"}, "duration"),
        ("text2video", {"model_name": V3, "duration": "16"}, "duration"),
        ("text2video", {"mode": "4k"}, "mode"),
        ("text2video", {"mode": ["std"]}, "mode"),
        ("text2video", {"aspect_ratio": "21:9"}, "aspect_ratio"),
        ("text2video", {"aspect_ratio": 1}, "aspect_ratio"),
        ("text2video", {"cfg_scale": 0.5}, "cfg_scale"),
        ("text2video", {"model_name": V16, "cfg_scale": 1.5}, "cfg_scale"),
        ("text2video", {"model_name": V16, "cfg_scale": "0.5"}, "cfg_scale"),
        ("text2video", {"model_name": V16, "camera_control": {"type": "simple"}}, "camera_control is only supported"),
        ("text2video", {"sound": "on"}, "sound"),
        ("text2video", {"model_name": V26, "sound": "on"}, "sound"),
        ("text2video", {"model_name": "kling-v1-5"}, "model_name"),
        ("text2video", {"model_name": V21}, "model_name"),
        ("text2video", {"model_name": "kling-2.5-turbo"}, "model_name"),
        ("text2video", {"model_name": ["kling-v3"]}, "model_name"),
        ("text2video", {"model_name": "kling-v1"}, "has been discontinued and is no longer available"),
        ("text2video", {"model_name": None}, "The model 'kling-v1' has been discontinued"),
        ("text2video", {"model_name": None, "model": V3}, "The model 'kling-v1' has been discontinued"),
        ("text2video", {"callback_url": "ftp://x"}, "callback_url"),
        ("text2video", {"external_task_id": 7}, "external_task_id"),
        ("text2video", {"watermark_info": {"enabled": "yes"}}, "watermark_info"),
        ("image2video", {}, "image"),
        ("image2video", {"image": ""}, "image"),
        ("image2video", {"image": "data:image/png;base64," + picture(300, 300)}, "base64"),
        ("image2video", {"image": "AAAA"}, "format"),
        ("image2video", {"image": "images/a b.jpg"}, "base64"),
        ("image2video", {"image": ["x"]}, "image"),
        ("image2video", {**IMAGE, "prompt": None}, "prompt"),
        ("image2video", {**IMAGE, "image_tail": URL}, "image_tail"),
        ("image2video", {**IMAGE, "image_tail": URL, "mode": "pro", "model_name": "kling-v2-master"}, "image_tail"),
        ("image2video", {**IMAGE, "image_tail": URL, "mode": "pro", "model_name": V26, "sound": "on"}, "image_tail"),
    ],
)
def test_what_the_older_standard_refuses(kling: KlingClient, family: str, body: dict[str, Any], text: str) -> None:
    body = {"prompt": "good", **body}
    prompt = body.pop("prompt")
    reply = kling.older(prompt, family, **body)
    assert refusal(reply) == (400, 1201)
    assert text in reply.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "units"),
    [
        ("text-to-video/kling-2.5-turbo", {}, 1.5),
        ("text-to-video/kling-2.5-turbo", {"settings": {"resolution": "1080p", "duration": 10}}, 5),
        ("text-to-video/kling-2.5-turbo", {"settings": {"mode": "pro", "audio": "loud"}, "negative_prompt": 4}, 1.5),
        ("text-to-video/kling-2.6", {"settings": {"audio": "native", "resolution": "1080p"}}, 5),
        ("text-to-video/kling-3.0", {"settings": {"duration": 3, "multi_shot": False}, "prompt": "p" * 3072}, 1.8),
        ("text-to-video/kling-3.0", {"settings": {"resolution": "4k", "audio": "native"}}, 15),
        ("text-to-video/kling-3.0-turbo", {"settings": {"duration": 15, "aspect_ratio": "1:1"}}, 12),
        ("image-to-video/kling-2.5-turbo", {"contents": [PROMPT, FIRST]}, 1.5),
        ("image-to-video/kling-2.6", {"contents": [LAST, FIRST, PROMPT], "settings": {"resolution": "1080p"}}, 2.5),
        ("image-to-video/kling-3.0", {"contents": [PROMPT, FIRST, LAST]}, 3),
        ("image-to-video/kling-3.0-turbo", {"contents": [PROMPT, FIRST], "settings": {"resolution": "1080p"}}, 5),
    ],
)
def test_what_the_newer_standard_takes(kling: KlingClient, path: str, body: dict[str, Any], units: float) -> None:
    body = {"prompt": "good", **body}
    task_id = made(kling.newer(body.pop("prompt"), path, **body))["id"]
    assert kling.wait_newer(task_id)["billing"][0]["amount"] == f"{units:g}"
    assert shown(kling, task_id)["cost"] == pytest.approx(units)
    assert shown(kling, task_id)["model"] == path.rpartition("/")[2]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("text-to-video/kling-2.5-turbo", {"prompt": None}, "prompt cannot be empty"),
        ("text-to-video/kling-2.5-turbo", {"prompt": "p" * 2501}, "2500"),
        ("text-to-video/kling-3.0", {"prompt": "p" * 3073}, "3072"),
        ("text-to-video/kling-2.5-turbo", {"settings": {"duration": "5"}}, "settings.duration"),
        ("text-to-video/kling-2.5-turbo", {"settings": {"duration": True}}, "settings.duration"),
        ("text-to-video/kling-2.5-turbo", {"settings": {"duration": 5.0}}, "settings.duration"),
        ("text-to-video/kling-2.5-turbo", {"settings": {"duration": 7}}, "settings.duration"),
        ("text-to-video/kling-3.0", {"settings": {"duration": 16}}, "settings.duration"),
        ("text-to-video/kling-3.0", {"settings": {"resolution": "9000p"}}, "value '9000p' is invalid"),
        ("text-to-video/kling-2.6", {"settings": {"resolution": "4k"}}, "settings.resolution"),
        ("text-to-video/kling-2.6", {"settings": {"resolution": ["720p"]}}, "settings.resolution"),
        ("text-to-video/kling-2.6", {"settings": {"audio": "native"}}, "settings.audio"),
        ("text-to-video/kling-3.0", {"settings": {"audio": True}}, "settings.audio"),
        ("text-to-video/kling-3.0", {"settings": {"multi_shot": "no"}}, "settings.multi_shot"),
        ("text-to-video/kling-2.6", {"settings": {"aspect_ratio": "4:3"}}, "settings.aspect_ratio"),
        ("text-to-video/kling-2.6", {"settings": []}, "settings"),
        ("text-to-video/kling-2.6", {"options": "x"}, "options"),
        ("text-to-video/kling-2.6", {"options": {"callback_url": "nowhere"}}, "options.callback_url"),
        ("text-to-video/kling-2.6", {"options": {"external_task_id": 7}}, "options.external_task_id"),
        ("image-to-video/kling-2.6", {}, "contents cannot be empty"),
        ("image-to-video/kling-2.6", {"contents": []}, "contents cannot be empty"),
        ("image-to-video/kling-2.6", {"contents": [FIRST]}, "prompt cannot be empty"),
        ("image-to-video/kling-2.6", {"contents": [PROMPT]}, "first_frame cannot be empty"),
        ("image-to-video/kling-2.6", {"contents": [PROMPT, PROMPT, FIRST]}, "contents.type"),
        ("image-to-video/kling-2.6", {"contents": [PROMPT, {"type": "seed"}]}, "contents.type"),
        ("image-to-video/kling-2.6", {"contents": ["p"]}, "contents.type"),
        ("image-to-video/kling-2.6", {"contents": [{"type": "prompt", "text": "p" * 2501}, FIRST]}, "2500"),
        ("image-to-video/kling-2.6", {"contents": [PROMPT, {"type": "first_frame", "url": "a b"}]}, "base64"),
        ("image-to-video/kling-2.6", {"contents": [PROMPT, FIRST, LAST]}, "last_frame is not supported"),
        ("image-to-video/kling-3.0-turbo", {"contents": [PROMPT, FIRST, LAST]}, "last_frame is not supported"),
    ],
)
def test_what_the_newer_standard_refuses(kling: KlingClient, path: str, body: dict[str, Any], text: str) -> None:
    body = {"prompt": "good", **body}
    reply = kling.newer(body.pop("prompt"), path, **body)
    assert refusal(reply) == (400, 1201)
    assert text in reply.json()["message"]


@pytest.mark.parametrize("path", [OLDER, NEWER, "/tasks"])
def test_a_body_that_is_no_object(kling: KlingClient, path: str) -> None:
    for body in (b"", b"{", b"[]", b'"text"', b"NaN"):
        assert refusal(kling.call("POST", path, data=body)) == (400, 1200)


# --- finding and listing ---


def test_a_task_is_found_on_the_path_of_its_kind_and_by_its_account_only(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    text_id = made(kling.older("find", external_task_id=name))["task_id"]
    image_id = made(kling.older("find", "image2video", image=URL))["task_id"]
    for way in (text_id, name):
        assert made(older_task(kling, way))["task_id"] == text_id
        reply = older_task(kling, way, "image2video")
        assert refusal(reply) == (400, 1201)
        assert reply.json()["message"] == "Task not found by id/external id"
        assert refusal(older_task(KlingClient(kling.base), way)) == (400, 1201)
    assert refusal(older_task(kling, image_id)) == (400, 1201)
    assert made(older_task(kling, image_id, "image2video"))["task_info"] == {}
    assert kling.tasks(task_ids=text_id) == kling.tasks(external_task_ids=name) == []
    newer_id = made(kling.newer("find"))["id"]
    assert refusal(older_task(kling, newer_id)) == (400, 1201)
    assert KlingClient(kling.base).tasks(task_ids=newer_id) == []


def test_the_newer_standard_leaves_out_what_it_does_not_know(kling: KlingClient) -> None:
    names = [f"gen-{n}-{kling.key}" for n in range(3)]
    ids = [made(kling.newer("many", options={"external_task_id": name}))["id"] for name in names]
    found = kling.tasks(task_ids=f"{ids[2]},123,{ids[0]},{ids[2]}")
    assert [task["id"] for task in found] == [ids[2], ids[0]]
    assert [task["id"] for task in kling.tasks(external_task_ids=",".join([*names, "unknown"]))] == ids
    assert kling.tasks(task_ids=names[0]) == kling.tasks(external_task_ids=ids[0]) == []
    assert kling.tasks(task_ids="123") == []
    assert len(kling.tasks(task_ids=",".join([*ids, *map(str, range(17))]))) == 3
    for query in (
        "", "?task_ids=", f"?task_ids={ids[0]}&external_task_ids={names[0]}",
        "?task_ids=" + ",".join(map(str, range(21))),
    ):  # fmt: skip
        assert refusal(kling.call("GET", f"/tasks{query}")) == (400, 1201)


def test_a_new_task_may_not_be_visible_yet(kling: KlingClient) -> None:
    newer_id = made(kling.newer("grace [[sim not_found=2]]"))["id"]
    assert [len(kling.tasks(task_ids=newer_id)) for _ in range(3)] == [0, 0, 1]
    older_id = made(kling.older("grace [[sim not_found=1]]"))["task_id"]
    assert refusal(older_task(kling, older_id)) == (400, 1201)
    assert older_task(kling, older_id).status_code == 200


def test_pages_of_the_older_standard(kling: KlingClient) -> None:
    ids = [made(kling.older(f"page {n}"))["task_id"] for n in range(3)]
    made(kling.newer("not here"))
    image_id = made(kling.older("page", "image2video", image=URL))["task_id"]

    def page(query: str = "", family: str = "text2video") -> list[str]:
        reply = kling.call("GET", f"/v1/videos/{family}{query}")
        assert reply.status_code == 200, reply.text
        return [task["task_id"] for task in reply.json()["data"]]

    assert page() == page("?pageNum=1&pageSize=500") == ids[::-1]
    assert page("?pageNum=1&pageSize=2") == [ids[2], ids[1]]
    assert page("?pageNum=2&pageSize=2") == [ids[0]]
    assert page("?pageNum=3&pageSize=2") == []
    assert page(family="image2video") == [image_id]
    for query in ("?pageNum=0", "?pageNum=1001", "?pageSize=501", "?pageSize=-1", "?pageSize=all"):
        assert refusal(kling.call("GET", OLDER + query)) == (400, 1201)


def test_lists_of_the_newer_standard(kling: KlingClient) -> None:
    ids = [made(kling.newer(f"list {n} [[sim render=60]]"))["id"] for n in range(2)]
    ids += [made(kling.newer("", "image-to-video/kling-2.6", contents=[PROMPT, FIRST]))["id"]]
    kling.wait_newer(ids[2])

    def listed(**body: Any) -> dict[str, Any]:
        return made(kling.call("POST", "/tasks", json=body))

    whole = listed()
    assert [task["id"] for task in whole["result"]] == ids[::-1]
    assert (whole["count"], whole["next_cursor"], whole["has_more"]) == (3, "", False)
    first = listed(limit=2)
    assert ([task["id"] for task in first["result"]], first["has_more"]) == ([ids[2], ids[1]], True)
    second = listed(limit=2, cursor=first["next_cursor"])
    assert ([task["id"] for task in second["result"]], second["has_more"]) == ([ids[0]], False)

    def filtered(key: str, *values: str) -> list[str]:
        return [task["id"] for task in listed(filters=[{"key": key, "values": list(values)}])["result"]]

    assert filtered("status", "succeeded") == filtered("product_type", "image-to-video") == [ids[2]]
    assert filtered("status", "submitted", "processing") == filtered("product_type", "text-to-video") == ids[1::-1]
    created = whole["result"][1]["create_time"]
    assert ids[2] not in [task["id"] for task in listed(end_time=created)["result"]]
    assert listed(start_time=created + 10_000_000)["result"] == []
    for body in (
        {"limit": 0}, {"limit": 501}, {"limit": True}, {"cursor": "nobody"}, {"filters": [{"key": "prompt"}]},
        {"filters": ["status"]}, {"filters": 5}, {"filters": {"key": "status"}},
        {"filters": [{"key": "status", "values": 5}]}, {"filters": [{"key": ["status"], "values": []}]},
    ):  # fmt: skip
        assert refusal(kling.call("POST", "/tasks", json=body)) == (400, 1201), body


# --- one reference, one task ---


def test_the_older_standard_refuses_a_reference_that_exists(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    task_id = made(kling.older("once", external_task_id=name))["task_id"]
    kling.wait_older(task_id)
    for family, more in (("text2video", {}), ("image2video", {"image": URL})):
        reply = kling.older("once more", family, external_task_id=name, **more)
        assert refusal(reply) == (400, 1201)
        assert "already exists" in reply.json()["message"]
    assert kling.sim(f"submits?reference={name}") == {"received": 3, "created": 1, "doubled": 0}
    assert made(older_task(kling, name))["task_id"] == task_id
    made(KlingClient(kling.base).older("other account", external_task_id=name))


def test_a_lost_answer_is_found_again_by_the_reference(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    with pytest.raises(requests.exceptions.ConnectionError):
        kling.older("lost [[sim lost_reply=1]]", external_task_id=name)
    task = made(older_task(kling, name))
    assert refusal(kling.older("lost [[sim lost_reply=1]]", external_task_id=name)) == (400, 1201)
    assert kling.sim(f"submits?reference={name}") == {"received": 2, "created": 1, "doubled": 0}
    with pytest.raises(requests.exceptions.ConnectionError):
        kling.newer("lost too [[sim lost_reply=1]]", options={"external_task_id": f"newer-{name}"})
    (found,) = kling.tasks(external_task_ids=f"newer-{name}")
    assert kling.sim(f"jobs?reference=newer-{name}")["jobs"][0]["id"] == found["id"] != task["task_id"]


def test_the_newer_standard_takes_a_reference_twice_unless_told_otherwise(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    options = {"external_task_id": name}
    first = made(kling.newer("double", options=options))["id"]
    second = made(kling.newer("double", options=options))["id"]
    assert kling.sim(f"submits?reference={name}") == {"received": 2, "created": 2, "doubled": 1}
    assert [task["id"] for task in kling.tasks(external_task_ids=name)] == [second]
    assert {task["external_id"] for task in kling.tasks(task_ids=f"{first},{second}")} == {name}
    kling.sim("config", refuse_duplicates=True)
    assert refusal(kling.newer("double", options=options)) == (400, 1201)
    assert kling.sim(f"submits?reference={name}") == {"received": 3, "created": 2, "doubled": 1}


def test_the_same_reference_on_both_standards_finds_each_its_own(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    older_id = made(kling.older("both", external_task_id=name))["task_id"]
    newer_id = made(kling.newer("both", options={"external_task_id": name}))["id"]
    assert made(older_task(kling, name))["task_id"] == older_id
    assert [task["id"] for task in kling.tasks(external_task_ids=name)] == [newer_id]


def test_a_failed_task_keeps_its_reference_but_is_not_doubled(kling: KlingClient) -> None:
    name = f"gen-{kling.key}"
    task_id = made(kling.newer("again [[sim first=1 fail=INTERNAL]]", options={"external_task_id": name}))["id"]
    assert kling.wait_newer(task_id)["status"] == "failed"
    assert refusal(kling.older("again", external_task_id=name)) == (400, 1201)
    made(kling.newer("again [[sim first=1 fail=INTERNAL]]", options={"external_task_id": name}))
    assert kling.sim(f"submits?reference={name}") == {"received": 3, "created": 2, "doubled": 0}


def test_content_is_counted_without_reference_and_call_back(kling: KlingClient) -> None:
    prompt = f"content {kling.key}"
    before = kling.sim("submits")["created"]
    for n in range(2):
        hook = f"http://127.0.0.1:9/{n}"
        made(kling.newer(prompt, options={"external_task_id": f"{n}-{kling.key}", "callback_url": hook}))
        made(kling.older(prompt, external_task_id=f"older-{n}-{kling.key}", callback_url=hook))
    assert kling.submits(prompt) == {"received": 4, "created": 4, "doubled": 3}
    assert kling.sim("submits")["created"] == before + 4


# --- refusals ---


def test_over_the_parallel_limit_is_1303_over_both_standards(kling: KlingClient) -> None:
    kling.sim("config", limits={"kling-2.5-turbo": 2})
    made(kling.older("lane [[sim render=60]]"))
    made(kling.newer("lane [[sim render=60]]"))
    for reply in (kling.older("third"), kling.newer("third"), kling.older("third", "image2video", image=URL)):
        assert refusal(reply) == (429, 1303)
        assert reply.json()["message"] == "parallel task over resource pack limit"
        assert "retry-after" not in reply.headers
    made(kling.older("other model", model_name=V26))
    made(KlingClient(kling.base).newer("other key"))
    kling.sim("config", advance_s=61)
    made(kling.newer("there is room"))


def test_out_of_balance_is_1102_at_429(kling: KlingClient) -> None:
    task_id = made(kling.older("spend"))["task_id"]
    kling.sim("config", credits={shown(kling, task_id)["key"]: 2})
    made(kling.newer("spend"))  # 1.5 of 2
    for reply in (kling.older("poor"), kling.newer("poor")):
        assert refusal(reply) == (429, 1102)
        assert reply.json()["message"] == "Account balance not enough"
    assert older_task(kling, task_id).status_code == 200


def test_a_daily_limit_is_too_fast(kling: KlingClient) -> None:
    kling.sim("config", daily_limits={"kling-2.6": 1})
    made(kling.newer("today", "text-to-video/kling-2.6"))
    assert refusal(kling.newer("today", "text-to-video/kling-2.6")) == (429, 1302)


@pytest.mark.parametrize(
    ("directive", "status", "code"),
    [
        ("moderation", 400, 1301),
        ("status=400-credits", 429, 1102),
        ("status=401", 401, 1000),
        ("status=401-1004", 401, 1004),
        ("status=403", 403, 1103),
        ("status=429", 429, 1302),
        ("status=429-1100", 429, 1100),
        ("status=429-1101", 429, 1101),
        ("status=429-1303", 429, 1303),
        ("status=429-1304", 429, 1304),
        ("status=400-1300", 400, 1300),
        ("status=500", 500, 5000),
        ("status=503", 503, 5001),
        ("status_after=504", 504, 5002),
    ],
)
def test_refusals_by_script_use_klings_codes(kling: KlingClient, directive: str, status: int, code: int) -> None:
    prompt = f"refused {kling.key} [[sim {directive} retry_after=3]]"
    for reply in (kling.older(prompt), kling.newer(prompt)):
        assert refusal(reply) == (status, code)
        assert reply.headers["retry-after"] == "3"
    assert kling.submits(prompt)["created"] == (2 if "after=5" in directive else 0)


def test_a_gateway_answers_without_a_code(kling: KlingClient) -> None:
    reply = kling.newer("gateway [[sim status=502]]")
    assert (reply.status_code, reply.headers["content-type"]) == (502, "text/html")


def test_an_unknown_directive_is_refused(kling: KlingClient) -> None:
    reply = kling.newer("typing error [[sim staus=500]]")
    assert refusal(reply) == (400, 1201)
    assert "staus" in reply.json()["message"]


def test_faults_of_polls_on_both_standards(kling: KlingClient) -> None:
    script = "[[sim render=0 poll_reset=1 poll_status=503x2 poll_garbage=3 unknown_status=5]]"
    older_id = made(kling.older(f"polls {script}"))["task_id"]
    newer_id = made(kling.newer(f"polls {script}"))["id"]
    for path in (f"{OLDER}/{older_id}", f"/tasks?task_ids={newer_id}"):
        with pytest.raises(requests.exceptions.ConnectionError):
            kling.call("GET", path)
        assert refusal(kling.call("GET", path)) == (503, 5001)
        with pytest.raises(ValueError):
            kling.call("GET", path).json()
        assert "awaiting_review" in kling.call("GET", path).text
    kling.sim("config", advance_s=6)
    assert made(older_task(kling, older_id))["task_status"] == "succeed"


# --- the account ---


def test_what_the_account_has_left(kling: KlingClient) -> None:
    task_id = made(kling.older("cost"))["task_id"]
    key = shown(kling, task_id)["key"]
    kling.sim("config", credits={key: 10})
    kling.wait_newer(made(kling.newer("cost"))["id"])
    path = "/account/costs?start_time=1&end_time=2"
    data = made(kling.call("GET", path))
    (pack,) = data["resource_pack_subscribe_infos"]
    assert (pack["total_quantity"], pack["remaining_quantity"], pack["status"]) == (10, 8.5, "online")
    assert pack["resource_pack_type"] == "decreasing_total"
    assert pack["effective_time"] < pack["invalid_time"]
    assert refusal(kling.call("GET", path)) == (429, 1302)  # once a second
    kling.sim("config", advance_s=1.1, credits={key: 0})
    (pack,) = made(kling.call("GET", path))["resource_pack_subscribe_infos"]
    assert (pack["remaining_quantity"], pack["status"]) == (0, "runOut")
    kling.sim("config", advance_s=1.1)
    assert made(kling.call("GET", f"{path}&resource_pack_name=other"))["resource_pack_subscribe_infos"] == []
    for query in ("", "?start_time=1", "?start_time=a&end_time=2"):
        assert refusal(kling.call("GET", f"/account/costs{query}")) == (400, 1201)


def test_the_ledgers_of_the_account(kling: KlingClient) -> None:
    task_id = made(kling.newer("ledger"))["id"]
    kling.wait_newer(task_id)
    span = {"start_time": 1, "end_time": 2}
    ledger = made(kling.call("POST", "/account/billing/package", json=span))
    entry = {"task_id": task_id, "model_name": "kling-2.5-turbo", "deduction_amount": 1.5}
    assert (ledger["result"]["detail"], ledger["has_more"]) == ([entry], False)
    assert made(kling.call("POST", "/account/billing/balance", json=span))["result"]["detail"] == []
    assert refusal(kling.call("POST", "/account/billing/package", json={})) == (400, 1201)
