"""manage.py cleanup_storage: deletes files that no row names, and finds rows whose files are not there."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import InterfaceError, OperationalError
from rich.progress import Progress

from media_pipeline.errors import MediaError
from providers.untrusted import printable
from video.infra.durations import count
from video.infra.toolkit import toolkit
from video.management.base import CANNOT_ASK, INTERRUPTED, ReportCommand, seconds
from video.processes import storage_sweep
from video.processes.storage_sweep import LEAST_AGE_S, Lost, Orphan, Seen, StorageEmpty

SOME_LEFT = 1
MOST_SHOWN = 100
_NOT_THIS_ONE = "Is it the right one, and mounted? See STORAGE_LOCAL_PATH and STORAGE_URL. No row was changed."


class Command(ReportCommand):
    help = (
        "Deletes files in storage that no row names and that are older than a day: what a crash or a late worker left. "
        "Anything that is not named as a file of ours stays. Then finds stored videos whose file is not there: the API "
        "says of them that they are missing, until the file is back. Safe while everything runs. Exit code: 0 done, or "
        "nothing to do, 1 some could not be deleted or are missing now, 2 database or storage can't be asked (or wrong "
        "usage), 130 interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=seconds,
            default=LEAST_AGE_S,
            metavar="TIME",
            help="a day (1d) by default, and at least",
        )
        parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
        self.add_json(parser)

    def handle(self, *args: Any, older_than: float, dry_run: bool, **options: Any) -> None:
        if older_than < LEAST_AGE_S:
            raise CommandError(
                "--older-than is a day at least: a younger file may be about to get its row.", returncode=CANNOT_ASK
            )
        seen, gone, left, lost = Seen(), list[Orphan](), list[Orphan](), list[Lost]()
        interrupted = False
        try:
            self._pass(older_than, seen, gone, left, lost, dry_run=dry_run, quiet=options["json"])
        except KeyboardInterrupt:
            interrupted = True
        except (OperationalError, InterfaceError) as err:
            raise CommandError(
                f"The database can't be reached ({type(err).__name__}).", returncode=CANNOT_ASK
            ) from None
        except MediaError as err:
            raise CommandError(f"The storage can't be read: {err}", returncode=CANNOT_ASK) from None
        except StorageEmpty as err:
            raise CommandError(f"{err} {_NOT_THIS_ONE}", returncode=CANNOT_ASK) from None
        if options["json"]:
            self.write_json(_as_json(seen, gone, left, lost, dry_run=dry_run))
        else:
            self._show(seen, gone, left, dry_run=dry_run)
            self._show_lost(lost, dry_run=dry_run)
        if interrupted:
            sys.exit(INTERRUPTED)
        if left or any(not one.is_back for one in lost):
            sys.exit(SOME_LEFT)

    def _pass(
        self,
        older_than_s: float,
        seen: Seen,
        gone: list[Orphan],
        left: list[Orphan],
        lost: list[Lost],
        *,
        dry_run: bool,
        quiet: bool,
    ) -> None:
        """One walk through the storage and the rows; the lists hold the results so far when the operator interrupts."""
        console = self.progress_console(quiet=quiet)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("Files", total=None)
            done = storage_sweep.clean_up(
                toolkit().storage, seen, now=time.time(), older_than_s=older_than_s, dry_run=dry_run
            )
            for one in done:
                progress.update(bar, completed=seen.files, description=f"Files: {seen.files} seen, {len(gone)} orphans")
                if isinstance(one, Lost):
                    lost.append(one)
                elif one.error:
                    left.append(one.orphan)
                    self.stderr.write(printable(f"{one.orphan.key} could not be deleted: {one.error}"))
                else:
                    gone.append(one.orphan)

    def _show_lost(self, lost: list[Lost], *, dry_run: bool) -> None:
        missing, back = [one for one in lost if not one.is_back], [one for one in lost if one.is_back]
        for one in missing[:MOST_SHOWN]:
            self.stdout.write(f"{one.task_id}: its {one.what} is not there: {printable(one.key)}")
        if len(missing) > MOST_SHOWN:
            self.stdout.write(f"… and {len(missing) - MOST_SHOWN} more")
        if missing:
            note = "nothing was changed" if dry_run else "the API says so"
            self.stdout.write(
                f"{count(len(missing), 'file')} of tasks missing; {note}. Put a copy back and run it again."
            )
        if back:
            self.stdout.write(f"{count(len(back), 'missing video')} {'is' if len(back) == 1 else 'are'} there again.")

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


def _as_json(seen: Seen, gone: list[Orphan], left: list[Orphan], lost: list[Lost], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dryRun": dry_run,
        "files": seen.files,
        "orphans": [{"key": orphan.key, "bytes": orphan.size_bytes} for orphan in gone],
        "bytes": _bytes(gone),
        "notDeleted": [orphan.key for orphan in left],
        "tooYoung": seen.young,
        "notOurs": seen.foreign,
        "missing": [{"taskId": one.task_id, "what": one.what, "key": one.key} for one in lost if not one.is_back],
        "foundAgain": [{"taskId": one.task_id, "key": one.key} for one in lost if one.is_back],
    }
