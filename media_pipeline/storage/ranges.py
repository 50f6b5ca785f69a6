"""HTTP Range (RFC 9110 §14), as a pure function: header in, decision out. The view that sends bytes lives elsewhere.

Several ranges in one header are answered with the whole file: the RFC lets a server ignore Range, no player needs
multipart/byteranges, and many small overlapping ranges are a known way to make a server work hard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BYTES = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


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
    range_header: str | None, size_bytes: int, *, if_range: str | None = None, etag: str | None = None
) -> RangeDecision:
    """Decide for a GET of a file of `size_bytes`. `etag` is ours, quoted and strong.

    A header that is malformed, in another unit, or names several ranges is ignored (200), as the RFC asks. An
    `if_range` that is not exactly our strong ETag also means the whole file: dates are not honoured, as we promise
    none.
    """
    whole = RangeDecision(200, 0, size_bytes, size_bytes)
    if range_header is None or (if_range is not None and (if_range.startswith("W/") or if_range.strip() != etag)):
        return whole
    match = _BYTES.fullmatch(range_header.strip())
    if match is None:
        return whole
    first, last = match.groups()
    if first == "":
        if last == "":
            return whole
        start, end = max(0, size_bytes - int(last)), size_bytes - 1
        if int(last) == 0:
            return RangeDecision(416, 0, 0, size_bytes)
    else:
        start = int(first)
        end = min(int(last), size_bytes - 1) if last else size_bytes - 1
        if last and int(last) < start:
            return whole
    if start >= size_bytes:
        return RangeDecision(416, 0, 0, size_bytes)
    return RangeDecision(206, start, end - start + 1, size_bytes)
