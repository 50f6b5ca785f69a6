"""manage.py failures: what failed lately, by cause."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from rich.text import Text

from providers.untrusted import printable
from video.management.base import ReportCommand, database_needed, table
from video.monitoring import failures
from video.monitoring.failures import Cause


class Command(ReportCommand):
    help = (
        "Shows what failed in the last hour, 24 hours and 7 days by error code, provider and model, with the share of "
        "what ended and a sample. First tasks, then attempts: those too after which another model made the video. The "
        "page Failures of the admin shows the same. Exit code: 0, or 2 when the database can't be asked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with database_needed():
            found = failures.read()
        if options["json"]:
            self.write_json(failures.as_json(found))
            return
        console = self.console()
        sums = zip(found.failed, found.ended, failures.WINDOWS.values(), strict=True)
        console.print("; ".join(f"{words}: {failed} of {ended} tasks failed" for failed, ended, (_, words) in sums))
        for title, causes in (("tasks", found.tasks), ("attempts", found.attempts)):
            if causes:
                console.print(f"\n{title.capitalize()}", style="bold")
                console.print(_table(causes))


def _table(causes: list[Cause]) -> Any:
    rows = table("error", "provider", "model", *(words for _, words in failures.WINDOWS.values()), "sample")
    for one in causes:
        numbers = zip(one.counts, one.shares, strict=True)
        cells = [
            f"{number} ({share:.1%})" if share is not None and number else str(number) for number, share in numbers
        ]
        sample = f"{one.sample_task}: {printable(one.sample)}"
        if one.warning:
            sample += f"\nA retry fails again: {one.warning}."
        rows.add_row(one.code, one.provider, one.model, *cells, Text(sample))
    return rows
