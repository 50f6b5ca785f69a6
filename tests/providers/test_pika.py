import json

import pytest
import responses

from providers.contract import CancelOutcome, GenerationRequest, HttpReply, JobRef, JobState, JobStatus, StartImage
from providers.errors import (
    Busy,
    ForeignOrigin,
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
from providers.pika import ENTRY
from providers.pika.adapter import Pika

BASE = "https://queue.fal.run"
KEY = "1b2c3d4e-0000:0123456789abcdef"
ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
FOLLOW = f"{BASE}/fal-ai/pika/requests/{ID}"
URLS = {"response": FOLLOW, "status": f"{FOLLOW}/status", "cancel": f"{FOLLOW}/cancel"}
JOB = JobRef(ID, "pika-2.2", "gen_1", urls=URLS)
SUBMITTED = {
    "status": "IN_QUEUE",
    "request_id": ID,
    "queue_position": 0,
    **{f"{name}_url": url for name, url in URLS.items()},
}
pika = Pika(ENTRY.default_base_url)


IMAGE = StartImage("image/png", b"\x89PNG\r\n\x1a\n")  # iVBORw0KGgo=


def request(**changes):
    base = {"model": "pika-2.2", "prompt": "a cat", "duration_s": 5, "aspect_ratio": "16:9"}
    return GenerationRequest(**{**base, **changes})


def reply(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def poll(answer):
    return pika.parse_poll(answer, [JOB])[ID]


def model_error(kind, msg="no", loc=("body", "prompt")):
    return {"detail": [{"loc": list(loc), "msg": msg, "type": kind, "url": "https://docs.fal.ai/errors", "input": "x"}]}


def infrastructure_error(kind):
    return {"detail": "It went wrong", "error_type": kind}


# --- on the wire ---


@responses.activate
def test_text_to_video_on_the_wire():
    responses.post(f"{BASE}/fal-ai/pika/v2.2/text-to-video", json=SUBMITTED)
    callback = "https://reel.example/api/video/webhook/pika?ref=gen_1&sig=s"
    built = pika.build_submit(request(seed=7, callback_url=callback), key=KEY, reference="gen_1")
    submitted = pika.parse_submit(Sender(BASE).submit(built, deadline_s=5))
    assert (submitted.job_id, submitted.urls) == (ID, URLS)
    sent = responses.calls[0].request
    assert sent.headers["Authorization"] == f"Key {KEY}"
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.params == {"fal_webhook": callback}
    assert "fal_webhook=https%3A%2F%2Freel.example%2Fapi" in sent.url
    assert json.loads(sent.body) == {
        "prompt": "a cat",
        "negative_prompt": "",
        "aspect_ratio": "16:9",
        "resolution": "720p",
        "duration": 5,
        "seed": 7,
    }


@responses.activate
def test_image_to_video_on_the_wire_leaves_the_shape_to_the_image():
    responses.post(f"{BASE}/fal-ai/pika/v2.2/image-to-video", json=SUBMITTED)
    built = pika.build_submit(
        request(
            image_url="https://x.example/cat.png",
            image=IMAGE,
            duration_s=10,
            resolution="1080p",
            negative_prompt="rain",
        ),
        key=KEY,
        reference="gen_1",
    )
    pika.parse_submit(Sender(BASE).submit(built, deadline_s=5))
    sent = responses.calls[0].request
    assert sent.url == f"{BASE}/fal-ai/pika/v2.2/image-to-video"
    assert json.loads(sent.body) == {
        "prompt": "a cat",
        "image_url": "data:image/png;base64,iVBORw0KGgo=",
        "negative_prompt": "rain",
        "resolution": "1080p",
        "duration": 10,
    }


@responses.activate
def test_follow_up_calls_on_the_wire():
    responses.get(URLS["status"], status=202, json={"status": "IN_QUEUE", "request_id": ID, "queue_position": 1})
    responses.get(URLS["response"], json={"video": {"url": "https://v3.fal.media/x.mp4"}})
    responses.put(URLS["cancel"], status=202, json={"status": "CANCELLATION_REQUESTED"})
    sender = Sender(BASE)
    assert poll(sender.read(pika.build_poll([JOB], key=KEY), deadline_s=5)) == JobStatus(JobState.QUEUED, "IN_QUEUE")
    result = pika.parse_result(sender.read(pika.build_result(JOB, key=KEY), deadline_s=5), JOB)
    assert (result.state, result.result_url) == (JobState.SUCCEEDED, "https://v3.fal.media/x.mp4")
    cancelled = sender.read(pika.build_cancel(JOB, key=KEY), deadline_s=5)
    assert pika.parse_cancel(cancelled) is CancelOutcome.REQUESTED
    assert [call.request.headers["Authorization"] for call in responses.calls] == [f"Key {KEY}"] * 3
    assert not responses.calls[2].request.body


# --- what is built ---


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("pika-2.2", "fal-ai/pika/v2.2/text-to-video"),
        ("pika-2.1", "fal-ai/pika/v2.1/text-to-video"),
        ("pika-turbo", "fal-ai/pika/v2/turbo/text-to-video"),
    ],
)
def test_models_have_paths(model, path):
    assert pika.build_submit(request(model=model), key=KEY, reference="r").url == f"{BASE}/{path}"


@pytest.mark.parametrize(
    "changes", [{"model": "gen4.5"}, {"model": "pika-9"}, {"duration_s": 7}, {"aspect_ratio": "21:9"}, {"sound": True}]
)
def test_what_pika_cannot_express_is_rejected_before_sending(changes):
    with pytest.raises(RequestRejected):
        pika.build_submit(request(**changes), key=KEY, reference="r")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"status": "https://evil.example/status"},
        {"status": "http://queue.fal.run/status"},
        {"status": "https://queue.fal.run:8443/status"},
        {"status": "https://queue.fal.run@evil.example/status"},
        {"status": "https://evil.example\\@queue.fal.run/status"},
        {"status": "https://queue.fal.run.evil.example/status"},
        {"status": "https://[::1"},
        {"status": "nonsense"},
    ],
)
def test_follow_up_url_of_another_origin_is_rebuilt_from_ours(given):
    built = pika.build_poll([JobRef(ID, "pika-2.2", "r", urls=given)], key=KEY)
    assert built.url == f"{FOLLOW}/status"


def test_follow_up_url_of_our_origin_is_used_as_given():
    given = f"{BASE}/fal-ai/elsewhere/requests/{ID}/status"
    assert pika.build_poll([JobRef(ID, "pika-2.2", "r", urls={"status": given})], key=KEY).url == given


def test_another_base_url_gets_follow_up_calls_even_for_jobs_with_fals_own_urls():
    local = Pika("http://127.0.0.1:9000/fal/")
    assert local.build_result(JOB, key=KEY).url == f"http://127.0.0.1:9000/fal/fal-ai/pika/requests/{ID}"
    with pytest.raises(ForeignOrigin):
        Sender("http://127.0.0.1:9000").read(pika.build_result(JOB, key=KEY), deadline_s=1)


def test_job_id_cannot_leave_its_path():
    assert pika.build_cancel(JobRef("../../x?y", "pika-2.2", "r"), key=KEY).url.endswith("/..%2F..%2Fx%3Fy/cancel")


# --- what an answer to a submit proves ---

EXHAUSTED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, {"detail": "bad"}, RequestRejected, "bad_request"),
        (400, infrastructure_error("bad_request"), RequestRejected, "bad_request"),
        (400, model_error("downstream_service_error"), SubmissionUnknown, "outcome_unknown"),
        (401, {"detail": "Cannot access application"}, KeyRefused, "key_refused"),
        (402, {"detail": "no"}, OutOfCredits, "out_of_credits"),
        (403, EXHAUSTED, OutOfCredits, "out_of_credits"),
        (403, {"detail": "User is locked. Reason: Admin lock."}, KeyRefused, "key_refused"),
        (403, {"detail": "User is locked. Reason: TOP_UP"}, KeyRefused, "key_refused"),
        (403, {"detail": "Forbidden"}, ModelForbidden, "model_forbidden"),
        (404, {"detail": "Application not found"}, ModelForbidden, "model_forbidden"),
        (405, {"detail": "no"}, ModelForbidden, "model_forbidden"),
        (413, {"detail": "no"}, RequestRejected, "bad_request"),
        (422, model_error("missing"), RequestRejected, "bad_request"),
        (422, model_error("string_too_long"), RequestRejected, "bad_request"),
        (422, model_error("content_policy_violation"), RequestRejected, "moderation"),
        (422, {"detail": [None, 3, {"loc": 1, "msg": {}, "type": []}]}, RequestRejected, "bad_request"),
        (429, infrastructure_error("concurrent_requests_limit"), Busy, "busy"),
        (408, {}, SubmissionUnknown, "outcome_unknown"),
        (409, {}, SubmissionUnknown, "outcome_unknown"),
        (499, {}, SubmissionUnknown, "outcome_unknown"),
        (500, infrastructure_error("internal_error"), SubmissionUnknown, "outcome_unknown"),
        (502, b"<html>nginx", SubmissionUnknown, "outcome_unknown"),
        (503, infrastructure_error("runner_disconnected"), SubmissionUnknown, "outcome_unknown"),
        (504, infrastructure_error("request_timeout"), SubmissionUnknown, "outcome_unknown"),
        (307, b"", GatewayAnswer, "gateway_answer"),
        (200, b"", SubmissionUnknown, "outcome_unknown"),
        (200, b"<html>", SubmissionUnknown, "outcome_unknown"),
        (200, [], SubmissionUnknown, "outcome_unknown"),
        (200, {"status": "IN_QUEUE"}, SubmissionUnknown, "outcome_unknown"),
        (200, {"request_id": -5}, SubmissionUnknown, "outcome_unknown"),
        (200, {"gateway_request_id": ID}, SubmissionUnknown, "outcome_unknown"),
        (200, {"request_id": " "}, SubmissionUnknown, "outcome_unknown"),
    ],
)
def test_submit_answers(status, body, expected, code):
    with pytest.raises(expected) as caught:
        pika.parse_submit(reply(status, body))
    assert type(caught.value) is expected
    assert (caught.value.code, caught.value.http_status) == (code, status)


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    ("body", "job_id"), [({"request_id": 5}, "5"), ({"data": {"request_id": ID}}, ID), ({"request_id": f"{ID}\n"}, ID)]
)
def test_the_id_of_a_paid_job_is_taken_in_each_usual_form(status, body, job_id):
    assert pika.parse_submit(reply(status, body)).job_id == job_id


def test_a_request_whose_id_comes_back_as_a_number_is_the_same_request():
    job = JobRef("5", "pika-2.2", "r")
    body = {"request_id": 5, "status": "IN_QUEUE"}
    assert pika.parse_poll(reply(202, body), [job])["5"].state is JobState.QUEUED


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    "url", [None, 5, "", "ftp://x", FOLLOW + "?sig=secret", "https://x/" + "y" * 600, "https://x/\0"]
)
def test_odd_follow_up_urls_are_not_stored_and_do_not_lose_a_paid_job(status, url):
    body = {"request_id": ID, "status_url": url, "response_url": url, "cancel_url": url}
    submitted = pika.parse_submit(reply(status, body))
    assert (submitted.job_id, submitted.urls) == (ID, {})


def test_a_single_error_in_detail_is_read_like_a_list_of_one():
    body = {"detail": {"loc": ["body"], "msg": "Blocked", "type": "content_policy_violation"}}
    with pytest.raises(RequestRejected, match="body: Blocked") as caught:
        pika.parse_submit(reply(422, body))
    assert caught.value.code == "moderation"


def test_rejection_names_the_field_and_leaves_the_input_out():
    body = {"detail": [{"loc": ["body", "duration"], "msg": "Input should be 5 or 10", "type": "x", "input": "SECRET"}]}
    with pytest.raises(RequestRejected, match=r"body\.duration: Input should be 5 or 10") as caught:
        pika.parse_submit(reply(422, body))
    assert "SECRET" not in caught.value.message


# --- looking at a job ---


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (202, {"status": "IN_QUEUE", "queue_position": 3}, JobState.QUEUED),
        (202, {"status": "IN_PROGRESS", "logs": None}, JobState.RUNNING),
        (200, {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 41.2}}, JobState.RESULT_READY),
        (200, {"status": "COMPLETED", "error": None, "error_type": ""}, JobState.RESULT_READY),
        (200, {"status": "COMPLETED", "error": "Timed out", "error_type": "request_timeout"}, JobState.FAILED),
        (200, {"status": "COMPLETED", "error": {"odd": 1}}, JobState.FAILED),
        (200, {"status": "COMPLETED", "error": "x", "error_type": "client_cancelled"}, JobState.CANCELLED),
        (200, {"status": "FAILED"}, JobState.UNRECOGNISED),
        (200, {"status": "PAUSED"}, JobState.UNRECOGNISED),
    ],
)
def test_states(status, body, state):
    seen = poll(reply(status, {"request_id": ID, **body}))
    assert seen.state is state
    assert seen.provider_status == body["status"]
    assert (seen.error is not None) == (state is JobState.FAILED)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"null", [], {}, {"status": None}, {"status": 3}, {"status": "IN_QUEUE", "request_id": "z"}],
)
def test_garbage_in_a_200_is_a_failed_read(body):
    with pytest.raises(ProviderDown):
        poll(reply(200, body))


@pytest.mark.parametrize("status", [401, 403])
def test_locked_account_is_out_of_credits_for_reads_too(status):
    with pytest.raises(OutOfCredits):
        poll(reply(status, EXHAUSTED))


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, KeyRefused), (403, KeyRefused), (429, Busy), (400, ProviderDown), (405, ProviderDown), (408, ProviderDown),
     (500, ProviderDown), (502, ProviderDown), (503, ProviderDown), (504, ProviderDown), (302, ProviderDown)],
)  # fmt: skip
def test_errors_of_reads(status, expected):
    answer = reply(status, {"detail": "no"}, retry_after="3")
    for parse in (poll, pika.parse_cancel, lambda answer: pika.parse_result(answer, JOB)):
        with pytest.raises(expected) as caught:
            parse(answer)
        assert type(caught.value) is expected


def test_404_means_not_found_unless_a_proxy_says_it():
    ours, proxy = reply(404, {"status": "NOT_FOUND"}), reply(404, b"<html>")
    assert isinstance(poll(ours), JobNotFound)
    with pytest.raises(JobNotFound):
        pika.parse_result(ours, JOB)
    assert pika.parse_cancel(ours) is CancelOutcome.NOT_FOUND
    for parse in (poll, pika.parse_cancel, lambda answer: pika.parse_result(answer, JOB)):
        with pytest.raises(ProviderDown):
            parse(proxy)


# --- the result ---


@pytest.mark.parametrize(
    ("status", "body", "code", "another"),
    [
        (422, model_error("content_policy_violation"), "moderation", False),
        (422, model_error("no_media_generated"), "generation_failed", True),
        (422, model_error("image_too_small"), "bad_request", False),
        (422, model_error("image_load_error"), "bad_request", False),
        (422, model_error("file_download_error"), "bad_request", False),
        (422, model_error("face_detection_error"), "bad_request", False),
        (422, model_error("unsupported_image_format"), "bad_request", False),
        (422, model_error("greater_than_equal"), "bad_request", False),
        (422, model_error("missing"), "bad_request", False),
        (422, model_error("string_type"), "bad_request", False),
        (500, model_error("internal_server_error"), "generation_failed", True),
        (500, model_error("downstream_service_unavailable"), "provider_unavailable", True),
        (400, model_error("downstream_service_error"), "provider_unavailable", True),
        (504, model_error("generation_timeout"), "generation_timeout", True),
        (504, infrastructure_error("request_timeout"), "generation_timeout", True),
        (504, infrastructure_error("startup_timeout"), "generation_timeout", True),
        (503, infrastructure_error("runner_scheduling_failure"), "generation_failed", True),
        (503, infrastructure_error("runner_disconnected"), "generation_failed", True),
        (502, infrastructure_error("runner_incomplete_response"), "generation_failed", True),
        (500, infrastructure_error("runner_server_error"), "generation_failed", True),
        (500, infrastructure_error("brand_new"), "unknown_failure", False),  # may be a refusal: nobody else is asked
        (400, infrastructure_error("bad_request"), "bad_request", False),
    ],
)
def test_fals_own_error_body_is_a_failed_job(status, body, code, another):
    result = pika.parse_result(reply(status, body), JOB)
    assert result.state is JobState.FAILED
    assert (result.error.code, result.error.another_model_could) == (code, another)
    assert result.error.is_known == (code != "unknown_failure")
    assert result.error.may_be_the_request is ("no_media_generated" in json.dumps(body))
    assert result.error.user_message.endswith(".")
    assert result.error.provider_code


def test_a_new_type_is_listed_under_itself_and_a_failure_without_one_under_its_text():
    assert pika.parse_result(reply(500, infrastructure_error("Brand_New")), JOB).error.signature == "pika: brand_new"
    for error, expected in (("Runner 7 died", "pika: runner # died"), ({"odd": 1}, "pika: no reason given")):
        seen = poll(reply(200, {"request_id": ID, "status": "COMPLETED", "error": error})).error
        assert (seen.signature, seen.is_known, seen.another_model_could) == (expected, False, False)


def test_a_refusal_in_words_is_moderation_whatever_the_type():
    body = {"detail": [{"msg": "Failure to pass the risk control system", "type": "vendor_failed"}]}
    error = pika.parse_result(reply(500, body), JOB).error
    assert (error.code, error.another_model_could) == ("moderation", False)


def test_error_type_may_come_in_the_header_only():
    result = pika.parse_result(reply(500, {"detail": "x"}, x_fal_error_type="internal_error"), JOB)
    assert result.error.provider_code == "internal_error"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, b"<html>nginx"),
        (503, {"detail": "x"}),
        (504, {}),
        (422, b"null"),
        (400, {"detail": "no idea"}),
        (418, {"detail": [{"msg": "x"}]}),
        (301, b""),
        (200, b""),
        (200, {}),
        (200, {"video": None}),
        (200, {"video": {"url": None}}),
        (200, {"video": {"url": "file:///etc/passwd"}}),
        (200, {"video": ["https://x/y.mp4"]}),
    ],
)
def test_anything_else_is_a_failed_read_of_a_paid_job(status, body):
    with pytest.raises(ProviderDown):
        pika.parse_result(reply(status, body), JOB)


def test_result_asked_for_too_early_is_still_running():
    result = pika.parse_result(reply(400, {"detail": "Request is still in progress"}), JOB)
    assert result.state is JobState.RUNNING


@pytest.mark.parametrize("body", [infrastructure_error("client_cancelled"), {}, b""])
def test_result_of_a_cancelled_request(body):
    assert pika.parse_result(reply(499, body), JOB).state is JobState.CANCELLED


def test_success_needs_only_the_link():
    body = {"video": {"url": "https://v3.fal.media/x.mp4", "content_type": None, "file_size": None}}
    result = pika.parse_result(reply(200, body), JOB)
    assert (result.state, result.progress, result.error) == (JobState.SUCCEEDED, 1.0, None)


# --- cancel ---


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (202, {"status": "CANCELLATION_REQUESTED"}, CancelOutcome.REQUESTED),
        (200, {"success": True}, CancelOutcome.REQUESTED),
        (200, b"", CancelOutcome.REQUESTED),
        (400, {"status": "ALREADY_COMPLETED"}, CancelOutcome.ALREADY_ENDED),
        (404, {"status": "NOT_FOUND"}, CancelOutcome.NOT_FOUND),
    ],
)
def test_cancel_answers(status, body, outcome):
    assert pika.parse_cancel(reply(status, body)) is outcome


@pytest.mark.parametrize("kind", ["literal_error", "int_type", "string_too_long"])
def test_a_failure_that_looks_like_bad_input_is_asked_of_the_result(kind: str) -> None:
    """A status carries no HTTP status of the model; taken for the provider's fault, it would be paid for elsewhere."""
    body = {"status": "COMPLETED", "request_id": JOB.job_id, "error": "Input should be 5 or 10", "error_type": kind}
    reply = HttpReply(200, {}, json.dumps(body).encode())
    status = Pika("https://queue.fal.run").parse_poll(reply, [JOB])[JOB.job_id]
    assert isinstance(status, JobStatus)
    assert status.state is JobState.RESULT_READY
