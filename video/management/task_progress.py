"""How a task gets on, read from its rows, and shown at a terminal, in a log, or not at all."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import OutputWrapper
from django.utils import timezone
from rich.console import Group
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from providers.untrusted import printable
from video.engine import workers
from video.engine.position import State, position_of
from video.engine.queues import QUEUE_OF
from video.management.terminal import TerminalConsole
from video.models import Generation, PeriodicRun, Stage, Status, TaskEvent, VideoTask
from video.monitoring import waits
from video.monitoring import workers as signs

STILL_S = 10.0  # after so long without a move the user is told why
SWEEPER_SEEN_S = 25.0  # a running sweeper writes a row every 15 s
NOTHING_RUNS = (
    "Nothing is working on this task. Start the workers with `make up` in another terminal; it then goes on by itself."
)
STAGES = tuple(stage for stage in Stage if stage is not Stage.DONE)


@dataclass
class Finished:
    """A stage that is done; its seconds include all waiting."""

    stage: str
    seconds: float
    detail: str


@dataclass
class Progress:
    """The state of a task, from its rows; brought up to date by `refresh`."""

    task: VideoTask
    finished: list[Finished] = field(default_factory=list)
    stage_began: datetime = field(default_factory=timezone.now)
    running_on: str = ""
    note: str = ""  # the last detail of the current stage
    last_event: int = 0
    moved_at: float = field(default_factory=time.monotonic)
    seen: tuple[Any, ...] = ()

    @property
    def is_over(self) -> bool:
        return not self.task.is_active

    def refresh(self) -> None:
        """Read the rows again, the task first: then the events read hold every move that the task shows."""
        self.task = VideoTask.objects.get(pk=self.task.pk)
        events = list(TaskEvent.objects.filter(task_id=self.task.pk, id__gt=self.last_event).order_by("id"))
        for event in events:
            self._take(event)
        if events and not self.running_on:
            last = Generation.objects.filter(task_id=self.task.pk).order_by("-attempt").first()
            self.running_on = f"{last.model}{', simulated' if last.simulated else ''}" if last else ""
        mark = (self.task.fence, self.task.stage, self.task.progress, self.task.status, self.last_event)
        if mark != self.seen:
            self.seen, self.moved_at = mark, time.monotonic()

    def _take(self, event: TaskEvent) -> None:
        self.last_event = event.pk
        match event.outcome:
            case TaskEvent.Outcome.CREATED:
                self.stage_began = event.finished_at
            case TaskEvent.Outcome.ADVANCED | TaskEvent.Outcome.SUCCEEDED:
                seconds = (event.finished_at - self.stage_began).total_seconds()
                self.finished.append(Finished(event.stage, max(0.0, seconds), event.detail))
                self.stage_began, self.note = event.finished_at, ""
            case TaskEvent.Outcome.WAITING:
                self.note, self.running_on = f"in line again: {event.detail}", ""
            case TaskEvent.Outcome.ADMITTED:
                self.note = ""
            case _:
                self.note = event.detail

    def stuck_because(self) -> str:
        """Why nothing has moved for a while, for the user; empty while all is as it should be."""
        if self.is_over or time.monotonic() - self.moved_at < STILL_S:
            return ""
        now = timezone.now()
        position = position_of(self.task, now, is_disk_full=workers.is_disk_full)
        queue = QUEUE_OF[self.task.stage]
        if position.state is not State.USER_OFF and not signs.listening(signs.workers(), queue):
            return f"No worker of {queue} is alive. {NOTHING_RUNS}"
        match position.state:
            case State.IN_WORK | State.PARKED | State.OVER:
                return ""
            case State.USER_OFF:
                return "The task waits: its user is switched off."
            case State.NOT_BEFORE | State.WAITS_FOR_SLOT | State.DISK_FULL:
                if not PeriodicRun.objects.filter(period__gte=now - timedelta(seconds=SWEEPER_SEEN_S)).exists():
                    return NOTHING_RUNS
                if position.state is State.DISK_FULL:
                    return f"The task waits: {workers.DISK_FULL}."
                words = waits.waits_for(self.task)
                return f"The task waits for {words}" + (f" ({position.reason})." if position.reason else ".")
        if position.since is None or position.since >= now - timedelta(seconds=STILL_S / 2):
            return ""
        if position.state is State.WAITS_FOR_CORE and workers.media_cores():
            return "The task waits for a free core."
        return NOTHING_RUNS


class Quiet:
    """For --json: nothing but the result. The others show progress, after every refresh."""

    def show(self, progress: Progress) -> None:
        pass

    def message(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


class Lines(Quiet):
    """For logs and pipes: a line for each change."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._began = time.monotonic()
        self._printed = 0
        self._last = ("", "", 0)

    def show(self, progress: Progress) -> None:
        for done in progress.finished[self._printed :]:
            self.message(f"{done.stage:<10} done in {done.seconds:.1f} s{f' ({done.detail})' if done.detail else ''}")
        self._printed = len(progress.finished)
        task = progress.task
        if progress.is_over:
            return
        stage, note, percent = self._last
        if (stage, note) != (task.stage, progress.note) or task.progress >= percent + 10:
            if progress.note or task.progress >= percent + 10:
                self.message(f"{task.stage:<10} {task.progress:>3} %{f'  {progress.note}' if progress.note else ''}")
            self._last = (task.stage, progress.note, task.progress)

    def message(self, text: str) -> None:
        self._out.write(f"[{time.monotonic() - self._began:6.1f} s] {printable(text)}")
        self._out.flush()


class Live(Quiet):
    """For a terminal: one line a stage, redrawn in place."""

    def __init__(self) -> None:
        self._spinner = Spinner("dots", style="cyan")
        self._live = RichLive(console=TerminalConsole(), refresh_per_second=12, transient=False)
        self._messages: list[str] = []

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def message(self, text: str) -> None:
        if text not in self._messages:  # it stays in sight
            self._messages.append(text)

    def show(self, progress: Progress) -> None:
        task = progress.task
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=9)
        table.add_column(width=8, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for done in progress.finished:
            table.add_row(Text("✓", "green"), done.stage, f"{done.seconds:.1f} s", Text(done.detail, "dim"))
        if not progress.is_over:
            waited = (timezone.now() - progress.stage_began).total_seconds()
            row = Table.grid(padding=(0, 1))
            percent = Text(f"{task.progress:>3} %")
            bar = ProgressBar(
                total=100, completed=task.progress, width=24, complete_style="cyan", finished_style="green"
            )
            row.add_row(bar, percent, Text(progress.note, "dim"))
            table.add_row(self._spinner, Text(task.stage, "bold"), f"{max(0.0, waited):.1f} s", row)
            for stage in STAGES[STAGES.index(Stage(task.stage)) + 1 :]:
                table.add_row(Text("·", "dim"), Text(stage.value, "dim"))
        elif task.status != Status.SUCCESS:
            table.add_row(Text("✗", "red"), Text(task.stage, "bold"), "", Text(task.error_code or task.status, "red"))
        head = Text(f"{task.pk}  {progress.running_on}", "dim")
        self._live.update(Group(head, table, *(Text(text, "yellow") for text in self._messages)))
