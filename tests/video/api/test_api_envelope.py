"""Whatever goes wrong under /api is one envelope with the right status."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from pytest_django import Settings

from video.actions import create
from video.models import VideoTask

CREATE = "/api/video/create"
JSON = "application/json"


def error_of(reply: Any, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.content
    body = reply.json()
    assert set(body) == {"success", "error"}
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "details"}
    assert reply["Content-Type"] == "application/json"
    assert reply["Cache-Control"] == "no-store"
    return dict(body["error"])


@pytest.mark.parametrize(
    "address", ["/api", "/api/", "/api/nothing", "/api/video/create/", "/api/queues/nothing", "/api/a\nb"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_unknown_address_is_404_for_every_method(method: str, address: str) -> None:
    reply = Client().generic(method, address)
    if method == "HEAD":
        assert reply.status_code == 404
    else:
        assert error_of(reply, 404)["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "address"), [("GET", CREATE), ("DELETE", CREATE), ("POST", "/api/video/status"), ("OPTIONS", CREATE)]
)
def test_other_methods_are_405(api: Client, method: str, address: str) -> None:
    reply = api.generic(method, address)
    assert error_of(reply, 405)["code"] == "method_not_allowed"
    assert reply["Allow"]


BAD_JSON = [
    b"{",
    b"not json",
    b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": NaN}',
    b'{"prompt": Infinity}',
    b'{"prompt": 1e999}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    b"[" * 60_000,
    b'{"a":' * 12_000,
    '{"prompt": "é"}'.encode("latin-1"),
    b'\xef\xbb\xbf\xef\xbb\xbf{"prompt": "a"}',
    b'{"prompt": "a"} trailing',
    b'{"prompt": "a\nb"}',
]


@pytest.mark.parametrize("raw", BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_json_is_400(api: Client, raw: bytes) -> None:
    assert error_of(api.generic("POST", CREATE, raw, content_type=JSON), 400)["code"] == "invalid_json"
    assert not VideoTask.objects.exists()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_json_in_another_unicode_is_told_so(api: Client, encoding: str) -> None:
    error = error_of(api.generic("POST", CREATE, '{"prompt": "a"}'.encode(encoding), content_type=JSON), 400)
    assert error["code"] == "invalid_json"
    assert error["message"] == f"The body is in {encoding.upper()}; send the JSON in UTF-8."


def test_what_is_no_utf_8_and_no_number_is_told_so(api: Client) -> None:
    latin = error_of(api.generic("POST", CREATE, '{"prompt": "é"}'.encode("latin-1"), content_type=JSON), 400)
    assert latin["message"] == "The body is not in UTF-8 (see its byte 13); send the JSON in UTF-8."
    long = error_of(api.generic("POST", CREATE, b'{"seed": ' + b"9" * 5000 + b"}", content_type=JSON), 400)
    assert long["message"] == "The body has a number with too many digits."


@pytest.mark.parametrize("address", [CREATE, "/api/video/quote"])
def test_a_byte_order_mark_before_the_json_is_passed_over(api: Client, address: str) -> None:
    reply = api.generic("POST", address, b'\xef\xbb\xbf{"prompt": "A cat"}', content_type=JSON)
    assert reply.status_code in (200, 201), reply.content


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"text"', b"5", b"true"])
def test_a_body_that_is_no_object_is_400(api: Client, raw: bytes) -> None:
    error = error_of(api.generic("POST", CREATE, raw, content_type=JSON), 400)
    assert (error["code"], error["details"][0]["field"]) == ("invalid_request", "body")


def test_long_body_is_413_before_it_is_parsed(api: Client, settings: Settings) -> None:
    raw = b'{"prompt": "' + b"a" * settings.MAX_BODY_BYTES + b'"}'
    assert error_of(api.generic("POST", CREATE, raw, content_type=JSON), 413)["code"] == "body_too_large"


def test_body_of_exactly_the_limit_is_read(api: Client, settings: Settings) -> None:
    raw = b'{"prompt": "A cat"}'.ljust(settings.MAX_BODY_BYTES)
    assert api.generic("POST", CREATE, raw, content_type=JSON).status_code == 201


def test_streamed_body_is_asked_for_its_length(api: Client) -> None:
    reply = api.generic("POST", CREATE, b"", content_type=JSON, HTTP_TRANSFER_ENCODING="chunked")
    assert error_of(reply, 411)["code"] == "length_required"


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_415(api: Client, kind: str) -> None:
    reply = api.generic("POST", CREATE, b'{"prompt": "A cat"}', content_type=kind)
    assert error_of(reply, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("address", [CREATE, "/api/video/upload"])
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "identity, x"])
def test_a_compressed_body_is_told_to_come_plain(api: Client, address: str, coding: str) -> None:
    body = gzip.compress(b'{"prompt": "A cat"}')
    reply = api.generic("POST", address, body, content_type=JSON, HTTP_CONTENT_ENCODING=coding)
    assert error_of(reply, 415)["code"] == "unsupported_encoding"


@pytest.mark.parametrize("coding", ["identity", " Identity ", ""])
def test_a_plain_body_may_say_so(api: Client, coding: str) -> None:
    reply = api.generic("POST", CREATE, b'{"prompt": "A cat"}', content_type=JSON, HTTP_CONTENT_ENCODING=coding)
    assert reply.status_code == 201


def test_content_type_may_carry_a_charset(api: Client) -> None:
    reply = api.generic("POST", CREATE, b'{"prompt": "A cat"}', content_type="Application/JSON; charset=utf-8")
    assert reply.status_code == 201


def test_any_accept_header_gets_json(api: Client) -> None:
    for accept in ("text/html", "application/xml", "image/*;q=2"):
        error_of(api.get("/api/video/status?format=api", HTTP_ACCEPT=accept), 400)


def test_a_bug_is_500_with_a_number_and_nothing_else(
    api: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(create, "create", broken)
    reply = api.post(CREATE, order, content_type=JSON)
    error = error_of(reply, 500)
    assert error["code"] == "internal_error"
    assert b"secret" not in reply.content
    assert error["details"]["errorId"] in caplog.text
    assert "secret detail" in caplog.text


def test_database_away_is_503_with_retry_after(
    api: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("connection to 10.0.0.7 refused")

    monkeypatch.setattr(create, "create", away)
    reply = api.post(CREATE, order, content_type=JSON)
    assert error_of(reply, 503)["code"] == "unavailable"
    assert reply["Retry-After"]
    assert b"10.0.0.7" not in reply.content


def test_unknown_host_is_an_envelope_too() -> None:
    error_of(Client().get("/api/video/status", HTTP_HOST="evil.example"), 400)


def test_failing_middleware_is_an_envelope_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from video.api.base import UnknownAddress

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(UnknownAddress, "dispatch", broken)
    reply = Client(raise_request_exception=False).get("/api/nothing")
    error_of(reply, 500)
    assert b"secret" not in reply.content


def test_healthz_asks_nobody(client: Client) -> None:
    # Without the `db` fixture any query would raise.
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("simulated", [True, False])
def test_front_page_says_loudly_when_videos_are_simulated(client: Client, settings: Settings, simulated: bool) -> None:
    settings.SIMULATE = simulated
    page = client.get("/").content.decode()
    assert ("All videos are simulated" in page) is simulated
    assert 'href="/admin/"' in page


def test_several_wrong_fields_are_a_sentence_each(api: Client) -> None:
    wrong = {"prompt": "", "durationSeconds": "long", "seed": "x", "quality": "best", "policy": "none"}
    told = error_of(api.post("/api/video/create", wrong, content_type="application/json"), 400)
    assert len(told["details"]) == 5
    said = [f"{one['field']}: {one['message']}" for one in told["details"][:3]]
    assert told["message"] == " ".join(
        [*(one if one[-1] in ".?" else f"{one}." for one in said), "And 2 more, see details."]
    )
    one = error_of(api.post("/api/video/create", {"prompt": ""}, content_type="application/json"), 400)
    assert one["message"] == f"{one['details'][0]['field']}: {one['details'][0]['message']}"
