"""Sending files by the server in front of us: we check the link, and answer with the place of the file.

- `X-Accel-Redirect` (nginx) names an address that only nginx itself may ask for.
- `X-Sendfile` (lighttpd, Apache's mod_xsendfile) names a path on the disk.

Both servers decode percent signs in the value, so it is encoded here.

docs/operations.md has what each of them is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from media_pipeline.storage.object_keys import check_key

#: Where nginx has the files, unless the setting says otherwise.
INTERNAL_PREFIX = "/reelworks-files/"
HEADERS = {"x-accel-redirect": "X-Accel-Redirect", "x-sendfile": "X-Sendfile"}


class BadOffload(ValueError):
    """The text names no way to offload. The message goes on from the setting's name, and holds no value."""


@dataclass(frozen=True)
class Offload:
    """A header, and what stands before the key in it: an internal prefix or a folder, with a slash at its end."""

    header: str
    root: str

    def headers(self, key: str) -> dict[str, str]:
        """What tells the server in front to send this file. Raises ValueError for what is no key."""
        return {self.header: quote(self.root + check_key(key))}


def parse(text: str, *, folder: Path) -> Offload | None:
    """`off`, `x-accel-redirect` or `x-sendfile`; the latter two may go on with `:` and a place. Raises BadOffload.

    `folder` is where the files are, as this process sees it: the place for `x-sendfile` unless the text has another.
    """
    way, _, place = text.partition(":")
    way = way.lower()
    if way == "off" and not place:
        return None
    if way not in HEADERS:
        raise BadOffload("must be off, x-accel-redirect or x-sendfile; after the latter two a : and a place may follow")
    place = place or (INTERNAL_PREFIX if way == "x-accel-redirect" else str(folder.resolve()))
    parts = place.strip("/").split("/")
    if not place.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise BadOffload(f"must have an absolute path after the colon, such as {way}:{INTERNAL_PREFIX}")
    return Offload(HEADERS[way], f"/{'/'.join(parts)}/")
