"""Tables as CSV (RFC 4180) that spreadsheets show and never run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

#: A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection"); an apostrophe makes it a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def cell(value: object) -> object:
    """A value as a cell: a text that could be a formula gets an apostrophe in front; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Titles and rows as one text."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(titles)
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()
