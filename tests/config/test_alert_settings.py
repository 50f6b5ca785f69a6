"""ALERT_URLS: each shape is known, a wrong one is refused by its place, and no token is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import alerts
from config.env import Environment, load
from video.alerts.receivers import Receiver

SECRET = "whsec_" + "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return load(tmp_path)


def read(
    env: Environment, monkeypatch: pytest.MonkeyPatch, urls: str, secret: str = SECRET, *, mail: bool = True
) -> list[Receiver]:
    monkeypatch.setenv("ALERT_URLS", urls)
    monkeypatch.setenv("ALERT_SECRET", secret)
    return alerts.receivers(env, sends_email=mail, private_hosts=["10.0.0.5:8080"])[0]


@pytest.mark.parametrize(
    ("url", "kind", "target", "label"),
    [
        (
            "https://ops.example.com/hook?t=1",
            "webhook",
            "https://ops.example.com/hook?t=1",
            "webhook at ops.example.com",
        ),
        ("http://10.0.0.5:8080/x", "webhook", "http://10.0.0.5:8080/x", "webhook at 10.0.0.5"),
        ("slack://T0/B0/tok", "slack", "https://hooks.slack.com/services/T0/B0/tok", "slack at hooks.slack.com"),
        ("https://hooks.slack.com/services/T/B/t", "slack", "https://hooks.slack.com/services/T/B/t", None),
        ("https://discord.com/api/webhooks/1/tok", "discord", "https://discord.com/api/webhooks/1/tok", None),
        ("slack+https://chat.example.com/hooks/1", "slack", "https://chat.example.com/hooks/1", None),
        ("discord+https://chat.example.com/1", "discord", "https://chat.example.com/1", None),
        ("mailto:night@example.com", "mail", "night@example.com", "mail to example.com"),
    ],
)
def test_each_shape_is_known(
    env: Environment, monkeypatch: pytest.MonkeyPatch, url: str, kind: str, target: str, label: str | None
) -> None:
    (found,) = read(env, monkeypatch, url)
    assert (found.kind, found.target) == (kind, target)
    assert label is None or found.label == label
    assert "tok" not in repr(found)


@pytest.mark.parametrize(
    "urls",
    [
        "http://ops.example.com/token",
        "https://user:token@ops.example.com/",
        "ftp://ops.example.com/token",
        "slack://token",
        "mailto:token",
        "webhook+https://ops.example.com/token",
        "https:///token",
        "https://ops.example.com:port/token",
        "token",
        "https://a.example.com/token,https://a.example.com/token",
    ],
)
def test_a_wrong_one_is_refused_without_being_shown(
    env: Environment, monkeypatch: pytest.MonkeyPatch, urls: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match="ALERT_URLS") as refused:
        read(env, monkeypatch, urls)
    assert "token" not in str(refused.value)


def test_what_a_receiver_needs_is_asked_for(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in ("", "whsec_c2hvcnQ=", "plain"):
        with pytest.raises(ImproperlyConfigured, match="ALERT_SECRET"):
            read(env, monkeypatch, "https://ops.example.com/", secret)
    assert read(env, monkeypatch, "slack://T/B/t", "")
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL"):
        read(env, monkeypatch, "mailto:night@example.com", mail=False)
    monkeypatch.setenv("ALERT_AFTER_SECONDS", "-1")
    with pytest.raises(ImproperlyConfigured, match="ALERT_AFTER_SECONDS"):
        alerts.after_s(env)
