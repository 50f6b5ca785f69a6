"""The simulator keeps Runway's rules: what it refuses, what it answers, what it charges."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from providers.contract import StartImage
from tests.pictures import start_image, turned
from tests.providers.simulator.client import RunwayClient

IMAGE = "https://images.example.com/a.jpg"
TEXT, IMAGES = "/v1/text_to_video", "/v1/image_to_video"


def issues(reply: Any) -> list[dict[str, Any]]:
    assert reply.status_code == 400
    assert reply.json()["error"] == "Validation of body failed"
    return list(reply.json()["issues"])


@pytest.mark.parametrize(
    ("path", "change", "code", "at"),
    [
        (TEXT, {"model": None}, "invalid_type", ["model"]),
        (TEXT, {"model": "nope"}, "invalid_union", ["model"]),
        (TEXT, {"model": "gen3a_turbo"}, "invalid_union", ["model"]),  # out of service since June 2026
        (IMAGES, {"model": "gen3a_turbo", "promptImage": IMAGE, "ratio": "1280:768"}, "invalid_union", ["model"]),
        (TEXT, {"model": "gen4_turbo"}, "invalid_union", ["model"]),  # images only
        (TEXT, {"promptText": None}, "invalid_type", ["promptText"]),
        (TEXT, {"promptText": ""}, "too_small", ["promptText"]),
        (TEXT, {"promptText": "a" * 1001}, "too_big", ["promptText"]),
        (TEXT, {"promptText": "🦊" * 501}, "too_big", ["promptText"]),  # counted in UTF-16 units
        (TEXT, {"promptText": 7}, "invalid_type", ["promptText"]),
        (TEXT, {"ratio": None}, "invalid_value", ["ratio"]),
        (TEXT, {"ratio": "16:9"}, "invalid_value", ["ratio"]),
        (TEXT, {"ratio": "960:960"}, "invalid_value", ["ratio"]),  # with an image only
        (TEXT, {"duration": None}, "invalid_type", ["duration"]),
        (TEXT, {"duration": "5"}, "invalid_type", ["duration"]),
        (TEXT, {"duration": 2.5}, "invalid_type", ["duration"]),
        (TEXT, {"seed": float(10**300)}, "too_big", ["seed"]),
        (TEXT, {"duration": 10**400}, "too_big", ["duration"]),
        (TEXT, {"duration": True}, "invalid_type", ["duration"]),
        (TEXT, {"duration": 1}, "too_small", ["duration"]),
        (TEXT, {"duration": 11}, "too_big", ["duration"]),
        (TEXT, {"seed": -1}, "too_small", ["seed"]),
        (TEXT, {"seed": 4294967296}, "too_big", ["seed"]),
        (TEXT, {"contentModeration": {"publicFigureThreshold": "high"}}, "invalid_value", None),
        (TEXT, {"promptImage": IMAGE}, "unrecognized_keys", []),
        (TEXT, {"negativePrompt": "blur"}, "unrecognized_keys", []),
        (TEXT, {"model": "veo3.1", "duration": 5}, "invalid_value", ["duration"]),
        (TEXT, {"model": "veo3.1", "duration": 4, "ratio": "960:960"}, "invalid_value", ["ratio"]),
        (IMAGES, {}, "invalid_type", ["promptImage"]),
        (IMAGES, {"promptImage": "http://images.example.com/a.jpg"}, "custom", ["promptImage"]),
        (IMAGES, {"promptImage": "https://10.0.0.1/a.jpg"}, "custom", ["promptImage"]),
        (IMAGES, {"promptImage": "https://x.example/" + "a" * 2048}, "too_big", ["promptImage"]),
        (IMAGES, {"promptImage": "data:image/gif;base64,R0lG"}, "custom", ["promptImage"]),
        (IMAGES, {"promptImage": "data:image/png;base64,iVBORw0KGgo="}, "custom", ["promptImage"]),
        (IMAGES, {"promptImage": start_image().data_uri().replace("png", "jpeg")}, "custom", ["promptImage"]),
        (IMAGES, {"promptImage": "data:image/png;base64," + "A" * 5 * 1024 * 1024}, "too_big", ["promptImage"]),
        (IMAGES, {"promptImage": []}, "too_small", ["promptImage"]),
        (IMAGES, {"promptImage": [{"uri": IMAGE, "position": "last"}]}, "invalid_value", None),
        (IMAGES, {"promptImage": [{"uri": IMAGE}]}, "invalid_value", ["promptImage", 0, "position"]),
    ],
)  # fmt: skip
def test_a_body_against_the_rules_is_refused_like_zod_does(
    client: RunwayClient, path: str, change: dict[str, Any], code: str, at: list[Any] | None
) -> None:
    body = {"promptText": "p"} | change
    found = issues(client.create(body.pop("promptText"), path=path, **body))
    assert [one["code"] for one in found] == [code]
    assert at is None or found[0]["path"] == at


@pytest.mark.parametrize(
    ("path", "body", "credits"),
    [
        (TEXT, {"duration": 2}, 24),
        (TEXT, {"duration": 10, "ratio": "720:1280", "seed": 0}, 120),
        (TEXT, {"contentModeration": {"publicFigureThreshold": "low"}, "outputFormat": "mp4"}, 24),
        (TEXT, {"model": "veo3.1", "duration": 4}, 160),
        (TEXT, {"model": "veo3.1", "duration": 4, "audio": False}, 80),
        (TEXT, {"model": "veo3.1_fast", "duration": None, "ratio": "1080:1920"}, 120),
        (IMAGES, {"promptImage": IMAGE, "ratio": "1584:672"}, 24),
        (IMAGES, {"promptImage": [{"uri": "runway://abc", "position": "first"}]}, 24),
        (IMAGES, {"promptImage": start_image().data_uri(), "model": "gen4_turbo"}, 10),
        (IMAGES, {"promptImage": IMAGE, "model": "gen4_turbo", "promptText": None, "duration": None}, 50),
        (IMAGES, {"promptImage": [{"uri": IMAGE, "position": "first"}, {"uri": IMAGE, "position": "last"}],
                  "model": "veo3.1_fast", "duration": 6}, 90),
    ],
)  # fmt: skip
def test_a_good_body_makes_a_job_at_its_price(
    client: RunwayClient, path: str, body: dict[str, Any], credits: int
) -> None:
    prompt = body.pop("promptText", "good")
    reply = client.create(prompt, path=path, **body)
    assert reply.status_code == 200, reply.text
    assert set(reply.json()) == {"id", "estimatedCost"}
    assert reply.json()["estimatedCost"] == {"credits": credits}


def test_a_thousand_utf16_units_are_not_too_many(client: RunwayClient) -> None:
    assert client.create("🦊" * 500).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {"data": b"{not json"},
        {"data": b"[" * 99999},
        {"data": b'{"seed": NaN}'},
        {"data": b'{"model": "gen4.5"}'},
        {"json": [1]},
    ],
)
def test_a_body_that_is_no_json_object_is_refused(client: RunwayClient, more: dict[str, Any]) -> None:
    if "data" in more:
        more = {**more, "headers": {**client.headers, "Content-Type": "application/json"}}
    assert issues(client.call("POST", TEXT, **more))


def test_a_body_that_is_not_declared_as_json_is_refused(client: RunwayClient) -> None:
    assert issues(client.call("POST", TEXT, data=b"{}"))[0]["path"] == []


def test_key_and_version_are_required(client: RunwayClient) -> None:
    version = {"X-Runway-Version": "2024-11-06"}
    for headers in (version, {**version, "Authorization": "Bearer "}, {**version, "Authorization": "Key abc"}):
        reply = client.call("GET", "/v1/organization", headers=headers)
        assert reply.status_code == 401
        assert "error" in reply.json()
    for wrong in ({}, {"X-Runway-Version": "2023-01-01"}):
        assert client.call("GET", "/v1/organization", headers={"Authorization": "Bearer k", **wrong}).status_code == 400


def test_a_disabled_key_is_refused_until_it_is_good_again(client: RunwayClient) -> None:
    job_id = client.job("disabled key")
    shown = client.sim(f"jobs?id={job_id}")["jobs"][0]["key"]
    assert len(shown) == 8
    assert client.key not in str(client.sim("jobs"))
    client.sim("config", disabled_keys=[shown])
    assert client.poll(job_id).status_code == 401
    client.sim("config", disabled_keys=[])
    assert client.poll(job_id).status_code == 200


def test_unknown_paths_methods_and_tasks(client: RunwayClient) -> None:
    assert client.call("GET", "/v1/nothing").status_code == 404
    assert client.call("GET", "/elsewhere").status_code == 404
    assert client.poll("17f20503-6c24-4c16-946b-35dbbce2af2f").status_code == 404
    assert client.call("GET", TEXT).status_code == 405
    assert client.call("PUT", "/v1/tasks/x").status_code == 405
    assert client.call("DELETE", "/v1/organization").status_code == 405


def test_a_job_goes_from_pending_over_running_to_success(client: RunwayClient) -> None:
    job_id = client.job("status flow [[sim render=50]]")
    pending = client.view(job_id)
    assert set(pending) == {"id", "status", "createdAt", "estimatedCost"}
    assert pending["status"] == "PENDING"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", pending["createdAt"])
    client.sim("config", advance_s=6)
    first = client.view(job_id)
    assert set(first) == {"id", "status", "createdAt", "estimatedCost", "progress"}
    assert first["status"] == "RUNNING"
    client.sim("config", advance_s=10)
    assert first["progress"] < client.view(job_id)["progress"] < 1
    client.sim("config", advance_s=40)
    done = client.view(job_id)
    assert set(done) == {"id", "status", "createdAt", "cost", "output"}
    assert done["status"] == "SUCCEEDED"
    assert done["cost"] == {"credits": 24}


def test_another_key_does_not_see_the_job(client: RunwayClient) -> None:
    job_id = client.job("mine")
    stranger = RunwayClient(client.base)
    assert stranger.poll(job_id).status_code == 404
    assert stranger.call("DELETE", f"/v1/tasks/{job_id}").status_code == 404


@pytest.mark.parametrize(("directive", "refunded"), [("render=60 throttled=30", True), ("render=0 throttled=0", None)])
def test_cancel_before_it_runs_costs_nothing(client: RunwayClient, directive: str, refunded: bool | None) -> None:
    job_id = client.job(f"cancel early [[sim {directive}]]")
    if refunded is None:  # over already: deleting it refunds nothing and erases its output
        url = client.wait(job_id, "SUCCEEDED")["output"][0]
        assert client.call("DELETE", f"/v1/tasks/{job_id}").status_code == 204
        assert client.poll(job_id).status_code == 404
        assert client.download(url).status_code == 404
        return
    reply = client.call("DELETE", f"/v1/tasks/{job_id}")
    assert reply.status_code == 204
    assert reply.content == b""
    view = client.view(job_id)
    assert view["status"] == "CANCELLED"
    assert view["cost"] == {"credits": 0}


def test_cancel_of_a_running_job_is_not_refunded(client: RunwayClient) -> None:
    job_id = client.job("cancel late [[sim render=60]]")
    client.sim("config", advance_s=6)
    assert client.view(job_id)["status"] == "RUNNING"
    client.call("DELETE", f"/v1/tasks/{job_id}")
    view = client.view(job_id)
    assert set(view) == {"id", "status", "createdAt", "cost"}
    assert view["status"] == "CANCELLED"
    assert view["cost"] == {"credits": 24}


@pytest.mark.parametrize(("how", "poll", "status"), [("404", 404, 204), ("ignored", 200, 204), ("503", 200, 503)])
def test_cancel_that_goes_another_way(client: RunwayClient, how: str, poll: int, status: int) -> None:
    job_id = client.job(f"cancel [[sim render=60 cancel={how}]]")
    assert client.call("DELETE", f"/v1/tasks/{job_id}").status_code == status
    reply = client.poll(job_id)
    assert reply.status_code == poll
    assert poll == 404 or reply.json()["status"] in ("PENDING", "RUNNING")


@pytest.mark.parametrize(
    ("code", "cost"),
    [("SAFETY.INPUT.TEXT", 24), ("SAFETY.OUTPUT.VIDEO", 0), ("INTERNAL.BAD_OUTPUT.CODE01", 0), ("ASSET.INVALID", 0)],
)
def test_a_failed_job_names_its_code_and_its_cost(client: RunwayClient, code: str, cost: int) -> None:
    view = client.wait(client.job(f"fail [[sim fail={code}]]"), "FAILED")
    assert set(view) == {"id", "status", "createdAt", "cost", "failure", "failureCode"}
    assert view["failureCode"] == code
    assert view["cost"] == {"credits": cost}
    assert view["failure"]


def test_a_failure_code_may_be_null_or_missing(client: RunwayClient) -> None:
    assert client.wait(client.job("fail [[sim fail=null]]"), "FAILED")["failureCode"] is None
    assert "failureCode" not in client.wait(client.job("fail [[sim fail=missing]]"), "FAILED")


def test_over_the_limit_jobs_are_throttled_and_start_in_order(client: RunwayClient) -> None:
    client.sim("config", limits={"gen4.5": 2})
    jobs = [client.job(f"lane {number} [[sim render=100]]") for number in range(5)]

    def statuses() -> list[str]:
        return [client.view(job_id)["status"] for job_id in jobs]

    client.sim("config", advance_s=20)
    assert statuses() == ["RUNNING"] * 2 + ["THROTTLED"] * 3
    client.call("DELETE", f"/v1/tasks/{jobs[0]}")  # a slot is free at once
    assert statuses() == ["CANCELLED", "RUNNING", "RUNNING", "THROTTLED", "THROTTLED"]
    client.sim("config", advance_s=85)
    assert statuses() == ["CANCELLED", "SUCCEEDED", "RUNNING", "RUNNING", "THROTTLED"]
    client.sim("config", limits={})
    assert statuses()[4] == "RUNNING"
    tiers = client.call("GET", "/v1/organization").json()["tier"]["models"]
    assert tiers["gen4.5"]["maxConcurrentGenerations"] is None


def test_credits_run_out_with_400_and_failures_give_them_back(client: RunwayClient) -> None:
    client.job("spend")
    shown = client.sim("jobs?prompt=spend")["jobs"][-1]["key"]
    client.sim("config", credits={shown: 50})
    failing = client.job("spend and fail [[sim render=30 fail=INTERNAL]]")
    client.job("spend")
    refused = client.create("spend")
    assert refused.status_code == 400
    assert "enough credits" in refused.json()["error"]
    client.sim(f"jobs/{failing}", state="failed", code="INTERNAL")
    assert client.call("GET", "/v1/organization").json()["creditBalance"] == 26
    client.job("spend")


def test_the_daily_limit_is_429(client: RunwayClient) -> None:
    client.sim("config", daily_limits={"*": 1})
    client.job("daily")
    assert client.create("daily").status_code == 429
    view = client.call("GET", "/v1/organization").json()
    assert view["usage"] == {"models": {"gen4.5": {"dailyGenerations": 1}}}
    assert view["tier"]["models"]["gen4.5"]["maxDailyGenerations"] == 1


def test_usage_history_has_the_right_shape(client: RunwayClient) -> None:
    client.wait(client.job("usage"), "SUCCEEDED")
    reply = client.call("POST", "/v1/organization/usage", json={"startDate": "2026-01-01", "beforeDate": "2026-02-01"})
    assert reply.status_code == 200
    assert reply.json()["models"] == ["gen4.5"]
    assert reply.json()["results"][0]["usedCredits"] == [{"model": "gen4.5", "amount": 24}]
    assert issues(client.call("POST", "/v1/organization/usage", json={}))


def test_what_came_as_start_image_is_told(client: RunwayClient) -> None:
    sent = turned()
    uri = StartImage("image/jpeg", sent).data_uri()
    job = client.create("told", path=IMAGES, promptImage=uri)
    assert job.status_code == 200, job.text
    (shown,) = client.sim(f"jobs?id={job.json()['id']}")["jobs"]
    assert shown["startImage"] == {
        "type": "image/jpeg",
        "width": 640,
        "height": 360,
        "orientation": 6,
        "exif": 3,
        "bytes": len(sent),
        "sha256": hashlib.sha256(sent).hexdigest(),
    }
