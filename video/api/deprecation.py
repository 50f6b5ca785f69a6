"""How an address says that it will go: one line in its view, `deprecation = Deprecation(…)`.

The headers are those of RFC 9745 (`Deprecation`), RFC 8594 (`Sunset`) and RFC 8288 (`Link`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpResponse
from django.utils.http import http_date


@dataclass(frozen=True)
class Deprecation:
    """Since when nobody should begin to use an address, and when it goes. Times are aware."""

    since: datetime
    ends: datetime | None = None  # None: not decided; never before `since`
    page: str = ""  # a link to what people should read
    successor: str = ""  # the address to use instead

    def say(self, response: HttpResponse) -> None:
        """Add the headers to an answer."""
        response["Deprecation"] = f"@{int(self.since.timestamp())}"
        if self.ends is not None:
            response["Sunset"] = http_date(self.ends.timestamp())
        links = [(self.page, "deprecation"), (self.successor, "successor-version")]
        if said := ", ".join(f'<{link}>; rel="{kind}"' for link, kind in links if link):
            response["Link"] = said
