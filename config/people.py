"""Settings of how people get an account: signing up, and e-mail, which a forgotten password needs."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from environ import Env

from config import env as read
from config.env import Environment

_SMTP = re.compile(
    r"smtp(\+tls|\+ssl)?://([^\s/@:]+:[^\s/@:]+@)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
)
_TO_THE_LOG = "consolemail://"
_TIMEOUT_S = 10


def sign_up(env: Environment) -> tuple[bool, int, bool]:
    """Whether anybody may make an account, the credits that it begins with, and whether e-mail is sent."""
    credits = read.whole(env, "SIGN_UP_CREDITS", 0, least=0, most=1_000_000)
    return read.flag(env, "SIGN_UP"), credits, bool(read.text(env, "EMAIL_URL"))


def mail(env: Environment, public_base_url: str) -> dict[str, Any]:
    """Django's settings of e-mail. Raises ImproperlyConfigured.

    Links in e-mails begin with PUBLIC_BASE_URL: by the Host of a request a stranger could choose where they lead.
    """
    minutes = read.whole(env, "PASSWORD_RESET_MINUTES", 60, least=5, most=1440)
    found: dict[str, Any] = {"PASSWORD_RESET_TIMEOUT": minutes * 60}
    url, sender = read.text(env, "EMAIL_URL"), read.text(env, "EMAIL_FROM")
    if sender:
        try:
            validate_email(sender)
        except (ValidationError, ValueError):  # the latter: of a text that has no UTF-8
            raise ImproperlyConfigured("EMAIL_FROM must be an e-mail address, such as reels@example.com.") from None
    if not url:
        return {**found, "EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    if url != _TO_THE_LOG and (_SMTP.fullmatch(url) is None or int((re.search(r":(\d+)$", url) or [0, 25])[1]) > 65535):
        raise ImproperlyConfigured(
            "EMAIL_URL must be smtp+tls://user:password@host:587 (or smtp+ssl, or smtp), or consolemail:// to print "
            "e-mails; characters that mean something in an address are written as %XX."
        )
    if not public_base_url:
        raise ImproperlyConfigured("EMAIL_URL needs PUBLIC_BASE_URL: links in e-mails begin with it.")
    if not sender:
        raise ImproperlyConfigured("EMAIL_URL needs EMAIL_FROM: the address that e-mails come from.")
    return {
        **found,
        **Env.email_url_config(url),
        "DEFAULT_FROM_EMAIL": sender,
        "EMAIL_TIMEOUT": _TIMEOUT_S,
    }
