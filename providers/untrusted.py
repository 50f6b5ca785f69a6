"""What comes from outside (replies, call-backs, links), made safe to compare, keep and show.

The `safe_…` functions and `same_origin` take any value and never raise.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}

_URL_QUERY = re.compile(r"(https?://[^\s?\"'<>]*)\?[^\s\"'<>]*", re.IGNORECASE)
_CREDENTIAL = re.compile(
    r"\b(?:bearer|key)\s+(?=\S*\d)[\w.:~+/=-]{12,}"  # an authorization header's value; words have no digit
    r"|\bkey_[0-9a-f]{16,}"  # Runway's keys
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*",  # a JWT
    re.IGNORECASE,
)


def origin_of(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) in lower case. Raises ValueError for what is no absolute http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an absolute http(s) URL")
    return parts.scheme, parts.hostname.lower(), parts.port or _DEFAULT_PORTS[parts.scheme]


def same_origin(url: str, base_url: str) -> bool:
    """Whether both have one scheme, host and port, and the first carries no user name that could hide another host.

    A backslash or a control character is refused too: parsers disagree on where the host ends then.
    """
    if re.search(r"[\\\x00-\x20\x7f]", url) or "@" in url.split("?")[0]:
        return False
    try:
        return origin_of(url) == origin_of(base_url)
    except ValueError:
        return False


def hide_credentials(text: str) -> str:
    """The text without what looks like a credential, and without the (often signed) queries of its URLs."""
    return _CREDENTIAL.sub("[hidden]", _URL_QUERY.sub(r"\1?[hidden]", text))


def safe_text(value: object, limit: int = 300) -> str:
    """A provider's text on one line, cut, with credentials hidden; empty for everything but a string."""
    if not isinstance(value, str):
        return ""
    line = hide_credentials(" ".join(value[: limit * 4].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def safe_decimal(value: object) -> Decimal | None:
    """A finite, non-negative amount sent as a JSON number or a string; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return amount if amount.is_finite() and 0 <= amount < Decimal(10) ** 12 else None


def safe_count(value: object) -> int | None:
    """A whole number that is not negative; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def safe_mapping(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one in place of everything else."""
    return value if isinstance(value, dict) else {}


def safe_url(value: object) -> str | None:
    """An absolute http(s) URL; None for everything else. Who may be asked for it is for the caller to decide."""
    if isinstance(value, str) and value.lower().startswith(("https://", "http://")) and len(value) <= 8192:
        return value
    return None
