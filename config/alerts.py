"""Settings of alerts: who is told of a trouble that needs a person."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email

from config import env as read
from config.env import Environment
from video.alerts.receivers import Kind, Receiver

_SHAPES = (
    "https://host/path (signed with ALERT_SECRET), https://hooks.slack.com/services/…, slack://T…/B…/…, "
    "https://discord.com/api/webhooks/…, slack+https://host/… or discord+https://host/… for what speaks as they do, "
    "or mailto:a@b"
)
_KINDS: tuple[Kind, ...] = ("webhook", "slack", "discord")
_SLACK = re.compile(r"[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+")
_SLACK_HOSTS = {"hooks.slack.com", "hooks.slack-gov.com"}
_DISCORD_HOSTS = {"discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com"}


def receivers(env: Environment, *, sends_email: bool, private_hosts: Collection[str]) -> tuple[list[Receiver], str]:
    """Who is told, and the secret that our own webhooks are signed with. Raises ImproperlyConfigured, with the place of
    a wrong address in the list: its text may hold a token.
    """
    found = []
    for place, text in enumerate(read.words(env, "ALERT_URLS"), 1):
        one = _receiver(text, private_hosts)
        if one is None:
            raise ImproperlyConfigured(f"ALERT_URLS: the address at place {place} is none of {_SHAPES}.")
        if one.kind == "mail" and not sends_email:
            raise ImproperlyConfigured(f"ALERT_URLS: the address at place {place} needs EMAIL_URL.")
        found.append(one)
    if len({one.key for one in found}) != len(found):
        raise ImproperlyConfigured("ALERT_URLS has an address twice.")
    secret = read.text(env, "ALERT_SECRET")
    if secret and not _is_secret(secret):
        raise ImproperlyConfigured("ALERT_SECRET must be whsec_ and 24 to 64 bytes in base64, as webhooks have them.")
    if not secret and any(one.kind == "webhook" for one in found):
        raise ImproperlyConfigured("ALERT_URLS has a webhook, which ALERT_SECRET must sign: whsec_ and base64.")
    return found, secret


def after_s(env: Environment) -> float:
    """How long a trouble must last before it is told, and be away before its end is."""
    return read.number(env, "ALERT_AFTER_SECONDS", 60, least=0, most=86400)


def _receiver(text: str, private_hosts: Collection[str]) -> Receiver | None:
    scheme, _, rest = text.partition(":")
    if scheme == "mailto":
        try:
            validate_email(rest)
        except ValidationError:
            return None
        return Receiver("mail", rest)
    if scheme == "slack":
        path = rest.removeprefix("//").strip("/")
        return Receiver("slack", f"https://hooks.slack.com/services/{path}") if _SLACK.fullmatch(path) else None
    named, plus, of_link = scheme.partition("+")
    link = f"{of_link}:{rest}" if plus else text
    kind = named if plus else _kind_of(link)
    for known in _KINDS:
        if kind == known and not (plus and known == "webhook"):
            return Receiver(known, link) if _is_link(link, private_hosts) else None
    return None


def _kind_of(link: str) -> Kind | None:
    try:
        host, path = urlsplit(link).hostname, urlsplit(link).path
    except ValueError:
        return None
    if host in _SLACK_HOSTS:
        return "slack"
    if host in _DISCORD_HOSTS and path.startswith("/api/webhooks/"):
        return "discord"
    return "webhook"


def _is_link(link: str, private_hosts: Collection[str]) -> bool:
    try:
        parts = urlsplit(link)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or parts.username is not None or not link.isascii() or not link.isprintable():
        return False
    is_private = bool({parts.hostname, parts.netloc.lower()} & set(private_hosts))
    return parts.scheme == "https" or (parts.scheme == "http" and is_private)


def _is_secret(text: str) -> bool:
    try:
        return text.startswith("whsec_") and 24 <= len(base64.b64decode(text[6:], validate=True)) <= 64
    except (binascii.Error, ValueError):
        return False
