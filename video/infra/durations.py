"""Lengths of time and numbers of things in words, for pages, commands and sentences."""

from __future__ import annotations


def span(seconds: float | None) -> str:
    """A length of time at the precision that matters: 0.42 s, 12 s, 3 min 05 s, 2 h 10 min, 4 d 3 h."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count(number: int, one: str) -> str:
    """A number of things: 1 task, 2 tasks."""
    return f"{number} {one}{'s'[: number != 1]}"
