"""Every answer names its request: by the client's own word where it is well formed."""

from __future__ import annotations

import logging
import re

import pytest
from django.test import Client, RequestFactory
from pytest_django import Settings

from video.api.views.models import ModelsView
from video.infra import outage
from video.web.front import heads

MADE = re.compile(r"req_[0-9a-f]{24}")
GIVEN = "0198c7a5-6f0e-7c3b-9d2e-000000000001"


@pytest.mark.parametrize("path", ["/", "/api/models", "/api/nothing", "/healthz", "/nothing", "/storage/1/x.mp4"])
def test_each_answer_names_its_request(db: None, path: str) -> None:
    assert Client().get(path, HTTP_X_REQUEST_ID=GIVEN)["X-Request-Id"] == GIVEN
    first, second = (Client().get(path)["X-Request-Id"] for _ in range(2))
    assert MADE.fullmatch(first)
    assert first != second


@pytest.mark.parametrize("given", ["", " ", "a b", "a,b", "a\r\nSet-Cookie: x=1", "ä", "-x", "x" * 129, "<b>", "\0"])
def test_what_is_no_id_is_replaced(given: str) -> None:
    assert MADE.fullmatch(Client().get("/api/nothing", HTTP_X_REQUEST_ID=given)["X-Request-Id"])


def test_an_outage_and_a_refusal_before_django_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage.gate, "lets_through", lambda: False)
    assert Client().get("/api/models", HTTP_X_REQUEST_ID=GIVEN)["X-Request-Id"] == GIVEN
    long = RequestFactory().get("/api/x", HTTP_X_LONG="x" * 20_000, HTTP_X_REQUEST_ID=GIVEN).environ
    told: dict[str, str] = {}
    heads.bounded(lambda *_: [])(long, lambda _status, found, *_: told.update(found) or (lambda _: None))  # type: ignore[func-returns-value]
    assert told["X-Request-Id"] == GIVEN


def test_the_log_of_an_unexpected_error_has_it(
    api: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, request: object) -> None:
        raise RuntimeError("as asked")

    monkeypatch.setattr(ModelsView, "get", fails)
    with caplog.at_level(logging.ERROR):
        assert api.get("/api/models", HTTP_X_REQUEST_ID=GIVEN).status_code == 500
    assert f"of request {GIVEN}" in caplog.text


def test_a_page_of_our_front_ends_may_send_and_read_it(db: None, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    asks = {
        "HTTP_ORIGIN": "https://app.example.com",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET",
        "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "x-request-id",
    }
    assert "x-request-id" in Client().options("/api/models", **asks)["Access-Control-Allow-Headers"]
    assert "x-request-id" in Client().get("/api/models", **asks)["Access-Control-Expose-Headers"]
