"""manage.py audit: who did what, newest first."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from rich.text import Text

from providers.untrusted import printable
from video.audit import reading
from video.infra.camel import camel
from video.infra.durations import count
from video.management.base import ReportCommand, database_needed, seconds, table
from video.models import AuditRecord

SHOWN = 50
_FIELDS = "id at actor user_id via source action kind object_id reason detail"


class Command(ReportCommand):
    help = (
        "Lists what operators did: in the admin, by commands (with the OS user), and by the API (with the key's name). "
        "Newest first; all that is given must hold. Exit code: 0, or 2 for wrong usage or a database that can't be "
        "asked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=seconds, metavar="TIME", help="done within: 90s, 15m, 2h, 30d")
        parser.add_argument("--actor", default="", metavar="NAME", help="only by this user, or OS user")
        parser.add_argument("--action", default="", metavar="VERB", help="such as cancel, retry, grant, pause")
        parser.add_argument("--kind", default="", help="such as videotask, user, providerkey")
        parser.add_argument("--object", default="", metavar="ID", help="only what was done to this")
        parser.add_argument("--limit", type=int, default=SHOWN, metavar="N", help=f"at most so many (default {SHOWN})")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with database_needed():
            rows = reading.find(
                since_s=options["since"],
                **{name: options[name] for name in ("actor", "action", "kind")},
                object_id=options["object"],
            )
            found = list(rows[: max(1, options["limit"])])
        if options["json"]:
            self.write_json({"records": [camel(one, _FIELDS) for one in found]})
        else:
            self._show(found)

    def _show(self, found: list[AuditRecord]) -> None:
        if not found:
            self.stdout.write(f"{count(0, 'record')}.")
            return
        rows = table("when (UTC)", "who", "from", "did", "to", "why", "what came of it")
        for one in found:
            rows.add_row(
                f"{one.at:%Y-%m-%d %H:%M:%S}",
                Text(printable(one.actor)),
                Text(f"{one.via} {printable(one.source)}"),
                one.action,
                f"{one.kind} {one.object_id}",
                Text(printable(one.reason)),
                Text(printable(one.detail)),
            )
        self.console().print(rows)
