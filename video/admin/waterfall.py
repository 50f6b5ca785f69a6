"""Where a task's time went, drawn to scale: a row for each stage and attempt, as SVG without a script or a style.

The texts stand in a table around the bars, which is the drawing's text alternative and keeps its size on a phone. Waits
are drawn pale, work is drawn strong. A long time in which nothing was to be done (between an end and a retry) is cut
out, and said. Where what comes after the provider's part is too short to see, it is drawn once more, larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from video.infra.durations import span
from video.models import Generation, Stage, TaskEvent, VideoTask

WIDTH = 1000.0  # of the drawing's own units
LEAST = 4.0  # of a bar, in these units, so that 100 ms of an hour can be seen
HEIGHT = 14
#: Of all time that is drawn: a pause that takes more is cut out, and is this wide then.
LONGEST_PAUSE, CUT = 0.08, 0.04
#: What comes after the provider's part is drawn once more when it has less than this share.
TOO_SHORT = 0.2
IN_LINE = "in line"
OURS = (Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE)
Outcome = TaskEvent.Outcome
_ENDS = {Outcome.FAILED, Outcome.CANCELLED, Outcome.SUCCEEDED}
_TONES = {
    Generation.State.SUCCEEDED: "good",
    Generation.State.FAILED: "bad",
    Generation.State.REJECTED: "bad",
    Generation.State.LOST: "warn",
    Generation.State.UNKNOWN: "warn",
    Generation.State.CANCELLED: "idle",
}


@dataclass(frozen=True)
class Bar:
    """One piece of a row. `says` is its title."""

    begin: datetime
    end: datetime
    tone: str  # wait, work, or how an attempt ended
    says: str


@dataclass
class Row:
    """A stage, or an attempt."""

    name: str
    bars: list[Bar] = field(default_factory=list)
    note: str = ""

    @property
    def took_s(self) -> float:
        """Seconds of all its bars."""
        return sum((bar.end - bar.begin).total_seconds() for bar in self.bars)


def draw(
    task: VideoTask, events: Sequence[TaskEvent], generations: Sequence[Generation], now: datetime
) -> list[SafeString]:
    """The drawings: one, or two where the second shows the last stages larger; none of a task without a time.

    `events` in their order, from the task's create on.
    """
    rows = [row for row in rows_of(task, events, generations, now) if row.bars]
    if not rows:
        return []
    begin, end = _extent(rows)
    until = "now" if end >= now else "the end"
    drawings = [_table(rows, Scale(rows), f"{span((end - begin).total_seconds())} from create to {until}")]
    ours = [row for row in rows if row.name in OURS]
    if ours:
        first, last = _extent(ours)
        whole, part = (end - begin).total_seconds(), (last - first).total_seconds()
        if 0 < part < whole * TOO_SHORT:
            drawings.append(_table(ours, Scale(ours), f"{span(part)} from the provider's video to the end, larger"))
    return drawings


def rows_of(
    task: VideoTask, events: Sequence[TaskEvent], generations: Sequence[Generation], now: datetime
) -> list[Row]:
    """A row for the line, the stages and the attempts, in the order in which they come."""
    line = Row(IN_LINE)
    stages: dict[Stage, Row] = {stage: Row(stage.value) for stage in Stage if stage is not Stage.DONE}
    at = events[0].finished_at if events else task.created_at
    waits_in_line = task.render_of_id is None
    for event in events:
        row = stages.get(Stage(event.stage))
        if event.outcome == Outcome.RESUMED:
            waits_in_line = event.stage == Stage.GENERATE
        elif event.outcome == Outcome.ADMITTED:
            _add(line, at, event.finished_at, "wait", IN_LINE)
            waits_in_line = False
        elif waits_in_line and event.outcome in _ENDS:
            _add(line, at, event.finished_at, "wait", f"{IN_LINE}, until it {event.outcome}")
        elif row is not None and event.outcome != Outcome.CREATED:
            begun = min(max(event.started_at, at), event.finished_at)
            _add(row, at, begun, "wait", f"{event.stage} waits")
            _add(row, begun, event.finished_at, "bad" if event.outcome == Outcome.FAILED else "work", _said(event))
            waits_in_line = event.outcome == Outcome.WAITING
        at = event.finished_at
    if task.is_active and at < now:
        row = line if waits_in_line else stages[Stage(task.stage)]
        held = task.lease_until is not None and task.lease_until >= now and task.claimed_at is not None
        begun = min(max(task.claimed_at, at), now) if held and task.claimed_at is not None else now
        _add(row, at, begun, "wait", f"{row.name}, until now")
        _add(row, begun, now, "work", f"{row.name}, at work now")
    attempts = [_attempt(generation, now) for generation in generations]
    return [line, stages[Stage.GENERATE], *attempts, *(stages[stage] for stage in (Stage.POLL, *OURS))]


def _said(event: TaskEvent) -> str:
    words = "done" if event.outcome == Outcome.ADVANCED else event.outcome
    return f"{event.stage} {words}"


def _attempt(generation: Generation, now: datetime) -> Row:
    row = Row(f"attempt {generation.attempt}", note=generation.model)
    if generation.sent_at is None:
        return row
    state = Generation.State(generation.state)
    accepted = generation.accepted_at or generation.sent_at
    end = generation.ended_at or (now if generation.state in Generation.LIVE else accepted)
    _add(row, generation.sent_at, accepted, "wait", f"{generation.model}: its submit")
    _add(row, accepted, end, _TONES.get(state, "work"), f"{generation.model}: {state}")
    return row


def _add(row: Row, begin: datetime, end: datetime, tone: str, says: str) -> None:
    if end > begin:
        row.bars.append(Bar(begin, end, tone, says))


def _extent(rows: Iterable[Row]) -> tuple[datetime, datetime]:
    bars = [bar for row in rows for bar in row.bars]
    return min(bar.begin for bar in bars), max(bar.end for bar in bars)


class Scale:
    """Where a time stands: linear, but for long pauses, which are cut out."""

    def __init__(self, rows: Sequence[Row]) -> None:
        busy: list[tuple[datetime, datetime]] = []
        for begin, end in sorted((bar.begin, bar.end) for row in rows for bar in row.bars):
            if busy and begin <= busy[-1][1]:
                busy[-1] = (busy[-1][0], max(busy[-1][1], end))
            else:
                busy.append((begin, end))
        self.begin, self.end = busy[0][0], busy[-1][1]
        work_s = sum((end - begin).total_seconds() for begin, end in busy)
        between = list(zip((end for _, end in busy), (begin for begin, _ in busy[1:]), strict=False))
        #: Pauses that are cut out.
        self.cuts = [(a, b) for a, b in between if (b - a).total_seconds() > work_s * LONGEST_PAUSE]
        cut_s = sum((b - a).total_seconds() for a, b in self.cuts)
        drawn_s = max((self.end - self.begin).total_seconds() - cut_s, 1e-3)
        self._cut = WIDTH * min(CUT, 0.4 / max(1, len(self.cuts)))
        self._per_s = (WIDTH - self._cut * len(self.cuts)) / drawn_s

    def x(self, moment: datetime) -> float:
        """From the left, in the drawing's units."""
        place, at = 0.0, self.begin
        for cut, resumed in self.cuts:
            if moment <= cut:
                break
            place += (cut - at).total_seconds() * self._per_s + self._cut
            if moment <= resumed:
                return place
            at = resumed
        return place + max(0.0, (moment - at).total_seconds()) * self._per_s


def _table(rows: Sequence[Row], scale: Scale, caption: str) -> SafeString:
    cuts = _cuts(scale)
    body = format_html_join(
        "",
        '<tr><th scope="row">{}{}</th><td class="rw-wf-bars">{}</td><td class="rw-right rw-num">{}</td></tr>',
        (
            (
                row.name,
                format_html("<small>{}</small>", row.note) if row.note else "",
                _bars(row, scale, cuts),
                span(row.took_s),
            )
            for row in rows
        ),
    )
    left_out = ", ".join(span((b - a).total_seconds()) for a, b in scale.cuts)
    whole_s = (scale.end - scale.begin).total_seconds()
    # Where a pause is cut out the places between are no quarters of the time.
    shares = (0.0, 1.0) if scale.cuts else (0.0, 0.25, 0.5, 0.75, 1.0)
    ticks = format_html_join("", "<span>{}</span>", ((f"+{span(whole_s * share)}",) for share in shares))
    note = format_html(" · left out, where nothing was to be done: {}", left_out) if left_out else ""
    return format_html(
        '<table class="rw-wf"><caption>{}{}</caption><colgroup><col class="rw-wf-name"><col><col class="rw-wf-took">'
        '</colgroup><thead><tr><td></td><td class="rw-wf-axis">{}</td><td></td></tr>'
        "</thead><tbody>{}</tbody></table>",
        caption,
        note,
        ticks,
        body,
    )


def _bars(row: Row, scale: Scale, cuts: SafeString) -> SafeString:
    shapes = format_html_join(
        "",
        '<rect class="rw-wf-{}" x="{}" width="{}" height="{}"><title>{}</title></rect>',
        ((bar.tone, *_place(bar, scale), HEIGHT, _title(bar, scale)) for bar in row.bars),
    )
    words = "; ".join(_title(bar, scale) for bar in row.bars[:12])
    return format_html(
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>',
        int(WIDTH),
        HEIGHT,
        words,
        cuts,
        shapes,
    )


def _place(bar: Bar, scale: Scale) -> tuple[str, str]:
    begin, end = scale.x(bar.begin), scale.x(bar.end)
    width = max(end - begin, LEAST)
    return f"{min(begin, WIDTH - width):.1f}", f"{width:.1f}"


def _title(bar: Bar, scale: Scale) -> str:
    return f"{bar.says}: +{_since(bar.begin - scale.begin)}, for {_since(bar.end - bar.begin)}"


def _since(time: timedelta) -> str:
    return span(time.total_seconds())


def _cuts(scale: Scale) -> SafeString:
    return format_html_join(
        "",
        '<line class="rw-wf-cut" x1="{}" x2="{}" y1="0" y2="{}"/>',
        ((f"{scale.x(end) - 5:.1f}", f"{scale.x(end) - 5:.1f}", HEIGHT) for _, end in scale.cuts),
    )
