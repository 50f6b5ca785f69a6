"""manage.py check_ledger: whether balances and entries add up, and every failed run was refunded."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandParser

from video.credits import audit
from video.credits.audit import Difference
from video.infra.camel import camel
from video.management.base import ReportCommand, database_needed, table

SOME_WRONG = 1


class Command(ReportCommand):
    help = (
        "Adds up the ledger: each account's entries against its balance, each debit against a task and a run, each "
        "failed run against its one refund. Changes nothing. Exit code: 0 all is whole, 1 something differs, 2 it "
        "can't be asked (or wrong usage)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with database_needed():
            extent, found = audit.extent(), audit.find()
            names = _names({one.user_id for one in found})
        if options["json"]:
            self.write_json(_as_json(extent, found, names))
        else:
            self._show(extent, found, names)
        if found:
            sys.exit(SOME_WRONG)

    def _show(self, extent: audit.Extent, found: list[Difference], names: dict[int, str]) -> None:
        console = self.console()
        size = f"{extent.entries} entries in {extent.accounts} accounts, {extent.balance} credits in all"
        if not found:
            console.print(f"The ledger is whole: {size}.", style="green")
            return
        rows = table("user", "task", "run", "what differs")
        for one in found:
            run = "" if one.run is None else str(one.run)
            rows.add_row(names.get(one.user_id, str(one.user_id)), one.task_id, run, one.sentence)
        console.print(rows)
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
        **camel(extent, "accounts entries balance=credits"),
        "differences": [
            {
                "kind": one.kind,
                "user": names.get(one.user_id, str(one.user_id)),
                **camel(one, "task_id run sentence"),
            }
            for one in found
        ],
    }
