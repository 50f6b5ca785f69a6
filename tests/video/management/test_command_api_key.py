"""manage.py api_key: what it makes works, what it ends doesn't, and each text is printed once."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import CommandError, call_command
from django.test import Client

from video.models import ApiKey


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("api_key", *arguments, stdout=out)
    return out.getvalue()


def status(key: str, **more: Any) -> int:
    return Client().get("/api/credits", HTTP_AUTHORIZATION=f"Bearer {key}", **more).status_code


def make(user: AbstractBaseUser, *more: str) -> dict[str, str]:
    made: dict[str, str] = json.loads(
        run("create", user.get_username(), "--name=shop", "--scopes=read,create", "--json", *more)
    )
    return made


def test_a_key_that_is_made_works_as_it_was_ordered(user: AbstractBaseUser) -> None:
    made = make(user, "--address=127.0.0.0/8", "--address=::1", "--daily-credits=5", "--expires-in=90d")
    assert status(made["key"]) == 200
    assert status(made["key"], REMOTE_ADDR="203.0.113.1") == 403
    key = ApiKey.objects.get(pk=made["id"])
    assert (key.scopes, key.addresses, key.daily_credits) == (["create", "read"], ["127.0.0.0/8", "::1/128"], 5)
    assert key.expires_at is not None
    assert (key.expires_at - key.made_at).days == 90


def test_a_list_shows_no_text(user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
    made = make(user)
    other = make(stranger)
    table, all_of_them = run("list", user.get_username()), json.loads(run("list", "--json"))
    assert made["id"] in table
    assert made["key"] not in table
    assert other["id"] not in table
    assert {one["user"] for one in all_of_them} == {user.get_username(), stranger.get_username()}


def test_roll_and_revoke(user: AbstractBaseUser) -> None:
    made = make(user)
    rolled = run("roll", made["id"], "--overlap=0").split()[-1]
    assert (status(made["key"]), status(rolled)) == (401, 200)
    assert "revoked" in run("revoke", made["id"])
    assert status(rolled) == 401
    for again in ("roll", "revoke"):
        with pytest.raises(CommandError, match="no such key") as caught:
            run(again, made["id"])
        assert caught.value.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "nobody", "--name=a", "--scopes=read"),
        ("create", "{user}", "--name=a", "--scopes=all"),
        ("create", "{user}", "--name= ", "--scopes=read"),
        ("create", "{user}", "--name=a", "--scopes=read", "--address=here"),
        ("create", "{user}", "--name=a", "--scopes=read", "--daily-credits=-1"),
        ("create", "{user}", "--name=a", "--scopes=read", "--expires-in=soon"),
        ("roll", "key_1", "--overlap=31d"),
        ("list", "nobody"),
    ],
)
def test_wrong_usage_makes_nothing(user: AbstractBaseUser, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*(one.format(user=user.get_username()) for one in arguments))
    assert not ApiKey.objects.exists()
