"""Who calls Kling: a plain API key (both standards), or a JWT that an access/secret pair signs (older standard only).

Sources: https://kling.ai/document-api (authentication, error codes). A signature is checked when the simulator was
started with that pair in `--keys`; without any keys every access key and every signature is good. Times are real ones:
clients sign with their own clock, which the simulator's `advance_s` does not move.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any

from providers.dialect.dialect import Host
from providers.dialect.jobs import Account, fingerprint

NO_PAIRS = (
    "Authentication error. The current API does not support AK/SK; please go to the console"
    " (https://kling.ai/dev/api-key) to create API key."
)


class Unauthorized(Exception):
    """401; `code` is Kling's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def authenticate(host: Host, header: str, *, pairs: bool) -> Account:
    """The account of an Authorization header. `pairs`: whether a JWT is taken. Raises Unauthorized."""
    if not header:
        raise Unauthorized(1001, "Authorization is empty")
    scheme, _, token = header.partition(" ")
    if scheme != "Bearer" or not token:
        raise Unauthorized(1002, "Authorization is invalid")
    account: Account | None
    if token.count(".") == 2:
        if not pairs:
            raise Unauthorized(1002, NO_PAIRS)
        account = host.named_account(fingerprint(_access_key(host, token)))
    else:
        account = host.account(token)
    if account is None:
        raise Unauthorized(1002, "Authorization is invalid" if pairs else NO_PAIRS)
    return account


def _access_key(host: Host, token: str) -> str:
    signed, _, signature = token.rpartition(".")
    head, _, payload = signed.partition(".")
    header, claims = _part(head), _part(payload)
    if header.get("alg") != "HS256":
        raise Unauthorized(1002, "Authorization is invalid: alg")
    access = claims.get("iss")
    expires_at: Any = claims.get("exp")
    begins_at: Any = claims.get("nbf", 0)
    if not isinstance(access, str) or not access:
        raise Unauthorized(1002, "Authorization is invalid: iss")
    if not _is_moment(expires_at) or not _is_moment(begins_at):
        raise Unauthorized(1002, "Authorization is invalid: exp and nbf")
    secret = host.secrets.get(access)
    if secret is None and host.good_keys:
        raise Unauthorized(1002, "access key not found")
    if secret is not None:
        mac = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
        if not hmac.compare_digest(mac, _decode(signature)):
            raise Unauthorized(1000, "signature is invalid")
    now = time.time()
    if begins_at > now:
        raise Unauthorized(1003, "Authorization is not yet valid")
    if expires_at <= now:
        raise Unauthorized(1004, "Authorization has expired")
    return access


def _is_moment(value: Any) -> bool:
    # No NaN, no infinity, no endless integer.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def _part(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Unauthorized(1002, "Authorization is invalid")
    return value


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Unauthorized(1002, "Authorization is invalid") from None
