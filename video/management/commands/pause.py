"""manage.py pause: no new job starts for what is named, until it is resumed or its time is over."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from video.actions import pause as pausing
from video.actions.pause import WrongTarget
from video.audit import actors
from video.management import pausing as words
from video.management.base import BAD_USAGE, ReportCommand, database_needed, seconds
from video.routing import pauses


def moment(text: str) -> datetime:
    """A time of ISO 8601; without an offset it is in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time like 2026-11-28T18:00 or 2026-11-28T18:00+01:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class Command(ReportCommand):
    help = (
        "Pauses everything, a provider, a model, an account or a user: no new submit is sent for it, and what is at a "
        "provider goes on. What is paused already gets this reason and end instead. Without a name it lists the pauses "
        "in force. `manage.py resume` ends a pause."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        words.add_target(parser)
        ends = parser.add_mutually_exclusive_group()
        ends.add_argument("--until", type=moment, metavar="TIME", help="when it ends by itself, in UTC unless it says")
        ends.add_argument(
            "--for", dest="for_s", type=seconds, metavar="T", help="the same: 90s, 15m, 2h or 1d from now"
        )
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with database_needed():
            if words.is_named(options):
                self._pause(options)
            else:
                self._list(as_json=options["json"])

    def _pause(self, options: dict[str, Any]) -> None:
        wanted, for_s = words.target(options), options["for_s"]
        if for_s is not None and not 2 <= for_s <= pausing.LONGEST_S:
            raise CommandError("--for must be between 2 seconds and 366 days.", returncode=BAD_USAGE)
        until = options["until"] if for_s is None else pausing.in_seconds(for_s)
        try:
            made, is_new = pausing.pause(wanted, actor=actors.of_command(), reason=options["reason"], until=until)
        except WrongTarget as err:
            raise CommandError(f"--{err.field}: {err.message}.", returncode=BAD_USAGE) from None
        if options["json"]:
            self.write_json(pauses.as_json(made))
            return
        done = "" if is_new else "It was paused already; reason and end are these now. "
        self.stdout.write(f"{done}{pauses.of_row(made).told}. What is at a provider goes on. {_end(made.pk)}")

    def _list(self, *, as_json: bool) -> None:
        rows = list(pauses.rows_live())
        if as_json:
            self.write_json({"pauses": [pauses.as_json(one) for one in rows]})
            return
        for one in rows:
            self.stdout.write(words.words(one))
        if not rows:
            self.stdout.write("Nothing is paused. Name what to pause: `manage.py pause --help`.")


def _end(pause_id: int) -> str:
    return f"`manage.py resume --id {pause_id}` ends it."
