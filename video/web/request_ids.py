"""`X-Request-Id`: one name of a request for the client's log, a proxy's and ours."""

from __future__ import annotations

import re
import secrets

HEADER = "X-Request-Id"
#: Where Django keeps it, of the request as it came and, from the first middleware on, as it is answered.
META = "HTTP_X_REQUEST_ID"
#: What clients and proxies make: UUIDs, ULIDs, hexadecimal digits, trace ids. Nothing in it can break a log's line.
_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}", re.ASCII)


def of(given: str | None) -> str:
    """The id that a request came with, if it is well formed (1 to 128 characters); else a new one."""
    if given and _WELL_FORMED.fullmatch(given):
        return given
    return f"req_{secrets.token_hex(12)}"
