"""manage.py resume: ends a pause."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from video.actions import pause as pausing
from video.actions.task_rows import ActionRefused
from video.audit import actors
from video.management import pausing as words
from video.management.base import BAD_USAGE, ReportCommand, database_needed
from video.routing import pauses


class Command(ReportCommand):
    help = (
        "Ends a pause, named by what it pauses or by its id, and lets what waited for it go on. `manage.py pause` "
        "lists the pauses in force."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        words.add_target(parser)
        parser.add_argument("--id", type=int, metavar="N", help="the pause's id, instead of a name")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if (options["id"] is None) is not words.is_named(options):
            raise CommandError("Name what is paused, or give its --id.", returncode=BAD_USAGE)
        with database_needed():
            try:
                pause_id = options["id"]
                if pause_id is None:
                    pause_id = pausing.live_pause_of(words.target(options)).pk
                ended = pausing.resume(pause_id, actor=actors.of_command(), reason=options["reason"])
            except ActionRefused as err:
                raise CommandError(f"{err.message} `manage.py pause` lists what is paused.", returncode=1) from None
        if options["json"]:
            self.write_json(pauses.as_json(ended))
        else:
            self.stdout.write(f"Resumed: {pauses.of_row(ended).what}. What waited for it goes on.")
