"""manage.py retry_tasks: lets failed tasks go on where they stopped, by id or by filters."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from video.actions import retry
from video.actions.selection import Filter
from video.audit.actors import of_command
from video.management.base import seconds
from video.management.many import EXIT_CODES, ManyTasks, Result
from video.models import Status


class Command(ManyTasks):
    help = (
        "Lets failed tasks go on where they stopped: a video that is already at the provider or in storage is not "
        "generated again. A run that was refunded is paid for again by its user, unless --free is given. Tasks are "
        "named (cancelled ones too), or failed ones are chosen by filters (all that are given must hold). " + EXIT_CODES
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_common(parser)
        parser.add_argument("--failed", action="store_true", help="all that have failed, or those of the filters")
        parser.add_argument("--since", type=seconds, metavar="TIME", help="failed within: 90s, 15m, 2h, 1d")
        parser.add_argument(
            "--provider", default="", choices=sorted(settings.PROVIDER_KEYS), help="of their last attempt"
        )
        parser.add_argument("--error", default="", metavar="CODE", help="failed with this code, such as timeout")
        parser.add_argument("--regenerate", action="store_true", help="generate anew, whatever is there already")
        parser.add_argument("--free", action="store_true", help="grant the credits that it costs")

    def handle(self, *args: Any, ids: list[str], dry_run: bool, free: bool, regenerate: bool, **options: Any) -> None:
        wanted = Filter(
            [Status.FAILED],
            **{name: options[name] for name in ("user", "stage", "provider", "error")},
            since_s=options["since"],
        )
        filtered = options["failed"] or wanted != Filter([Status.FAILED])
        hint = "--failed, --since, --user, --stage, --provider, --error"
        found = self.choose(ids, wanted, filtered=filtered, hint=hint)
        act = retry.would_retry if dry_run else partial(retry.retry, by=of_command(options["reason"]))

        def one(task_id: str) -> Result:
            return _result_of(act(task_id, free=free, regenerate=regenerate), "would go on" if dry_run else "goes on")

        self.run_all(found, one, dry_run=dry_run, as_json=options["json"])


def _result_of(done: retry.Retried, word: str) -> Result:
    facts = {"stage": done.stage.value, "run": done.run, "debited": done.debited, "granted": done.granted}
    return Result(done.task_id, word, done.words, facts=facts)
