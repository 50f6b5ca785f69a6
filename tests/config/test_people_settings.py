"""EMAIL_URL and what it needs: where e-mails go is one address, and anything half is refused at the start."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import people
from config.env import Environment

HERE = "https://reels.example.com"


@pytest.fixture(autouse=True)
def sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_FROM", "reels@example.com")


def mail(monkeypatch: pytest.MonkeyPatch, url: str, base: str = HERE) -> dict[str, object]:
    monkeypatch.setenv("EMAIL_URL", url)
    return people.mail(Environment(), base)


def test_an_address_becomes_djangos_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = mail(monkeypatch, "smtp+tls://me%40example.com:p%2Fw%3A1@mail.example.com:587")
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"], found["EMAIL_USE_TLS"]) == ("mail.example.com", 587, True)
    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("me@example.com", "p/w:1")
    assert (found["DEFAULT_FROM_EMAIL"], found["PASSWORD_RESET_TIMEOUT"]) == ("reels@example.com", 3600)
    assert mail(monkeypatch, "consolemail://")["EMAIL_BACKEND"] == "django.core.mail.backends.console.EmailBackend"


def test_without_an_address_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mail(monkeypatch, "")["EMAIL_BACKEND"] == "django.core.mail.backends.dummy.EmailBackend"


@pytest.mark.parametrize(
    "url",
    [
        *("smtp://", "mail.example.com", "http://mail.example.com", "smtp://h:99999", "smtp://user@h", "smtp://h/path"),
        *("smtp://h?backend=x", "filemail:///tmp/x", "smtp+tls://u:p@h:587 "[:-1] + "x"),
    ],
)
def test_what_is_no_such_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL"):
        mail(monkeypatch, url)


def test_links_need_our_own_address_and_e_mails_a_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImproperlyConfigured, match="PUBLIC_BASE_URL"):
        mail(monkeypatch, "smtp://mail.example.com", base="")
    monkeypatch.setenv("EMAIL_FROM", "")
    with pytest.raises(ImproperlyConfigured, match="EMAIL_FROM"):
        mail(monkeypatch, "smtp://mail.example.com")
    monkeypatch.setenv("EMAIL_FROM", "nobody")
    with pytest.raises(ImproperlyConfigured, match="EMAIL_FROM"):
        mail(monkeypatch, "")
