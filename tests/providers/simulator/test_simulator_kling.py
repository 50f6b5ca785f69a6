"""The simulator keeps Kling's rules, on both of its standards."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import requests
from PIL import Image

from providers.simulator.kling_replies import CODES
from tests.providers.simulator.client import KlingClient, running

URL = "https://images.example.com/a.jpg"
OLDER_TEXT, OLDER_IMAGE = "text2video", "image2video"
TEXT, IMAGE = "text-to-video", "image-to-video"
SECRET = "0123456789abcdef0123456789abcdef"


def picture(width: int, height: int, kind: str = "PNG") -> str:
    """As bare base64, the way Kling wants it."""
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, kind)
    return base64.b64encode(out.getvalue()).decode()


def code(reply: requests.Response) -> tuple[int, int]:
    body = reply.json()
    assert set(body) == {"code", "message", "request_id"}
    return reply.status_code, body["code"]


def created(reply: requests.Response) -> str:
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["code"], body["message"]) == (0, "SUCCEED")
    task_id = body["data"].get("task_id") or body["data"]["id"]
    assert task_id.isdecimal()
    assert len(task_id) == 18
    return str(task_id)


def frames(*kinds: str, url: str = URL) -> list[dict[str, str]]:
    return [{"type": "prompt", "text": "p"}, *({"type": kind, "url": url} for kind in kinds)]


def shown(client: KlingClient, task_id: str) -> dict[str, Any]:
    return dict(client.sim(f"jobs?id={task_id}")["jobs"][0])


# --- the older standard ---


def test_a_task_of_the_older_standard(kling: KlingClient) -> None:
    reply = kling.older("a fox [[sim render=100]]", external_task_id="ref-1", mode="pro")
    task_id = created(reply)
    data = reply.json()["data"]
    assert set(data) == {"task_id", "task_status", "task_info", "created_at", "updated_at"}
    assert data["task_status"] == "submitted"
    assert data["task_info"] == {"external_task_id": "ref-1"}
    kling.sim("config", advance_s=50)
    task = kling.call("GET", f"/v1/videos/text2video/{task_id}").json()["data"]
    assert task["task_status"] == "processing"
    assert task["task_result"] == {}
    assert task["updated_at"] > task["created_at"] > 1e12
    kling.sim("config", advance_s=51)
    task = kling.wait_older(task_id)
    assert task["task_status"] == "succeed"
    assert task["final_unit_deduction"] == "2.5"
    assert task["watermark_info"] == {"enabled": False}
    (video,) = task["task_result"]["videos"]
    assert video["duration"] == "5.041"
    assert video["watermark_url"] == ""
    assert kling.download(video["url"]).headers["content-type"] == "video/mp4"
    by_reference = kling.call("GET", "/v1/videos/text2video/ref-1").json()["data"]
    assert by_reference["task_id"] == task_id


def test_a_task_is_read_on_the_path_of_its_kind(kling: KlingClient) -> None:
    task_id = created(kling.older("kind", OLDER_IMAGE, image=URL))
    assert kling.call("GET", f"/v1/videos/image2video/{task_id}").status_code == 200
    for path in (f"text2video/{task_id}", "text2video/none", "image2video/none"):
        reply = kling.call("GET", f"/v1/videos/{path}")
        assert code(reply) == (400, 1201)
        assert reply.json()["message"] == "Task not found by id/external id"
    assert code(KlingClient(kling.base).call("GET", f"/v1/videos/image2video/{task_id}")) == (400, 1201)


@pytest.mark.parametrize(
    ("family", "body", "text"),
    [
        (OLDER_TEXT, {"model_name": None}, "discontinued"),  # the default is kling-v1
        (OLDER_TEXT, {"model_name": "kling-v1"}, "The model 'kling-v1' has been discontinued and is no longer available."),
        (OLDER_TEXT, {"model_name": "kling-v9"}, "model_name"),
        (OLDER_TEXT, {"model_name": "kling-v2-1"}, "not supported"),  # images only
        (OLDER_TEXT, {"model_name": "kling-v1-5"}, "not supported"),
        (OLDER_TEXT, {"prompt": None}, "prompt cannot be empty"),
        (OLDER_TEXT, {"prompt": "a" * 2501}, "2500"),
        (OLDER_TEXT, {"prompt": 7}, "prompt value"),
        (OLDER_TEXT, {"negative_prompt": "a" * 2501}, "2500"),
        (OLDER_TEXT, {"duration": 5}, "duration value '5' is invalid"),  # a string here
        (OLDER_TEXT, {"duration": "7"}, "duration"),
        (OLDER_TEXT, {"mode": "4k"}, "mode"),
        (OLDER_TEXT, {"mode": ["std"]}, "mode"),
        (OLDER_TEXT, {"aspect_ratio": "4:3"}, "aspect_ratio"),
        (OLDER_TEXT, {"cfg_scale": 0.5}, "cfg_scale"),  # not with v2
        (OLDER_TEXT, {"model_name": "kling-v1-6", "cfg_scale": 2}, "cfg_scale"),
        (OLDER_TEXT, {"model_name": "kling-v1-6", "camera_control": {"type": "simple"}}, "camera_control is only"),
        (OLDER_TEXT, {"sound": "on"}, "sound"),
        (OLDER_TEXT, {"model_name": "kling-v2-6", "sound": "on"}, "sound"),  # pro only
        (OLDER_TEXT, {"callback_url": "ftp://x"}, "callback_url"),
        (OLDER_TEXT, {"watermark_info": {"enabled": "yes"}}, "watermark_info"),
        (OLDER_TEXT, {"external_task_id": 7}, "external_task_id"),
        (OLDER_IMAGE, {}, "image"),
        (OLDER_IMAGE, {"image": "data:image/png;base64,AAAA"}, "base64"),
        (OLDER_IMAGE, {"image": "AAAA"}, "format"),
        (OLDER_IMAGE, {"image": picture(400, 400, "WEBP")}, "format"),
        (OLDER_IMAGE, {"image": URL, "image_tail": URL}, "image_tail"),  # pro only
        (OLDER_IMAGE, {"model_name": "kling-v2-master", "image": URL, "image_tail": URL, "mode": "pro"}, "image_tail"),
        (OLDER_IMAGE, {"model_name": "kling-v2-6", "mode": "pro", "sound": "on", "image": URL, "image_tail": URL}, "tail"),
    ],
)  # fmt: skip
def test_the_older_standards_rules(kling: KlingClient, family: str, body: dict[str, Any], text: str) -> None:
    body = {"prompt": "p", **body}
    reply = kling.older(body.pop("prompt"), family, **body)
    assert code(reply) == (400, 1201)
    assert text in reply.json()["message"]


@pytest.mark.parametrize(
    ("family", "body", "units"),
    [
        (OLDER_TEXT, {}, 1.5),
        (OLDER_TEXT, {"duration": "10", "mode": "pro"}, 5),
        (OLDER_TEXT, {"model_name": "kling-v1-6", "mode": "pro", "cfg_scale": 0.5}, 3.5),
        (OLDER_TEXT, {"model_name": "kling-v2-master"}, 10),
        (OLDER_TEXT, {"model_name": "kling-v2-6", "mode": "pro", "sound": "on"}, 5),
        (OLDER_TEXT, {"model_name": "kling-v3", "duration": "15", "mode": "pro"}, 12),
        (OLDER_TEXT, {"model_name": "kling-v3", "prompt": None, "multi_shot": True}, 3),
        (OLDER_TEXT, {"unknown": 1, "duration": "5"}, 1.5),
        (OLDER_IMAGE, {"model_name": "kling-v1-5", "image": URL}, 2),
        (OLDER_IMAGE, {"model_name": "kling-v2-1", "image": URL, "image_tail": URL, "mode": "pro"}, 3.5),
        (OLDER_IMAGE, {"image": picture(300, 300), "aspect_ratio": "nonsense"}, 1.5),  # not looked at with an image
    ],
)
def test_the_older_standards_models_and_prices(
    kling: KlingClient, family: str, body: dict[str, Any], units: float
) -> None:
    body = {"prompt": "good", **body}
    task_id = created(kling.older(body.pop("prompt"), family, **body))
    assert kling.wait_older(task_id, family)["final_unit_deduction"] == f"{units:g}"


@pytest.mark.parametrize(
    ("size", "text"), [((299, 400), "Image pixel is invalid"), ((300, 800), "The resolution or aspect ratio")]
)
def test_a_picture_of_a_wrong_size_fails_later(kling: KlingClient, size: tuple[int, int], text: str) -> None:
    task_id = created(kling.older("size", OLDER_IMAGE, image=picture(*size)))
    task = kling.wait_older(task_id, OLDER_IMAGE)
    assert task["task_status"] == "failed"
    assert task["task_status_msg"].startswith(text)
    assert shown(kling, task_id)["cost"] == 0


def test_the_older_standards_list(kling: KlingClient) -> None:
    made = [created(kling.older(f"listed {number}")) for number in range(5)]
    created(kling.older("another kind", OLDER_IMAGE, image=URL))
    listed = kling.call("GET", "/v1/videos/text2video").json()["data"]
    assert [task["task_id"] for task in listed] == made[::-1]
    page = kling.call("GET", "/v1/videos/text2video?pageNum=2&pageSize=2").json()["data"]
    assert [task["task_id"] for task in page] == [made[2], made[1]]
    for query in ("pageNum=0", "pageSize=501", "pageNum=x"):
        assert code(kling.call("GET", f"/v1/videos/text2video?{query}")) == (400, 1201)


def test_a_reference_is_taken_once_on_the_older_standard(kling: KlingClient) -> None:
    first = created(kling.older("once [[sim fail=INTERNAL]]", external_task_id="ref-dup"))
    kling.wait_older(first)
    again = kling.older("other", OLDER_IMAGE, image=URL, external_task_id="ref-dup")
    assert code(again) == (400, 1201)
    assert "already exists" in again.json()["message"]
    created(KlingClient(kling.base).older("another account", external_task_id="ref-dup"))
    lost = "lost [[sim lost_reply]]"
    with pytest.raises(requests.exceptions.ConnectionError):
        kling.older(lost, external_task_id="ref-lost")
    assert "already exists" in kling.older(lost, external_task_id="ref-lost").json()["message"]
    assert kling.sim("submits?reference=ref-lost") == {"received": 2, "created": 1, "doubled": 0}
    created(kling.older("free again", external_task_id="ref-new"))
    task_id = shown(kling, kling.call("GET", "/v1/videos/text2video/ref-new").json()["data"]["task_id"])["id"]
    kling.sim(f"jobs/{task_id}", state="lost")
    created(kling.older("free again", external_task_id="ref-new"))


def test_content_is_counted_without_the_reference(kling: KlingClient) -> None:
    created(kling.older("content [[sim render=60]]", external_task_id="c-1"))
    created(kling.older("content [[sim render=60]]", external_task_id="c-2", callback_url="http://127.0.0.1:9/x"))
    assert kling.sim("submits?reference=c-1")["created"] == 1
    assert kling.submits("content [[sim render=60]]")["doubled"] == 1


# --- the newer standard ---


def test_a_task_of_the_newer_standard(kling: KlingClient) -> None:
    reply = kling.newer(
        "a fox [[sim render=100]]",
        settings={"resolution": "1080p", "duration": 10, "aspect_ratio": "9:16"},
        options={"external_task_id": "new-1", "watermark_info": {"enabled": True}},
    )
    task_id = created(reply)
    assert set(reply.json()["data"]) == {"id", "status", "create_time", "update_time", "external_id"}
    assert kling.tasks(task_ids=task_id)[0]["status"] == "submitted"
    kling.sim("config", advance_s=50)
    assert kling.tasks(external_task_ids="new-1")[0]["status"] == "processing"
    kling.sim("config", advance_s=51)
    task = kling.wait_newer(task_id)
    assert task["status"] == "succeeded"
    assert task["external_id"] == "new-1"
    assert task["billing"] == [{"charge_type": "unit", "amount": "5", "package_type": "video"}]
    (output,) = task["outputs"]
    assert output["type"] == "video"
    assert output["duration"] == "10.041"
    assert output["watermark_url"] == output["url"]
    assert kling.download(output["url"]).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (f"{TEXT}/kling-2.5-turbo", {"prompt": None}, "prompt cannot be empty"),
        (f"{TEXT}/kling-2.5-turbo", {"prompt": "a" * 2501}, "2500"),
        (f"{TEXT}/kling-3.0", {"prompt": "a" * 3073}, "3072"),
        (f"{TEXT}/kling-2.5-turbo", {"settings": {"resolution": "9000p"}}, "settings.resolution value '9000p' is invalid"),
        (f"{TEXT}/kling-2.5-turbo", {"settings": {"resolution": "4k"}}, "settings.resolution"),
        (f"{TEXT}/kling-2.5-turbo", {"settings": {"duration": "5"}}, "settings.duration value '5' is invalid"),
        (f"{TEXT}/kling-2.5-turbo", {"settings": {"duration": 3}}, "settings.duration"),
        (f"{TEXT}/kling-3.0-turbo", {"settings": {"duration": 16}}, "settings.duration"),
        (f"{TEXT}/kling-3.0-turbo", {"settings": {"duration": 5.5}}, "settings.duration"),
        (f"{TEXT}/kling-2.5-turbo", {"settings": {"aspect_ratio": "4:3"}}, "settings.aspect_ratio"),
        (f"{TEXT}/kling-2.5-turbo", {"settings": []}, "settings"),
        (f"{TEXT}/kling-2.6", {"settings": {"audio": "native"}}, "settings.audio"),  # at 1080p only
        (f"{TEXT}/kling-3.0", {"settings": {"audio": True}}, "settings.audio"),
        (f"{TEXT}/kling-3.0", {"settings": {"multi_shot": "no"}}, "settings.multi_shot"),
        (f"{TEXT}/kling-3.0", {"options": {"callback_url": "nowhere"}}, "options.callback_url"),
        (f"{IMAGE}/kling-2.5-turbo", {}, "contents cannot be empty"),
        (f"{IMAGE}/kling-2.5-turbo", {"contents": frames()}, "first_frame"),
        (f"{IMAGE}/kling-2.5-turbo", {"contents": frames("last_frame")}, "first_frame"),
        (f"{IMAGE}/kling-2.5-turbo", {"contents": [{"type": "first_frame", "url": URL}]}, "prompt cannot be empty"),
        (f"{IMAGE}/kling-2.5-turbo", {"contents": frames("first_frame", "last_frame")}, "last_frame"),
        (f"{IMAGE}/kling-3.0-turbo", {"contents": frames("first_frame", "last_frame")}, "last_frame"),
        (f"{IMAGE}/kling-3.0", {"contents": frames("element")}, "contents.type"),
        (f"{IMAGE}/kling-3.0", {"contents": frames("first_frame", url="data:image/png;base64,AAAA")}, "base64"),
    ],
)  # fmt: skip
def test_the_newer_standards_rules(kling: KlingClient, path: str, body: dict[str, Any], text: str) -> None:
    body = {"prompt": "p", **body}
    reply = kling.newer(body.pop("prompt"), path, **body)
    assert code(reply) == (400, 1201)
    assert text in reply.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "units"),
    [
        (f"{TEXT}/kling-2.5-turbo", {}, 1.5),
        (f"{TEXT}/kling-2.5-turbo", {"settings": {"mode": "pro", "audio": 1}}, 1.5),  # unknown keys are ignored
        (f"{TEXT}/kling-2.6", {"settings": {"resolution": "1080p", "audio": "native"}}, 5),
        (f"{TEXT}/kling-3.0", {"settings": {"duration": 3, "audio": "off", "multi_shot": False}}, 1.8),
        (f"{TEXT}/kling-3.0", {"settings": {"resolution": "4k", "duration": 3}}, 9),
        (f"{TEXT}/kling-3.0-turbo", {"settings": {"resolution": "1080p", "duration": 15}}, 15),
        (f"{IMAGE}/kling-2.5-turbo", {"contents": frames("first_frame")}, 1.5),
        (
            f"{IMAGE}/kling-2.6",
            {"contents": frames("last_frame", "first_frame", url=picture(300, 400)), "settings": {"resolution": "1080p"}},
            2.5,
        ),
    ],
)
def test_the_newer_standards_models_and_prices(
    kling: KlingClient, path: str, body: dict[str, Any], units: float
) -> None:
    task = kling.wait_newer(created(kling.newer("good", path, **body)))
    assert task["billing"][0]["amount"] == f"{units:g}"


def test_up_to_twenty_tasks_a_query_and_no_word_of_unknown_ones(kling: KlingClient) -> None:
    made = [created(kling.newer(f"many {number} [[sim render=60]]")) for number in range(3)]
    found = kling.tasks(task_ids=",".join([*made, "123", made[0]]))
    assert [task["id"] for task in found] == made
    assert kling.tasks(task_ids="123") == []
    assert kling.tasks(external_task_ids="nobody") == []
    assert KlingClient(kling.base).tasks(task_ids=made[0]) == []
    for params in ({}, {"task_ids": made[0], "external_task_ids": "x"}, {"task_ids": ",".join(map(str, range(21)))}):
        assert code(kling.call("GET", "/tasks", params=params)) == (400, 1201)
    assert code(kling.call("DELETE", "/tasks")) == (404, 1202)


def test_one_tasks_script_in_a_query_of_several(kling: KlingClient) -> None:
    plain = created(kling.newer("plain [[sim render=60]]"))
    late = created(kling.newer("late [[sim render=60 not_found=2]]"))
    ids = f"{plain},{late}"
    assert [len(kling.tasks(task_ids=ids)) for _ in range(3)] == [1, 1, 2]
    strange = created(kling.newer("strange [[sim render=60 unknown_status=30]]"))
    assert [task["status"] for task in kling.tasks(task_ids=f"{plain},{strange}")] == ["submitted", "awaiting_review"]
    down = created(kling.newer("down [[sim render=60 poll_status=503x1]]"))
    assert code(kling.call("GET", "/tasks", params={"task_ids": f"{plain},{down}"})) == (503, 5001)
    assert len(kling.tasks(task_ids=f"{plain},{down}")) == 2
    cut = created(kling.newer("cut [[sim poll_reset=1]]"))
    with pytest.raises(requests.exceptions.ConnectionError):
        kling.tasks(task_ids=f"{plain},{cut}")


def test_the_newer_standards_list(kling: KlingClient) -> None:
    made = [created(kling.newer(f"listed {number} [[sim render=60]]")) for number in range(5)]
    image = created(kling.newer("image", f"{IMAGE}/kling-2.5-turbo", contents=frames("first_frame")))
    kling.wait_newer(image)

    def search(**body: Any) -> dict[str, Any]:
        reply = kling.call("POST", "/tasks", json=body)
        assert reply.status_code == 200, reply.text
        return dict(reply.json()["data"])

    first = search(limit=4)
    assert [task["id"] for task in first["result"]] == [image, *made[:1:-1]]
    assert (first["count"], first["has_more"]) == (4, True)
    rest = search(limit=4, cursor=first["next_cursor"])
    assert [task["id"] for task in rest["result"]] == [made[1], made[0]]
    assert (rest["next_cursor"], rest["has_more"]) == ("", False)
    done = search(filters=[{"key": "status", "values": ["succeeded"]}])
    assert [task["id"] for task in done["result"]] == [image]
    assert search(filters=[{"key": "product_type", "values": ["text-to-video"]}])["count"] == 5
    assert search(end_time=1)["count"] == 0
    for body in ({"limit": 501}, {"cursor": "x"}, {"filters": [{"key": "colour"}]}):
        assert code(kling.call("POST", "/tasks", json=body)) == (400, 1201)


def test_the_newer_standard_takes_a_reference_again_unless_told_otherwise(kling: KlingClient) -> None:
    body = {"options": {"external_task_id": "new-dup"}}
    created(kling.newer("twice [[sim render=60]]", **body))
    newest = created(kling.newer("twice [[sim render=60]]", **body))
    assert kling.sim("submits?reference=new-dup") == {"received": 2, "created": 2, "doubled": 1}
    assert [task["id"] for task in kling.tasks(external_task_ids="new-dup")] == [newest]
    kling.sim("config", refuse_duplicates=True)
    reply = kling.newer("twice [[sim render=60]]", **body)
    assert code(reply) == (400, 1201)
    assert "already exists" in reply.json()["message"]


def test_each_standard_knows_its_own_tasks(kling: KlingClient) -> None:
    older, newer = created(kling.older("mine", external_task_id="o")), created(kling.newer("mine"))
    assert kling.tasks(task_ids=older) == []
    assert kling.tasks(external_task_ids="o") == []
    assert code(kling.call("GET", f"/v1/videos/text2video/{newer}")) == (400, 1201)


def test_paths_and_methods_that_do_not_exist(kling: KlingClient) -> None:
    for method, path, expected in (
        ("POST", "/text-to-video/kling-1.0", (404, 1203)),
        ("GET", "/text-to-video/kling-2.5-turbo", (404, 1202)),
        ("DELETE", "/v1/videos/text2video/1", (404, 1202)),  # there is no cancel
        ("POST", "/v1/videos/text2video/1", (404, 1202)),
        ("POST", "/v1/videos/extend", (404, 1203)),
        ("GET", "/account/nothing", (404, 1203)),
        ("POST", "/v1/videos/text2video", (400, 1200)),
        ("POST", "/text-to-video/kling-2.5-turbo", (400, 1200)),
    ):
        assert code(kling.call(method, path, data=b"[]")) == expected


# --- errors, limits, accounts ---


@pytest.mark.parametrize("number", sorted(CODES))
def test_every_code_can_be_called_by_script_with_its_status(kling: KlingClient, number: int) -> None:
    status = CODES[number][0]
    reply = kling.older(f"refused [[sim status={status}-{number} retry_after=2]]")
    assert code(reply) == (status, number)
    assert reply.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("directive", "status", "number"),
    [
        ("status=400-credits", 429, 1102),
        ("moderation", 400, 1301),
        ("status=429", 429, 1302),
        ("status=500", 500, 5000),
        ("status_after=504", 504, 5002),
        ("status_after=504-5002", 504, 5002),
    ],
)
def test_refusals_by_script_use_klings_codes(kling: KlingClient, directive: str, status: int, number: int) -> None:
    prompt = f"{directive} [[sim {directive}]]"
    assert code(kling.newer(prompt)) == (status, number)
    assert kling.submits(prompt)["created"] == ("after" in directive)


def test_a_status_without_a_code_is_a_gateways_page(kling: KlingClient) -> None:
    reply = kling.older("page [[sim status=502]]")
    assert reply.status_code == 502
    assert reply.headers["content-type"] == "text/html"


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ("SAFETY.INPUT.TEXT", "Failure to pass the risk control system"),
        ("risk_control", "Failure to pass the risk control system"),
        ("image_pixel", "Image pixel is invalid"),
        ("INTERNAL", "Internal error, please try again later"),
        ("some_new_reason", "some new reason"),
    ],
)
def test_a_failed_task_is_a_good_answer(kling: KlingClient, failure: str, text: str) -> None:
    older = kling.wait_older(created(kling.older(f"fail [[sim fail={failure}]]")))
    assert (older["task_status"], older["task_status_msg"]) == ("failed", text)
    newer_id = created(kling.newer(f"fail [[sim fail={failure}]]"))
    newer = kling.wait_newer(newer_id)
    assert (newer["status"], newer["message"], newer["outputs"]) == ("failed", text, [])
    assert shown(kling, newer_id)["cost"] == 0


def test_over_the_limit_is_1303_on_both_standards_together(kling: KlingClient) -> None:
    kling.sim("config", limits={"kling-2.5-turbo": 2})
    first = created(kling.older("lane [[sim render=60]]"))
    created(kling.newer("lane [[sim render=60]]"))
    for reply in (kling.older("lane"), kling.newer("lane")):
        assert code(reply) == (429, 1303)
        assert reply.json()["message"] == "parallel task over resource pack limit"
        assert "retry-after" not in reply.headers
    created(kling.newer("another model", "text-to-video/kling-3.0"))
    kling.sim(f"jobs/{first}", state="failed", code="INTERNAL")
    created(kling.newer("lane"))


def test_the_balance_and_its_end(kling: KlingClient) -> None:
    task_id = created(kling.older("spend"))
    kling.wait_older(task_id)
    key = shown(kling, task_id)["key"]
    kling.sim("config", credits={key: 2})
    created(kling.older("spend"))
    refused = kling.older("spend")
    assert code(refused) == (429, 1102)
    assert refused.json()["message"] == "Account balance not enough"
    times = {"start_time": "1", "end_time": "2"}
    (pack,) = kling.call("GET", "/account/costs", params=times).json()["data"]["resource_pack_subscribe_infos"]
    assert (pack["total_quantity"], pack["remaining_quantity"], pack["status"]) == (2, 0.5, "online")
    assert code(kling.call("GET", "/account/costs", params=times)) == (429, 1302)  # once a second
    kling.sim("config", advance_s=2)
    assert code(kling.call("GET", "/account/costs")) == (400, 1201)
    named = kling.call("GET", "/account/costs", params={**times, "resource_pack_name": "none"}).json()
    assert named["data"]["resource_pack_subscribe_infos"] == []
    ledger = kling.call("POST", "/account/billing/package", json={"start_time": 1, "end_time": 2}).json()["data"]
    assert task_id in [row["task_id"] for row in ledger["result"]["detail"]]
    assert code(kling.call("POST", "/account/billing/balance", json={})) == (400, 1201)


# --- who calls ---


def token(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    now = int(time.time())
    whole = {"iss": "access-1", "exp": now + 1800, "nbf": now - 5} | claims
    return jwt.encode({name: value for name, value in whole.items() if value is not None}, secret, algorithm=algorithm)


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    with running("--canned", "--render-seconds", "60", "--keys", f"plain-key,access-1:{SECRET}") as base:
        yield base


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (401, 1001)),
        ("Key plain-key", (401, 1002)),
        ("Bearer wrong-key", (401, 1002)),
        ("Bearer access-1", (401, 1002)),
        ("Bearer a.b.c", (401, 1002)),
        (token("x" * 32), (401, 1000)),
        (token(algorithm="HS512", secret=SECRET * 2), (401, 1002)),
        (token(iss="access-2"), (401, 1002)),
        (token(iss=None), (401, 1002)),
        (token(exp=None), (401, 1002)),
        (token(nbf=int(time.time()) + 900), (401, 1003)),
        (token(exp=int(time.time()) - 1), (401, 1004)),
        (token(nbf=None), None),
        (token(), None),
        ("Bearer plain-key", None),
    ],
)
def test_who_may_use_the_older_standard(guarded: str, header: str | None, expected: tuple[int, int] | None) -> None:
    client = KlingClient(guarded)
    if header is None:
        client.headers = {}
    else:
        client.headers["Authorization"] = header if " " in header else f"Bearer {header}"
    reply = client.older("who")
    if expected is None:
        created(reply)
        assert client.call("GET", "/account/costs?start_time=1&end_time=2").status_code in (200, 429)
    else:
        assert code(reply) == expected


def test_the_newer_standard_takes_no_jwt(guarded: str) -> None:
    client = KlingClient(guarded, token())
    for reply in (client.newer("who"), client.call("GET", "/tasks?task_ids=1")):
        assert code(reply) == (401, 1002)
        assert "does not support AK/SK" in reply.json()["message"]
    created(KlingClient(guarded, "plain-key").newer("who"))


def test_tokens_of_one_pair_are_one_account(guarded: str) -> None:
    task_id = created(KlingClient(guarded, token()).older("pair"))
    other = KlingClient(guarded, token(nbf=None))
    assert other.call("GET", f"/v1/videos/text2video/{task_id}").status_code == 200
    stranger = KlingClient(guarded, "plain-key")
    assert code(stranger.call("GET", f"/v1/videos/text2video/{task_id}")) == (400, 1201)


def test_without_configured_keys_every_pair_is_good_but_times_count(kling: KlingClient) -> None:
    created(KlingClient(kling.base, token("any secret that is long enough for HS256")).older("any"))
    assert code(KlingClient(kling.base, token(exp=1)).older("any")) == (401, 1004)
    wrong = base64.urlsafe_b64encode(b"[]").decode()
    assert code(KlingClient(kling.base, f"{wrong}.{wrong}.{wrong}").older("any")) == (401, 1002)
