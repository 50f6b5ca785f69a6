"""Links that expire: `?_jwt=<expiry>.<HMAC>`, as opaque to a client as the real ones."""

from __future__ import annotations

import hashlib
import hmac
import secrets

PREFIX = "/out/"


class LinkSigner:
    """Signs and checks. The secret lives as long as the process, and so do the jobs that the links point to."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def token(self, subject: str, expires_at: float) -> str:
        return f"{expires_at:.3f}.{self._mac(subject, f'{expires_at:.3f}')}"

    def is_good(self, subject: str, token: str, now: float) -> bool:
        """Whether the token was made for this subject and is still alive."""
        stamp, _, mac = token.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(subject, stamp).encode()):
            return False
        return now < float(stamp)

    def _mac(self, subject: str, stamp: str) -> str:
        return hmac.new(self._secret, f"{subject}|{stamp}".encode(), hashlib.sha256).hexdigest()[:40]
