"""What several commands take on their command line."""

from __future__ import annotations

import argparse
import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """90, 90s, 15m, 2h or 1d."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd]?)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time like 90s, 15m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]
