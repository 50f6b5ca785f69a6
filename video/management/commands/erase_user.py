"""manage.py erase_user: deletes all that is a user's own, and keeps the books."""

from __future__ import annotations

import math
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.progress import Progress

from providers.untrusted import printable
from video.actions import erase_user
from video.actions.erase_user import Extent
from video.actions.task_rows import ActionRefused
from video.audit.actors import Actor, of_command
from video.infra.camel import camel
from video.infra.durations import count
from video.management.base import BAD_USAGE, INTERRUPTED, ReportCommand, add_reason, database_needed, user_named

SOME_LEFT = 1


class Command(ReportCommand):
    help = (
        "Erases a user: switches them off, cancels what is under way, deletes all tasks with their files and prompts, "
        "logins and settings of their own, and puts erased-<number> in place of the name. Credits and their entries "
        "stay, without notes. It can't be undone. If it is interrupted, a sweeper goes on. Exit code: 0 done, 1 files "
        "are left, which a sweeper deletes when the storage is back, 2 wrong usage or the database can't be asked, 130 "
        "interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="NAME", help="user name")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--yes", action="store_true", help="don't ask before")
        add_reason(parser)
        self.add_json(parser)

    def handle(self, *args: Any, user: str, dry_run: bool, yes: bool, **options: Any) -> None:
        with database_needed():
            found = user_named(user)
            there = erase_user.extent(found.pk)
            if not (dry_run or yes):
                self._confirm(user, there)
            done = (
                False
                if dry_run
                else self._erase(found.pk, there, by=of_command(options["reason"]), quiet=options["json"])
            )
        if options["json"]:
            facts = camel(there, "tasks under_way uploads stored_bytes balance")
            self.write_json({"userId": found.pk, "dryRun": dry_run, "erased": done, "found": facts})
        else:
            self.stdout.write(_sentence(printable(user), found.pk, there, done=done, dry_run=dry_run))
        if not (done or dry_run):
            sys.exit(SOME_LEFT)

    def _confirm(self, user: str, there: Extent) -> None:
        """Raises CommandError unless the operator types the name."""
        self.stdout.write(f"{printable(user)} has {_words(there)}. All of it goes, and it can't be undone.")
        try:
            answer = input("Type the name to erase this user: ")
        except EOFError:
            raise CommandError("Nobody is there to be asked: add --yes.", returncode=BAD_USAGE) from None
        if answer.strip() != user:
            raise CommandError("Nothing was erased.", returncode=BAD_USAGE)

    def _erase(self, user_id: int, there: Extent, *, by: Actor, quiet: bool) -> bool:
        try:
            erase_user.ask(user_id, by=by)
        except ActionRefused as err:
            raise CommandError(err.message, returncode=BAD_USAGE) from None
        console = self.progress_console(quiet=quiet)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("Tasks", total=there.tasks)
            try:
                return erase_user.work(user_id, for_s=math.inf, on_task=lambda: progress.advance(bar))
            except KeyboardInterrupt:
                self.stderr.write("Interrupted: the user is switched off, and a sweeper goes on with the rest.")
                sys.exit(INTERRUPTED)


def _words(there: Extent) -> str:
    live = f", {there.under_way} of them under way" if there.under_way else ""
    stored = f"{there.stored_bytes / 1e6:.1f} MB of videos, {count(there.uploads, 'uploaded picture')}"
    return f"{count(there.tasks, 'task')}{live}, {stored}, {count(there.balance, 'credit')}"


def _sentence(user: str, user_id: int, there: Extent, *, done: bool, dry_run: bool) -> str:
    if dry_run:
        return f"{user} has {_words(there)}. Nothing was changed: this was a dry run."
    if done:
        return f"{user} is erased: {_words(there)}. What stays stands under erased-{user_id}."
    return f"{user} is switched off; files could not be deleted yet. A sweeper goes on with it; its log says why."
