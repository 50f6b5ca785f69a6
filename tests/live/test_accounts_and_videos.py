"""The real providers. Nothing runs unless its key is given, and nothing is spent unless LIVE_SPEND=1 is given too.

    LIVE_RUNWAY_API_KEY=… LIVE_PIKA_API_KEY=… LIVE_KLING_API_KEY=… [LIVE_SPEND=1] make test TESTS=tests/live

The names differ from the product's own on purpose: the suite never reads those, so no key is used by accident.
"""

from __future__ import annotations

import os
import time
import uuid
from decimal import Decimal

import pytest
import requests

from providers import catalogue
from providers.contract import GenerationRequest, JobRef, JobState, Provider, StartImage
from providers.errors import JobNotFound, KeyRefused
from providers.http import Sender
from providers.models import Model
from providers.registry import BY_NAME
from tests.pictures import picture

pytestmark = pytest.mark.live

IMAGE = StartImage("image/jpeg", picture(1280, 720, "JPEG"))


def key_for(provider: str) -> str:
    key = os.environ.get(f"LIVE_{provider.upper()}_API_KEY", "").strip()
    if not key:
        pytest.skip(f"LIVE_{provider.upper()}_API_KEY is not set")
    return key


def tools(provider: str) -> tuple[Provider, Sender]:
    entry = BY_NAME[provider]
    adapter = entry.adapter(os.environ.get(f"LIVE_{entry.base_url_setting}", entry.default_base_url))
    return adapter, Sender(adapter.base_url)


def cheapest(provider: str) -> GenerationRequest:
    """The cheapest video that the provider makes, with an image where its model wants one."""

    def price(model: Model) -> Decimal:
        return min(model.price_usd_per_s.values()) * min(model.durations_s)

    model = min((one for one in catalogue.MODELS if one.provider == provider), key=price)
    return GenerationRequest(
        model=model.id,
        prompt="A paper boat on a pond, still camera",
        duration_s=min(model.durations_s),
        aspect_ratio="16:9",
        image_url=None if model.text else "https://images.example.com/boat.jpg",
        image=None if model.text else IMAGE,
        resolution=min(model.price_usd_per_s, key=lambda name: model.price_usd_per_s[name]),
    )


@pytest.mark.parametrize("provider", ["runway", "kling"])
def test_the_account_call_is_understood(provider: str) -> None:
    key = key_for(provider)
    adapter, sender = tools(provider)
    info = adapter.parse_account(sender.read(adapter.build_account(key=key), deadline_s=30))
    assert info.balance is not None
    assert info.balance >= 0
    if provider == "runway":
        assert info.limits, "Runway told no limits: has its answer changed?"


@pytest.mark.parametrize("provider", ["runway", "kling"])
def test_a_wrong_key_is_refused_as_such(provider: str) -> None:
    key_for(provider)
    adapter, sender = tools(provider)
    wrong = "key_" + "0" * 128 if provider == "runway" else "0" * 32
    with pytest.raises(KeyRefused):
        adapter.parse_account(sender.read(adapter.build_account(key=wrong), deadline_s=30))


@pytest.mark.parametrize("provider", sorted(BY_NAME))
def test_one_cheap_video_from_submit_to_file(provider: str) -> None:
    key = key_for(provider)
    if os.environ.get("LIVE_SPEND") != "1":
        pytest.skip("LIVE_SPEND=1 is not set: this test buys a video")
    adapter, sender = tools(provider)
    request, reference = cheapest(provider), f"live-{uuid.uuid4().hex}"
    submitted = adapter.parse_submit(
        sender.submit(adapter.build_submit(request, key=key, reference=reference), deadline_s=60)
    )
    job = JobRef(
        job_id=submitted.job_id,
        model=request.model,
        reference=reference,
        image_to_video=request.image_url is not None,
        urls=submitted.urls,
    )
    print(f"{provider} {request.model}: job {job.job_id}")
    if adapter.can_look_up:
        lookup = adapter.build_lookup(reference, key=key, image_to_video=job.image_to_video)
        found = adapter.parse_lookup(sender.read(lookup, deadline_s=30), reference)
        assert found is None or found.job_id == job.job_id  # it may show a little late
    deadline = time.monotonic() + catalogue.BY_ID[request.model].longest_render_s
    while True:
        assert time.monotonic() < deadline, f"{provider} has not finished job {job.job_id}"
        time.sleep(adapter.min_poll_interval_s)
        status = adapter.parse_poll(sender.read(adapter.build_poll([job], key=key), deadline_s=30), [job])[job.job_id]
        assert not isinstance(status, JobNotFound)
        assert status.state is not JobState.UNRECOGNISED, status.provider_status
        if status.state is JobState.RESULT_READY:
            status = adapter.parse_result(sender.read(adapter.build_result(job, key=key), deadline_s=30), job)
        if status.state in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}:
            break
    assert status.state is JobState.SUCCEEDED, status.error
    assert status.result_url
    with requests.get(status.result_url, timeout=60, stream=True) as reply:
        assert reply.status_code == 200
        assert b"ftyp" in next(reply.iter_content(64))
