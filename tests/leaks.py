"""What no log may hold, and who may read what is under REELWORKS_HOME: looked at when a system of the suite ends."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from pathlib import Path

#: Keys of providers as the tests name them, tokens (JSON in base64), API keys and signatures of links.
_SECRET = re.compile(
    r"simulated-\w+-key|key_e2e|tests-tests-tests|secret-of-the-suite|eyJ[\w-]{20,}|rw_live_[0-9A-Za-z]{5,}|signature=[\w%-]{8,}|X-Amz-Signature="
)
#: Shorter words would be found by chance.
_SHORTEST_PROMPT = 12


def in_logs(logs: Iterable[Path], prompts: Iterable[str] = ()) -> list[str]:
    """Lines of these logs with a key, a token, a signature or one of these prompts."""
    telling = [prompt for prompt in prompts if len(prompt) >= _SHORTEST_PROMPT]
    return [
        f"{log.name}: {line[:300]}"
        for log in logs
        for line in log.read_text(errors="replace").splitlines()
        if _SECRET.search(line) or any(prompt in line for prompt in telling)
    ]


def readable_by_others(home: Path) -> list[str]:
    """Files that others can read or write, and folders that they can list or write to, below this home or it itself."""
    found = []
    for path in (home, *home.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # a server is at work
            continue
        if not stat.S_ISLNK(mode) and mode & 0o006:
            found.append(f"{path.relative_to(home)} {stat.filemode(mode)}")
    return found
