"""What stands in the admin's lists."""

from __future__ import annotations

import re
from html import unescape


def cells(page: str, column: str) -> list[str]:
    """The text of each cell of a column, from the top."""
    found = re.findall(rf"<t[dh][^>]*\bfield-{column}\b[^>]*>(.*?)</t[dh]>", page, re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", one)).split()) for one in found]
