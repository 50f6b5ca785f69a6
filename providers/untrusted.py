"""What comes from outside (replies, call-backs, links), made safe to compare, keep and show.

The `safe_…` functions and `same_origin` take any value and never raise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

#: As long as the database keeps of a job's id.
LONGEST_ID = 120
#: Where APIs and the gateways before them put what belongs to the answer itself.
_ENVELOPES = ("data", "task", "result", "output")

_DEFAULT_PORTS = {"http": 80, "https": 443}

_AMBIGUOUS = re.compile(r"[\\\x00-\x20\x7f]")
_SHOWN_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")

#: What no row, log or page is to hold: controls (PostgreSQL refuses NUL), halves of surrogate pairs (no encoding has
#: them), and marks that turn the direction of the text around them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
#: Of an amount: what the columns for costs and balances hold behind the point.
_SMALLEST = Decimal("0.0001")
_LONGEST_AMOUNT = 400  # characters; the longest float has fewer
LARGEST_COUNT = 2**31 - 1  # of an integer column
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
    if _AMBIGUOUS.search(url) or "@" in url.split("?")[0]:
        return False
    try:
        return origin_of(url) == origin_of(base_url)
    except ValueError:
        return False


def safe_origin(url: object) -> str:
    """The origin of an absolute http(s) URL, "https://host" or "https://host:8443"; empty for everything else.

    Only plain host names and addresses are shown, and no user name: a token can stand in any other place.
    """
    if not isinstance(url, str) or _AMBIGUOUS.search(url.strip(" ")):
        return ""
    try:
        scheme, host, port = origin_of(url.strip(" "))
    except ValueError:
        return ""
    if not _SHOWN_HOST.fullmatch(host) or hide_credentials(host) != host:
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{shown}:{port}"


def hide_credentials(text: str) -> str:
    """The text without what looks like a credential, and without the (often signed) queries of its URLs."""
    return _CREDENTIAL.sub("[hidden]", _URL_QUERY.sub(r"\1?[hidden]", text))


def storable(text: str, limit: int) -> str:
    """The text as any row and any log takes it: on one line, cut, without what is in no printed text."""
    return _one_line(text)[:limit].rstrip()


def _one_line(text: str) -> str:
    """Single blanks between words; a word of nothing but unprintable characters leaves no second blank behind."""
    return " ".join(filter(None, (_UNPRINTABLE.sub("", word) for word in text.split())))


def safe_text(value: object, limit: int = 300) -> str:
    """A provider's text on one line, cut, with credentials hidden; empty for everything but a string.

    Any row and any log takes it: it holds no control character and no half of a surrogate pair.
    """
    if not isinstance(value, str):
        return ""
    line = hide_credentials(_one_line(value[: limit * 4]))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def dotted(path: object) -> str:
    """The names and numbers of a list on one line: ["body", 0, "duration"] → "body.0.duration"; else empty."""
    parts = path[:5] if isinstance(path, list) else []
    return ".".join(safe_text(str(part), 40) for part in parts if isinstance(part, str | int))


def safe_decimal(value: object) -> Decimal | None:
    """A finite, non-negative amount sent as a JSON number or a string; None for everything else.

    Rounded up to four places behind the point, which is what rows hold, so that no charge becomes nothing.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        text = str(value)  # refuses integers of more than 4,300 digits
        amount = Decimal(text if len(text) <= _LONGEST_AMOUNT else "NaN")
    except (InvalidOperation, ValueError):
        return None
    if not amount.is_finite() or not 0 <= amount < Decimal(10) ** 12:
        return None
    return amount.quantize(_SMALLEST, ROUND_UP) if amount else Decimal(0)  # 0 has no exponent then, and no sign


def safe_count(value: object) -> int | None:
    """A whole number that is not negative, at most LARGEST_COUNT; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return min(value, LARGEST_COUNT)


def safe_share(value: object) -> float | None:
    """A number from 0 to 1, of what is more 1; None for what is negative or no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return float(min(value, 1))


def safe_mapping(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one in place of everything else."""
    return value if isinstance(value, dict) else {}


def safe_id(value: object) -> str:
    """A job's id, sent as a text or as a whole number, trimmed; empty for everything that can't be one.

    Blanks and characters that don't print are refused rather than taken out: another id would name another job.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**LONGEST_ID:
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    fits = 0 < len(text) <= LONGEST_ID and text.isprintable() and " " not in text
    return text if fits else ""


def find_id(body: Mapping[str, Any], *names: str, envelope: str = "") -> str:
    """The first id under one of these names: where it is documented, else in a usual envelope; empty if there is none.

    `envelope`: the member that the documents put it into; none for the body itself.
    """
    documented = safe_mapping(body.get(envelope)) if envelope else body
    around = [safe_mapping(place.get(name)) for place in (documented, body) for name in _ENVELOPES]
    for place in (documented, *around, body):
        for name in names:
            found = safe_id(place.get(name))
            if found:
                return found
    return ""


def safe_url(value: object) -> str | None:
    """An absolute http(s) URL; None for everything else. Who may be asked for it is for the caller to decide."""
    if not isinstance(value, str) or not value.lower().startswith(("https://", "http://")) or len(value) > 8192:
        return None
    return None if _UNPRINTABLE.search(value) else value
