"""The providers' own Python clients against the simulator, changed in nothing but the address.

Our adapters and our simulator could share a misunderstanding. These clients were written by the providers: what they
read without complaint is the protocol. Runway's checks every answer against its types here.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, Literal, Required, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import httpx
import pytest
import runwayml
from PIL import Image
from runwayml.lib.polling import TaskFailedError
from runwayml.types import image_to_video_create_params, text_to_video_create_params
from typing_extensions import is_typeddict

from providers.runway.dialect import schema as runway_schema
from tests.providers.simulator.client import Receiver, start, wait_for

KEY = "key_" + "0" * 128
MODEL = "fal-ai/pika/v2.2/text-to-video"
IMAGE_MODEL = "fal-ai/pika/v2.2/image-to-video"
BY_ADDRESS = [{"uri": "https://images.example.com/a.png", "position": "first"}]


def picture() -> str:
    out = io.BytesIO()
    Image.new("RGB", (640, 360)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """One simulator with TLS for both: fal's client speaks nothing else. Its authority is the only trusted one."""
    process, url = start("--tls", "--canned", "--render-seconds", "0.1", "--keys", KEY)
    try:
        assert process.stdout is not None
        authority = process.stdout.readline().removeprefix("Clients must trust ").rstrip("\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", authority)
            for name in [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
                patch.delenv(name)
            yield url
    finally:
        process.terminate()
        assert process.wait(60) == 0


def created(base: str, prompt: str) -> dict[str, Any]:
    """How many submits with this prompt came in and how many jobs they made."""
    found: dict[str, Any] = httpx.get(f"{base}/_sim/submits", params={"prompt": prompt}).json()
    return found


def force(base: str, job_id: str, state: str) -> None:
    """Make a job go on without waiting for it."""
    reply = httpx.post(f"{base}/_sim/jobs/{job_id}", json={"state": state})
    assert reply.status_code == 200, reply.text


def check_video(url: str, base: str) -> None:
    """The link works without a key and gives an MP4 file of the length that it says."""
    assert url.startswith(f"{base}/")
    reply = httpx.get(url)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.content[4:8] == b"ftyp"
    assert len(reply.content) == int(reply.headers["content-length"])


# --- Runway ---


@pytest.fixture
def runway(base: str) -> Iterator[runwayml.RunwayML]:
    with runwayml.RunwayML(api_key=KEY, base_url=base, max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
def quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_for_task_output` looks every six seconds or so."""
    monkeypatch.setattr("runwayml.lib.polling.POLL_TIME", 0.05)
    monkeypatch.setattr("runwayml.lib.polling.POLL_JITTER", 0)


def text_to_video(client: runwayml.RunwayML, prompt: str) -> Any:
    return client.text_to_video.create(model="gen4.5", prompt_text=prompt, ratio="1280:720", duration=2)


def ended(client: runwayml.RunwayML, task_id: str) -> Any:
    def look() -> Any:
        task = client.tasks.retrieve(task_id)
        return task if task.status in ("SUCCEEDED", "FAILED", "CANCELLED") else None

    return wait_for(look)


def test_runway_text_to_video(runway: runwayml.RunwayML, base: str) -> None:
    task = text_to_video(runway, "a lighthouse in a storm")
    assert uuid.UUID(task.id)
    assert task.estimated_cost.credits == 24  # two seconds of gen4.5
    done = ended(runway, task.id)
    assert (done.status, done.id, done.cost.credits) == ("SUCCEEDED", task.id, 24)
    assert abs(datetime.now(UTC) - done.created_at) < timedelta(minutes=1)
    (url,) = done.output
    check_video(url, base)


@pytest.mark.parametrize(
    ("image", "body"),
    [
        (picture(), {"model": "gen4_turbo", "ratio": "1280:720", "duration": 2}),
        (BY_ADDRESS, {"model": "gen4_turbo", "ratio": "1280:720", "prompt_text": "it turns", "duration": 2, "seed": 7}),
        (picture(), {"model": "gen4.5", "ratio": "1280:720", "prompt_text": "it turns", "duration": 2}),
        (BY_ADDRESS, {"model": "veo3.1_fast", "ratio": "1280:720", "audio": True, "duration": 4}),
    ],
)
def test_runway_image_to_video(runway: runwayml.RunwayML, base: str, image: Any, body: dict[str, Any]) -> None:
    task = runway.image_to_video.create(prompt_image=image, **body)
    (url,) = ended(runway, task.id).output
    check_video(url, base)


def test_runway_shows_every_live_status(runway: runwayml.RunwayML, base: str) -> None:
    task_id = text_to_video(runway, "a slow one [[sim throttled=60]]").id
    throttled = runway.tasks.retrieve(task_id)
    assert (throttled.status, throttled.estimated_cost.credits) == ("THROTTLED", 24)
    force(base, task_id, "running")
    running: Any = runway.tasks.retrieve(task_id)
    assert (running.status, running.estimated_cost.credits) == ("RUNNING", 24)
    assert 0 <= running.progress < 1
    pending = runway.tasks.retrieve(text_to_video(runway, "a slow one [[sim render=600]]").id)
    assert (pending.status, pending.estimated_cost.credits) == ("PENDING", 24)


def test_runway_waits_for_the_output(runway: runwayml.RunwayML, base: str, quick_waits: None) -> None:
    task = text_to_video(runway, "a lighthouse, waited for")
    check_video(task.wait_for_task_output(timeout=30).output[0], base)
    check_video(runway.tasks.retrieve(task.id).wait_for_task_output(timeout=30).output[0], base)


@pytest.mark.parametrize(
    ("directive", "code", "credits"),
    [
        ("INTERNAL", "INTERNAL", 0),
        ("INTERNAL.BAD_OUTPUT.CODE01", "INTERNAL.BAD_OUTPUT.CODE01", 0),
        ("SAFETY.INPUT.TEXT", "SAFETY.INPUT.TEXT", 24),
        ("null", None, 0),
        ("missing", None, 0),
    ],
)
def test_runway_failure(
    runway: runwayml.RunwayML, quick_waits: None, directive: str, code: str | None, credits: int
) -> None:
    task = text_to_video(runway, f"it fails [[sim fail={directive}]]")
    with pytest.raises(TaskFailedError) as caught:
        task.wait_for_task_output(timeout=30)
    failed: Any = caught.value.task_details
    assert (failed.status, failed.failure_code, failed.cost.credits) == ("FAILED", code, credits)
    assert failed.failure


def test_runway_cancel_then_delete(runway: runwayml.RunwayML) -> None:
    task_id = text_to_video(runway, "cancelled [[sim render=60]]").id
    assert runway.tasks.delete(task_id) is None
    assert runway.tasks.retrieve(task_id).status == "CANCELLED"
    runway.tasks.delete(task_id)
    with pytest.raises(runwayml.NotFoundError):
        runway.tasks.retrieve(task_id)


def test_runway_async_client_learns_of_a_cancel(base: str, quick_waits: None) -> None:
    async def cancelled() -> Any:
        async with runwayml.AsyncRunwayML(
            api_key=KEY, base_url=base, max_retries=0, _strict_response_validation=True
        ) as client:
            task = await client.text_to_video.create(
                model="veo3.1", prompt_text="never [[sim render=60]]", ratio="1080:1920", duration=4
            )
            await client.tasks.delete(task.id)
            with pytest.raises(TaskFailedError) as caught:
                await task.wait_for_task_output(timeout=30)
            return caught.value.task_details

    assert asyncio.run(cancelled()).status == "CANCELLED"


def test_runway_organization(runway: runwayml.RunwayML) -> None:
    before = runway.organization.retrieve()
    ended(runway, text_to_video(runway, "counted").id)
    after = runway.organization.retrieve()
    assert before.credit_balance - after.credit_balance == 24
    assert after.tier.max_monthly_credit_spend > 0
    assert after.tier.models["gen4.5"].max_concurrent_generations is None  # no limit
    assert after.usage.models["gen4.5"].daily_generations >= 1
    today = datetime.now(UTC).date()
    usage = runway.organization.retrieve_usage(start_date=today, before_date=today + timedelta(days=1))
    assert "gen4.5" in usage.models
    assert {(used.model, used.amount > 0) for used in usage.results[0].used_credits} >= {("gen4.5", True)}


def test_runway_bad_input(runway: runwayml.RunwayML) -> None:
    wrong: dict[str, Any] = {"model": "gen4.5", "prompt_text": "", "ratio": "16:9", "duration": 11}
    with pytest.raises(runwayml.BadRequestError, match="Validation of body failed") as caught:
        runway.text_to_video.create(**wrong)
    body: Any = caught.value.body
    assert {issue["path"][0]: issue["code"] for issue in body["issues"]} == {
        "promptText": "too_small", "ratio": "invalid_value", "duration": "too_big",
    }  # fmt: skip


def test_runway_retired_model(runway: runwayml.RunwayML) -> None:
    old: dict[str, Any] = {"model": "gen3a_turbo", "prompt_image": picture(), "prompt_text": "x", "ratio": "1280:768"}
    with pytest.raises(runwayml.BadRequestError):
        runway.image_to_video.create(**old)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400-credits", runwayml.BadRequestError),
        ("401", runwayml.AuthenticationError),
        ("429", runwayml.RateLimitError),
        ("502", runwayml.InternalServerError),
        ("503", runwayml.InternalServerError),
    ],
)
def test_runway_refusals(runway: runwayml.RunwayML, status: str, error: type[runwayml.APIStatusError]) -> None:
    with pytest.raises(error) as caught:
        text_to_video(runway, f"refused [[sim status={status}]]")
    assert caught.value.status_code == int(status[:3])
    if status == "400-credits":
        assert "enough credits" in str(caught.value)


def _sdk_bodies(params: Any) -> dict[str, dict[str, Any]]:
    """The create bodies that the package's types describe: by model, the types of the fields by their wire names."""
    bodies: dict[str, dict[str, Any]] = {}
    for body in vars(params).values():
        if not is_typeddict(body) or "model" not in body.__annotations__:
            continue
        fields: dict[str, Any] = {}
        for name, kind in get_type_hints(body, vars(params), include_extras=True).items():
            required = get_origin(kind) is Required
            kind = get_args(kind)[0] if required else kind
            notes = getattr(kind, "__metadata__", ())
            wire = next((note.alias for note in notes if getattr(note, "alias", None)), name)
            fields[wire] = (required, get_args(kind)[0] if notes else kind)
        (model,) = get_args(fields["model"][1])
        bodies[model] = fields
    return bodies


@pytest.mark.parametrize(
    ("params", "models"),
    [
        (text_to_video_create_params, runway_schema.TEXT_TO_VIDEO),
        (image_to_video_create_params, runway_schema.IMAGE_TO_VIDEO),
    ],
    ids=["text", "image"],
)
def test_runway_bodies_are_those_of_the_package(params: Any, models: dict[str, runway_schema.Model]) -> None:
    theirs = _sdk_bodies(params)
    for model, ours in models.items():
        fields = {**runway_schema.COMMON, **ours.fields}
        known = theirs[model]
        assert fields.keys() <= known.keys(), model
        assert {name for name, rule in fields.items() if rule.required} == {
            name for name, (required, _) in known.items() if required
        }, model
        for name, (_, kind) in known.items():
            if get_origin(kind) is Literal and name in ("ratio", "duration"):
                (wrong,) = fields[name].check("?", [])
                assert set(wrong["values"]) == set(get_args(kind)), (model, name)


def test_runway_bad_key(base: str) -> None:
    with (
        runwayml.RunwayML(api_key="key_of_somebody_else", base_url=base, max_retries=0) as client,
        pytest.raises(runwayml.AuthenticationError),
    ):
        client.organization.retrieve()


def test_runway_other_api_version(base: str) -> None:
    with (
        runwayml.RunwayML(api_key=KEY, base_url=base, max_retries=0, runway_version="2023-09-06") as client,
        pytest.raises(runwayml.BadRequestError, match="X-Runway-Version"),
    ):
        client.organization.retrieve()


def test_runway_client_resends_after_a_lost_reply_and_pays_twice(runway: runwayml.RunwayML, base: str) -> None:
    """Why our adapter does not submit with it: there is no idempotency key."""
    prompt = "resent by Runway's [[sim lost_reply=x1]]"
    task = text_to_video(runway.with_options(max_retries=1), prompt)
    assert ended(runway, task.id).status == "SUCCEEDED"
    found = created(base, prompt)
    assert (found["received"], found["created"]) == (2, 2)


# --- fal, where Pika is ---


@pytest.fixture(scope="module")
def fal_client(base: str) -> Iterator[ModuleType]:
    """The package reads its hosts when it is imported: a fresh import with the simulator's."""

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == "fal_client"]

    before = {name: sys.modules.pop(name) for name in loaded()}
    host = urlsplit(base).netloc
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAL_RUN_HOST", host)
        patch.setenv("FAL_QUEUE_RUN_HOST", host)
        try:
            yield importlib.import_module("fal_client")
        finally:
            for name in loaded():
                del sys.modules[name]
            sys.modules.update(before)


@pytest.fixture
def fal(fal_client: ModuleType) -> Any:
    return fal_client.SyncClient(key=KEY)


def refused(fal_client: ModuleType, call: Callable[[], Any]) -> Any:
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        call()
    return caught.value


def completed(fal_client: ModuleType, handle: Any) -> Any:
    return wait_for(lambda: status if isinstance(status := handle.status(), fal_client.Completed) else None)


def test_fal_queued_running_completed(fal_client: ModuleType, fal: Any, base: str) -> None:
    handle = fal.submit(MODEL, {"prompt": "a lighthouse [[sim render=600]]"})
    queued = handle.status()
    assert isinstance(queued, fal_client.Queued)
    assert queued.position == 0
    force(base, handle.request_id, "running")
    running = handle.status(with_logs=True)
    assert isinstance(running, fal_client.InProgress)
    assert [entry["message"] for entry in running.logs] == ["Simulated render started"]
    force(base, handle.request_id, "succeeded")
    done = handle.status()
    assert isinstance(done, fal_client.Completed)
    assert (done.error, done.error_type, done.logs) == (None, None, None)
    assert done.metrics["inference_time"] >= 0
    for result in (fal.result(MODEL, handle.request_id), handle.get()):
        assert result["video"]["content_type"] == "video/mp4"
        check_video(result["video"]["url"], base)


def test_fal_addresses_are_those_that_the_client_makes_itself(fal: Any) -> None:
    handle = fal.submit(MODEL, {"prompt": "a lighthouse, by its id"})
    own = fal.get_handle(MODEL, handle.request_id)
    for name in ("response_url", "status_url", "cancel_url"):
        assert getattr(own, name) == getattr(handle, name)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (MODEL, {"resolution": "720p", "aspect_ratio": "16:9", "duration": 5, "seed": 7, "negative_prompt": "rain"}),
        (IMAGE_MODEL, {"image_url": picture()}),
        (IMAGE_MODEL, {"image_url": "https://images.example.com/a.png"}),
    ],
)
def test_fal_subscribe(fal_client: ModuleType, fal: Any, base: str, model: str, body: dict[str, Any]) -> None:
    ids: list[str] = []
    updates: list[Any] = []
    result = fal.subscribe(
        model, {"prompt": "subscribed", **body}, with_logs=True, on_enqueue=ids.append, on_queue_update=updates.append
    )
    check_video(result["video"]["url"], base)
    assert len(ids) == 1
    assert isinstance(updates[-1], fal_client.Completed)
    assert updates[-1].logs[-1]["message"] == "Simulated render ended"


def test_fal_async_client(fal_client: ModuleType, base: str) -> None:
    async def subscribed() -> Any:
        return await fal_client.AsyncClient(key=KEY).subscribe(MODEL, {"prompt": "awaited"})

    check_video(asyncio.run(subscribed())["video"]["url"], base)


@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("content_policy_violation", 422, list),
        ("internal_server_error", 500, list),
        ("generation_timeout", 504, list),
        ("runner_scheduling_failure", 503, str),
        ("startup_timeout", 504, str),
    ],
)
def test_fal_failure(fal_client: ModuleType, fal: Any, code: str, status: int, shown: type) -> None:
    handle = fal.submit(MODEL, {"prompt": f"it fails [[sim fail={code}]]"})
    done = completed(fal_client, handle)
    assert done.error
    assert done.error_type == code
    error = refused(fal_client, handle.get)
    assert (error.status_code, error.error_type) == (status, code)
    assert isinstance(error.message, shown)
    if shown is list:
        assert error.message[0]["type"] == code
    assert error.response_headers["x-fal-request-id"] == handle.request_id


def test_fal_failure_that_only_the_result_shows(fal_client: ModuleType, fal: Any) -> None:
    handle = fal.submit(MODEL, {"prompt": "it fails [[sim fail=internal_server_error hidden_failure]]"})
    assert completed(fal_client, handle).error is None
    assert refused(fal_client, handle.get).status_code == 500


def test_fal_bad_input_fails_the_job(fal_client: ModuleType, fal: Any) -> None:
    handle = fal.submit(MODEL, {"prompt": "x", "duration": "long"})
    error = refused(fal_client, handle.get)
    assert error.status_code == 422
    assert error.message[0]["loc"] == ["body", "duration"]


def test_fal_cancel(fal_client: ModuleType, fal: Any) -> None:
    handle = fal.submit(MODEL, {"prompt": "cancelled [[sim render=60]]"})
    assert handle.cancel() is None
    done = completed(fal_client, handle)
    assert done.error_type == "client_cancelled"
    assert refused(fal_client, handle.get).status_code == 499
    assert refused(fal_client, lambda: fal.cancel(MODEL, handle.request_id)).status_code == 400


def test_fal_unknown_request(fal_client: ModuleType, fal: Any) -> None:
    for call in (fal.status, fal.cancel):
        assert refused(fal_client, lambda call=call: call(MODEL, str(uuid.uuid4()))).status_code == 404


def test_fal_unknown_model(fal_client: ModuleType, fal: Any) -> None:
    assert refused(fal_client, lambda: fal.submit("fal-ai/pika/v1/text-to-video", {"prompt": "x"})).status_code == 404


def test_fal_bad_key(fal_client: ModuleType) -> None:
    stranger = fal_client.SyncClient(key="somebody:else")
    error = refused(fal_client, lambda: stranger.submit(MODEL, {"prompt": "x"}))
    assert error.status_code == 401
    assert "Authentication is required" in error.message


def test_fal_out_of_money(fal_client: ModuleType, fal: Any) -> None:
    error = refused(fal_client, lambda: fal.submit(MODEL, {"prompt": "x [[sim status=403-balance]]"}))
    assert error.status_code == 403
    assert error.message.startswith("User is locked. Reason: Exhausted balance.")


def test_fal_server_error_has_its_type(fal_client: ModuleType, fal: Any, base: str) -> None:
    prompt = "refused by fal [[sim status=503]]"
    error = refused(fal_client, lambda: fal.submit(MODEL, {"prompt": prompt}))
    assert (error.status_code, error.error_type) == (503, "runner_scheduling_failure")
    assert created(base, prompt)["received"] == 1  # it sends only a proxy's 503 again, not one of fal's own


def test_fal_client_comes_again_after_429(fal: Any, base: str) -> None:
    prompt = "too many for fal [[sim status=429x1]]"
    fal.submit(MODEL, {"prompt": prompt})
    found = created(base, prompt)
    assert (found["received"], found["created"]) == (2, 1)


def test_fal_calls_back_where_the_client_says(fal: Any, base: str) -> None:
    receiver = Receiver()
    try:
        handle = fal.submit(MODEL, {"prompt": "called back"}, webhook_url=f"{receiver.url}?job=7&try=1")
        (call,) = receiver.wait(1)
        assert receiver.got[0][0] == "/hook?job=7&try=1"
    finally:
        receiver.close()
    assert (call["request_id"], call["status"]) == (handle.request_id, "OK")
    assert call["payload"].keys() == handle.get().keys()
    check_video(call["payload"]["video"]["url"], base)


def test_fal_client_resends_after_a_lost_reply_and_pays_twice(fal: Any, base: str) -> None:
    """Why our adapter does not submit with it."""
    prompt = "resent by fal's [[sim lost_reply=x1]]"
    fal.submit(MODEL, {"prompt": prompt}).get()
    found = created(base, prompt)
    assert (found["received"], found["created"]) == (2, 2)
