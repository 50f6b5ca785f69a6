"""Signed links that expire: each lets its holder read one key until then.

Pure functions: the clock and the secret are arguments. The expiry is rounded up to a fixed grid, so that every link
to a key made within the same quarter of its lifetime is the same string: pages and caches that ask again get the
same URL.
"""

from __future__ import annotations

import hashlib
import hmac
import math

#: Keeps these signatures apart from every other use of the same secret.
DOMAIN = b"reelworks.media-link.v1"

#: The grid is a quarter of the lifetime: a link lives for 1 to 1.25 times what was asked for.
GRID_PARTS = 4


def grid_s(lifetime_s: int) -> int:
    """Seconds between two expiries: for so long every new link is the same."""
    if lifetime_s <= 0:
        raise ValueError("lifetime_s must be positive")
    return max(1, lifetime_s // GRID_PARTS)


def expiry(now: float, lifetime_s: int) -> int:
    """When a link made at `now` ends, in whole Unix seconds: at least `now + lifetime_s`, rounded up to the grid."""
    grid = grid_s(lifetime_s)
    return math.ceil((now + lifetime_s) / grid) * grid


def longest_s(lifetime_s: int) -> int:
    """The longest that a link may live from the moment when its grid began: one grid more than was asked for."""
    return lifetime_s + grid_s(lifetime_s)


def sign(key: str, *, secret: str | bytes, now: float, lifetime_s: int = 3600) -> tuple[int, str]:
    """(expires, signature) for a storage key; `now` and `expires` are Unix seconds, the signature is hex."""
    expires = expiry(now, lifetime_s)
    return expires, _signature(key, expires, secret)


def sign_until(key: str, expires: int, *, secret: str | bytes) -> str:
    """The signature of a link that ends when another one does."""
    return _signature(key, expires, secret)


def verify(key: str, expires: int | str, signature: str, *, secret: str | bytes, now: float) -> bool:
    """True if `signature` is ours for exactly this key and an expiry that lies ahead. Never raises on bad input."""
    text = str(expires)
    # int() would also take "+1", " 1" and digits of other scripts: one link, one spelling.
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and text == str(int(text))):
        return False
    if not (isinstance(signature, str) and signature.isascii()):
        return False
    genuine = hmac.compare_digest(_signature(key, int(text), secret), signature)
    return genuine and now < int(text)


def _signature(key: str, expires: int, secret: str | bytes) -> str:
    raw_secret = secret.encode() if isinstance(secret, str) else secret
    if not raw_secret:
        raise ValueError("an empty secret signs nothing")
    link_key = hmac.digest(raw_secret, DOMAIN, "sha256")
    # The number first: it holds no newline, so no (key, expires) pair can pass for another.
    message = f"{expires}\n{key}".encode("utf-8", "surrogatepass")
    return hmac.new(link_key, message, hashlib.sha256).hexdigest()
