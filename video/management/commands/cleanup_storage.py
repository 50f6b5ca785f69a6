"""manage.py cleanup_storage: deletes files that no row names."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import InterfaceError, OperationalError
from rich.progress import Progress

from media_pipeline.errors import MediaError
from video.infra.toolkit import toolkit
from video.management.base import CANNOT_ASK, INTERRUPTED, ReportCommand, seconds
from video.management.terminal import printable
from video.processes import storage_sweep
from video.processes.storage_sweep import LEAST_AGE_S, Orphan, Seen

SOME_LEFT = 1
MOST_SHOWN = 100


class Command(ReportCommand):
    help = (
        "Deletes files in storage that no row names and that are older than a day: what a crash or a late worker left. "
        "Anything that is not named as a file of ours stays. Safe while everything runs. Exit code: 0 done, or nothing "
        "to do, 1 some could not be deleted, 2 database or storage can't be asked (or wrong usage), 130 interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=seconds,
            default=LEAST_AGE_S,
            metavar="TIME",
            help="a day (1d) by default, and at least",
        )
        parser.add_argument("--dry-run", action="store_true", help="only show what would be deleted")
        self.add_json(parser)

    def handle(self, *args: Any, older_than: float, dry_run: bool, **options: Any) -> None:
        if older_than < LEAST_AGE_S:
            raise CommandError(
                "--older-than is a day at least: a younger file may be about to get its row.", returncode=CANNOT_ASK
            )
        seen, gone, left = Seen(), list[Orphan](), list[Orphan]()
        interrupted = False
        try:
            self._pass(older_than, seen, gone, left, dry_run=dry_run, quiet=options["json"])
        except KeyboardInterrupt:
            interrupted = True
        except (OperationalError, InterfaceError) as err:
            raise CommandError(
                f"The database can't be reached ({type(err).__name__}).", returncode=CANNOT_ASK
            ) from None
        except MediaError as err:
            raise CommandError(f"The storage can't be read: {err}", returncode=CANNOT_ASK) from None
        if options["json"]:
            self.write_json(_as_json(seen, gone, left, dry_run=dry_run))
        else:
            self._show(seen, gone, left, dry_run=dry_run)
        if interrupted:
            sys.exit(INTERRUPTED)
        if left:
            sys.exit(SOME_LEFT)

    def _pass(
        self, older_than_s: float, seen: Seen, gone: list[Orphan], left: list[Orphan], *, dry_run: bool, quiet: bool
    ) -> None:
        """One walk through the storage; `gone` and `left` hold the results so far when the operator interrupts."""
        storage = toolkit().storage
        console = self.progress_console(quiet=quiet)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("Files", total=None)
            for orphan in storage_sweep.find(storage, seen, now=time.time(), older_than_s=older_than_s):
                progress.update(bar, completed=seen.files, description=f"Files: {seen.files} seen, {len(gone)} orphans")
                if dry_run:
                    gone.append(orphan)
                    continue
                try:
                    storage.delete(orphan.key)
                except (MediaError, OSError) as err:
                    left.append(orphan)
                    self.stderr.write(printable(f"{orphan.key} could not be deleted: {err}"))
                else:
                    gone.append(orphan)

    def _show(self, seen: Seen, gone: list[Orphan], left: list[Orphan], *, dry_run: bool) -> None:
        for orphan in gone[:MOST_SHOWN]:
            self.stdout.write(f"{orphan.size_bytes:>14,}  {printable(orphan.key)}")
        if len(gone) > MOST_SHOWN:
            self.stdout.write(f"… and {len(gone) - MOST_SHOWN} more")
        word = "would be deleted" if dry_run else "deleted"
        summary = f"{len(gone)} of {seen.files} files {word}, {_bytes(gone) / 1e6:.1f} MB"
        if left:
            summary += f"; {len(left)} could not be deleted"
        if seen.young:
            summary += f"; {seen.young} without a row are too young to tell"
        if seen.foreign:
            summary += f"; {seen.foreign} are not named as ours and stay"
        self.stdout.write(f"{summary}.")


def _bytes(orphans: list[Orphan]) -> int:
    return sum(orphan.size_bytes for orphan in orphans)


def _as_json(seen: Seen, gone: list[Orphan], left: list[Orphan], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dryRun": dry_run,
        "files": seen.files,
        "orphans": [{"key": orphan.key, "bytes": orphan.size_bytes} for orphan in gone],
        "bytes": _bytes(gone),
        "notDeleted": [orphan.key for orphan in left],
        "tooYoung": seen.young,
        "notOurs": seen.foreign,
    }
