"""manage.py alerts: what is told to whom; a test, and silence."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.text import Text

from providers.untrusted import printable
from video.alerts import send, watch
from video.audit.actors import Actor, of_command
from video.infra.camel import camel, utc
from video.infra.durations import span
from video.management.base import BAD_USAGE, ReportCommand, add_reason, database_needed, seconds, table
from video.models import Alert

SOME_FAILED = 1
SHOWN = 50
_FIELDS = "id code about sentence begun_at told_at ended_at"


class Command(ReportCommand):
    help = (
        "Lists the troubles that were told to ALERT_URLS, newest first, and which messages wait or were given up. "
        "`--test` sends a test to every receiver; `--silence 2h` sends nothing for so long, `--silence 0` ends it. "
        "Exit code: 0 done, 1 a receiver did not take the test, 2 wrong usage, no receiver, or a database that "
        "can't be asked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--test", action="store_true", help="send a test to every receiver, now")
        what.add_argument("--silence", type=seconds, metavar="TIME", help="send nothing for: 30m, 2h, 1d; 0 ends it")
        add_reason(parser)
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        by = of_command(options["reason"])
        with database_needed():
            if options["test"]:
                self._test(by, as_json=options["json"])
            elif options["silence"] is not None:
                self._silence(options["silence"], by, as_json=options["json"])
            else:
                self._list(as_json=options["json"])

    def _test(self, by: Actor, *, as_json: bool) -> None:
        found = send.send_test(by=by)
        if not found:
            raise CommandError("Nobody is told: ALERT_URLS is empty.", returncode=BAD_USAGE)
        if as_json:
            self.write_json({"receivers": [{"receiver": label, "error": why or None} for label, why in found]})
        else:
            for label, why in found:
                self.stdout.write(f"{label}: {why or 'it took the test'}.")
        if any(why for _, why in found):
            sys.exit(SOME_FAILED)

    def _silence(self, for_s: float, by: Actor, *, as_json: bool) -> None:
        try:
            watch.silence(for_s, by=by)
        except ValueError as err:
            raise CommandError(str(err), returncode=BAD_USAGE) from None
        until = watch.silent_until()
        if as_json:
            self.write_json({"silentUntil": None if until is None else utc(until)})
        else:
            self.stdout.write(f"Nothing is sent for {span(for_s)}." if until else "Messages are sent again.")

    def _list(self, *, as_json: bool) -> None:
        found, until = list(Alert.objects.order_by("-id").prefetch_related("messages")[:SHOWN]), watch.silent_until()
        labels = [one.label for one in watch.receivers()]
        if as_json:
            alerts = [{**camel(one, _FIELDS), "messages": _messages(one)} for one in found]
            silent = None if until is None else utc(until)
            self.write_json({"receivers": labels, "silentUntil": silent, "alerts": alerts})
            return
        console = self.console()
        console.print(Text(f"Told: {', '.join(labels)}." if labels else "Nobody is told: ALERT_URLS is empty."))
        if until is not None:
            console.print(f"Silence until {until:%Y-%m-%d %H:%M} UTC.")
        if found:
            rows = table("began (UTC)", "state", "what", "told")
            for one in found:
                state = "over" if one.ended_at else "open" if one.told_at else "not told yet"
                told = "\n".join(f"{each.what}: {each.state}, {each.label}" for each in one.messages.all())
                rows.add_row(f"{one.begun_at:%Y-%m-%d %H:%M:%S}", state, Text(printable(one.sentence)), Text(told))
            console.print(rows)


def _messages(alert: Alert) -> list[dict[str, Any]]:
    return [camel(one, "what label=receiver state tries last_error") for one in alert.messages.all()]
