import json
from decimal import Decimal

import jwt
import pytest
import responses

from providers.contract import GenerationRequest, HttpReply, JobRef, JobState, StartImage
from providers.errors import (
    Busy,
    DuplicateReference,
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
from providers.kling import ENTRY
from providers.kling.adapter import Kling, sign
from providers.kling.models import MODELS

BASE = "https://api-singapore.klingai.com"
KEY = "api-key-0123456789"
SECRET = "0123456789abcdef0123456789abcdef"
PAIR = f"AccessKey0123:{SECRET}"
NOW = 1_795_000_000.9
ID, REF = "893605946402811985", "gen_1"
JOB = JobRef(ID, "kling-2.5-turbo", REF)
IMAGE_JOB = JobRef(ID, "kling-2.5-turbo", REF, image_to_video=True)
kling = Kling(ENTRY.default_base_url, now=lambda: NOW)


IMAGE = StartImage("image/png", b"\x89PNG\r\n\x1a\n")  # iVBORw0KGgo=


def request(**changes):
    base = {"model": "kling-2.5-turbo", "prompt": "a cat", "duration_s": 5, "aspect_ratio": "16:9"}
    return GenerationRequest(**{**base, **changes})


def reply(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def good(data):
    return reply(200, {"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


def bad(status, code, message="no"):
    return reply(status, {"code": code, "message": message, "request_id": "r"})


def poll(answer):
    return kling.parse_poll(answer, [JOB])[ID]


def newer(status, **more):
    return {"id": ID, "status": status, "message": "", "create_time": 1, "update_time": 2, "external_id": REF, **more}


def older(status, **more):
    return {"task_id": ID, "task_status": status, "task_info": {"external_task_id": REF}, "task_result": {}, **more}


OUTPUTS = [{"type": "video", "id": "v", "url": "https://cdn.example/x.mp4?Expires=1", "duration": "5.041"}]
VIDEOS = {"videos": [{"id": "v", "url": "https://cdn.example/x.mp4?Expires=1", "duration": "5.1"}]}


# --- on the wire, newer standard ---


@responses.activate
def test_text_to_video_on_the_newer_wire():
    responses.post(f"{BASE}/text-to-video/kling-2.5-turbo", json=json.loads(good(newer("submitted")).body))
    built = kling.build_submit(request(callback_url="https://reel.example/hook"), key=KEY, reference=REF)
    assert kling.parse_submit(Sender(BASE).submit(built, deadline_s=5)).job_id == ID
    sent = responses.calls[0].request
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert sent.headers["Content-Type"] == "application/json"
    assert json.loads(sent.body) == {
        "prompt": "a cat",
        "settings": {"resolution": "720p", "duration": 5, "aspect_ratio": "16:9"},
        "options": {"external_task_id": REF, "callback_url": "https://reel.example/hook"},
    }


@responses.activate
def test_image_to_video_on_the_newer_wire():
    responses.post(f"{BASE}/image-to-video/kling-3.0", json=json.loads(good(newer("submitted")).body))
    built = kling.build_submit(
        request(
            model="kling-3.0", image_url="https://x/cat.png", image=IMAGE, resolution="1080p", duration_s=7, sound=True
        ),
        key=KEY,
        reference=REF,
    )
    kling.parse_submit(Sender(BASE).submit(built, deadline_s=5))
    assert json.loads(responses.calls[0].request.body) == {
        "contents": [{"type": "prompt", "text": "a cat"}, {"type": "first_frame", "url": "iVBORw0KGgo="}],
        "settings": {"resolution": "1080p", "duration": 7, "audio": "native", "multi_shot": False},
        "options": {"external_task_id": REF},
    }


@responses.activate
def test_one_poll_carries_many_jobs_on_the_newer_wire():
    jobs = [JobRef(str(10**17 + n), "kling-2.6", f"gen_{n}") for n in range(20)]
    tasks = [{**newer("processing"), "id": job.job_id} for job in jobs[:19]]
    responses.get(f"{BASE}/tasks", json=json.loads(good(tasks).body))
    seen = kling.parse_poll(Sender(BASE).read(kling.build_poll(jobs, key=KEY), deadline_s=5), jobs)
    assert responses.calls[0].request.params == {"task_ids": ",".join(job.job_id for job in jobs)}
    assert [seen[job.job_id].state for job in jobs[:19]] == [JobState.RUNNING] * 19
    assert isinstance(seen[jobs[19].job_id], JobNotFound)  # left out without a word
    assert len(seen) == 20


@responses.activate
def test_look_up_on_the_newer_wire():
    responses.get(f"{BASE}/tasks", json=json.loads(good([newer("processing")]).body))
    built = kling.build_lookup(REF, key=KEY, image_to_video=False)
    assert kling.parse_lookup(Sender(BASE).read(built, deadline_s=5), REF).job_id == ID
    assert responses.calls[0].request.params == {"external_task_ids": REF}


# --- on the wire, older standard ---


@responses.activate
def test_text_to_video_on_the_older_wire():
    responses.post(f"{BASE}/v1/videos/text2video", json=json.loads(good(older("submitted")).body))
    built = kling.build_submit(
        request(duration_s=10, resolution="1080p", callback_url="https://reel.example/hook"), key=PAIR, reference=REF
    )
    assert kling.parse_submit(Sender(BASE).submit(built, deadline_s=5)).job_id == ID
    sent = responses.calls[0].request
    assert json.loads(sent.body) == {
        "model_name": "kling-v2-5-turbo",
        "prompt": "a cat",
        "mode": "pro",
        "duration": "10",
        "aspect_ratio": "16:9",
        "external_task_id": REF,
        "callback_url": "https://reel.example/hook",
    }
    scheme, token = sent.headers["Authorization"].split()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False})
    assert scheme == "Bearer"
    assert claims == {"iss": "AccessKey0123", "exp": int(NOW) + 1800, "nbf": int(NOW) - 5}
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert SECRET not in str(sent.headers)


@responses.activate
def test_image_to_video_on_the_older_wire_sends_bare_base64():
    responses.post(f"{BASE}/v1/videos/image2video", json=json.loads(good(older("submitted")).body))
    built = kling.build_submit(
        request(model="kling-2.6", image_url="https://x/cat.png", image=IMAGE), key=PAIR, reference=REF
    )
    kling.parse_submit(Sender(BASE).submit(built, deadline_s=5))
    assert json.loads(responses.calls[0].request.body) == {
        "model_name": "kling-v2-6",
        "prompt": "a cat",
        "mode": "std",
        "duration": "5",
        "sound": "off",
        "image": "iVBORw0KGgo=",
        "external_task_id": REF,
    }


@pytest.mark.parametrize(("job", "family"), [(JOB, "text2video"), (IMAGE_JOB, "image2video")])
@responses.activate
def test_poll_and_look_up_on_the_older_wire_use_the_path_of_the_kind(job, family):
    body = json.loads(good(older("processing")).body)
    responses.get(f"{BASE}/v1/videos/{family}/{ID}", json=body)
    responses.get(f"{BASE}/v1/videos/{family}/{REF}", json=body)
    sender = Sender(BASE)
    seen = kling.parse_poll(sender.read(kling.build_poll([job], key=PAIR), deadline_s=5), [job])
    assert seen[ID].state is JobState.RUNNING
    look_up = kling.build_lookup(REF, key=PAIR, image_to_video=job.image_to_video)
    assert kling.parse_lookup(sender.read(look_up, deadline_s=5), REF).job_id == ID


@responses.activate
def test_account_on_the_wire():
    packs = [
        {"resource_pack_name": "a", "remaining_quantity": 118.0, "status": "online"},
        {"resource_pack_name": "b", "remaining_quantity": "2.5", "status": "online"},
        {"resource_pack_name": "c", "remaining_quantity": 50, "status": "expired"},
    ]
    body = json.loads(good({"code": 0, "msg": "success", "resource_pack_subscribe_infos": packs}).body)
    responses.get(f"{BASE}/account/costs", json=body)
    info = kling.parse_account(Sender(BASE).read(kling.build_account(key=PAIR), deadline_s=5))
    assert info.balance == Decimal("120.5")
    params = responses.calls[0].request.params
    assert params["end_time"] == "1795000000900"
    assert int(params["start_time"]) < int(params["end_time"])


# --- what is built ---


def test_token_is_signed_anew_for_each_request():
    clock = iter([1000.0, 2000.0])
    ticking = Kling(ENTRY.default_base_url, now=lambda: next(clock))
    one, two = (ticking.build_poll([JOB], key=PAIR).headers["Authorization"] for _ in range(2))
    assert one != two


def test_secret_may_contain_any_character_but_a_colon():
    secret = "s=+/" * 10
    assert (
        jwt.decode(sign(f"a:{secret}", 100), secret, algorithms=["HS256"], options={"verify_exp": False})["iss"] == "a"
    )


@pytest.mark.parametrize(("key", "count"), [(KEY, 20), (PAIR, 1)])
def test_jobs_in_a_poll_depend_on_the_standard(key, count):
    assert kling.jobs_per_poll(key) == count
    jobs = [JobRef(str(n), "kling-2.6", f"gen_{n}") for n in range(count + 1)]
    kling.build_poll(jobs[:count], key=key)
    for wrong in (jobs, []):
        with pytest.raises(ValueError, match="jobs a poll"):
            kling.build_poll(wrong, key=key)


@pytest.mark.parametrize("key", [KEY, PAIR])
@pytest.mark.parametrize(
    "changes",
    [{"model": "gen4.5"}, {"model": "kling-v1"}, {"duration_s": 7}, {"seed": 1}, {"negative_prompt": "rain"},
     {"aspect_ratio": "4:3"}, {"resolution": "4k"}],
)  # fmt: skip
def test_what_kling_cannot_express_is_rejected_before_sending(changes, key):
    with pytest.raises(RequestRejected):
        kling.build_submit(request(**changes), key=key, reference=REF)


def test_model_of_the_newer_standard_only_is_forbidden_to_a_pair_and_not_to_the_user():
    turbo = request(model="kling-3.0-turbo")
    assert kling.build_submit(turbo, key=KEY, reference=REF).url == f"{BASE}/text-to-video/kling-3.0-turbo"
    with pytest.raises(ModelForbidden):
        kling.build_submit(turbo, key=PAIR, reference=REF)


@pytest.mark.parametrize("model", [model.id for model in MODELS])
def test_a_key_offers_exactly_the_models_that_a_submit_with_it_may_ask_for(model):
    assert kling.offers(model, KEY)
    try:
        kling.build_submit(request(model=model), key=PAIR, reference=REF)
    except ModelForbidden:
        assert not kling.offers(model, PAIR)
    else:
        assert kling.offers(model, PAIR)


@pytest.mark.parametrize("reference", ["", "867283741759111202"])
@pytest.mark.parametrize("key", [KEY, PAIR])
def test_reference_that_looks_like_an_id_of_klings_own_is_a_programming_error(reference, key):
    with pytest.raises(ValueError, match="reference"):
        kling.build_submit(request(), key=key, reference=reference)


def test_there_is_no_cancel():
    assert not kling.can_cancel
    with pytest.raises(TypeError):
        kling.build_cancel(JOB, key=KEY)


# --- what an answer to a submit proves ---


@pytest.mark.parametrize(
    ("status", "code", "message", "expected", "our_code"),
    [
        (401, 1000, "", KeyRefused, "key_refused"),
        (401, 1001, "", KeyRefused, "key_refused"),
        (401, 1002, "The API does not support AK/SK", KeyRefused, "key_refused"),
        (401, 1003, "", KeyRefused, "key_refused"),
        (401, 1004, "", KeyRefused, "key_refused"),
        (429, 1100, "", KeyRefused, "key_refused"),
        (429, 1101, "", OutOfCredits, "out_of_credits"),
        (429, 1102, "Account balance not enough", OutOfCredits, "out_of_credits"),
        (403, 1103, "", ModelForbidden, "model_forbidden"),
        (400, 1200, "", RequestRejected, "bad_request"),
        (400, 1201, "settings.resolution value '9000p' is invalid", RequestRejected, "bad_request"),
        (400, 1201, "contents cannot be empty", RequestRejected, "bad_request"),
        (400, 1201, "The model 'kling-v1' has been discontinued and is no longer available.", ModelForbidden, None),
        (400, 1201, "external_task_id already exists", DuplicateReference, "duplicate_reference"),
        (404, 1202, "", ModelForbidden, "model_forbidden"),
        (404, 1203, "", ModelForbidden, "model_forbidden"),
        (400, 1300, "", RequestRejected, "moderation"),
        (400, 1301, "", RequestRejected, "moderation"),
        (429, 1302, "", Busy, "busy"),
        (429, 1303, "parallel task over resource pack limit", Busy, "busy"),
        (429, 1304, "", KeyRefused, "key_refused"),
        (500, 5000, "", SubmissionUnknown, "outcome_unknown"),
        (503, 5001, "", SubmissionUnknown, "outcome_unknown"),
        (504, 5002, "", SubmissionUnknown, "outcome_unknown"),
        (200, 5002, "", SubmissionUnknown, "outcome_unknown"),
        (200, 1303, "", Busy, "busy"),  # the code counts, also under 200
        (200, 1301, "", RequestRejected, "moderation"),
        (429, "1102", "", OutOfCredits, "out_of_credits"),
        (400, 9999, "", SubmissionUnknown, "outcome_unknown"),
        (500, 1201, "", SubmissionUnknown, "outcome_unknown"),  # and a 5xx proves nothing whatever the code
        (500, 1102, "", SubmissionUnknown, "outcome_unknown"),
        (400, 0, "", SubmissionUnknown, "outcome_unknown"),
    ],
)
def test_submit_answers_by_code(status, code, message, expected, our_code):
    with pytest.raises(expected) as caught:
        kling.parse_submit(bad(status, code, message))
    assert type(caught.value) is expected
    assert caught.value.code == (our_code or expected.code)
    assert caught.value.provider_code == str(code)


@pytest.mark.parametrize("body", [[], {}, {"code": None}, {"code": True}, {"code": [0]}, {"code": "x"}, {"code": 400}])
@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, GatewayAnswer), (401, GatewayAnswer), (403, GatewayAnswer), (404, GatewayAnswer), (429, GatewayAnswer),
     (302, GatewayAnswer), (408, SubmissionUnknown), (500, SubmissionUnknown), (200, SubmissionUnknown)],
)  # fmt: skip
def test_without_a_code_of_klings_a_gateway_answered(status, expected, body):
    with pytest.raises(expected) as caught:
        kling.parse_submit(reply(status, body))
    assert type(caught.value) is expected


@pytest.mark.parametrize("data", [None, {}, [], "x", {"id": None}, {"id": True}, {"task_id": ""}])
def test_success_without_a_readable_id_is_unknown(data):
    with pytest.raises(SubmissionUnknown):
        kling.parse_submit(good(data))


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    "data", [{"id": int(ID)}, {"task_id": int(ID)}, {"task": {"id": ID}}, {"result": {"task_id": ID}}]
)
def test_the_id_of_a_paid_job_is_taken_in_each_usual_form(status, data):
    body = {"code": 0, "message": "SUCCEED", "request_id": "r", "data": data}
    assert kling.parse_submit(reply(status, body)).job_id == ID


def test_the_id_of_the_call_is_never_taken_for_the_jobs():
    with pytest.raises(SubmissionUnknown):
        kling.parse_submit(good(None))


def test_a_task_whose_id_comes_back_as_a_number_is_the_same_task():
    for task in ([{**newer("processing"), "id": int(ID)}], {**older("processing"), "task_id": int(ID)}):
        assert poll(good(task)).state is JobState.RUNNING
        assert kling.parse_lookup(good(task), REF).job_id == ID


def test_taken_reference_is_never_a_rejection():
    with pytest.raises(SubmissionUnknown):
        kling.parse_submit(bad(400, 1201, "the external_task_id 'gen_1' already exists"))
    assert (kling.refuses_duplicates(PAIR), kling.refuses_duplicates(KEY)) == (True, False)


def test_busy_tells_for_how_long_when_kling_does():
    with pytest.raises(Busy) as caught:
        kling.parse_submit(reply(429, {"code": 1302, "message": "x"}, retry_after="4"))
    assert caught.value.retry_after_s == 4


# --- looking at a job ---


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("submitted", JobState.QUEUED),
        ("processing", JobState.RUNNING),
        ("paused", JobState.UNRECOGNISED),
        ("", JobState.UNRECOGNISED),
        (None, JobState.UNRECOGNISED),
        (7, JobState.UNRECOGNISED),
    ],
)
def test_states_on_both_standards(word, state):
    for answer in (good([newer(word)]), good(older(word))):
        seen = poll(answer)
        assert seen.state is state
        assert seen.progress is None


def test_success_on_the_newer_standard():
    billing = [
        {"charge_type": "unit", "amount": "2.5", "package_type": "video"},
        {"charge_type": "unit", "amount": "0.5"},
    ]
    seen = poll(good([newer("succeeded", outputs=OUTPUTS, billing=billing)]))
    assert (seen.state, seen.result_url, seen.cost) == (JobState.SUCCEEDED, OUTPUTS[0]["url"], Decimal(3))


def test_success_on_the_older_standard():
    seen = poll(good(older("succeed", task_result=VIDEOS, final_unit_deduction="2.5")))
    assert (seen.state, seen.result_url, seen.cost) == (JobState.SUCCEEDED, OUTPUTS[0]["url"], Decimal("2.5"))


@pytest.mark.parametrize(
    "billing",
    [None, [], {}, [None], [{"charge_type": "cash", "amount": "0.21", "currency": "USD"}],
     [{"charge_type": "unit", "amount": "2"}, {"charge_type": "cash", "amount": "1"}],
     [{"charge_type": "unit", "amount": "much"}]],
)  # fmt: skip
def test_bill_that_is_not_all_units_is_no_cost(billing):
    assert poll(good([newer("succeeded", outputs=OUTPUTS, billing=billing)])).cost is None


@pytest.mark.parametrize(
    "outputs", [None, [], {}, [None], [{"type": "image", "url": "https://x/y.png"}], [{"url": "file:///etc/passwd"}]]
)
def test_success_without_a_video_waits_for_the_operator(outputs):
    assert poll(good([newer("succeeded", outputs=outputs)])).state is JobState.UNRECOGNISED
    assert poll(good(older("succeed", task_result={"videos": outputs}))).state is JobState.UNRECOGNISED


REFUSALS = (
    "Failure to pass the risk control system",
    "FAILURE TO PASS THE RISK CONTROL SYSTEM",
    "Trigger strategy of the platform",
    "Trigger the content security policy of the platform",
    "Request blocked by platform policy",
    "Content policy violation",
    "The prompt contains sensitive words",
    "NSFW content detected",
    "The generated video did not pass moderation",
    "Prohibited content",
    "Inappropriate content",
    "Unsafe image",
    "This violates our community guidelines",
    "The image may contain the likeness of a real person",
    "The output may be related to copyright restrictions",
    "触发平台策略",
    "触发平台的内容安全策略",
    "提示词包含敏感词，请修改后重试",
    "内容违规",
    "图片审核未通过",
    "未通过风控系统",
    "涉嫌侵权，无法生成",
    "内容不合规",
    "違規內容",
    "Internal error: content moderation refused it",  # a refusal counts before everything else
    "x " * 300 + "did not pass the risk control system",  # also at the end of a long text
)
FAULTS = (
    "Internal error, please try again later",
    "Server internal error",
    "Server temporarily unavailable, usually due to maintenance",
    "Server internal timeout, usually due to a backlog",
    "服务器内部错误",
    "服务器暂时不可用，通常是在维护",
    "服务器内部超时，通常是发生积压",
)


@pytest.mark.parametrize(
    ("text", "code", "another"),
    [
        *((text, "moderation", False) for text in REFUSALS),
        *((text, "generation_failed", True) for text in FAULTS),
        ("Image pixel is invalid", "bad_request", False),
        ("The resolution or aspect ratio of the input image is invalid, check it", "bad_request", False),
        ("File is not in a valid base64 format", "bad_request", False),
        # Never seen: may be a refusal, so nobody else is asked.
        ("Something else", "unknown_failure", False),
        ("Internal error: 4711 in the picture", "unknown_failure", False),
        ("出错了", "unknown_failure", False),
        ("", "unknown_failure", False),
        (None, "unknown_failure", False),
    ],
)
def test_failures_are_told_by_their_text_on_both_standards(text, code, another):
    for answer in (good([newer("failed", message=text)]), good(older("failed", task_status_msg=text))):
        seen = poll(answer)
        assert seen.state is JobState.FAILED
        assert (seen.error.code, seen.error.another_model_could) == (code, another)
        assert seen.error.is_known == (code != "unknown_failure")
        assert seen.error.user_message.endswith(".")


def test_a_failure_without_a_text_is_listed_too():
    assert poll(good([newer("failed", message="")])).error.signature == "kling: no reason given"
    assert poll(good([newer("failed", message="Node 17 is gone")])).error.signature == "kling: node # is gone"


def test_unknown_task_on_both_standards():
    assert isinstance(poll(good([])), JobNotFound)
    assert isinstance(poll(bad(400, 1201, "Task not found by id/external id")), JobNotFound)
    assert kling.parse_lookup(good([]), REF) is None
    assert kling.parse_lookup(bad(400, 1201, "Task not found by id/external id"), REF) is None


def test_one_unreadable_task_does_not_hide_the_others():
    other = JobRef("2", "kling-2.6", "gen_2")
    seen = kling.parse_poll(good([newer(["odd"]), {**newer("processing"), "id": "2"}]), [JOB, other])
    assert (seen[ID].state, seen["2"].state) == (JobState.UNRECOGNISED, JobState.RUNNING)


@pytest.mark.parametrize("data", [None, "x", 3, {}, [None], ["x"], {"task_id": "another", "task_status": "failed"}])
def test_garbage_is_a_failed_read(data):
    with pytest.raises(ProviderDown):
        poll(good(data))
    with pytest.raises(ProviderDown):
        kling.parse_lookup(good(data), REF)
    with pytest.raises(ProviderDown):
        kling.parse_account(good(data))


def test_look_up_believes_only_a_task_with_our_reference():
    with pytest.raises(ProviderDown):
        kling.parse_lookup(good([{**newer("processing"), "external_id": "gen_2"}]), REF)
    two = [{**newer("processing"), "id": "2", "external_id": "gen_2"}, newer("processing")]
    assert kling.parse_lookup(good(two), REF).job_id == ID


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (bad(401, 1002), KeyRefused),
        (bad(401, 1004), KeyRefused),
        (bad(429, 1100), KeyRefused),
        (bad(403, 1103), KeyRefused),
        (bad(429, 1304), KeyRefused),
        (bad(429, 1101), OutOfCredits),
        (bad(429, 1102), OutOfCredits),
        (bad(429, 1302), Busy),
        (bad(200, 1302), Busy),
        (bad(400, 1200), ProviderDown),
        (bad(400, 1201, "pageNum is invalid"), ProviderDown),
        (bad(404, 1203), ProviderDown),
        (bad(500, 5000), ProviderDown),
        (bad(503, 5001), ProviderDown),
        (bad(504, 5002), ProviderDown),
        (bad(200, 7), ProviderDown),
        (reply(401), ProviderDown),
        (reply(403, b"<html>"), ProviderDown),
        (reply(404, b"<html>"), ProviderDown),
        (reply(429), Busy),
        (reply(502, b"<html>"), ProviderDown),
        (reply(302), ProviderDown),
        (reply(200, b""), ProviderDown),
        (reply(200, b"[" * 100_000), ProviderDown),
    ],
)
def test_errors_of_reads(answer, expected):
    for parse in (poll, kling.parse_account, lambda answer: kling.parse_lookup(answer, REF)):
        with pytest.raises(expected) as caught:
            parse(answer)
        assert type(caught.value) is expected
