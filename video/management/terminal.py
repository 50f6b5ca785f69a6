"""Text on its way to a terminal, which obeys some of what it is given instead of printing it.

Rows hold what providers and users wrote. Controls are taken out before a text is stored, but rows of older versions
may hold them still, and the way to a terminal is the last place where that can be made good for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from providers.untrusted import printable


class TerminalConsole(Console):
    """A console that prints texts as they are: only what the program itself styles has a style.

    Square brackets and `:names:` in a text mean nothing, and controls in it are left out, wherever in a table it is.
    """

    def __init__(self, file: IO[str] | None = None, *, width: int | None = None, quiet: bool = False) -> None:
        super().__init__(file=file, width=width, quiet=quiet, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Those with a `control` are the library's own, such as the cursor moves of a bar.
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
