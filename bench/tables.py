"""Plain tables for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """First column left, the others right; readable as it is and valid Markdown."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = f"| {' | '.join('-' * w if i == 0 else '-' * (w - 1) + ':' for i, w in enumerate(widths))} |"
    return "\n".join([f"\n### {title}\n", line(cells[0]), rule, *[line(row) for row in cells[1:]]])


def verdict(value: float, *, at_most: float | None = None, at_least: float | None = None) -> str:
    """Whether a figure meets its target, and the target."""
    if at_most is not None:
        return f"{'met' if value <= at_most else 'MISSED'} (at most {at_most:g})"
    assert at_least is not None
    return f"{'met' if value >= at_least else 'MISSED'} (at least {at_least:g})"


def ms(seconds: float) -> str:
    """Milliseconds with as many places as mean something."""
    value = seconds * 1000
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
