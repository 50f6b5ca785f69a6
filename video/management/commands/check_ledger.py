"""manage.py check_ledger: whether balances and entries add up, and every failed run was refunded."""

from __future__ import annotations

import json
import sys
from typing import IO, Any, cast

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from video.credits import audit
from video.credits.audit import Difference

SOME_WRONG, CANNOT_ASK = 1, 2
PLAIN_WIDTH = 200  # in a file or a pipe no column need fold


class Command(BaseCommand):
    help = (
        "Adds up the ledger: each account's entries against its balance, each debit against a task and a run, each "
        "failed run against its one refund. Changes nothing. Exit code: 0 all is whole, 1 something differs, 2 it "
        "can't be asked (or wrong usage)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            extent, found = audit.extent(), audit.find()
            names = _names({one.user_id for one in found})
        except (OperationalError, InterfaceError) as err:
            raise CommandError(
                f"The database can't be reached, so nothing can be told. ({type(err).__name__})", returncode=CANNOT_ASK
            ) from None
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(extent, found, names), indent=2))
        else:
            self._show(extent, found, names)
        if found:
            sys.exit(SOME_WRONG)

    def _show(self, extent: audit.Extent, found: list[Difference], names: dict[int, str]) -> None:
        from rich.console import Console
        from rich.table import Table

        console = Console(
            file=cast(IO[str], self.stdout), width=None if self.stdout.isatty() else PLAIN_WIDTH, highlight=False
        )
        size = f"{extent.entries} entries in {extent.accounts} accounts, {extent.balance} credits in all"
        if not found:
            console.print(f"The ledger is whole: {size}.", style="green")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("user", "task", "run", "what differs"):
            table.add_column(title, overflow="fold")
        for one in found:
            run = "" if one.run is None else str(one.run)
            table.add_row(names.get(one.user_id, str(one.user_id)), one.task_id, run, one.sentence)
        console.print(table)
        console.print(f"\n{len(found)} {'difference' if len(found) == 1 else 'differences'}; {size}.", style="red")
        console.print(
            "The past can't be changed. Find out first what wrote this: the task's page in the admin has its story. "
            "Then put it right by another entry (a grant), never by hand in the tables."
        )


def _names(user_ids: set[int]) -> dict[int, str]:
    users = get_user_model()
    return {user.pk: user.get_username() for user in users._default_manager.filter(pk__in=user_ids)}


def _as_json(extent: audit.Extent, found: list[Difference], names: dict[int, str]) -> dict[str, Any]:
    return {
        "whole": not found,
        "accounts": extent.accounts,
        "entries": extent.entries,
        "credits": extent.balance,
        "differences": [
            {
                "kind": one.kind,
                "user": names.get(one.user_id, str(one.user_id)),
                "taskId": one.task_id or None,
                "run": one.run,
                "sentence": one.sentence,
            }
            for one in found
        ],
    }
