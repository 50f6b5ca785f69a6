"""One line a request: its route, its user and its id, and never what it was asked with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client, RequestFactory
from pytest_django import Settings

from tests.factories import make_task
from tests.video.conftest import client_of
from video.web.front import heads

pytestmark = pytest.mark.django_db


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "reelworks.access" in line]


def test_a_request_is_one_line_without_what_it_was_asked_with(
    user: AbstractBaseUser, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_task(user)
    asked = {"HTTP_X_REQUEST_ID": "mine-1", "HTTP_AUTHORIZATION": "Basic canary", "HTTP_REFERER": "https://h/?canary"}
    answer = client_of(user).get(f"/api/video/status?taskId={task.pk}", **asked)
    (line,) = lines(capsys)
    assert " INFO reelworks.access GET api-status 200 " in line
    assert f" {len(answer.content)} bytes user={user.pk} address=127.0.0.1 request=mine-1" in line
    assert "canary" not in line
    assert task.pk not in line


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/storage/canary/x.mp4?sig=canary", "media", 403),
        ("/canary?canary=1", "none", 404),
        ("/static/reelworks/canary.css", "static", 404),
        ("/admin/reset/canary/canary/", "password_reset_confirm", 200),
        ("/healthz?canary", "healthz", 200),
    ],
)
def test_no_path_and_no_query_is_in_it(
    path: str, route: str, status: int, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.LOG_FORMAT = "json"
    Client().get(path, REMOTE_ADDR="10.0.0.7", HTTP_X_FORWARDED_FOR="canary")
    (line,) = lines(capsys)
    shown: dict[str, Any] = json.loads(line)
    assert (shown["route"], shown["status"], shown["user"], shown["address"]) == (route, status, None, "10.0.0.7")
    assert shown["message"] == f"GET {route} {status}"
    assert "canary" not in line


def test_what_is_refused_before_django_has_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    long = RequestFactory().get("/api/x", HTTP_X_LONG="canary" * 9_000, HTTP_X_REQUEST_ID="mine-2").environ
    heads.bounded(lambda *_: [])(long, lambda *_: lambda _: None)  # type: ignore[arg-type]
    (line,) = lines(capsys)
    assert " GET refused 431 " in line
    assert line.endswith("request=mine-2")
    assert "canary" not in line


@pytest.mark.parametrize(("wanted", "seen"), [("errors", ["404"]), ("off", [])])
def test_fewer_lines_by_setting(
    wanted: str, seen: list[str], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.ACCESS_LOG = wanted
    Client().get("/healthz")
    Client().get("/nothing")
    assert [line.split("none ")[1].split(" ")[0] for line in lines(capsys)] == seen
