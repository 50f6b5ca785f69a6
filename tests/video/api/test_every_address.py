"""What each address of the API refuses, asked of all of them: one that is added is asked, too."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from tests.factories import access_token, make_task, make_user
from video.api.base import PublicApiView
from video.api.urls import urlpatterns
from video.models import LoginSession, VideoTask

JSON = "application/json"
METHODS = ("get", "post", "put", "patch", "delete")
NO_SUCH = ((404, "not_found"), (400, "invalid_request"))  # the latter: the empty body is looked at first
OTHERS_TASK = {
    "api-status": "?taskId={task}",
    "api-events": "?taskId={task}",
    "api-queues-task": "",
    "api-cancel": {"taskId": "{task}"},
    "api-retry": {"taskId": "{task}"},
    "api-render": {"taskId": "{task}"},
    "api-own-task": "",
}


class Address:
    """A named address, and the methods that its view has."""

    def __init__(self, pattern: Any) -> None:
        view = pattern.callback.view_class
        self.name: str = pattern.name
        route = str(pattern.pattern).replace("<str:task_id>", "task_01").replace("<str:session_id>", "login_01")
        route = route.replace("<str:key_id>", "key_01")
        route = route.removeprefix("^").replace("/?\\Z", "").replace("(?P<provider>[^/]+)", "kling")
        self.path = f"/{route}"
        self.methods = [method for method in METHODS if hasattr(view, method)]
        self.is_public = issubclass(view, PublicApiView)
        self.takes_body = "post" in self.methods
        self.is_webhook = "webhook" in self.name


ADDRESSES = [Address(pattern) for pattern in urlpatterns if pattern.name]
PRIVATE = [address for address in ADDRESSES if not address.is_public]
FORMS = ["api-upload"]  # what they refuse is in their own test
POSTED = [one for one in ADDRESSES if one.takes_body and not one.is_webhook and one.name not in FORMS]


def each(addresses: list[Address]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("address", addresses, ids=lambda address: address.name)


def ask(address: Address, user: AbstractBaseUser | None = None, body: Any = b"{}", **more: Any) -> Any:
    """By its own method, logged in if there is a user."""
    headers = {"HTTP_AUTHORIZATION": f"Bearer {access_token(user)}"} if user else {}
    more = {"content_type": JSON, **headers, **more}
    method = more.pop("method", "POST" if address.takes_body else address.methods[0].upper())
    return Client().generic(method, address.path, body if address.takes_body else b"", **more)


def told(reply: Any) -> tuple[int, str]:
    assert "Access-Control-Allow-Origin" not in reply
    assert reply["Content-Type"] == JSON
    return reply.status_code, reply.json()["error"]["code"]


def test_all_addresses_are_here() -> None:
    assert len(ADDRESSES) > 15
    assert {address.name for address in PRIVATE} >= {"api-create", "api-status", "api-events", "api-sessions"}


@pytest.mark.django_db
@each(PRIVATE)
def test_without_a_login(address: Address) -> None:
    assert told(ask(address)) == (401, "not_authenticated")


@pytest.mark.django_db
@each(PRIVATE)
def test_with_a_login_that_has_expired(address: Address) -> None:
    claims = {"user_id": make_user().pk, "exp": datetime.now(UTC) - timedelta(seconds=1)}
    token = jwt.encode(claims, settings.SIMPLE_JWT["SIGNING_KEY"], algorithm="HS256")
    assert told(ask(address, HTTP_AUTHORIZATION=f"Bearer {token}")) == (401, "token_expired")


@pytest.mark.django_db
@each(PRIVATE)
def test_with_a_login_of_a_user_who_is_switched_off(address: Address) -> None:
    user = make_user()
    token = access_token(user)
    type(user).objects.filter(pk=user.pk).update(is_active=False)
    assert told(ask(address, HTTP_AUTHORIZATION=f"Bearer {token}")) == (401, "invalid_token")


@pytest.mark.django_db
@each(ADDRESSES)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_by_another_method(address: Address, method: str) -> None:
    if method.lower() in address.methods:
        return
    reply = Client().generic(method, address.path)
    assert told(reply) == (405, "method_not_allowed")
    assert {allowed.lower() for allowed in reply["Allow"].split(", ")} >= set(address.methods)


@pytest.mark.django_db
@each(POSTED)
@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"a": "' + b"a" * 1_100_000 + b'"}', JSON, (413, "body_too_large")),
        (b"a=b", "text/plain", (415, "unsupported_media_type")),
        (b"a=b", "application/x-www-form-urlencoded", (415, "unsupported_media_type")),
        (b"[" * 60_000, JSON, (400, "invalid_json")),
        (b'{"a": ' + b"1" * 5000 + b"}", JSON, (400, "invalid_json")),
        (b'{"a": NaN}', JSON, (400, "invalid_json")),
        (b'{"a": 1, "a": 2}', JSON, (400, "invalid_json")),
        (b'{"a": ', JSON, (400, "invalid_json")),
        (b'{"a": "\xff"}', JSON, (400, "invalid_json")),
        (b'"a"', JSON, (400, "invalid_request")),
        (b'{"nobody_knows_this": 1}', JSON, (400, "invalid_request")),
    ],
    ids=["long", "text", "form", "deep", "digits", "NaN", "twins", "cut", "bytes", "no object", "unknown"],
)
def test_with_a_body_that_is_none(address: Address, body: bytes, kind: str, expected: tuple[int, str]) -> None:
    user = make_user()
    assert told(ask(address, user, body, content_type=kind, method="POST")) == expected
    assert not VideoTask.objects.exists()
    assert not LoginSession.objects.exclude(user=user).exists()


@pytest.mark.django_db
@each([address for address in PRIVATE if "01" in address.path or "<" in address.path])
@pytest.mark.parametrize("part", ["%00", "task_%00", "x" * 300, "%F0%9F%98%80"])
def test_with_an_id_that_is_none(address: Address, part: str) -> None:
    path = re.sub(r"task_01|login_01|key_01|<str:\w+>", part, address.path)
    headers = {"HTTP_AUTHORIZATION": f"Bearer {access_token(make_user())}", "content_type": JSON}
    for method in address.methods:
        assert told(Client().generic(method.upper(), path, b"{}", **headers)) in NO_SUCH


@pytest.mark.django_db
@each([address for address in ADDRESSES if address.name in OTHERS_TASK])
def test_with_a_task_of_another_user(address: Address) -> None:
    task = make_task(make_user())
    place = OTHERS_TASK[address.name]
    body = b"{}"
    path = address.path.replace("task_01", task.pk)
    if isinstance(place, dict):
        body = f'{{"taskId": "{task.pk}"}}'.encode()
    else:
        path += place.format(task=task.pk)
    headers = {"HTTP_AUTHORIZATION": f"Bearer {access_token(make_user())}", "content_type": JSON}
    reply = Client().generic(address.methods[0].upper(), path, body if address.takes_body else b"", **headers)
    assert told(reply) == (404, "not_found")
    task.refresh_from_db()
    assert task.finished_at is None
