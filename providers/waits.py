"""For how long an answer asks us to wait: `retry-after-ms`, else `retry-after` as seconds or an HTTP date."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: The longest wait in seconds that any answer may ask for. More is read as this: no rule of a provider is about more
#: than a day. Who waits may set a shorter bound.
LONGEST_ASKED_S = 86_400.0
#: A number of seconds or milliseconds as in RFC 9110, with a fraction as some send it. ASCII only, and no exponent.
_WAIT = re.compile(r"([0-9]+)(?:\.[0-9]*)?", re.ASCII)
_LONGEST_DATE = 64  # characters


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from 0 to LONGEST_ASKED_S, whatever the headers say; None if they ask for no wait.

    Names are in lower case. A date is measured against the answer's own `date`, so that no clock of ours matters (ours
    only if it has none).
    """
    for name, units_a_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = headers.get(name, "").strip()
        number = _WAIT.fullmatch(text)
        if number is not None:
            # More digits than any bound has are not converted: Python refuses very long ones.
            too_long = len(number[1].lstrip("0")) > 12
            return LONGEST_ASKED_S if too_long else min(float(text) / units_a_second, LONGEST_ASKED_S)
    until = _http_date(headers.get("retry-after", ""))
    if until is None:
        return None
    now = _http_date(headers.get("date", "")) or datetime.now(UTC)
    return min(max(0.0, (until - now).total_seconds()), LONGEST_ASKED_S)


def _http_date(text: str) -> datetime | None:
    if len(text) > _LONGEST_DATE:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
