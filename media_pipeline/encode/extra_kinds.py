"""The kinds of files that are made beside a video, by their names; what makes them is in `extras`."""

from __future__ import annotations

from collections.abc import Iterable

#: In the order in which they are made.
KINDS = ("still", "preview", "sprites", "hls")


def kind_of(name: str) -> str:
    """The kind of the file of that name, such as `sprites.vtt`."""
    return name.partition(".")[0].partition("_")[0]


def spelled(kinds: Iterable[str]) -> list[str]:
    """These kinds in their order, each once. Raises ValueError for one that is not known."""
    asked = set(kinds)
    if unknown := asked - set(KINDS):
        raise ValueError(", ".join(sorted(unknown)))
    return [kind for kind in KINDS if kind in asked]
