"""Who calls Kling: a plain API key (both standards), or a JWT that an access/secret pair signs (older standard only).

Sources: https://kling.ai/document-api (authentication, error codes). A signature is checked when the simulator was
started with that pair in `--keys`; without any keys every access key and every signature is good. Times are real ones:
clients sign with their own clock, which the simulator's `advance_s` does not move.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from providers.dialect.dialect import Host
from providers.dialect.jobs import Account, fingerprint
from providers.kling.dialect.schema import Invalid

NO_PAIRS = (
    "Authentication error. The current API does not support AK/SK; please go to the console"
    " (https://kling.ai/dev/api-key) to create API key."
)


def authenticate(host: Host, header: str, *, pairs: bool) -> Account:
    """The account of an Authorization header. `pairs`: whether a JWT is taken. Raises Invalid."""
    if not header:
        raise Invalid("Authorization is empty", 1001)
    scheme, _, token = header.partition(" ")
    if scheme != "Bearer" or not token:
        raise Invalid("Authorization is invalid", 1002)
    account: Account | None
    if token.count(".") == 2:
        if not pairs:
            raise Invalid(NO_PAIRS, 1002)
        account = host.named_account(fingerprint(_access_key(host, token)))
    else:
        account = host.account(token)
    if account is None:
        raise Invalid("Authorization is invalid" if pairs else NO_PAIRS, 1002)
    return account


def _access_key(host: Host, token: str) -> str:
    signed, _, signature = token.rpartition(".")
    head, _, payload = signed.partition(".")
    header, claims = _part(head), _part(payload)
    if header.get("alg") != "HS256":
        raise Invalid("Authorization is invalid: alg", 1002)
    access = claims.get("iss")
    expires_at: Any = claims.get("exp")
    begins_at: Any = claims.get("nbf", 0)
    if not isinstance(access, str) or not access:
        raise Invalid("Authorization is invalid: iss", 1002)
    if not _is_moment(expires_at) or not _is_moment(begins_at):
        raise Invalid("Authorization is invalid: exp and nbf", 1002)
    secret = host.secrets.get(access)
    if secret is None and host.good_keys:
        raise Invalid("access key not found", 1002)
    if secret is not None:
        mac = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
        if not hmac.compare_digest(mac, _decode(signature)):
            raise Invalid("signature is invalid", 1000)
    now = time.time()
    if begins_at > now:
        raise Invalid("Authorization is not yet valid", 1003)
    if expires_at <= now:
        raise Invalid("Authorization has expired", 1004)
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
        raise Invalid("Authorization is invalid", 1002)
    return value


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise Invalid("Authorization is invalid", 1002) from None
