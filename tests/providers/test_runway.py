import json
from decimal import Decimal

import pytest
import responses

from providers.contract import CancelOutcome, GenerationRequest, HttpReply, JobRef, JobState, JobStatus, StartImage
from providers.errors import (
    Busy,
    GatewayAnswer,
    JobNotFound,
    KeyRefused,
    ModelForbidden,
    OutOfCredits,
    ProviderDown,
    RequestRejected,
    SubmissionUnknown,
)
from providers.http import Sender
from providers.runway import ENTRY
from providers.runway.adapter import Runway

BASE = "https://api.dev.runwayml.com"
KEY = "key_" + "0f" * 64
ID = "17f20503-6c24-4c16-946b-35dbbce2af2f"
JOB = JobRef(ID, "gen4.5", "gen_1")
runway = Runway(ENTRY.default_base_url)


IMAGE = StartImage("image/png", b"\x89PNG\r\n\x1a\n")  # iVBORw0KGgo=


def request(**changes):
    return GenerationRequest(
        **{"model": "gen4.5", "prompt": "a cat", "duration_s": 5, "aspect_ratio": "16:9", **changes}
    )


def reply(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def poll(answer):
    return runway.parse_poll(answer, [JOB])[ID]


# --- on the wire ---


@responses.activate
def test_text_to_video_on_the_wire():
    responses.post(f"{BASE}/v1/text_to_video", json={"id": ID, "estimatedCost": {"credits": 60}})
    built = runway.build_submit(request(seed=7), key=KEY, reference="gen_1")
    submitted = runway.parse_submit(Sender(BASE).submit(built, deadline_s=5))
    assert (submitted.job_id, submitted.expected_cost, submitted.urls) == (ID, Decimal(60), {})
    sent = responses.calls[0].request
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert sent.headers["X-Runway-Version"] == "2024-11-06"
    assert sent.headers["Content-Type"] == "application/json"
    assert json.loads(sent.body) == {
        "model": "gen4.5",
        "promptText": "a cat",
        "ratio": "1280:720",
        "duration": 5,
        "seed": 7,
    }


@responses.activate
def test_image_to_video_on_the_wire():
    responses.post(f"{BASE}/v1/image_to_video", json={"id": ID})
    built = runway.build_submit(
        request(model="gen4_turbo", image_url="https://x.example/cat.png", image=IMAGE, prompt="", aspect_ratio="1:1"),
        key=KEY,
        reference="gen_1",
    )
    submitted = runway.parse_submit(Sender(BASE).submit(built, deadline_s=5))
    assert submitted.expected_cost is None
    assert json.loads(responses.calls[0].request.body) == {
        "model": "gen4_turbo",
        "promptImage": "data:image/png;base64,iVBORw0KGgo=",
        "ratio": "960:960",
        "duration": 5,
    }


@responses.activate
def test_poll_and_cancel_on_the_wire():
    responses.get(f"{BASE}/v1/tasks/{ID}", json={"id": ID, "status": "PENDING"})
    responses.delete(f"{BASE}/v1/tasks/{ID}", status=204)
    sender = Sender(BASE)
    assert poll(sender.read(runway.build_poll([JOB], key=KEY), deadline_s=5)) == JobStatus(JobState.QUEUED, "PENDING")
    outcome = runway.parse_cancel(sender.read(runway.build_cancel(JOB, key=KEY), deadline_s=5))
    assert outcome is CancelOutcome.REQUESTED
    for call in responses.calls:
        assert call.request.headers["Authorization"] == f"Bearer {KEY}"
        assert call.request.headers["X-Runway-Version"] == "2024-11-06"
    assert responses.calls[1].request.headers["Accept"] == "*/*"


@responses.activate
def test_organization_on_the_wire():
    responses.get(
        f"{BASE}/v1/organization",
        json={
            "creditBalance": 5000,
            "tier": {
                "maxMonthlyCreditSpend": 10000,
                "models": {"gen4.5": {"maxConcurrentGenerations": 2, "maxDailyGenerations": 200}, "gen4_turbo": {}},
            },
            "usage": {"models": {"gen4.5": {"dailyGenerations": 12}}},
        },
    )
    info = runway.parse_account(Sender(BASE).read(runway.build_account(key=KEY), deadline_s=5))
    assert info.balance == 5000
    limits = info.limits["gen4.5"]
    assert (limits.max_concurrent, limits.max_per_day, limits.used_today) == (2, 200, 12)
    assert info.limits["gen4_turbo"].max_concurrent is None  # missing means no limit


@pytest.mark.parametrize("status", [400, 503])
@responses.activate
def test_refused_submit_is_sent_once(status):
    responses.post(f"{BASE}/v1/text_to_video", status=status, json={"error": "no"})
    sent = Sender(BASE).submit(runway.build_submit(request(), key=KEY, reference="r"), deadline_s=5)
    with pytest.raises((RequestRejected, SubmissionUnknown)):
        runway.parse_submit(sent)
    assert len(responses.calls) == 1


# --- what is built ---


@pytest.mark.parametrize(
    ("ratio", "pixels"),
    [("16:9", "1280:720"), ("9:16", "720:1280"), ("4:3", "1104:832"), ("3:4", "832:1104"), ("1:1", "960:960"),
     ("21:9", "1584:672")],
)  # fmt: skip
@pytest.mark.parametrize("model", ["gen4.5", "gen4_turbo"])
def test_ratio_becomes_pixels(model, ratio, pixels):
    built = runway.build_submit(
        request(model=model, aspect_ratio=ratio, image_url="https://x/y.png", image=IMAGE), key=KEY, reference="r"
    )
    assert built.json["ratio"] == pixels


def test_veo_says_whether_it_wants_sound_and_takes_a_negative_prompt():
    built = runway.build_submit(
        request(model="veo3.1", duration_s=8, aspect_ratio="9:16", resolution="1080p", negative_prompt="rain"),
        key=KEY,
        reference="r",
    )
    assert built.json["audio"] is False
    assert built.json["negativePrompt"] == "rain"
    assert built.json["ratio"] == "1080:1920"


@pytest.mark.parametrize(
    "changes",
    [{"model": "gen3a_turbo"}, {"model": "kling-2.6"}, {"aspect_ratio": "1:1"}, {"duration_s": 30},
     {"negative_prompt": "rain"}, {"model": "gen4_turbo"}],
)  # fmt: skip
def test_what_runway_cannot_express_is_rejected_before_sending(changes):
    with pytest.raises(RequestRejected):
        runway.build_submit(request(**changes), key=KEY, reference="r")


def test_job_id_cannot_leave_its_path():
    built = runway.build_poll([JobRef("../organization?x=", "gen4.5", "r")], key=KEY)
    assert built.url == f"{BASE}/v1/tasks/..%2Forganization%3Fx%3D"


# --- what an answer to a submit proves ---

NO_CREDITS = {"error": "You do not have enough credits to run this task."}
VALIDATION = {
    "error": "Validation of body failed",
    "issues": [
        {"code": "too_big", "path": ["promptText"], "message": "Too big: expected string to have <=1000 characters"}
    ],
    "docUrl": "https://docs.dev.runwayml.com/api",
}
BAD_MODEL = {
    "error": "Validation of body failed",
    "issues": [{"code": "invalid_union", "discriminator": "model", "path": ["model"], "message": "Invalid input"}],
}
BAD_IMAGE = {"error": 'promptImage: Unsupported Content-Type response header: "binary/octet-stream".'}


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, NO_CREDITS, OutOfCredits, "out_of_credits"),
        (400, VALIDATION, RequestRejected, "bad_request"),
        (400, BAD_IMAGE, RequestRejected, "bad_request"),
        (400, BAD_MODEL, ModelForbidden, "model_forbidden"),
        (400, {"error": "The prompt was blocked by content policy"}, RequestRejected, "moderation"),
        (400, b"<html>", GatewayAnswer, "gateway_answer"),
        (400, {"error": {"odd": 1}, "issues": "odd"}, GatewayAnswer, "gateway_answer"),
        (400, {"error": "", "issues": [None, 1, {"path": 3}, {"path": [None]}]}, RequestRejected, "bad_request"),
        (401, {"error": "Unauthorized"}, KeyRefused, "key_refused"),
        (402, {"error": "no"}, OutOfCredits, "out_of_credits"),
        (403, {"error": "no"}, ModelForbidden, "model_forbidden"),
        (404, {"error": "no"}, ModelForbidden, "model_forbidden"),
        (405, {"error": "no"}, ModelForbidden, "model_forbidden"),
        (413, {"error": "no"}, RequestRejected, "bad_request"),
        (422, VALIDATION, RequestRejected, "bad_request"),
        (429, {"error": "daily limit"}, Busy, "busy"),
        (408, {}, SubmissionUnknown, "outcome_unknown"),
        (409, {}, SubmissionUnknown, "outcome_unknown"),
        (418, {"error": "no"}, SubmissionUnknown, "outcome_unknown"),
        (500, {}, SubmissionUnknown, "outcome_unknown"),
        (502, b"<html>", SubmissionUnknown, "outcome_unknown"),
        (503, NO_CREDITS, SubmissionUnknown, "outcome_unknown"),
        (504, {}, SubmissionUnknown, "outcome_unknown"),
        (302, b"", GatewayAnswer, "gateway_answer"),
        (307, {"error": "no"}, SubmissionUnknown, "outcome_unknown"),
        (200, b"", SubmissionUnknown, "outcome_unknown"),
        (200, b"<html>", SubmissionUnknown, "outcome_unknown"),
        (200, b'{"id": "17f', SubmissionUnknown, "outcome_unknown"),
        (200, b"[" * 100_000, SubmissionUnknown, "outcome_unknown"),
        (200, b"\xff\xfe", SubmissionUnknown, "outcome_unknown"),
        (200, {}, SubmissionUnknown, "outcome_unknown"),
        (200, {"id": None}, SubmissionUnknown, "outcome_unknown"),
        (200, {"id": ""}, SubmissionUnknown, "outcome_unknown"),
        (200, {"id": 0}, SubmissionUnknown, "outcome_unknown"),
        (200, {"id": 1.5}, SubmissionUnknown, "outcome_unknown"),
        (200, {"id": "two\nlines"}, SubmissionUnknown, "outcome_unknown"),
        (200, {"id": "x" * 121}, SubmissionUnknown, "outcome_unknown"),
        (200, [], SubmissionUnknown, "outcome_unknown"),
        (204, b"", SubmissionUnknown, "outcome_unknown"),
    ],
)
def test_submit_answers(status, body, expected, code):
    with pytest.raises(expected) as caught:
        runway.parse_submit(reply(status, body))
    assert type(caught.value) is expected
    assert (caught.value.code, caught.value.http_status) == (code, status)


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    ("body", "job_id"),
    [
        ({"id": f" {ID} "}, ID),
        ({"id": 17}, "17"),
        ({"data": {"id": ID}}, ID),
        ({"task": {"id": 17}}, "17"),
        ({"result": {"id": ID}}, ID),
        ({"output": {"id": ID}}, ID),
        ({"id": ID, "data": {"id": "another"}}, ID),
    ],
)
def test_the_id_of_a_paid_job_is_taken_in_each_usual_form(status, body, job_id):
    assert runway.parse_submit(reply(status, body)).job_id == job_id


def test_a_task_whose_id_comes_back_as_a_number_is_the_same_task():
    job = JobRef("17", "gen4.5", "r")
    task = {"id": 17, "status": "PENDING"}
    assert runway.parse_poll(reply(200, task), [job])["17"].state is JobState.QUEUED
    with pytest.raises(ProviderDown):
        runway.parse_poll(reply(200, {**task, "id": 18}), [job])


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("cost", [None, {}, {"credits": "many"}, {"credits": -1}, [], {"credits": True}, "25"])
def test_odd_estimate_does_not_lose_a_paid_job(status, cost):
    assert runway.parse_submit(reply(status, {"id": ID, "estimatedCost": cost})).job_id == ID


def test_rejection_says_which_field_and_hides_signed_links():
    with pytest.raises(RequestRejected, match="promptText: Too big"):
        runway.parse_submit(reply(400, VALIDATION))
    with pytest.raises(RequestRejected) as caught:
        runway.parse_submit(reply(400, {"error": "promptImage: https://cdn.example/a.png?sig=secret gives 403"}))
    assert "secret" not in caught.value.message
    assert caught.value.user_message.endswith("the image.")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "30"}, 30),
        ({"retry_after_ms": "1500", "retry_after": "30"}, 1.5),
        ({"retry_after_ms": "soon", "retry_after": "2"}, 2),
        ({"retry_after": "Mon, 23 Nov 2026 10:01:00 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 60),
        ({"retry_after": "Mon, 23 Nov 2026 09:00:00 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "nan"}, None),
    ],
)
def test_busy_tells_for_how_long(headers, seconds):
    with pytest.raises(Busy) as caught:
        runway.parse_submit(reply(429, {}, **headers))
    assert caught.value.retry_after_s == seconds


def test_retry_date_without_a_date_of_the_reply_is_measured_by_our_clock():
    with pytest.raises(Busy) as caught:
        runway.parse_submit(reply(429, {}, retry_after="Mon, 23 Nov 2020 10:00:00 GMT"))
    assert caught.value.retry_after_s == 0


# --- looking at a job ---


@pytest.mark.parametrize(
    ("task", "state", "progress"),
    [
        ({"status": "PENDING", "estimatedCost": {"credits": 25}}, JobState.QUEUED, None),
        ({"status": "THROTTLED"}, JobState.QUEUED, None),
        ({"status": "RUNNING", "progress": 0.42}, JobState.RUNNING, 0.42),
        ({"status": "RUNNING", "progress": 7}, JobState.RUNNING, 1.0),
        ({"status": "RUNNING", "progress": "odd"}, JobState.RUNNING, None),
        ({"status": "RUNNING"}, JobState.RUNNING, None),
        ({"status": "CANCELLED", "cost": {"credits": 0}}, JobState.CANCELLED, None),
        ({"status": "PAUSED"}, JobState.UNRECOGNISED, None),
        ({"status": "running"}, JobState.UNRECOGNISED, None),
    ],
)
def test_states(task, state, progress):
    status = poll(reply(200, {"id": ID, "createdAt": "2026-11-23T10:00:00.000Z", **task}))
    assert (status.state, status.progress, status.provider_status) == (state, progress, task["status"])


def test_success_has_link_and_charge():
    url = "https://dnznrvs05pmza.cloudfront.net/x.mp4?_jwt=secret"
    status = poll(reply(200, {"id": ID, "status": "SUCCEEDED", "cost": {"credits": 25.5}, "output": [url]}))
    assert (status.state, status.result_url, status.cost) == (JobState.SUCCEEDED, url, Decimal("25.5"))
    assert "secret" not in repr(status)


def test_cancelled_job_tells_its_charge():
    assert poll(reply(200, {"id": ID, "status": "CANCELLED", "cost": {"credits": 0}})).cost == 0


@pytest.mark.parametrize(
    ("failure_code", "code", "another"),
    [
        ("SAFETY.INPUT.TEXT", "moderation", False),
        ("SAFETY.INPUT.IMAGE", "moderation", False),
        ("SAFETY.OUTPUT.VIDEO", "moderation", False),
        ("SAFETY.SOMETHING", "moderation", False),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", "moderation", False),
        ("INPUT_PREPROCESSING.INTERNAL", "generation_failed", True),
        ("INTERNAL.BAD_OUTPUT.CODE01", "generation_failed", True),
        ("INTERNAL.BAD_OUTPUT.01", "generation_failed", True),
        ("ASSET.INVALID", "bad_request", False),
        ("THIRD_PARTY.UNAVAILABLE", "provider_unavailable", True),
        ("INTERNAL", "generation_failed", True),
        ("SAFETYNET.X", "unknown_failure", False),  # whole parts only
        ("BRAND.NEW", "unknown_failure", False),  # may be a refusal: nobody else is asked
        ("", "generation_failed", True),
        (None, "generation_failed", True),
        (["odd"], "unknown_failure", False),
    ],
)
def test_failure_codes(failure_code, code, another):
    body = {"id": ID, "status": "FAILED", "cost": {"credits": 0}, "failure": "Why", "failureCode": failure_code}
    status = poll(reply(200, body))
    assert status.state is JobState.FAILED
    assert status.cost == 0
    assert (status.error.code, status.error.another_model_could) == (code, another)
    assert status.error.may_be_the_request is (failure_code in ("INTERNAL.BAD_OUTPUT.CODE01", "INTERNAL.BAD_OUTPUT.01"))
    assert status.error.is_known == (code != "unknown_failure")
    assert status.error.provider_code == (failure_code if isinstance(failure_code, str) else "")
    assert status.error.user_message.endswith(".")
    for diagnostic in ("TEXT", "IMAGE", "VIDEO", "SAFETY"):
        assert diagnostic not in status.error.user_message


def test_a_new_code_is_listed_under_itself_and_a_missing_one_under_its_text():
    def failed(**more):
        return poll(reply(200, {"id": ID, "status": "FAILED", **more})).error

    assert failed(failureCode="BRAND.New.CODE7", failure=f"Task {ID} failed").signature == "runway: brand.new.code7"
    assert failed(failure=f"Task {ID} failed").signature == "runway: task # failed"
    assert failed().signature == "runway: no reason given"


def test_a_refusal_in_words_is_moderation_whatever_the_code():
    for code in (None, "BRAND.NEW"):
        body = {"id": ID, "status": "FAILED", "failure": "Blocked by content policy", "failureCode": code}
        error = poll(reply(200, body)).error
        assert (error.code, error.another_model_could, error.is_known) == ("moderation", False, True)


def test_failure_without_any_reason_is_a_failure():
    status = poll(reply(200, {"id": ID, "status": "FAILED"}))
    assert status.error.another_model_could
    assert status.cost is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'"SUCCEEDED"',
        {},
        {"status": None},
        {"status": 3},
        {"status": ""},
        {"status": ["SUCCEEDED"]},
        {"status": "SUCCEEDED"},
        {"status": "SUCCEEDED", "output": []},
        {"status": "SUCCEEDED", "output": "https://x/y.mp4"},
        {"status": "SUCCEEDED", "output": [None]},
        {"status": "SUCCEEDED", "output": ["file:///etc/passwd"]},
        {"status": "PENDING", "id": "another-task"},
    ],
)
def test_garbage_in_a_200_is_a_failed_read_and_never_a_failed_job(body):
    with pytest.raises(ProviderDown):
        poll(reply(200, body))


@pytest.mark.parametrize("cost", [None, 7, [], {"credits": {}}, {"credits": "NaN"}, {"credits": -1}])
def test_odd_charge_does_not_hide_a_success(cost):
    status = poll(reply(200, {"status": "SUCCEEDED", "cost": cost, "output": ["https://x/y.mp4"]}))
    assert status.state is JobState.SUCCEEDED
    assert status.cost is None


def test_infinite_numbers_in_json_are_ignored():
    body = b'{"status": "RUNNING", "progress": NaN, "cost": {"credits": Infinity}}'
    assert poll(reply(200, body)).progress is None


def test_404_means_not_found_unless_a_proxy_says_it():
    assert isinstance(poll(reply(404, {"error": "Not found"})), JobNotFound)
    for proxy in (b"", b"\n<!doctype html><h1>404</h1>", {"message": "Not Found"}):
        with pytest.raises(ProviderDown):
            poll(reply(404, proxy))


READ_ERRORS = [
    (401, KeyRefused),
    (403, KeyRefused),
    (429, Busy),
    (400, ProviderDown),
    (405, ProviderDown),
    (408, ProviderDown),
    (500, ProviderDown),
    (502, ProviderDown),
    (503, ProviderDown),
    (504, ProviderDown),
    (302, ProviderDown),
]


@pytest.mark.parametrize(("status", "expected"), READ_ERRORS)
def test_errors_of_reads(status, expected):
    answer = reply(status, {"error": "no"}, retry_after="3")
    for parse in (poll, runway.parse_cancel, runway.parse_account):
        with pytest.raises(expected) as caught:
            parse(answer)
        assert type(caught.value) is expected
        if expected is Busy:
            assert caught.value.retry_after_s == 3


def test_cancel_of_an_unknown_task():
    assert runway.parse_cancel(reply(404, {"error": "Not found"})) is CancelOutcome.NOT_FOUND


@pytest.mark.parametrize(
    "body", [{}, {"creditBalance": "odd", "tier": [], "usage": None}, {"tier": {"models": {"gen4.5": 3}}}]
)
def test_odd_organization_is_read_as_far_as_it_goes(body):
    assert runway.parse_account(reply(200, body)).balance is None


def test_other_calls_do_not_exist():
    with pytest.raises(TypeError):
        runway.build_result(JOB, key=KEY)
    with pytest.raises(TypeError):
        runway.build_lookup("r", key=KEY, image_to_video=False)
