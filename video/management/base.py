"""What most commands share: arguments, tables, JSON, and the database that can't be reached."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import IO, Any, NoReturn, cast

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError
from rich.table import Table

from providers.untrusted import printable
from video.management.terminal import TerminalConsole

CANNOT_ASK, BAD_USAGE, INTERRUPTED = 2, 2, 130
UNREACHABLE = "The database can't be reached, so nothing can be told."
PLAIN_WIDTH = 200  # columns; in a file or a pipe none need fold
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Parser(CommandParser):
    """Refuses arguments that no row and no terminal takes, and tells of others without what a terminal would obey."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Raises CommandError, or ends the process, for an argument with control characters, or that is no UTF-8."""
        for number, argument in enumerate(sys.argv[2:] if args is None else args, 1):
            if isinstance(argument, str) and (found := _UNREADABLE.search(argument)):
                what = "is not in UTF-8" if found[0] >= "\ud800" else f"has the control character U+{ord(found[0]):04X}"
                self.error(f"argument {number} {what}; leave it out")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """As Django's."""
        super().error(printable(message))
        raise SystemExit(BAD_USAGE)  # for the type checker: Django's has raised


#: Controls but for tabs and ends of lines; and the halves of pairs that stand for bytes that are no UTF-8.
_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class PlainCommand(BaseCommand):
    """Every command of ours: its arguments are read by `Parser`, and what it says of them is printed as plain text."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Django's, of our kind: its own method knows no other."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.__class__ = Parser
        return parser

    def execute(self, *args: Any, **options: Any) -> Any:
        """As Django's. What a CommandError quotes may turn the line around it."""
        try:
            return super().execute(*args, **options)
        except CommandError as err:
            err.args = (printable(str(err)),)
            raise


def add_reason(parser: CommandParser) -> None:
    """Of a command that changes something: why, for the audit."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; it goes into the audit")


class ReportCommand(PlainCommand):
    """A command that prints tables, or JSON with `--json`."""

    def add_json(self, parser: CommandParser, says: str = "print one JSON object") -> None:
        parser.add_argument("--json", action="store_true", help=says)

    def write_json(self, found: Any) -> None:
        self.stdout.write(json.dumps(found, indent=2))

    def console(self) -> TerminalConsole:
        """Where tables are printed."""
        width = None if self.stdout.isatty() else PLAIN_WIDTH
        return TerminalConsole(cast(IO[str], self.stdout), width=width)

    def progress_console(self, *, quiet: bool) -> TerminalConsole:
        """Where a bar is drawn."""
        return TerminalConsole(cast(IO[str], self.stderr), quiet=quiet)


def table(*titles: str) -> Table:
    """A plain table whose cells fold."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        found.add_column(title, overflow="fold")
    return found


@contextlib.contextmanager
def database_needed() -> Iterator[None]:
    """Raises CommandError if the database can't be reached."""
    try:
        yield
    except (OperationalError, InterfaceError) as err:
        raise CommandError(f"{UNREACHABLE} ({type(err).__name__})", returncode=CANNOT_ASK) from None


def user_named(name: str, *, hint: str = "") -> AbstractBaseUser:
    """Raises CommandError if there is none."""
    users = get_user_model()
    found: AbstractBaseUser | None = users._default_manager.filter(**{users.USERNAME_FIELD: name}).first()
    if found is None:
        raise CommandError(f"There is no user {name!r}.{hint}", returncode=BAD_USAGE)
    return found


def seconds(text: str) -> float:
    """90, 90s, 15m, 2h or 1d."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd]?)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time like 90s, 15m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]
