"""Sessions, their users and messages are there for pages, and are not made for calls of the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "made"), [("/api/models", False), ("/admin/login/", True)])
def test_only_pages_get_a_session(api: Client, path: str, made: bool) -> None:
    answer: Any = api.get(path)
    assert answer.status_code == 200
    request = answer.wsgi_request
    assert {hasattr(request, "session"), hasattr(request, "_messages")} == {made}
