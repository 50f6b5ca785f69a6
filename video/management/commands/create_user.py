"""manage.py create_user"""

from __future__ import annotations

import getpass
import json
import secrets
import sys
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from video.actions import people
from video.audit.actors import of_command
from video.management.base import BAD_USAGE, PlainCommand, add_reason
from video.models import Role
from video.web import roles

LONGEST = 1024
GENERATED_BYTES = 15  # 20 characters


class Command(PlainCommand):
    help = (
        "Makes a user, perhaps with credits. The password is asked for, read from standard input (--stdin), or "
        "generated and shown once (--generate); it is never an argument, which other users of the machine could see."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="user name")
        parser.add_argument("--credits", type=int, default=0, metavar="N", help="credits to begin with (default 0)")
        parser.add_argument("--email", default="", help="for a link when the password is forgotten")
        parser.add_argument("--role", choices=roles.NAMES, help="such a member of the staff, who may open the admin")
        add_reason(parser)
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--stdin", action="store_true", help="read the password from standard input, one line")
        how.add_argument("--generate", action="store_true", help="make a password and show it once")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, name: str, credits: int, email: str, **options: Any) -> None:
        if not 0 <= credits <= 1_000_000_000:
            raise CommandError("--credits: must be from 0 to 1,000,000,000", returncode=BAD_USAGE)
        password = self._password(stdin=options["stdin"], generate=options["generate"])
        try:
            by, role = of_command(options["reason"]), options["role"] or ""
            user = people.make(name, password, email=email, credits=credits, note="create_user", role=role, by=by)
        except Role.DoesNotExist:
            text = f"Nothing was made: the group of the role {role} was deleted. Add the user in the admin."
            raise CommandError(text, returncode=1) from None
        except people.NameTaken:
            raise CommandError(f"There is a user {name!r} already, perhaps in other capitals.", returncode=1) from None
        except ValidationError as err:
            raise CommandError(f"Nothing was made. {' '.join(err.messages)}", returncode=BAD_USAGE) from None
        shown = password if options["generate"] else None
        if options["json"]:
            found = {"id": user.pk, "user": name, "credits": credits, "role": role or None}
            self.stdout.write(json.dumps({**found, "password": shown} if shown else found))
            return
        staff = f" They are staff now, in the role {role}." if role else ""
        self.stdout.write(f"{name} is made, with {credits} credits.{staff}")
        if shown:
            self.stdout.write(f"Password (shown this once): {shown}")

    def _password(self, *, stdin: bool, generate: bool) -> str:
        if generate:
            return secrets.token_urlsafe(GENERATED_BYTES)
        if stdin:
            password = sys.stdin.readline(LONGEST + 2).rstrip("\r\n")
        elif sys.stdin.isatty():
            password = getpass.getpass("Password: ")
            if getpass.getpass("Once more: ") != password:
                raise CommandError("The two differ. Nothing was made.", returncode=BAD_USAGE)
        else:
            raise CommandError("No terminal to ask at: give --stdin or --generate.", returncode=BAD_USAGE)
        if not password or len(password) > LONGEST:
            raise CommandError(f"A password has 1 to {LONGEST} characters. Nothing was made.", returncode=BAD_USAGE)
        return password
