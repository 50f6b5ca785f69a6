"""Every address of the API, asked with every kind of API key: one that is added is asked, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from tests.factories import make_task, make_user
from video.api.base import ApiView, PublicApiView
from video.api.dialects import urls as dialects
from video.api.key_login import KeyScope
from video.api.urls import urlpatterns
from video.models import ApiKey, Scope
from video.web.logins import api_keys, key_text
from video.web.logins.api_keys import KeyOrder

JSON = "application/json"
API = Path(__file__).resolve().parents[3] / "video" / "api"
METHODS = ("get", "post", "put", "patch", "delete")
ALL = tuple(Scope.values)


class Call:
    """One method of an address that needs a login, and the scope that a key needs for it."""

    def __init__(self, pattern: Any, method: str) -> None:
        self.view: type[ApiView] = pattern.callback.view_class
        self.method, self.name = method, f"{pattern.name} {method}"
        route = str(pattern.pattern)
        for part, value in (
            ("task_id", "task_01"),
            ("session_id", "login_01"),
            ("key_id", "key_01"),
            ("pause_id", "1"),
        ):
            route = route.replace(f"<str:{part}>", value)
        self.path = f"/{route}"
        named: KeyScope = self.view.key_scope
        self.scope = named.get(method.upper()) if isinstance(named, Mapping) else named

    def told(self, key: str, path: str | None = None, body: bytes = b"{}", **more: Any) -> tuple[int, str]:
        headers = {"HTTP_AUTHORIZATION": f"Bearer {key}", "content_type": JSON, **more}
        client = Client(raise_request_exception=False)
        reply = client.generic(self.method.upper(), path or self.path, b"" if self.method == "get" else body, **headers)
        if reply["Content-Type"] != JSON:
            return reply.status_code, ""
        error = reply.json().get("error", {})
        return reply.status_code, error.get("metadata", error).get("code", "")


def calls() -> Iterator[Call]:
    for pattern in (*urlpatterns, *dialects.urlpatterns):
        view = pattern.callback.view_class  # type: ignore[union-attr]
        if issubclass(view, ApiView) and not issubclass(view, PublicApiView):
            yield from (Call(pattern, method) for method in METHODS if hasattr(view, method))


CALLS = list(calls())
OF_KEYS = [call for call in CALLS if call.scope is not None]
each = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
each_of_keys = pytest.mark.parametrize("call", OF_KEYS, ids=lambda call: call.name)


def key_of(user: AbstractBaseUser, *scopes: str, **more: Any) -> str:
    return api_keys.make(user, KeyOrder("a program", scopes or ALL, **more))[1]


@each
def test_each_view_names_the_scope_that_a_key_needs(call: Call) -> None:
    """Without a word of its own no key may use it; that is safe, but somebody has to have decided it."""
    ours = call.view.__mro__[: call.view.__mro__.index(ApiView)]
    assert any("key_scope" in vars(one) for one in ours), "name it: key_scope = Scope.…, or None for logins only"


def test_these_calls_need_these_scopes() -> None:
    found = {call.name: None if call.scope is None else call.scope.value for call in CALLS}
    spends = {name: scope for name, scope in found.items() if name in ("api-create post", "api-retry post")}
    assert set(spends.values()) == {"create"}
    assert {found["api-cancel post"], found["api-own-task delete"]} == {"manage"}
    assert {found["api-status get"], found["api-quote post"], found["api-events get"]} == {"read"}
    for name, scope in found.items():
        if "key" in name or "session" in name or "password" in name:
            assert scope is None, name


@pytest.mark.django_db
@each
def test_with_keys_that_are_not_good(call: Call) -> None:
    user = make_user(0)
    told = {
        call.told("rw_live_x"): "invalid_key",
        call.told(key_text.new()): "invalid_key",
        call.told(key_of(user, addresses=["203.0.113.0/24"])): "address_not_allowed",
    }
    expired, revoked = key_of(user, lasts=timedelta(microseconds=1)), key_of(user)
    told[call.told(expired)] = "key_expired"
    api_keys.end_all(user.pk, ApiKey.End.REVOKED)
    told[call.told(revoked)] = "key_revoked"
    assert {code: status for status, code in told} == {
        "invalid_key": 401,
        "address_not_allowed": 403,
        "key_expired": 401,
        "key_revoked": 401,
    }
    assert all(code == wanted for (_, code), wanted in told.items())


@pytest.mark.django_db
@each
def test_with_a_key_that_lacks_the_scope(call: Call) -> None:
    user = make_user(0)
    if call.scope is None:
        assert call.told(key_of(user)) == (403, "login_needed")
        return
    others = [scope for scope in ALL if scope != call.scope]
    assert call.told(key_of(user, *others)) == (403, "scope_missing")


@pytest.mark.django_db
@each_of_keys
def test_with_a_key_that_has_the_scope_and_no_other(call: Call) -> None:
    assert call.scope is not None
    user = make_user(0)
    if "pause" in call.name:  # of staff
        user = get_user_model().objects.create_superuser("operator")
    status, code = call.told(key_of(user, call.scope.value))
    assert status not in (401, 403), code
    assert status < 500


@pytest.mark.django_db
@each_of_keys
def test_with_a_task_of_another_user(call: Call) -> None:
    name, body = call.name.split()[0], b"{}"
    if "task_01" not in call.path and name not in ("api-status", "api-events", "api-cancel", "api-retry"):
        return
    task = make_task(make_user())
    path = call.path.replace("task_01", task.pk)
    if name in ("api-status", "api-events"):
        path += f"?taskId={task.pk}"
    elif name in ("api-cancel", "api-retry"):
        body = f'{{"taskId": "{task.pk}"}}'.encode()
    assert call.told(key_of(make_user(0)), path, body) == (404, "not_found")


@pytest.mark.django_db
def test_what_is_missing_is_named() -> None:
    key = key_of(make_user(), "read", "manage")
    reply = Client().post("/api/video/create", {}, content_type=JSON, HTTP_AUTHORIZATION=f"Bearer {key}")
    error = reply.json()["error"]
    assert error["details"] == {"scope": "create", "scopes": ["manage", "read"]}
    assert "lacks the scope create" in error["message"]


SPENDS = ("create.create", "create_many.create_many", "retry.retry", "retry.retry_many")


def test_whatever_spends_credits_says_by_which_key() -> None:
    """A call without it would pass by the key's limit."""
    found = 0
    for path in API.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in SPENDS:
                assert "api_key" in {keyword.arg for keyword in node.keywords}, f"{path.name}:{node.lineno}"
                found += 1
    assert found >= len(SPENDS)
