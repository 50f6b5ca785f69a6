"""manage.py cancel_tasks: cancels tasks by id or by filters, and says what becomes of their credits."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from video.actions import cancel
from video.actions.selection import Filter
from video.audit.actors import Actor, of_command
from video.management.base import BAD_USAGE, seconds
from video.management.many import EXIT_CODES, ManyTasks, Result
from video.models import ACTIVE


class Command(ManyTasks):
    help = (
        "Cancels tasks that are under way, wherever they stand: workers stop, the provider is asked to stop its job, "
        "and the credits come back unless the provider charges for it. Tasks are named, or chosen by filters (all that "
        "are given must hold); then it asks first, unless --yes is given. " + EXIT_CODES
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_common(parser)
        parser.add_argument("--status", default="", choices=[status.value for status in ACTIVE], help="only those")
        parser.add_argument("--older-than", type=seconds, metavar="TIME", help="created longer ago: 90s, 15m, 2h, 1d")
        parser.add_argument("--yes", action="store_true", help="don't ask before many are cancelled")

    def handle(self, *args: Any, ids: list[str], dry_run: bool, **options: Any) -> None:
        statuses = [status for status in ACTIVE if options["status"] in ("", status.value)]
        wanted = Filter(statuses, user=options["user"], stage=options["stage"], older_than_s=options["older_than"])
        filtered = bool(wanted.user or wanted.stage or options["status"] or wanted.older_than_s is not None)
        found = self.choose(ids, wanted, filtered=filtered, hint="--user, --stage, --status, --older-than")
        if found and not (ids or dry_run or options["yes"]):
            self._ask(len(found))
        self.run_all(
            found,
            _preview if dry_run else partial(_cancel, by=of_command(options["reason"])),
            dry_run=dry_run,
            as_json=options["json"],
        )

    def _ask(self, number: int) -> None:
        """Ask the operator to confirm. Raises CommandError unless the answer is yes."""
        try:
            answer = input(f"Cancel {number} task{'s' if number > 1 else ''}? [y/N] ")
        except EOFError:
            raise CommandError("Nobody is there to be asked: add --yes.", returncode=BAD_USAGE) from None
        if answer.strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was cancelled.", returncode=BAD_USAGE)


def _cancel(task_id: str, *, by: Actor) -> Result:
    return _result_of(cancel.cancel(task_id, by=by), "cancelled")


def _preview(task_id: str) -> Result:
    return _result_of(cancel.would_cancel(task_id), "would be cancelled")


def _result_of(done: cancel.Cancelled, word: str) -> Result:
    facts = {
        "stage": done.stage.value,
        "run": done.run,
        "refund": done.refund.value,
        "asksProvider": done.asks_provider,
    }
    return Result(done.task_id, word if done.changed else "cancelled before", done.words, facts=facts)
