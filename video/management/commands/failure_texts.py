"""manage.py failure_texts: failures whose text no adapter knows, and what operators say that they mean."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from rich.text import Text

from providers.untrusted import printable
from video.attempts import failure_texts
from video.attempts.failure_texts import MEANINGS, DecisionRefused
from video.audit.actors import Actor, of_command
from video.infra.camel import camel
from video.infra.durations import count, span
from video.management.base import BAD_USAGE, ReportCommand, add_reason, database_needed, table
from video.models import FailureText

SOME_UNDECIDED = 1


class Command(ReportCommand):
    help = (
        "Lists the failure texts of providers that are not understood; until somebody says what one means, a task "
        "whose job ends so asks no other model. `decide ID MEANING` says it, `forget ID …` drops texts. Exit code: 0 "
        "nothing waits for a decision, 1 something does, 2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", help="also those that are decided")
        self.add_json(parser)
        ways = parser.add_subparsers(dest="way", metavar="decide | forget", help="instead of listing them")
        decide = ways.add_parser("decide", help="say what a text means; tasks do so from now on")
        decide.add_argument("id", type=int, metavar="ID", help="of the list")
        decide.add_argument(
            "meaning",
            choices=[*MEANINGS, "undecided"],
            help="moderation, bad_request and failed: no other model; another_model: another may try",
        )
        decide.add_argument("--by", default="", metavar="NAME", help="who decides, if not who runs the command")
        forget = ways.add_parser("forget", help="drop texts with their decisions; seen again, they are listed anew")
        forget.add_argument("ids", nargs="+", type=int, metavar="ID", help="of the list")
        for one in (decide, forget):
            add_reason(one)

    def handle(self, *args: Any, **options: Any) -> None:
        with database_needed():
            match options["way"]:
                case "decide":
                    self._decide(options["id"], options["meaning"], by=_actor(options))
                case "forget":
                    self._forget(options["ids"], by=of_command(options["reason"]))
                case _:
                    self._list(all_of_them=options["all"], as_json=options["json"])

    def _decide(self, text_id: int, meaning: str, *, by: Actor) -> None:
        try:
            found = failure_texts.decide(text_id, "" if meaning == "undecided" else meaning, by=by)
        except DecisionRefused as err:
            raise CommandError(str(err), returncode=BAD_USAGE) from None
        self.stdout.write(f"{printable(str(found))}: {found.get_meaning_display()}. Tasks do so from now on.")

    def _forget(self, ids: Sequence[int], *, by: Actor) -> None:
        for text_id in ids:
            try:
                self.stdout.write(f"Forgotten: {printable(str(failure_texts.forget(text_id, by=by)))}")
            except DecisionRefused as err:
                raise CommandError(str(err), returncode=BAD_USAGE) from None

    def _list(self, *, all_of_them: bool, as_json: bool) -> None:
        found = [one for one in failure_texts.listed() if all_of_them or not one.meaning]
        waiting = sum(not one.meaning for one in found)
        if as_json:
            self.write_json({"undecided": waiting, "texts": [_as_json(one) for one in found]})
        else:
            self._show(found, waiting)
        if waiting:
            sys.exit(SOME_UNDECIDED)

    def _show(self, found: Sequence[FailureText], waiting: int) -> None:
        console, now = self.console(), timezone.now()
        if found:
            rows = table("id", "provider, model", "text", "jobs", "last seen", "last task", "means")
            for one in found:
                decided = f"\nby {one.decided_by}" if one.decided_by else ""
                rows.add_row(
                    str(one.pk),
                    f"{one.provider} {one.model}",
                    Text(one.sample or one.signature),
                    str(one.count),
                    f"{span((now - one.last_seen).total_seconds())} ago",
                    one.last_task,
                    Text((one.meaning or "undecided") + decided, style="green" if one.meaning else "red"),
                )
            console.print(rows)
            console.print()
        console.print(f"{count(waiting, 'text')} to be decided." if waiting else "Nothing waits for a decision.")
        if waiting:
            console.print(f"Say what one means: manage.py failure_texts decide ID {'|'.join(MEANINGS)}")


def _actor(options: dict[str, Any]) -> Actor:
    """The OS user, or who they say decided it."""
    found = of_command(options["reason"])
    return replace(found, name=options["by"]) if options["by"] else found


def _as_json(one: FailureText) -> dict[str, Any]:
    return camel(
        one,
        "pk=id provider signature sample model count last_task first_seen last_seen meaning decided_by decided_at",
    )
