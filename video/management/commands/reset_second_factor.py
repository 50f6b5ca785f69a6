"""manage.py reset_second_factor"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from video.actions import for_users
from video.audit.actors import of_command
from video.management.base import PlainCommand, add_reason, database_needed, user_named


class Command(PlainCommand):
    help = (
        "Takes the second factor of the admin, and its recovery codes, away from a user who has lost them. The user's "
        "password stays; with ADMIN_SECOND_FACTOR=required the next login sets a new one up."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="user name")
        add_reason(parser)

    def handle(self, *args: Any, user: str, **options: Any) -> None:
        with database_needed():
            found = user_named(user)
            had_one = for_users.reset_second_factor(found, by=of_command(options["reason"]))
        if not had_one:
            self.stdout.write(f"{user} has no second factor.")
            return
        self.stdout.write(f"{user} has no second factor any more. Sessions that had given it have to set up a new one.")
