"""The simulator keeps the rules of fal's queue and of Pika's models on it."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
import requests
from PIL import Image

from tests.providers.simulator.client import PikaClient, running

TEXT, IMAGE = "v2.2/text-to-video", "v2.2/image-to-video"
URL = "https://images.example.com/a.jpg"


def picture(width: int, height: int) -> str:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def shown(client: PikaClient, job: dict[str, Any]) -> dict[str, Any]:
    return dict(client.sim(f"jobs?id={job['request_id']}")["jobs"][0])


def test_the_way_from_submit_to_file(pika: PikaClient) -> None:
    job = pika.job("a fox [[sim render=100]]")
    assert job["status"] == "IN_QUEUE"
    base = f"{pika.base}/fal-ai/pika/requests/{job['request_id']}"
    assert job["response_url"] == base
    assert job["status_url"] == f"{base}/status"
    assert job["cancel_url"] == f"{base}/cancel"
    reply = pika.call("GET", job["status_url"])
    assert reply.status_code == 202
    links = {name: job[name] for name in ("request_id", "response_url", "status_url", "cancel_url")}
    assert reply.json() == {"status": "IN_QUEUE", "queue_position": 0, **links}
    assert pika.result(job).status_code == 400
    assert pika.result(job).json() == {"detail": "Request is still in progress"}
    pika.sim("config", advance_s=50)
    reply = pika.call("GET", job["status_url"])
    assert reply.status_code == 202
    assert reply.json() == {"status": "IN_PROGRESS", "logs": None, **links}
    assert pika.call("GET", job["status_url"] + "?logs=1").json()["logs"][0]["level"] == "INFO"
    pika.sim("config", advance_s=51)
    reply = pika.call("GET", job["status_url"])
    assert reply.status_code == 200
    done = reply.json()
    assert done.pop("metrics")["inference_time"] == 95
    assert done == {"status": "COMPLETED", "logs": None, **links}
    result = pika.result(job)
    assert result.status_code == 200
    assert result.headers["x-fal-request-id"] == job["request_id"]
    video = result.json()["video"]
    assert video["content_type"] == "video/mp4"
    assert pika.download(video["url"]).headers["content-type"] == "video/mp4"
    assert pika.call("GET", job["response_url"] + "/response").status_code == 200


def test_links_name_the_host_that_was_called(pika: PikaClient) -> None:
    port = pika.base.rpartition(":")[2]
    headers = {**pika.headers, "Host": f"somewhere.example:{port}"}
    job = pika.call("POST", f"/fal-ai/pika/{TEXT}", headers=headers, json={"prompt": "host"}).json()
    assert job["status_url"].startswith(f"http://somewhere.example:{port}/fal-ai/pika/requests/")


def test_follow_up_calls_below_the_model_are_not_answered(pika: PikaClient) -> None:
    job_id = pika.job("sub-path")["request_id"]
    assert pika.call("GET", f"/fal-ai/pika/{TEXT}/requests/{job_id}/status").status_code == 405
    assert pika.call("GET", f"/fal-ai/pika/requests/{job_id}/status").status_code in (200, 202)
    assert pika.call("GET", f"/fal-ai/pika/{TEXT}").status_code == 405
    assert pika.call("POST", f"/fal-ai/pika/requests/{job_id}/cancel").status_code == 405
    assert pika.call("PUT", f"/fal-ai/pika/requests/{job_id}/nothing").status_code == 404
    assert pika.call("POST", "/fal-ai/pika/v9/text-to-video", json={"prompt": "x"}).status_code == 404
    assert pika.call("POST", "/fal-ai/flux/dev", json={"prompt": "x"}).status_code == 404


@pytest.mark.parametrize("scheme", ["Bearer", "key", "Token"])
def test_only_the_scheme_key_is_good(pika: PikaClient, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {pika.key}".strip()}
    for method, path in (("POST", f"/fal-ai/pika/{TEXT}"), ("GET", "/fal-ai/pika/requests/x/status")):
        reply = pika.call(method, path, headers=headers, json={"prompt": "p"})
        assert reply.status_code == 401
        assert "Authentication is required" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "kind", "at"),
    [
        (TEXT, {"prompt": None}, "missing", ["body", "prompt"]),
        (TEXT, {"prompt": 7}, "string_type", ["body", "prompt"]),
        (TEXT, {"duration": "5"}, "literal_error", ["body", "duration"]),
        (TEXT, {"duration": 7}, "literal_error", ["body", "duration"]),
        (TEXT, {"resolution": "480p"}, "literal_error", ["body", "resolution"]),
        (TEXT, {"aspect_ratio": "21:9"}, "literal_error", ["body", "aspect_ratio"]),
        (TEXT, {"seed": 1.5}, "int_type", ["body", "seed"]),
        (TEXT, {"negative_prompt": None, "seed": True}, "int_type", ["body", "seed"]),
        ("v2.1/text-to-video", {"duration": "five"}, "int_type", ["body", "duration"]),
        ("v2/turbo/text-to-video", {"duration": 60}, "less_than_equal", ["body", "duration"]),
        (IMAGE, {}, "missing", ["body", "image_url"]),
        (IMAGE, {"image_url": "images/a.jpg"}, "file_download_error", ["body", "image_url"]),
        (IMAGE, {"image_url": "data:image/png;base64,AAAA"}, "image_load_error", ["body", "image_url"]),
        ("v2.2/pikascenes", {"images": []}, "too_short", ["body", "images"]),
        ("v2.2/pikascenes", {"images": [{}]}, "missing", ["body", "images", 0]),
        ("v2.2/pikaframes", {"image_urls": [URL]}, "too_short", ["body", "image_urls"]),
        ("v2.2/pikaframes", {"image_urls": [URL] * 6}, "too_long", ["body", "image_urls"]),
        ("v2.2/pikaframes", {"image_urls": URL}, "list_type", ["body", "image_urls"]),
    ],
)
def test_a_bad_field_fails_the_request_not_the_submit(
    pika: PikaClient, path: str, body: dict[str, Any], kind: str, at: list[Any]
) -> None:
    body = {"prompt": "p", **body}
    job = pika.job(body.pop("prompt"), path=path, **body)
    done = pika.wait(job)
    assert done["status"] == "COMPLETED"
    assert done["error_type"] == kind
    assert done["error"]
    result = pika.result(job)
    assert result.status_code == 422
    assert result.headers["x-fal-error-type"] == kind
    assert [(one["type"], one["loc"]) for one in result.json()["detail"]] == [(kind, at)]
    assert shown(pika, job)["cost"] == 0


@pytest.mark.parametrize(
    ("path", "body", "cost"),
    [
        (TEXT, {}, 0.2),
        (TEXT, {"resolution": "1080p", "aspect_ratio": "4:5"}, 0.45),
        (TEXT, {"duration": 10, "seed": 3, "negative_prompt": "", "unknown": 1}, 0.4),
        (IMAGE, {"image_url": URL}, 0.2),
        (IMAGE, {"image_url": URL, "aspect_ratio": "nonsense"}, 0.2),  # not in its schema, so not looked at
        ("v2.1/text-to-video", {"duration": "5"}, 0.4),  # pydantic reads digits as a number
        ("v2.1/image-to-video", {"image_url": URL}, 0.4),
        ("v2/turbo/text-to-video", {"seed": None}, 0.2),
        ("v2/turbo/image-to-video", {"image_url": URL, "duration": 3}, 0.12),
        ("v2.2/pikascenes", {"images": [{"image_url": URL}, {"image_url": URL}]}, 0.2),
        ("v2.2/pikaframes", {"image_urls": [URL, URL]}, 0.2),
    ],
)
def test_every_model_and_its_price(pika: PikaClient, path: str, body: dict[str, Any], cost: float) -> None:
    job = pika.job("good", path=path, **body)
    assert "error" not in pika.wait(job)
    assert pika.result(job).status_code == 200
    assert shown(pika, job)["cost"] == pytest.approx(cost)
    assert shown(pika, job)["model"] == f"fal-ai/pika/{path}"


def test_the_image_decides_the_shape() -> None:
    with running("--render-seconds", "0.05") as base:
        client = PikaClient(base)
        job = client.job("shape", path=IMAGE, image_url=picture(300, 400))
        client.wait(job)
        url = client.result(job).json()["video"]["url"]
        assert frame_size(client.download(url).content) == (720, 960)


def frame_size(content: bytes) -> tuple[int, int]:
    import av

    with av.open(io.BytesIO(content)) as file:
        stream = file.streams.video[0]
        return stream.width, stream.height


@pytest.mark.parametrize(
    ("code", "kind", "status", "retryable"),
    [
        ("content_policy_violation", "content_policy_violation", 422, "false"),
        ("SAFETY.INPUT.TEXT", "content_policy_violation", 422, "false"),
        ("no_media_generated", "no_media_generated", 422, "false"),
        ("image_too_small", "image_too_small", 422, "false"),
        ("unsupported_image_format", "unsupported_image_format", 422, "false"),
        ("internal_server_error", "internal_server_error", 500, "true"),
        ("INTERNAL.BAD_OUTPUT.CODE01", "internal_server_error", 500, "true"),
        ("downstream_service_error", "downstream_service_error", 400, "false"),
        ("generation_timeout", "generation_timeout", 504, "true"),
        ("something_new", "something_new", 500, "false"),
    ],
)
def test_a_failure_of_the_model_is_completed_too(
    pika: PikaClient, code: str, kind: str, status: int, retryable: str
) -> None:
    job = pika.job(f"fail [[sim fail={code}]]")
    done = pika.wait(job)
    assert done["status"] == "COMPLETED"
    assert done["error_type"] == kind
    result = pika.result(job)
    assert result.status_code == status
    assert result.json()["detail"][0]["type"] == kind
    assert result.headers["x-fal-retryable"] == retryable
    assert result.headers["x-fal-needs-retry"] == ("1" if retryable == "true" else "0")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("request_timeout", 504),
        ("runner_disconnected", 503),
        ("runner_incomplete_response", 502),
        ("internal_error", 500),
    ],
)
def test_a_failure_of_fal_has_a_text_for_its_detail(pika: PikaClient, code: str, status: int) -> None:
    job = pika.job(f"fail [[sim fail={code}]]")
    assert pika.wait(job)["error_type"] == code
    result = pika.result(job)
    assert result.status_code == status
    assert result.json()["error_type"] == code
    assert isinstance(result.json()["detail"], str)
    assert result.headers["x-fal-error-type"] == code


def test_a_failure_may_show_in_the_result_only(pika: PikaClient) -> None:
    job = pika.job("hidden [[sim fail=no_media_generated hidden_failure]]")
    assert "error" not in pika.wait(job)
    assert pika.result(job).status_code == 422


def test_moderation_comes_after_acceptance(pika: PikaClient) -> None:
    job = pika.job("bad words [[sim moderation]]")
    assert pika.wait(job)["error_type"] == "content_policy_violation"


def test_cancel_in_the_queue_while_it_runs_and_afterwards(pika: PikaClient) -> None:
    queued = pika.job("cancel [[sim render=60]]")
    reply = pika.call("PUT", queued["cancel_url"])
    assert (reply.status_code, reply.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert pika.wait(queued)["error_type"] == "client_cancelled"
    result = pika.result(queued)
    assert result.status_code == 499
    assert result.json()["error_type"] == "client_cancelled"
    assert shown(pika, queued)["cost"] == 0
    reply = pika.call("PUT", queued["cancel_url"])
    assert (reply.status_code, reply.json()) == (400, {"status": "ALREADY_COMPLETED"})
    running_job = pika.job("cancel [[sim render=60]]")
    pika.sim("config", advance_s=10)
    assert pika.call("PUT", running_job["cancel_url"]).status_code == 202
    assert shown(pika, running_job)["cost"] == pytest.approx(0.2)
    done = pika.job("cancel")
    pika.wait(done)
    assert pika.call("PUT", done["cancel_url"]).status_code == 400
    reply = pika.call("PUT", "/fal-ai/pika/requests/nobody/cancel")
    assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize(("how", "cancel", "poll"), [("404", 202, 404), ("ignored", 202, 202), ("503", 503, 202)])
def test_cancel_that_goes_another_way(pika: PikaClient, how: str, cancel: int, poll: int) -> None:
    job = pika.job(f"cancel [[sim render=60 cancel={how}]]")
    assert pika.call("PUT", job["cancel_url"]).status_code == cancel
    assert pika.call("GET", job["status_url"]).status_code == poll


def test_more_than_the_limit_waits_in_the_queue(pika: PikaClient) -> None:
    pika.sim("config", limits={"fal-ai/pika": 2})
    paths = [TEXT, "v2.1/text-to-video"] * 3
    jobs = [pika.job(f"lane {n} [[sim render=100]]", path=path) for n, path in enumerate(paths)]
    pika.sim("config", advance_s=20)
    views = [pika.call("GET", job["status_url"]).json() for job in jobs]
    assert [view["status"] for view in views] == ["IN_PROGRESS"] * 2 + ["IN_QUEUE"] * 4
    positions = [view["queue_position"] for view in views[2:]]
    assert positions == sorted(positions)
    assert positions[-1] > positions[0]
    refused = pika.create("one more", query="?fal_max_queue_length=2")
    assert refused.status_code == 429
    assert pika.create("one more", query="?fal_max_queue_length=50").status_code == 200
    pika.call("PUT", jobs[0]["cancel_url"])
    assert pika.call("GET", jobs[2]["status_url"]).json()["status"] == "IN_PROGRESS"


def test_an_empty_balance_is_403_and_status_still_works(pika: PikaClient) -> None:
    job = pika.job("spend")
    pika.sim("config", credits={shown(pika, job)["key"]: 0.1})
    refused = pika.create("spend")
    assert refused.status_code == 403
    assert refused.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")
    assert pika.call("GET", job["status_url"]).status_code in (200, 202)
    credits = pika.call("GET", "/v1/account/billing?expand=credits").json()["credits"]
    assert credits == {"current_balance": 0.1, "currency": "USD"}


@pytest.mark.parametrize(
    ("directive", "status", "text", "kind"),
    [
        ("status=400-credits", 403, "Exhausted balance", None),
        ("status=403-locked", 403, "Admin lock", None),
        ("status=401", 401, "Authentication", None),
        ("status=429", 429, "Too many", None),
        ("status=503", 503, "runner", "runner_scheduling_failure"),
        ("status=503-runner_disconnected", 503, "disconnected", "runner_disconnected"),
        ("status_after=504", 504, "timed out", "request_timeout"),
    ],
)
def test_refusals_by_script_use_fals_words(
    pika: PikaClient, directive: str, status: int, text: str, kind: str | None
) -> None:
    prompt = f"refused [[sim {directive} retry_after=3]]"
    before = pika.submits(prompt)["created"]
    reply = pika.create(prompt)
    assert reply.status_code == status
    assert text in reply.json()["detail"]
    assert reply.json().get("error_type") == kind
    assert reply.headers.get("x-fal-error-type") == kind
    assert status == 403 or reply.headers["retry-after"] == "3"
    assert pika.submits(prompt)["created"] - before == ("after" in directive)


def test_faults_of_submit_poll_result_and_file(pika: PikaClient) -> None:
    for fault in ("reset", "lost_reply", "lost_reply_reset"):
        prompt = f"cut [[sim {fault}]]"
        with pytest.raises(requests.exceptions.ConnectionError):
            pika.create(prompt)
        assert pika.submits(prompt)["created"] == (fault != "reset")
    with pytest.raises(ValueError):
        pika.create("garbage [[sim garbage]]").json()
    job = pika.job("polls [[sim render=0 not_found=1 poll_reset=2 poll_status=503x3 poll_garbage=4 unknown_status=5]]")
    reply = pika.call("GET", job["status_url"])
    assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})
    with pytest.raises(requests.exceptions.ConnectionError):
        pika.call("GET", job["status_url"])
    assert pika.call("GET", job["status_url"]).status_code == 503
    with pytest.raises(ValueError):
        pika.call("GET", job["status_url"]).json()
    assert pika.call("GET", job["status_url"]).json()["status"] == "AWAITING_REVIEW"
    job = pika.job("result [[sim result_status=502x2 link_expired=1 file=empty]]")
    pika.wait(job)
    assert [pika.result(job).status_code for _ in range(3)] == [502, 502, 200]
    url = pika.result(job).json()["video"]["url"]
    assert [pika.download(url).status_code for _ in range(2)] == [403, 200]
    assert pika.download(url).content == b""


def test_bodies_that_are_refused_at_once(pika: PikaClient) -> None:
    for body in (b"", b"{", b"[]", b'"text"', b"NaN"):
        reply = pika.call("POST", f"/fal-ai/pika/{TEXT}", data=body)
        assert (reply.status_code, reply.json()["error_type"]) == (400, "bad_request")
    assert pika.create("p", query="?fal_webhook=ftp%3A%2F%2Fx").status_code == 400
    assert pika.create("p", query="?fal_max_queue_length=many").status_code == 400


def test_counting_by_content_and_by_call_back_address(pika: PikaClient) -> None:
    hook = "?fal_webhook=http%3A%2F%2F127.0.0.1%3A9%2Fgen_77"
    for _ in range(2):
        pika.job("counted [[sim render=60]]", query=hook)
    counted = pika.sim("submits?reference=http://127.0.0.1:9/gen_77")
    assert counted == {"received": 2, "created": 2, "doubled": 1}
    assert pika.submits("counted [[sim render=60]]")["doubled"] == 1
    assert pika.sim("jobs?reference=http://127.0.0.1:9/gen_77")["count"] == 2


def test_another_key_or_dialect_does_not_see_the_request(pika: PikaClient) -> None:
    job = pika.job("mine")
    assert PikaClient(pika.base).call("GET", job["status_url"]).status_code == 404
    runway = {"Authorization": f"Bearer {pika.key}", "X-Runway-Version": "2024-11-06"}
    assert pika.call("GET", f"/v1/tasks/{job['request_id']}", headers=runway).status_code == 404


def test_status_as_server_sent_events(pika: PikaClient) -> None:
    job = pika.job("stream [[sim render=0.3]]")
    reply = pika.call("GET", job["status_url"] + "/stream")
    assert reply.headers["content-type"] == "text/event-stream"
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.split("\n\n") if line]
    assert events[-1]["status"] == "COMPLETED"
    assert len(events) >= 2
