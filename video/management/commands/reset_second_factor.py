"""manage.py reset_second_factor"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from video.management.base import PlainCommand, database_needed, user_named
from video.web import security_log
from video.web.logins import second_factor


class Command(PlainCommand):
    help = (
        "Takes the second factor of the admin, and its recovery codes, away from a user who has lost them. The user's "
        "password stays; with ADMIN_SECOND_FACTOR=required the next login sets a new one up."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="user name")

    def handle(self, *args: Any, user: str, **options: Any) -> None:
        with database_needed():
            found = user_named(user)
            had_one = second_factor.reset(found)
        if not had_one:
            self.stdout.write(f"{user} has no second factor.")
            return
        security_log.record("second_factor_reset", address="this host", user=found, by="command")
        self.stdout.write(f"{user} has no second factor any more. Sessions that had given it have to set up a new one.")
