"""HTTP Range (RFC 9110 §14), as a pure function: header in, decision out. The view that sends bytes lives elsewhere.

Several ranges in one header are answered with the whole file: the RFC lets a server ignore Range, no player needs
multipart/byteranges, and many small overlapping ranges are a known way to make a server work hard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from django.utils.http import parse_http_date_safe

_RANGE = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
#: No file has so many bytes that more digits are needed. Python's int() takes time with the square of their number.
_MOST_DIGITS = 18


@dataclass(frozen=True)
class RangeDecision:
    """What to send. `status` is 200, 206 or 416; `start` and `length` are bytes (0 and 0 with 416)."""

    status: int
    start: int
    length: int
    size_bytes: int

    @property
    def content_range(self) -> str | None:
        """The Content-Range header, which 206 and 416 carry."""
        if self.status == 206:
            return f"bytes {self.start}-{self.start + self.length - 1}/{self.size_bytes}"
        if self.status == 416:
            return f"bytes */{self.size_bytes}"
        return None


def decide(
    range_header: str | None,
    size_bytes: int,
    *,
    if_range: str | None = None,
    etag: str | None = None,
    modified: int | None = None,
) -> RangeDecision:
    """Decide for a GET of a file of `size_bytes`. `etag` is ours, quoted and strong; `modified` is in Unix seconds.

    A header that is malformed, in another unit, or names several ranges is ignored (200), as the RFC asks. So is one
    whose `if_range` is neither our ETag nor, to the second, the time when the file was made.
    """
    whole = RangeDecision(200, 0, size_bytes, size_bytes)
    if range_header is None or (if_range is not None and not _is_this_file(if_range.strip(), etag, modified)):
        return whole
    found = _only_range(range_header)
    if found is None:
        return whole
    first, last = found
    if first == "":
        start, end = max(0, size_bytes - _number(last)), size_bytes - 1
    else:
        start = _number(first)
        end = min(_number(last), size_bytes - 1) if last else size_bytes - 1
    if start >= size_bytes:  # also for the last 0 bytes
        return RangeDecision(416, 0, 0, size_bytes)
    return RangeDecision(206, start, end - start + 1, size_bytes)


def _only_range(header: str) -> tuple[str, str] | None:
    """Both numbers of the range, without leading zeros; "" for one that is left out; None for what is no one range."""
    unit, _, listed = header.strip(" \t").partition("=")
    named = [one for one in (each.strip(" \t") for each in listed.split(",")) if one]  # RFC 9110 §5.6.1: or empty
    match = _RANGE.fullmatch(named[0]) if unit.lower() == "bytes" and len(named) == 1 else None
    if match is None:
        return None
    first, last = (digits and (digits.lstrip("0") or "0") for digits in match.groups())
    is_backwards = bool(first and last) and (len(last), last) < (len(first), first)
    return None if is_backwards or not (first or last) else (first, last)


def _number(digits: str) -> int:
    """The number, or one that is greater than every size."""
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _is_this_file(if_range: str, etag: str | None, modified: int | None) -> bool:
    """RFC 9110 §13.1.5. A date is as good as the ETag, since a file never changes after it was made."""
    if if_range.startswith(('"', "W/")):
        return if_range == etag  # a weak one never is
    return modified is not None and parse_http_date_safe(if_range) == modified
