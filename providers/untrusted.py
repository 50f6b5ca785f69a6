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
LONGEST_URL = 8192  # characters
#: Where APIs and the gateways before them put what belongs to the answer itself.
_ENVELOPES = ("data", "task", "result", "output")

_DEFAULT_PORTS = {"http": 80, "https": 443}

_AMBIGUOUS = re.compile(r"[\\\x00-\x20\x7f]")
_SHOWN_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")

#: What no row, log or page is to hold, as a class of a regular expression. A text of Arabic or Hindi, an emoji and its
#: variants keep all that can be seen of them but the joiners.
UNPRINTABLE = (
    r"\x00-\x1f\x7f-\x9f"  # controls: terminals obey them, and PostgreSQL refuses NUL
    r"\ud800-\udfff\ufffe\uffff"  # halves of surrogate pairs, which no encoding has, and what is no character
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what turns the direction of the text around it
    r"\u00ad\u180e\u200b-\u200d\u2028\u2029\u2060-\u2065\ufeff\ufff0-\ufffb"  # what can't be seen
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # the same: shorthand, music, tags
)
_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")
_NOT_SHOWN = re.compile(rf"(?![\t\n\u200c\u200d])[{UNPRINTABLE}]")
#: Looked at, of a text of which `limit` characters are kept: so many times as many.
_READ_PER_KEPT = 4
#: Of an amount: what the columns for costs and balances hold behind the point, and what is read as this if it is more.
_SMALLEST, LARGEST_AMOUNT = Decimal("0.0001"), Decimal("999999999999.9999")
_LONGEST_AMOUNT = 400  # characters; the longest float has fewer
LARGEST_COST = Decimal("99999999.9999")  # what the columns of an attempt hold
LARGEST_COUNT = 2**31 - 1  # of an integer column
_DIGITS = re.compile(r"\+?[0-9]{300,}", re.ASCII)
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
    return _one_line(text[: limit * _READ_PER_KEPT])[:limit].rstrip()


def shortened(text: str, limit: int) -> str:
    """The same, but what is too long is cut between two words and ends with "…", so that nobody takes it for whole."""
    line = _one_line(text[: limit * _READ_PER_KEPT])
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    words, _, _ = cut.rpartition(" ")
    return (words if len(words) > limit // 2 else cut).rstrip(" ,;:.(") + "…"


def _one_line(text: str) -> str:
    """Single blanks between words; a word of nothing but unprintable characters leaves no second blank behind."""
    return " ".join(filter(None, (_UNPRINTABLE.sub("", word) for word in text.split())))


def printable(text: str) -> str:
    """A text of several lines without what a terminal would obey, what turns its lines, and what nobody sees: no
    colours, no cursor moves, no links, no new title. Tabs, ends of lines and the joiners of letters and emoji stay.

    For what is shown: rows of older versions may hold what is taken out today before a text is stored.
    """
    return _NOT_SHOWN.sub("", text)


def safe_text(value: object, limit: int = 300) -> str:
    """A provider's text as `storable` makes it, with credentials hidden; empty for everything but a string."""
    if not isinstance(value, str):
        return ""
    line = hide_credentials(_one_line(value[: limit * _READ_PER_KEPT]))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def dotted(path: object) -> str:
    """The names and numbers of a list on one line: ["body", 0, "duration"] → "body.0.duration"; else empty."""
    parts = path[:5] if isinstance(path, list) else []
    return ".".join(safe_text(str(part), 40) for part in parts if isinstance(part, str) or _is_small(part))


def _is_small(value: object) -> bool:
    return isinstance(value, int) and abs(value) <= LARGEST_COUNT


def safe_decimal(value: object) -> Decimal | None:
    """A non-negative amount sent as a JSON number or a string; None for everything else, and for NaN.

    More than LARGEST_AMOUNT, and infinity, is LARGEST_AMOUNT. Rounded up to four places behind the point, which is what
    rows hold, so that no charge becomes nothing.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, int) and value > LARGEST_AMOUNT:  # Python writes none of more than 4,300 digits
        return LARGEST_AMOUNT
    if isinstance(value, str) and len(value) > _LONGEST_AMOUNT:
        return LARGEST_AMOUNT if _DIGITS.match(value.strip()[:_LONGEST_AMOUNT]) else None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    if amount.is_nan() or amount < 0:
        return None
    if amount >= LARGEST_AMOUNT:
        return LARGEST_AMOUNT
    return amount.quantize(_SMALLEST, ROUND_UP) if amount else Decimal(0)  # 0 has no exponent then, and no sign


def bounded_cost(cost: Decimal | None) -> Decimal | None:
    """A cost as a row holds it: at most LARGEST_COST; None, not told, for what is no amount."""
    if cost is None or cost.is_nan() or cost < 0:
        return None
    return min(cost, LARGEST_COST)


def safe_count(value: object) -> int | None:
    """A whole number that is not negative, at most LARGEST_COUNT; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return min(value, LARGEST_COUNT)


def safe_share(value: object) -> float | None:
    """A number from 0 to 1, and 1 for what is more; None for what is negative or no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return float(min(value, 1))


def safe_mapping(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one in place of everything else."""
    return value if isinstance(value, dict) else {}


def safe_id(value: object) -> str:
    """A job's id, sent as a text or as a whole number, trimmed; empty for everything that can't be one.

    Blanks and characters that don't print are refused rather than taken out: another id would name another job. So are
    `.` and `..`: in an address they would name something else than a job.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**LONGEST_ID:
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    fits = 0 < len(text) <= LONGEST_ID and text.isprintable() and " " not in text and text.strip(".")
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
    """An absolute http(s) URL as the provider wrote it, without blanks round it; None for everything else.

    Who may be asked for it, and in which spelling, is for the caller to decide.
    """
    text = value.strip(" ") if isinstance(value, str) else ""
    if not text.lower().startswith(("https://", "http://")) or len(text) > LONGEST_URL:
        return None
    return None if _UNPRINTABLE.search(text) else text
