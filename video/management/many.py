"""What `cancel_tasks` and `retry_tasks` share: one action on many tasks, one at a time, with the result of each."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rich.progress import track
from rich.text import Text

from video.actions import selection
from video.actions.selection import Filter
from video.actions.task_filters import InvalidSelection
from video.actions.task_rows import ActionRefused
from video.credits.ledger import InsufficientCredits
from video.management.base import BAD_USAGE, INTERRUPTED, ReportCommand, add_reason, table
from video.models import Stage

SOME_REFUSED = 1
MOST_SHOWN = 100  # rows; of more, only those that were refused
EXIT_CODES = "Exit code: 0 all done, or nothing to do; 1 some were refused; 2 wrong usage; 130 interrupted."


@dataclass(frozen=True)
class Result:
    """What the action did to one task, or why it was refused."""

    task_id: str
    word: str
    message: str
    ok: bool = True
    facts: dict[str, Any] = field(default_factory=dict)  # for --json


class ManyTasks(ReportCommand):
    """Tasks by id or by filters, `--dry-run`, `--json`, a bar, a table and an exit code."""

    def add_common(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help="tasks (task_…)")
        parser.add_argument("--user", default="", metavar="NAME", help="only this user's")
        stages = [stage.value for stage in Stage if stage is not Stage.DONE]
        parser.add_argument("--stage", default="", choices=stages, help="only those that stand there")
        add_reason(parser)
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
        self.add_json(parser)

    def choose(self, ids: Sequence[str], wanted: Filter, *, filtered: bool, hint: str) -> list[str]:
        """Ids of the tasks that the command line names or filters. Raises CommandError."""
        if bool(ids) == filtered:
            raise CommandError(
                "Name tasks or filter them, not both." if ids else f"Name tasks, or choose them: {hint}.",
                returncode=BAD_USAGE,
            )
        try:
            return selection.by_id(ids) if ids else selection.by_filter(wanted)
        except InvalidSelection as err:
            raise CommandError(str(err), returncode=BAD_USAGE) from None

    def run_all(self, ids: Sequence[str], act: Callable[[str], Result], *, dry_run: bool, as_json: bool) -> None:
        """Run the action on each task and print the results; exits unless the code is 0."""
        results: list[Result] = []
        interrupted = False
        try:
            self._each(ids, act, results, quiet=as_json)
        except KeyboardInterrupt:
            interrupted = True
        if as_json:
            self.write_json(_as_json(results, dry_run=dry_run, left=len(ids) - len(results)))
        else:
            self._show(results, left=len(ids) - len(results), dry_run=dry_run)
        if interrupted:
            sys.exit(INTERRUPTED)
        if not all(one.ok for one in results):
            sys.exit(SOME_REFUSED)

    def _each(self, ids: Sequence[str], act: Callable[[str], Result], results: list[Result], *, quiet: bool) -> None:
        console = self.progress_console(quiet=quiet)
        for task_id in track(ids, "Tasks", console=console, transient=True, disable=not console.is_terminal):
            results.append(_one(task_id, act))  # noqa: PERF401 - an interrupt keeps the results so far

    def _show(self, results: Sequence[Result], *, left: int, dry_run: bool) -> None:
        console = self.console()
        shown = results if len(results) <= MOST_SHOWN else [one for one in results if not one.ok][:MOST_SHOWN]
        if shown:
            rows = table("task", "", "")
            for one in shown:
                rows.add_row(one.task_id, Text(one.word, style="green" if one.ok else "red"), Text(one.message))
            console.print(rows)
            console.print()
        counts = Counter(one.word for one in results)
        words = ", ".join(f"{number} {word}" for word, number in counts.items()) or "No task matches"
        console.print(words + (f"; {left} left as they were" if left else "") + ".")
        if dry_run and results:
            console.print("Nothing was changed: this was a dry run.")
        if settings.SIMULATE and results:
            console.print("Everything is simulated: no real provider has to do with it.", style="red")


def _one(task_id: str, act: Callable[[str], Result]) -> Result:
    try:
        return act(task_id)
    except ActionRefused as err:
        return Result(task_id, "refused", err.message, ok=False, facts={"code": err.code})
    except InsufficientCredits as err:
        message = f"Its user is short of credits: {err}"
        return Result(task_id, "refused", message, ok=False, facts={"code": "insufficient_credits"})


def _as_json(results: Sequence[Result], *, dry_run: bool, left: int) -> dict[str, Any]:
    return {
        "simulated": settings.SIMULATE,
        "dryRun": dry_run,
        "done": sum(one.ok for one in results),
        "refused": sum(not one.ok for one in results),
        "left": left,
        "tasks": [
            {"id": one.task_id, "ok": one.ok, "outcome": one.word, "message": one.message, **one.facts}
            for one in results
        ],
    }
