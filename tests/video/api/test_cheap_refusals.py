"""What strangers send costs little to refuse, however much of it there is: counted in work, not in seconds."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from video.actions import order_input
from video.api import bodies, parsing

JSON = "application/json"
LOGIN = "/api/auth/login"
SMALL = 4096  # bytes that the answer to any refused request has at most
MANY = {f"prompt_{number}": 1 for number in range(3000)}  # about as many as a body of 64 KiB holds


def refused(client: Client, address: str, raw: bytes, **headers: Any) -> dict[str, Any]:
    reply = client.generic("POST", address, raw, content_type=JSON, **headers)
    assert reply.status_code == 400, reply.content[:500]
    assert len(reply.content) <= SMALL
    return dict(reply.json()["error"])


@pytest.fixture
def suggestions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names for which a likeness was looked for."""
    made: list[str] = []
    look = difflib.get_close_matches

    def counted(word: str, *more: Any, **options: Any) -> list[str]:
        made.append(word)
        return look(word, *more, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    return made


@pytest.mark.parametrize("address", [LOGIN, "/api/auth/refresh", "/api/video/create", "/api/video/cancel"])
def test_thousands_of_unknown_names_cost_three_suggestions_and_a_small_answer(
    api: Client, suggestions: list[str], address: str
) -> None:
    error = refused(api, address, json.dumps(MANY).encode())
    assert len(suggestions) == order_input.MOST_SUGGESTED == 3
    unknown = [one for one in error["details"] if one["field"] in MANY]
    assert [one["field"] for one in unknown] == list(MANY)[: order_input.MOST_UNKNOWN]
    assert {"field": "body", "message": "has 2990 more names that are not known here"} in error["details"]


def test_a_long_name_is_cut_and_has_no_suggestion(suggestions: list[str]) -> None:
    error = refused(Client(), LOGIN, json.dumps({"username": "a", "password": "b", "passwords" * 7000: "c"}).encode())
    assert not suggestions
    (only,) = error["details"]
    assert only["field"] == ("passwords" * 10)[: order_input.LONGEST_SHOWN]


def test_the_first_names_still_get_their_suggestion(api: Client, order: dict[str, Any]) -> None:
    error = refused(api, "/api/video/create", json.dumps({**order, "aspect_ratio": "16:9", "prompts": "x"}).encode())
    told = {one["field"]: one["message"] for one in error["details"]}
    assert told == {
        "aspect_ratio": "is not known here; did you mean aspectRatio?",
        "prompts": "is not known here; did you mean prompt?",
    }


def test_nobody_judges_a_body_before_the_login(suggestions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(parsing, "load", parsed.append)
    for address in ("create", "quote", "cancel", "retry"):
        reply = Client().generic("POST", f"/api/video/{address}", json.dumps(MANY).encode(), content_type=JSON)
        assert reply.status_code == 401
    assert not suggestions
    assert not parsed


def test_a_name_given_twice_among_thousands_is_found_in_one_look() -> None:
    compared = 0

    class Name(str):
        def __hash__(self) -> int:
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

    pairs: list[tuple[str, Any]] = [(Name(f"name{number}"), 1) for number in range(2000)]
    with pytest.raises(ValueError, match="'name1999' twice"):
        parsing._once([*pairs, (Name("name1999"), 2)])
    assert compared < 100  # each with each other would be two million


def test_a_text_that_is_too_long_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(order_input, "is_visible", lambda text: bool(looked.append(text)) or True)
    invisible = "\u00ad" * 30_000
    field = bodies.LoginSerializer(data={"username": invisible, "password": "x"})
    assert not field.is_valid()
    assert str(field.errors["username"][0]) == "has more than 150 characters"
    assert looked == ["x"]


def test_more_parameters_than_are_read_are_a_refusal(api: Client) -> None:
    reply = api.get(f"/api/video/tasks?{'a&' * 1500}")
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"\\ud800": 1}',
        b'{"\\u0000\\u001b[31m": 1}',
        b'{"": 1}',
        b'{"username": "\\ud800", "password": "x"}',
        b'{"username": "' + b"a" * 60_000 + b'", "password": "b"}',
        b'{"username": ' + b"9" * 4000 + b', "password": [[[[{}]]]]}',
        b'{"' + b"a" * 30_000 + b'": 1, "' + b"a" * 30_000 + b'": 2}',
        b'{"username": ' + b"1" * 60_000 + b"}",
        b'{"username": ' + b"[" * 60_000 + b"}",
        b'{"username": 1.' + b"0" * 60_000 + b"1}",
        b"{" + b",".join(b'"n%d": "%s"' % (n, b"x" * 500) for n in range(100)) + b"}",
        b"\x00" * 60_000,
        b"\xff" * 60_000,
    ],
    ids=range(13),
)
def test_each_hostile_body_gets_a_small_answer(raw: bytes) -> None:
    refused(Client(), LOGIN, raw)


@pytest.mark.django_db
@pytest.mark.parametrize("length", [100, 60_000])
def test_no_answer_repeats_what_was_sent_at_length(api: Client, user: AbstractBaseUser, length: int) -> None:
    long = "x" * length
    for query in (f"{long}=1", f"status={long}", f"limit={long}", f"cursor={long}", "&".join(["limit=1"] * 900)):
        reply = api.get(f"/api/video/tasks?{query}")
        assert (reply.status_code, len(reply.content) <= SMALL) == (400, True)
    for field in ("model", "policy", "aspectRatio", "imageUrl", "quality", "resolution"):
        refused(api, "/api/video/create", json.dumps({"prompt": "A cat", field: long}).encode())
    refused(api, "/api/video/create", b'{"prompt": "A cat"}', HTTP_IDEMPOTENCY_KEY="ä" * length)
