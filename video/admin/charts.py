"""Charts as SVG that the server draws: no script, no style of their own, colours by class in reelworks/console.css.

Texts stand beside the drawing, not in it, so that they keep their size at every width. Each chart says its figures in
words too: each column has a title, and a table of all figures opens beneath. What is passed in is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

Series = Mapping[str, Sequence[SupportsFloat | None]]

_WIDTH, _HEIGHT = 600, 160
_MOST_LABELS = 5
_EACH_LABELLED = 8  # as many columns as this have a label each
#: Series whose colour means something; the others take a colour by their place.
_TONES = {
    "delivered": "good", "videos": "good", "succeeded": "good",
    "failed": "bad", "failures": "bad", "rejected": "bad",
    "lost": "warn", "cancelled": "idle",
}  # fmt: skip
_COLOURS = 8


def columns(labels: Sequence[str], series: Series, unit: str, *, title: str = "") -> SafeString:
    """Stacked columns: one a label, in it one piece a series. `unit`: of the figures, in words ("videos", "USD").

    A figure of None counts as nothing. Raises ValueError when a series has not one figure a label.
    """
    rows = _floats(labels, series)
    stacks = [[(name, row[place] or 0.0) for name, row in rows.items()] for place in range(len(labels))]
    axis = _axis(
        low=min((sum(value for _, value in stack if value < 0) for stack in stacks), default=0.0),
        high=max((sum(value for _, value in stack if value > 0) for stack in stacks), default=0.0),
    )
    step = _WIDTH / max(1, len(labels))
    gap = min(step * 0.2, 6.0)
    pieces: list[tuple[SafeString]] = []
    for place, stack in enumerate(stacks):
        up = down = 0.0
        drawn: list[tuple[str, str, str, str, str]] = []
        for name, value in stack:
            base = up if value >= 0 else down
            top, bottom = axis.y(max(base, base + value)), axis.y(min(base, base + value))
            drawn.append((_class(rows, name), _n(place * step + gap / 2), _n(top), _n(step - gap), _n(bottom - top)))
            up, down = (base + value, down) if value >= 0 else (up, base + value)
        shapes = format_html_join(
            "", '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>', (one for one in drawn if one[-1] != "0")
        )
        pieces.append((format_html("<g>{}{}</g>", shapes, _hit(place, step, labels, rows, unit)),))
    return _figure(labels, rows, unit, title, axis, format_html_join("", "{}", pieces))


def line(labels: Sequence[str], series: Series, unit: str, *, title: str = "") -> SafeString:
    """One line a series; where a figure is None, nothing is known and the line has a gap.

    Raises ValueError when a series has not one figure a label.
    """
    rows = _floats(labels, series)
    known = [value for row in rows.values() for value in row if value is not None]
    axis = _axis(low=min(known, default=0.0), high=max(known, default=0.0))
    step = _WIDTH / max(1, len(labels))
    drawn = format_html_join(
        "",
        '<path class="rw-line {}" d="{}"/>',
        ((_class(rows, name), _path(row, step, axis)) for name, row in rows.items()),
    )
    hits = format_html_join("", "<g>{}</g>", ((_hit(place, step, labels, rows, unit),) for place in range(len(labels))))
    return _figure(labels, rows, unit, title, axis, drawn + hits)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    step: float

    def y(self, value: float) -> float:
        return _HEIGHT * (self.high - value) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """From the top down."""
        number = round((self.high - self.low) / self.step)
        return [self.high - place * self.step for place in range(number + 1)]


def _axis(*, low: float, high: float) -> _Axis:
    """From 0, or from below it, to just above the highest figure, in two to four steps of 1, 2 or 5 and zeros."""
    low, high = min(0.0, low), max(0.0, high)
    rough = (high - low) / 3 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return _Axis(step * math.floor(low / step), step * max(1, math.ceil(high / step - 1e-9)), step)


def _floats(labels: Sequence[str], series: Series) -> dict[str, list[float | None]]:
    for name, row in series.items():
        if len(row) != len(labels):
            raise ValueError(f"{name} has {len(row)} figures for {len(labels)} labels")
    return {name: [None if value is None else float(value) for value in row] for name, row in series.items()}


def _class(rows: Mapping[str, object], name: str) -> str:
    return f"rw-c-{_TONES.get(name) or list(rows).index(name) % _COLOURS}"


def _path(row: Sequence[float | None], step: float, axis: _Axis) -> str:
    """A point with a gap on either side is a line without a length, whose round end shows as a dot."""
    parts, before = [], False
    for place, value in enumerate(row):
        if value is not None:
            x, y = _n((place + 0.5) * step), _n(axis.y(value))
            parts.append(f"L{x} {y}" if before else f"M{x} {y}h0")
        before = value is not None
    return "".join(parts)


def _hit(place: int, step: float, labels: Sequence[str], rows: Mapping[str, Sequence[float | None]], unit: str) -> str:
    """What a pointer finds over a label, from the bottom to the top: the figures in words."""
    said = ", ".join(f"{name} {figure(row[place])}" for name, row in rows.items())
    return format_html(
        '<rect class="rw-hit" x="{}" y="0" width="{}" height="{}"><title>{}: {} ({})</title></rect>',
        _n(place * step),
        _n(step),
        _HEIGHT,
        labels[place],
        said,
        unit,
    )


def _figure(
    labels: Sequence[str],
    rows: Mapping[str, Sequence[float | None]],
    unit: str,
    title: str,
    axis: _Axis,
    drawn: SafeString,
) -> SafeString:
    empty = not any(value for row in rows.values() for value in row)
    return format_html(
        '<figure class="rw-chart"><figcaption><strong>{}</strong> <span class="rw-quiet">{}</span>{}</figcaption>'
        '<div class="rw-plot"><div class="rw-y" aria-hidden="true">{}</div>'
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>{}'
        '<div class="rw-x{}" aria-hidden="true">{}</div></div>{}</figure>',
        title or ", ".join(rows).capitalize(),
        unit,
        _legend(rows) if len(rows) > 1 else "",
        format_html_join("", "<span>{}</span>", ((figure(tick),) for tick in axis.ticks)),
        _WIDTH,
        _HEIGHT,
        _in_words(labels, rows, unit, title, empty),
        _grid(axis),
        "" if empty else drawn,
        mark_safe('<p class="rw-nothing">Nothing yet</p>') if empty else "",
        " rw-each" if len(labels) <= _EACH_LABELLED else "",
        format_html_join("", "<span>{}</span>", ((label,) for label in _shown(labels))),
        "" if empty else _table(labels, rows, unit),
    )


def _in_words(
    labels: Sequence[str], rows: Mapping[str, Sequence[float | None]], unit: str, title: str, empty: bool
) -> str:
    what = title or ", ".join(rows).capitalize() or "Chart"
    if empty:
        return f"{what}: nothing yet."
    most = "; ".join(
        f"{name}: at most {figure(max(value for value in row if value is not None))}, last {figure(row[-1])}"
        for name, row in rows.items()
        if any(value is not None for value in row)
    )
    return f"{what}, in {unit}, {labels[0]} to {labels[-1]}. {most}. The table beneath has all figures."


def _legend(rows: Mapping[str, object]) -> SafeString:
    return format_html(
        '<span class="rw-legend">{}</span>',
        format_html_join(
            "",
            '<span><svg class="rw-key" aria-hidden="true"><rect class="{}" width="100%" height="100%"/></svg>{}</span>',
            ((_class(rows, name), name) for name in rows),
        ),
    )


def _grid(axis: _Axis) -> SafeString:
    return format_html_join(
        "",
        '<line class="{}" x1="0" x2="{}" y1="{}" y2="{}"/>',
        (("rw-grid" if tick else "rw-grid rw-base", _WIDTH, _n(axis.y(tick)), _n(axis.y(tick))) for tick in axis.ticks),
    )


def _shown(labels: Sequence[str]) -> list[str]:
    """All labels where they are few, else some at even distances with the first and the last."""
    if len(labels) <= _EACH_LABELLED:
        return list(labels)
    return [labels[round(place * (len(labels) - 1) / (_MOST_LABELS - 1))] for place in range(_MOST_LABELS)]


def _table(labels: Sequence[str], rows: Mapping[str, Sequence[float | None]], unit: str) -> SafeString:
    head = format_html_join("", '<th scope="col" class="rw-right">{}</th>', ((name,) for name in rows))
    body = format_html_join(
        "",
        '<tr><th scope="row">{}</th>{}</tr>',
        (
            (
                label,
                format_html_join("", '<td class="rw-right">{}</td>', ((figure(row[place]),) for row in rows.values())),
            )
            for place, label in enumerate(labels)
        ),
    )
    return format_html(
        '<details><summary>Figures</summary><div class="rw-scroll"><table>'
        '<thead><tr><th scope="col">{}</th>{}</tr></thead><tbody>{}</tbody></table></div></details>',
        unit,
        head,
        body,
    )


def figure(value: float | None) -> str:
    """A figure as it is read: thousands apart, three digits that count, none for what is not known."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _n(value: float) -> str:
    """A length in the drawing, without digits that nobody sees."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
