"""manage.py queue_status: how the queues do, and what is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db import InterfaceError, OperationalError, connection
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from video.engine.queues import QUEUES
from video.infra.durations import count, span
from video.management.base import INTERRUPTED, UNREACHABLE, ReportCommand, database_needed, table
from video.monitoring import as_json, overview

NEEDS_PERSON = 1


def interval(text: str) -> float:
    """Seconds between two looks, 0.5 to 3600."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0.5 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"it must be between 0.5 and 3600 seconds, not {text}")
    return value


class Command(ReportCommand):
    help = (
        "Shows what is wrong, the queues by stage, workers, accounts, keys and circuits. Exit code: 0 healthy, 1 "
        "something needs a person, 2 it can't be asked (or wrong usage). With --watch it goes on until Ctrl-C; with "
        "--json as well it prints one object a line."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--watch", action="store_true", help="look again and again")
        parser.add_argument("--interval", type=interval, default=2.0, metavar="S", help="seconds between, 2 by default")
        self.add_json(parser, "print the same object as GET /api/queues/status")

    def handle(self, *args: Any, watch: bool, interval: float, **options: Any) -> None:
        if not watch:
            with database_needed():
                found = overview.read()
            if options["json"]:
                self.write_json(as_json.system(found))
            else:
                self.console().print(_page(found))
            if found.needs_person:
                sys.exit(NEEDS_PERSON)
            return
        try:
            self._watch(interval, as_lines=options["json"])
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def _watch(self, every_s: float, *, as_lines: bool) -> None:
        """Until Ctrl-C; while the database is away it says so, and asks again."""
        if as_lines or not self.stdout.isatty():
            console = self.console()
            while True:
                found = _read_or_none()
                if as_lines:
                    self.stdout.write(json.dumps({"error": UNREACHABLE} if found is None else as_json.system(found)))
                else:
                    console.print(UNREACHABLE if found is None else _page(found))
                    console.print()
                self.stdout.flush()
                time.sleep(every_s)
        with Live(console=self.console(), screen=True, auto_refresh=False) as live:
            while True:
                found = _read_or_none()
                live.update(Text(UNREACHABLE, style="red") if found is None else _page(found), refresh=True)
                time.sleep(every_s)


def _read_or_none() -> overview.System | None:
    try:
        return overview.read()
    except (OperationalError, InterfaceError):
        connection.close()
        return None


# --- the page ------------------------------------------------------------------------------------------------------


def _page(found: overview.System) -> RenderableType:
    parts: list[RenderableType] = []
    if settings.SIMULATE:
        parts.append(Text("Everything is simulated: accounts and money are the simulator's.", style="red"))
    if not found.problems:
        parts.append(Text("Nothing is wrong.", style="green"))
    for one in found.problems:
        parts.append(Text(f"{'! ' if one.needs_person else '  '}{one.sentence}", style=_tone(one.needs_person)))
        parts.append(Text(f"    The system: {one.system}"))
        parts.append(Text(f"    You: {one.operator}"))
    if found.slow_renders:
        words = f"{count(found.slow_renders, 'render')} at providers: longer than 95 of 100 of their model lately took."
        parts.append(Text(words, style="yellow"))
    if found.warnings:
        words = ", ".join(f"{number} {code}" for code, number in found.warnings.items())
        parts.append(Text(f"Videos of the last day with a warning: {words}.", style="yellow"))
    if found.stuck:
        parts += [Text(), _stuck(found)]
    parts += [Text(), _queues(found), Text(), _stages(found), Text(), _workers(found)]
    if found.accounts:
        parts += [Text(), _accounts(found)]
    if found.keys:
        parts += [Text(), _keys(found)]
    if found.circuits:
        parts += [Text(), _circuits(found)]
    parts += [Text(), Text(f"Stored: {count(found.stored.videos, 'video')}, {found.stored.bytes / 1e6:,.1f} MB.")]
    return Group(*parts)


def _tone(bad: bool) -> str:
    return "bold red" if bad else "yellow"


def _stuck(found: overview.System) -> Table:
    rows = table("stuck task", "stage", "age", "why")
    for one in found.stuck:
        rows.add_row(one.task, one.stage, span(one.age_s), f"{one.label}: {one.reason}")
    return rows


def _queues(found: overview.System) -> Table:
    line, cores = found.waiting, found.waiting_for_core
    waits = (
        f"{line.counted} for a slot" + (f", oldest {span(line.oldest_s)}" if line.oldest_s else ""),
        f"{cores.counted} for a core" + (f", oldest {span(cores.oldest_s)}" if cores.oldest_s else ""),
    )
    rows = table("queue", "waiting", "due", "in work", "parked")
    for queue, waiting in zip(QUEUES, waits, strict=True):
        rows.add_row(queue, waiting, *map(str, as_json.queue(found, queue).values()))
    return rows


def _stages(found: overview.System) -> Table:
    rows = table("stage", "due", "oldest", "in work", "parked", "done/min 1, 5, 15", "failed/min", "p50", "p95", "work")
    for one in found.stages:
        rows.add_row(
            one.stage.value,
            str(one.due),
            span(one.oldest_s),
            str(one.held),
            ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in one.parked.items()) or "0",
            "  ".join(f"{value:.1f}" for value in one.done.per_min),
            "  ".join(f"{value:.1f}" for value in one.failed.per_min),
            span(one.through.p50_s),
            span(one.through.p95_s),
            one.work.words,
        )
    return rows


def _workers(found: overview.System) -> Table:
    rows = table("worker", "does", "in work of threads", "memory", "disk free", "seen")
    for one in found.workers:
        ago = span(one.seen_s)
        seen = {"died": f"died, seen {ago} ago", "silent": f"silent for {ago}"}.get(one.state, f"{ago} ago")
        rows.add_row(
            one.name,
            ", ".join(one.queues) or one.kind,
            f"{one.held} of {one.threads}" if one.queues else "",
            f"{one.memory_bytes / 1e6:.0f} MB",
            f"{one.disk_free_bytes / 1e9:.1f} GB" + (", low" if one.disk_low else ""),
            Text(seen + (", stopping" if one.draining else ""), style="green" if one.alive else "red"),
        )
    if not found.workers:
        rows.add_row("none", "", "", "", "", "")
    return rows


def _accounts(found: overview.System) -> Table:
    rows = table("account", "model", "slots in use", "balance", "state")
    for one in found.accounts:
        left = "" if one.cooldown_s is None else f", {span(one.cooldown_s)} more"
        rows.add_row(
            f"{one.provider} {one.label}",
            one.model,
            f"{one.live} of {one.limit}" + (", lowered" if one.lowered else ""),
            "" if one.balance is None else f"{one.balance.normalize():f} {one.balance_unit}",
            Text(one.state + left, style="green" if one.open else "red"),
        )
    return rows


def _keys(found: overview.System) -> Table:
    rows = table("key", "state", "jobs", "last error")
    for one in found.keys:
        state = "gone" if one.gone_since else one.state
        good = state == "active"
        rows.add_row(
            f"{one.provider} {one.label}",
            Text(state, style="green" if good else "red"),
            str(one.live),
            one.last_error,
        )
    return rows


def _circuits(found: overview.System) -> Table:
    rows = table("circuit", "state", "faults in a row", "last error")
    for one in found.circuits:
        left = f", {span(one.open_s)} more" if one.open_s else ""
        rows.add_row(f"{one.provider} {one.model}", one.state.replace("_", " ") + left, str(one.faults), one.last_error)
    return rows
