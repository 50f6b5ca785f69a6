"""Whatever a stranger answers, only a ProviderError leaves an adapter, and nothing that a database refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.contract import AccountInfo, HttpReply, JobRef, JobStatus, Provider, Submitted
from providers.errors import Busy, JobFailed, ProviderError
from providers.registry import PROVIDERS
from providers.untrusted import LONGEST_ID
from providers.waits import LONGEST_ASKED_S

ADAPTERS: tuple[Provider, ...] = tuple(entry.adapter(entry.default_base_url) for entry in PROVIDERS)
JOBS = [JobRef("7", "any", "gen_1"), JobRef("8", "any", "gen_2", image_to_video=True)]

#: Names and words of all three protocols, so that a generated body often gets past the first question.
NAMES = [
    "id", "request_id", "task_id", "data", "task", "result", "output", "outputs", "video", "videos", "url", "type",
    "status", "task_status", "task_status_msg", "task_result", "task_info", "external_id", "external_task_id", "code",
    "message", "error", "error_type", "detail", "loc", "msg", "issues", "path", "failure", "failureCode", "cost",
    "credits", "estimatedCost", "progress", "billing", "charge_type", "amount", "final_unit_deduction",
    "resource_pack_subscribe_infos", "remaining_quantity", "creditBalance", "tier", "usage", "models",
    "maxConcurrentGenerations", "dailyGenerations", "status_url", "response_url", "cancel_url",
]  # fmt: skip
WORDS = [
    "7", "8", "gen_1", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "COMPLETED", "NOT_FOUND", "succeed", "succeeded",
    "failed", "processing", "online", "unit", "INTERNAL", "SAFETY.INPUT.TEXT", "content_policy_violation",
    "risk control", "Task not found by id/external id", "already exists", "https://x.example/y", "http://[::1",
    "\ud800", "\x00", "敏感",
]  # fmt: skip
NUMBERS = st.one_of(
    st.integers(), st.sampled_from([0, 7, 1201, 1102, 1303, 10**300]), st.floats(allow_nan=True, allow_infinity=True)
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS), st.text(max_size=20))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)

OBJECTS = st.dictionaries(st.sampled_from(NAMES), TREES)
#: The members that end in a message or a row, each with any text or tree.
TEXTS = st.text(max_size=30) | st.sampled_from(["x\x00y", "x\ud800y", "x\x1b[0my", "x\ny"])
TOLD = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("7"),
        "status": st.sampled_from(["failed", "FAILED", "COMPLETED", "RUNNING"]) | TEXTS,
        "code": st.sampled_from([0, 1201, 1301, 5000]),
        **dict.fromkeys(("error", "detail", "message", "failure", "failureCode", "error_type"), TEXTS | TREES),
        **dict.fromkeys(("issues", "cost", "output", "progress", "billing", "video"), TREES),
    },
)
STRANGE_HEADERS = ["1e308", "-5", "nan", "86400", "Mon, 23 Nov 9999 10:00:00 GMT", "https://x\ud800/", "//x", "/"]


def written(tree: Any) -> bytes:
    return json.dumps(tree).encode("utf-8")


BODIES = st.one_of(
    st.binary(max_size=60),
    TREES.map(written),
    st.builds(lambda task: written({"code": 0, "data": task}), TREES),
    st.builds(
        lambda task: written({"id": "7", "request_id": "7", **task}), st.dictionaries(st.sampled_from(NAMES), TREES)
    ),
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "date", "location", "content-type", "x-fal-error-type"]),
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["1e308", "-5", "nan", "86400", "Mon, 23 Nov 9999 10:00:00 GMT", "https://x\ud800/", "//x", "/"]
        ),
    ),
)
STATUSES = st.one_of(
    st.sampled_from([200, 201, 202, 204, 302, 303, 400, 401, 402, 403, 404, 408, 422, 429, 499, 500, 503]),
    st.integers(100, 999),
)
REPLIES = st.builds(HttpReply, STATUSES, HEADERS, BODIES)


def poll_all(provider: Provider, reply: HttpReply) -> Any:
    """A poll of several jobs, which tells something of each."""
    found = provider.parse_poll(reply, JOBS)
    assert set(found) == {job.job_id for job in JOBS}
    return found


def calls(provider: Provider) -> Iterator[Callable[[HttpReply], Any]]:
    """Everything that reads a reply of this provider."""
    yield provider.parse_submit
    yield lambda reply: provider.parse_poll(reply, JOBS[:1])
    if provider.max_jobs_per_poll > 1:
        yield lambda reply: poll_all(provider, reply)
    if type(provider).read_result is not Provider.read_result:
        yield lambda reply: provider.parse_result(reply, JOBS[0])
    if provider.can_cancel:
        yield provider.parse_cancel
    if provider.can_look_up:
        yield lambda reply: provider.parse_lookup(reply, "gen_1")
    if provider.has_account_call:
        yield provider.parse_account


def fits_a_row(text: str) -> bool:
    """Whether a row and a log take this text: it has an encoding, and no control character."""
    text.encode()
    return re.search(r"[\x00-\x1f\x7f-\x9f]", text) is None


def check(told: Any) -> None:
    """What is written to a row or a log can be written there."""
    match told:
        case dict():
            for one in told.values():
                check(one)
        case Submitted():
            assert 0 < len(told.job_id) <= LONGEST_ID
            assert fits_a_row(told.job_id)
            assert all(fits_a_row(url) for url in told.urls.values())
        case JobStatus():
            assert fits_a_row(told.provider_status)
            assert told.progress is None or 0 <= told.progress <= 1
            if told.error is not None:
                check(told.error)
        case AccountInfo():
            assert told.balance is None or told.balance.is_finite()
        case ProviderError():
            assert fits_a_row(told.message)
            assert fits_a_row(told.provider_code)
            if isinstance(told, Busy):
                assert told.retry_after_s is None or 0 <= told.retry_after_s <= LONGEST_ASKED_S
            if isinstance(told, JobFailed):
                assert fits_a_row(told.signature)
                assert told.is_known or not told.another_model_could


@pytest.mark.parametrize("provider", ADAPTERS, ids=lambda provider: provider.name)
@settings(max_examples=80)
@given(reply=REPLIES)
@example(reply=HttpReply(200, {}, b"[" * 200_000))
@example(reply=HttpReply(422, {}, b'{"detail": [{"loc": [' + b"[" * 900 + b"]" * 900 + b'], "msg": "x"}]}'))
@example(reply=HttpReply(400, {}, b'{"error": "x", "issues": [{"path": [' + b"[" * 900 + b"]" * 900 + b"]}]}"))
@example(reply=HttpReply(200, {}, b'{"id": 1' + b"0" * 5000 + b"}"))
@example(reply=HttpReply(400, {}, b'{"error": "a\\u0000b\\ud800", "detail": "a\\u0000b\\ud800"}'))
@example(reply=HttpReply(400, {}, b'{"code": 1201, "message": "a\\u0000b\\ud800"}'))
@example(reply=HttpReply(301, {"location": "https://[v1.x]/"}, b""))
@example(reply=HttpReply(301, {"location": "https://x:99999/"}, b""))
def test_only_a_provider_error_leaves_an_adapter(provider: Provider, reply: HttpReply) -> None:
    for call in calls(provider):
        try:
            told = call(reply)
        except ProviderError as error:
            told = error
        check(told)
