"""Secrets of webhooks: made, encrypted at rest, and used to sign messages by the Standard Webhooks specification.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read 2026-11.

Encrypted with keys made from SECRET_KEY and its fallbacks, so that a copy of the database alone signs nothing. A secret
that was encrypted under a key that is no longer configured can't be read: its user rolls it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import UTC, datetime

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = 32  # the specification: 24 to 64


class SecretUnreadable(Exception):
    """It was encrypted under a SECRET_KEY that is not configured."""


def new_secret() -> str:
    """A secret as its user gets it: `whsec_…`."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def encrypted(secret: str) -> str:
    """As it is stored."""
    return _keys().encrypt(secret.encode()).decode()


def decrypted(stored: str) -> str:
    """The secret. Raises SecretUnreadable."""
    try:
        return _keys().decrypt(stored.encode()).decode()
    except InvalidToken:
        raise SecretUnreadable from None


def headers(message_id: str, body: bytes, stored_secrets: list[str], *, at: datetime | None = None) -> dict[str, str]:
    """The three headers of a message, signed with each of these secrets as stored. `at`: now, unless it is given.

    A former secret that can't be read is left out. Raises SecretUnreadable if none can.
    """
    secrets, unreadable = [], None
    for stored in stored_secrets:
        try:
            secrets.append(decrypted(stored))
        except SecretUnreadable as err:
            unreadable = err
    if not secrets:
        raise unreadable or SecretUnreadable
    return signed(message_id, body, secrets, at=at)


def signed(message_id: str, body: bytes, plain_secrets: list[str], *, at: datetime | None = None) -> dict[str, str]:
    """The same with secrets as they are given to people."""
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    signatures = [Webhook(one).sign(message_id, moment, body.decode()) for one in plain_secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _keys() -> MultiFernet:
    return MultiFernet([Fernet(_key(one)) for one in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


def _key(secret_key: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(b"reelworks webhooks " + secret_key.encode()).digest())
