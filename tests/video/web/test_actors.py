"""Who acts: a person in the admin, behind a login of the API, or behind an API key, and from where."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client, RequestFactory

from tests.factories import make_user
from video.api.views.lists import CreditsView
from video.audit.actors import Actor
from video.models import AuditRecord, Scope
from video.web import actors
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder

pytestmark = pytest.mark.django_db


def test_of_a_page_it_is_its_user_at_an_address(user: AbstractBaseUser) -> None:
    request = RequestFactory().get("/admin/", REMOTE_ADDR="198.51.100.7")
    request.user = user
    assert actors.of_request(request) == Actor(user.get_username(), AuditRecord.Via.ADMIN, "198.51.100.7", user.pk)


def test_of_a_call_it_is_its_user_and_the_name_of_the_key(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    user, seen, get = make_user(), [], CreditsView.get
    key = api_keys.make(user, KeyOrder("night\nly", tuple(Scope.values)))[1]

    @wraps(get)
    def watched(view: Any, request: Any, **more: Any) -> Any:
        seen.append(actors.of_request(request))
        return get(view, request, **more)

    monkeypatch.setattr(CreditsView, "get", watched)
    assert Client().get("/api/credits", HTTP_AUTHORIZATION=f"Bearer {key}").status_code == 200
    assert api.get("/api/credits").status_code == 200
    with_key, with_login = seen
    assert with_key == Actor(user.get_username(), AuditRecord.Via.API, "API key night ly at 127.0.0.1", user.pk)
    assert with_login.source == "127.0.0.1"
