"""Orders whose prompt shows nothing, and links to images in every way in which people write them."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from pytest_django import Settings

from tests.factories import make_user
from video.credits import ledger
from video.models import CreditEntry, VideoTask

JSON = "application/json"
#: Six kinds of what nobody sees; all kinds are in the tests of `visible_text`.
INVISIBLE = ("\u200b\u200b", "\ufeff", "\u3164", "\u2800 \u2800", "\ufe0f", "\u0301")


def post(client: Client, body: dict[str, Any], path: str = "create") -> Any:
    return client.post(f"/api/video/{path}", body, content_type=JSON)


def told(reply: Any) -> dict[str, str]:
    """The message of each wrong field."""
    assert reply.status_code == 400, reply.content
    return {one["field"]: one["message"] for one in reply.json()["error"]["details"]}


def nothing_was_made() -> bool:
    return not (VideoTask.objects.exists() or CreditEntry.objects.exclude(kind=CreditEntry.Kind.GRANT).exists())


@pytest.mark.parametrize("text", INVISIBLE)
@pytest.mark.parametrize("path", ["create", "quote"])
@pytest.mark.parametrize("field", ["prompt", "negativePrompt"])
def test_a_text_that_nobody_can_see_is_refused_before_any_debit(
    api: Client, order: dict[str, Any], text: str, path: str, field: str
) -> None:
    assert "can be seen" in told(post(api, {**order, field: text}, path))[field]
    assert nothing_was_made()


@pytest.mark.django_db
@pytest.mark.parametrize("text", INVISIBLE)
def test_the_command_refuses_it_too(text: str) -> None:
    user = make_user()
    with pytest.raises(CommandError, match="prompt: must have a character that can be seen"):
        call_command("generate", text, "--user", user.get_username(), stdout=StringIO())
    assert nothing_was_made()


def test_invisible_characters_beside_visible_ones_are_kept(api: Client, order: dict[str, Any]) -> None:
    prompt = "\u200e👩\u200d🚀 e\u0301\ufeff"
    assert post(api, {**order, "prompt": prompt}).status_code == 201
    assert VideoTask.objects.get().prompt == prompt


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("https://bücher.example/katze.jpg", "https://xn--bcher-kva.example/katze.jpg"),
        ("https://example.com/Füße.png", "https://example.com/F%C3%BC%C3%9Fe.png"),
        ("https://example.com/mein bild.png", "https://example.com/mein%20bild.png"),
        (" https://例え.テスト/猫.jpg?x=ü ", "https://xn--r8jz45g.xn--zckzah/%E7%8C%AB.jpg?x=%C3%BC"),
        ("https://example.com/F%C3%BC.png?sig=a%2Fb", "https://example.com/F%C3%BC.png?sig=a%2Fb"),
    ],
)
def test_a_link_is_stored_as_browsers_send_it(
    api: Client, user: AbstractBaseUser, order: dict[str, Any], written: str, stored: str
) -> None:
    assert post(api, {**order, "imageUrl": written}).status_code == 201
    assert VideoTask.objects.get().image_url == stored
    assert ledger.balance(user.pk) == 990


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("bücher.example/katze.jpg", "must begin with https://, such as https://example.com/cat.jpg"),
        ("https://i❤.example/katze.jpg", "write the name in its ASCII form (xn--…)"),
        ("https://example.com/a\nb.jpg", "a line break"),
        ("https://１２７．０．０．１/a.jpg", "not a public address"),
        ("https://bücher.local/a.jpg", "a host name of a local network"),
        ("http://bücher.example/a.jpg", "only https links are followed"),
        ("https://exa mple.com/a.jpg", "characters in it that a link may not hold"),
    ],
)
def test_a_link_that_is_refused_is_told_what_would_be_right(
    api: Client, order: dict[str, Any], written: str, says: str
) -> None:
    message = told(post(api, {**order, "imageUrl": written}))["imageUrl"]
    assert message.startswith("must be a public https link: ")
    assert says in message
    assert nothing_was_made()


def test_an_allowed_private_host_may_be_written_with_blanks_and_letters(
    api: Client, order: dict[str, Any], settings: Settings
) -> None:
    settings.PRIVATE_HOSTS_ALLOWED = ["images.internal", "xn--bcher-kva.internal"]
    for url in ("http://images.internal/mein bild.jpg", "http://bücher.internal/a.jpg"):
        assert post(api, {**order, "imageUrl": url}).status_code == 201
