"""Answers that no provider would give, as hypothesis makes them: bodies near a good one, statuses and headers."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from providers.contract import HttpReply

JOB_ID = "job-1"
REFERENCE = "gen_0123456789abcdefghjkmnpqrs"

#: What a good answer of one provider or another has in it; one or several places of it are spoilt.
BODIES: tuple[Any, ...] = (
    {"id": JOB_ID, "estimatedCost": {"credits": 60}},
    {"id": JOB_ID, "status": "RUNNING", "progress": 0.5, "cost": {"credits": 60}},
    {"id": JOB_ID, "status": "SUCCEEDED", "output": ["https://example.com/a.mp4"], "cost": {"credits": 60}},
    {"id": JOB_ID, "status": "FAILED", "failure": "no", "failureCode": "SAFETY.INPUT", "cost": {"credits": 0}},
    {"error": "Validation of body failed", "issues": [{"path": ["duration"], "message": "no"}]},
    {
        "creditBalance": 100,
        "tier": {"models": {"gen4.5": {"maxConcurrentGenerations": 2, "maxDailyGenerations": 50}}},
        "usage": {"models": {"gen4.5": {"dailyGenerations": 3}}},
    },
    {"request_id": JOB_ID, "status_url": "https://example.com/s", "response_url": "https://example.com/r"},
    {"request_id": JOB_ID, "status": "COMPLETED", "error": "no", "error_type": "internal_server_error"},
    {"request_id": JOB_ID, "status": "IN_PROGRESS", "logs": []},
    {"video": {"url": "https://example.com/a.mp4"}},
    {"detail": [{"type": "missing", "msg": "no", "loc": ["body", "prompt"]}]},
    {"detail": "User is locked. Reason: Exhausted balance."},
    {"code": 0, "message": "", "data": {"id": JOB_ID, "task_id": JOB_ID, "status": "processing"}},
    {
        "code": 0,
        "data": [
            {
                "id": JOB_ID,
                "external_id": REFERENCE,
                "status": "succeed",
                "outputs": [{"type": "video", "url": "https://example.com/a.mp4"}],
                "billing": [{"charge_type": "unit", "amount": "1.5"}],
            }
        ],
    },
    {
        "code": 0,
        "data": {
            "task_id": JOB_ID,
            "task_status": "failed",
            "task_status_msg": "no",
            "final_unit_deduction": "1.5",
            "task_info": {"external_task_id": REFERENCE},
            "task_result": {"videos": [{"url": "https://example.com/a.mp4"}]},
        },
    },
    {"code": 0, "data": {"resource_pack_subscribe_infos": [{"status": "online", "remaining_quantity": 5.5}]}},
    {"code": 1303, "message": "parallel task over resource pack limit"},
)


class Raw:
    """A number as it stands in the JSON text."""

    def __init__(self, text: str) -> None:
        self.text = text


RAW_NUMBERS = ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "-0", "1e308", "-1", "9" * 30, "9" * 400, "9" * 5000)
ODD_TEXTS = ("", " ", "\0", "a\0b", "\ud800", "\udc00\ud800", "\u202e", "x" * 5000, "١٢", "https://\0/", "1e400")
ODD_HEADERS = (
    *("86400", "1e308", "-5", "nan", "inf", "9" * 400),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"),
)
ODD_BODIES = (b"", b"<html>", b"[" * 100_000, b"\xff\xfe{}", b"\xed\xa0\x80", b"null", b'"\xed\xa0\x80"')
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "\0", "a\0b", "\ud800", "\udc00\ud800", "\u202e", "x" * 5000, "١٢", "https://\0/", "1e400"]
    ),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.sampled_from([Raw(text) for text in RAW_NUMBERS]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
STATUSES = st.sampled_from([200, 201, 202, 204, 302, 400, 401, 402, 403, 404, 409, 422, 429, 499, 500, 503, 103, 999])
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "date", "content-type", "x-fal-error-type"]),
    st.one_of(
        TEXTS,
        st.sampled_from(ODD_HEADERS),
    ),
)


def encoded(value: Any) -> str:
    """JSON, with numbers that no encoder writes and halves of surrogate pairs as escapes."""
    match value:
        case Raw():
            return value.text
        case dict():
            return "{" + ",".join(f"{json.dumps(str(name))}:{encoded(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ",".join(map(encoded, value)) + "]"
        case _:
            return json.dumps(value)


@st.composite
def spoilt(draw: st.DrawFn, body: Any) -> Any:
    """The body with some of its values replaced."""
    if draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    if isinstance(body, dict):
        return {name: draw(spoilt(value)) for name, value in body.items()}
    if isinstance(body, list):
        return [draw(spoilt(value)) for value in body]
    return draw(VALUES) if draw(st.integers(0, 3)) == 0 else body


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body near a good one, any JSON, or no JSON."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=60))
    if kind == 1:
        return draw(st.sampled_from(ODD_BODIES))
    value = draw(VALUES) if kind == 2 else draw(spoilt(draw(st.sampled_from(BODIES))))
    return encoded(value).encode("utf-8", "surrogatepass")


REPLIES = st.builds(lambda status, headers, body: HttpReply(status, headers, body), STATUSES, HEADERS, bodies())
