"""What holds for every address of the API: versions, ETags, compression, preflights, deprecation, times and words."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import resolve, reverse
from pytest_django import Settings
from rest_framework.request import Request

from tests.factories import accepted, claimed, make_task, make_user
from tests.video.conftest import client_of
from video.api import transfer
from video.api.base import PublicApiView, success
from video.api.deprecation import Deprecation
from video.api.urls import urlpatterns
from video.api.views import task_list
from video.engine.position import State
from video.models import CreditEntry, Generation, Stage, Status, TaskEvent, VideoTask
from video.web.front import bodies
from video.web.front.server import PASSWORDS
from video.web.versions import unversioned

PAGE = Path(__file__).parents[3] / "docs/conventions.md"
NAMED = [pattern for pattern in urlpatterns if pattern.name]


def path_of(pattern: Any) -> str:
    route = str(pattern.pattern).replace("<str:task_id>", "task_01").replace("<str:session_id>", "login_01")
    return "/" + route.removeprefix("^").replace("/?\\Z", "").replace("(?P<provider>[^/]+)", "kling")


# --- versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", NAMED, ids=lambda one: one.name)
def test_every_address_has_a_twin_with_its_version(pattern: Any) -> None:
    path = path_of(pattern)
    twin = path.replace("/api/", "/api/v1/")
    assert unversioned(twin) == path
    found, plain = resolve(twin), resolve(path)
    assert (found.func.view_class, found.kwargs) == (plain.func.view_class, plain.kwargs)
    assert found.func.view_class is pattern.callback.view_class


def test_names_stand_for_the_addresses_without_a_version() -> None:
    assert reverse("api-create") == "/api/video/create"


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v2/models", "/api/v1/v1/models"])
def test_what_is_not_there_is_told_in_the_envelope(client: Client, path: str) -> None:
    for method in ("get", "post", "delete"):
        reply = getattr(client, method)(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_a_task_of_one_is_found_by_the_other(api: Client, order: dict[str, Any]) -> None:
    made = api.post("/api/v1/video/create", order, content_type="application/json")
    assert made.status_code == 201
    query = {"taskId": made.json()["data"]["taskId"]}
    assert api.get("/api/v1/video/status", query).json() == api.get("/api/video/status", query).json()


def test_a_login_by_version_is_refreshed_by_it(client: Client, db: None) -> None:
    user = make_user()
    user.set_password("correct horse battery")
    user.save()
    body = {"username": user.get_username(), "password": "correct horse battery"}
    reply = client.post("/api/v1/auth/login", body, content_type="application/json")
    assert reply.cookies["refresh"]["path"] == "/api/v1/auth"
    assert client.post("/api/v1/auth/refresh", {}, content_type="application/json").status_code == 200
    assert client.post("/api/v1/auth/logout", {}, content_type="application/json").cookies["refresh"]["path"] == (
        "/api/v1/auth"
    )


@pytest.mark.parametrize("path", sorted(one for one in (bodies.FORMS_OF_API | PASSWORDS) if one.startswith("/api/")))
def test_the_front_knows_both_spellings(path: str) -> None:
    from video.web.front.server import Front

    front = Front(lambda environ, start: [], threads=1)
    assert front._lane(path.replace("/api/", "/api/v1/"), b"") is front._lane(path, b"") is not front._pages


# --- ETag, gzip, preflight -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/video/tasks", "/api/credits", "/api/models", "/api/video/status?taskId={}"])
def test_who_has_an_answer_already_gets_none(api: Client, user: AbstractBaseUser, path: str) -> None:
    task = make_task(user)
    path = path.format(task.pk)
    first = api.get(path)
    again = api.get(path, HTTP_IF_NONE_MATCH=f'"other", {first["ETag"]}')
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert again["Cache-Control"] == "no-store"
    accepted(task)
    make_task(user)
    assert api.get(path, HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 200


def test_no_error_has_an_etag(api: Client) -> None:
    assert "ETag" not in api.get("/api/video/status", {"taskId": "task_1"})


def test_long_answers_are_compressed_for_who_takes_that(api: Client) -> None:
    plain = api.get("/api/models")
    packed = api.get("/api/models", HTTP_ACCEPT_ENCODING="br, gzip")
    assert (packed["Content-Encoding"], packed["Vary"]) == ("gzip", plain["Vary"])
    assert gzip.decompress(packed.content) == plain.content
    assert int(packed["Content-Length"]) == len(packed.content) < len(plain.content) / 3
    assert packed["ETag"] == plain["ETag"]
    assert "Content-Encoding" not in api.get("/api/credits", HTTP_ACCEPT_ENCODING="gzip")  # a short one


@pytest.mark.parametrize(
    ("accepted_by", "takes"),
    [
        ("gzip", True),
        ("GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("*", True),
        ("br", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_who_takes_it(accepted_by: str, takes: bool) -> None:
    assert transfer.takes_gzip(accepted_by) is takes


def test_no_answer_with_a_secret_in_it_is_compressed() -> None:
    """Signed links stand beside texts that others may choose; the length of a packed answer tells of both."""
    packed = {one.name for one in NAMED if one.callback.view_class.is_compressed}
    assert packed == {"api-models", "api-usage", "api-credits", "api-queues"}
    assert "result" not in json.dumps([field.name for field in CreditEntry._meta.fields])


def test_a_preflight_is_kept_and_allows_what_the_api_reads(client: Client, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    for path in ("/api/video/status", "/api/v1/video/status"):
        asked = {"HTTP_ORIGIN": "https://app.example.com", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}
        reply = client.options(path, **asked)
        assert int(reply["Access-Control-Max-Age"]) >= 7200
        allowed = reply["Access-Control-Allow-Headers"].split(", ")
        assert {"authorization", "content-type", "idempotency-key", "if-none-match"} <= set(allowed)


# --- deprecation ---------------------------------------------------------------------------------------------------


def test_an_address_that_will_go_says_so_in_one_line() -> None:
    class Old(PublicApiView):
        deprecation = Deprecation(
            datetime(2027, 1, 1, tzinfo=UTC),
            ends=datetime(2027, 7, 1, tzinfo=UTC),
            page="https://example.com/changes",
            successor="/api/v2/models",
        )

        def get(self, request: Request) -> HttpResponse:
            return success({})

    reply = Old.as_view()(RequestFactory().get("/api/old"))
    assert reply["Deprecation"] == "@1798761600"
    assert reply["Sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
    assert reply["Link"] == (
        '<https://example.com/changes>; rel="deprecation", </api/v2/models>; rel="successor-version"'
    )
    refused = Old.as_view()(RequestFactory().post("/api/old"))
    assert (refused.status_code, refused["Deprecation"]) == (405, "@1798761600")


def test_nothing_is_deprecated_now() -> None:
    assert [one.name for one in NAMED if one.callback.view_class.deprecation] == []


# --- times and words -----------------------------------------------------------------------------------------------

RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
TIME = re.compile(r"(At|^at|^since|^until|Since|Until)$")


def times(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Each value that stands under the name of a time."""
    if isinstance(value, dict):
        return [one for key, inner in value.items() for one in times(inner, key)]
    if isinstance(value, list):
        return [one for inner in value for one in times(inner, name)]
    return [(name, value)] if TIME.search(name) else []


def test_every_time_is_in_utc_as_rfc_3339_has_it(user: AbstractBaseUser, admin_user: Any) -> None:
    task = make_task(user)
    accepted(task)
    claimed(task, Stage.POLL)
    paths = [
        *("/api/video/tasks", "/api/credits", "/api/auth/sessions", "/api/queues/status", "/api/models"),
        f"/api/queues/tasks/{task.pk}",
    ]
    found = [
        one
        for client in (client_of(user), client_of(admin_user))
        for path in paths
        for one in times(client.get(path).json())
    ]
    assert {"createdAt", "at", "startedAt", "seenAt"} & {name for name, _ in found} >= {"createdAt", "at", "startedAt"}
    assert [(name, value) for name, value in found if value is not None and not RFC_3339_UTC.fullmatch(value)] == []


#: Words that the API answers with, by the name under which the page lists them.
ENUMERATIONS: dict[str, list[str]] = {
    "status": list(task_list.STATUSES),
    "stage": Stage.values,
    "policy": VideoTask.Policy.values,
    "quality": VideoTask.Quality.values,
    "resolution": VideoTask.Resolution.values,
    "timeline[].outcome": TaskEvent.Outcome.values,
    "generations[].state": Generation.State.values,
    "credits.runs[].entries[].kind": CreditEntry.Kind.values,
    "system": ["ok", "busy", "paused"],
    "circuit": ["closed", "half_open", "open"],
}


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_the_page_lists_every_word_of_an_enumeration_and_no_other(name: str) -> None:
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}`")]
    words = re.findall(r"`([^`]+)`", row.split("|")[2])
    assert words == list(ENUMERATIONS[name])


def test_the_words_of_a_state_are_listed() -> None:
    from video.api.task_details import _STATES

    assert set(_STATES) == set(State) - {State.OVER}
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith("| `now.state`")]
    assert re.findall(r"`([^`]+)`", row.split("|")[2]) == list(dict.fromkeys(_STATES.values()))


def test_every_state_of_a_task_has_a_public_word() -> None:
    assert {status for words in task_list.STATUSES.values() for status in words} == set(Status)
