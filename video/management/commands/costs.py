"""manage.py costs: what videos cost and earn, and the roll-up that reports are read from."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.text import Text

from video.costs import as_text, report, roll_up
from video.infra.durations import count
from video.management.base import BAD_USAGE, ReportCommand, database_needed, table

SOME_WRONG = 1
#: Arguments that are words of `report.asked`, and what they say.
_WORDS = {
    "since": "a day (2026-11-01), or a number of days with today (30d, the default)",
    "until": "a day (default today, UTC)",
    "by": f"some of {','.join(report.DIMENSIONS)} (default day)",
    "provider": "this one only",
    "model": "this one only, by its id",
    "key": "this one only, by its name or fingerprint",
    "user": "this one only, by name",
    "outcome": "this one only: delivered, failed, lost, cancelled, under_way or none",
    "simulated": "yes: what was simulated only; no: all else",
}


class Command(ReportCommand):
    help = (
        "Says what videos cost and earn: the providers' charges and the users' credits, of days (UTC), grouped as you "
        "ask. --check compares the roll-up that reports are read from with the rows, --rebuild makes it anew; reports "
        "are exact meanwhile. Exit code: 0 done, 1 --check found a difference, 2 it can't be asked (or wrong usage)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        for word, says in _WORDS.items():
            parser.add_argument(f"--{word}", default="", help=says)
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--csv", action="store_true", help="print CSV")
        how.add_argument("--check", action="store_true", help="compare the roll-up with the rows; exit code 1: differs")
        how.add_argument("--rebuild", action="store_true", help="roll up every day that is over, again")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["json"] and (options["csv"] or options["rebuild"]):
            raise CommandError("--json goes with a report and with --check only.", returncode=BAD_USAGE)
        with database_needed():
            if options["rebuild"]:
                self.stdout.write(f"{count(roll_up.rebuild(), 'day')} rolled up.")
            elif options["check"]:
                self._check(as_json=options["json"])
            else:
                self._report(options)

    def _check(self, *, as_json: bool) -> None:
        found = roll_up.differences()
        if as_json:
            told = [{"day": one.day and one.day.isoformat(), "sentence": one.sentence} for one in found]
            self.write_json({"whole": not found, "differences": told})
        elif not found:
            self.stdout.write("The roll-up is what the rows come to, and the sums are the ledger's.")
        else:
            for one in found:
                self.stdout.write(f"{one.day or 'All days'}: {one.sentence}.")
            self.stdout.write("Make it anew: manage.py costs --rebuild. No row of a task is changed by that.")
        if found:
            sys.exit(SOME_WRONG)

    def _report(self, options: dict[str, Any]) -> None:
        try:
            query = report.asked({word: options[word] for word in _WORDS})
        except report.BadQuery as err:
            raise CommandError(f"--{err.field} {err}.", returncode=BAD_USAGE) from None
        found = report.read(query)
        if options["json"]:
            self.write_json(as_text.as_json(found))
        elif options["csv"]:
            self.stdout.write(as_text.as_csv(found), ending="")
        else:
            self._show(found)

    def _show(self, found: report.Report) -> None:
        console, query = self.console(), found.query
        rows = table(*as_text.titles(query.by))
        for values, row in zip(as_text.named(found), found.rows, strict=True):
            if not row.sums.is_of_grants:  # JSON and CSV have them
                rows.add_row(*map(Text, values), *as_text.cells(row.sums))
        if query.by:
            first, *others = ["total", *[""] * (len(query.by) - 1)]
            rows.add_row(first, *others, *as_text.cells(found.total), style="bold")
        console.print(rows)
        console.print(f"\n{query.since} to {query.until}, UTC. Charges are in USD, the rest in credits.")
        for sentence in as_text.remarks(found):
            console.print(sentence)
