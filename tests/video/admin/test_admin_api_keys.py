"""API keys in the admin: a text is shown once, spending is never set back, and what ended stays."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.sessions.models import Session
from django.db.models import F
from django.test import Client

from tests.factories import make_user
from video.models import ApiKey
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder

LIST = "/admin/video/apikey/"
TEXT = re.compile(r"rw_live_[0-9A-Za-z]{38}")


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


def status(key: str) -> int:
    return Client().get("/api/credits", HTTP_AUTHORIZATION=f"Bearer {key}").status_code


def order(user: AbstractBaseUser, **more: Any) -> dict[str, Any]:
    return {"user": user.pk, "name": "shop", "scopes": ["read"], "addresses": "", "daily_credits": "", **more}


def page_of(key: ApiKey) -> str:
    return f"{LIST}{key.pk.replace('_', '_5F')}/change/"


def test_a_key_is_made_and_its_text_shown_once(operator: Client, user: AbstractBaseUser) -> None:
    reply = operator.post(f"{LIST}add/", order(user, addresses="127.0.0.1, 10.0.0.0/8", daily_credits="7"))
    (text,) = set(TEXT.findall(reply.content.decode()))
    assert (reply.status_code, "no-store" in reply["Cache-Control"], status(text)) == (200, True, 200)
    key = ApiKey.objects.get()
    assert (key.user_id, key.addresses, key.daily_credits) == (user.pk, ["127.0.0.1/32", "10.0.0.0/8"], 7)
    for page in (LIST, page_of(key)):
        shown = operator.get(page).content.decode()
        assert text[:12] in shown or page != LIST
        assert text not in shown
    assert not any(text in str(one.get_decoded()) for one in Session.objects.all())


@pytest.mark.parametrize(
    "wrong", [{"addresses": "here"}, {"scopes": []}, {"scopes": ["all"]}, {"daily_credits": "-1"}, {"name": ""}]
)
def test_a_wrong_order_makes_none(operator: Client, user: AbstractBaseUser, wrong: dict[str, Any]) -> None:
    assert b"errorlist" in operator.post(f"{LIST}add/", order(user, **wrong)).content
    assert not ApiKey.objects.exists()


def test_a_user_who_is_switched_off_gets_none(operator: Client) -> None:
    reply = operator.post(f"{LIST}add/", order(make_user(is_active=False)), follow=True)
    assert "can&#x27;t have keys" in reply.content.decode()
    assert not ApiKey.objects.exists()


def test_a_change_sets_what_was_changed_and_nothing_else(
    operator: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_keys.make(user, KeyOrder("a", ["read"]))
    key, change = ApiKey.objects.get(), api_keys.change

    def spends_meanwhile(key_id: str, **columns: Any) -> bool:
        ApiKey.objects.update(spent_credits=F("spent_credits") + 10)
        return change(key_id, **columns)

    monkeypatch.setattr(api_keys, "change", spends_meanwhile)
    operator.post(page_of(key), order(user, name="b", scopes=["read", "create"], daily_credits="50"))
    key.refresh_from_db()
    assert (key.name, key.scopes, key.daily_credits, key.spent_credits) == ("b", ["read", "create"], 50, 10)


def test_roll_and_revoke(operator: Client, user: AbstractBaseUser) -> None:
    old = api_keys.make(user, KeyOrder("a", ["read"]))[1]
    key = ApiKey.objects.get()
    shown = operator.post(LIST, {"action": "roll", "_selected_action": [key.pk]}).content.decode()
    (new,) = set(TEXT.findall(shown))
    assert (status(old), status(new)) == (200, 200)
    operator.post(LIST, {"action": "revoke", "_selected_action": [key.pk]})
    assert (status(old), status(new)) == (401, 401)
    key.refresh_from_db()
    assert key.end_reason == "operator"
    assert operator.post(page_of(key), order(user, name="b")).status_code == 403


def test_all_keys_of_a_user_are_revoked_at_once(operator: Client, user: AbstractBaseUser) -> None:
    texts = [api_keys.make(user, KeyOrder("a", ["read"]))[1] for _ in range(2)]
    other = api_keys.make(make_user(), KeyOrder("a", ["read"]))[1]
    operator.post("/admin/auth/user/", {"action": "revoke_keys", "_selected_action": [user.pk]})
    assert [status(text) for text in (*texts, other)] == [401, 401, 200]
