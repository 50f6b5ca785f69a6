"""manage.py grant_credits"""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from video.actions import grants
from video.audit.actors import of_command
from video.management.base import PlainCommand, add_reason, user_named

MOST = 1_000_000_000


def positive(text: str) -> int:
    """A whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"it must be between 1 and {MOST}, not {text}")
    return value


class Command(PlainCommand):
    help = "Gives credits to a user (opening the account if need be) and prints the new balance. Each call gives again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="user name")
        parser.add_argument("amount", metavar="N", type=positive, help="credits, more than 0")
        parser.add_argument("--note", default="", help="why; stays in the ledger")
        add_reason(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, user: str, amount: int, note: str, **options: Any) -> None:
        limit = 200
        if len(note) > limit:
            raise CommandError(f"--note has {len(note)} characters; at most {limit} fit into the ledger.", returncode=2)
        found = user_named(user, hint=" Make one with `manage.py create_user` or in the admin.")
        balance = grants.grant(found.pk, amount, by=of_command(options["reason"]), note=note)
        if options["json"]:
            self.stdout.write(json.dumps({"user": user, "granted": amount, "balance": balance}))
        else:
            self.stdout.write(f"{user} got {amount} credits; the new balance is {balance}.")
