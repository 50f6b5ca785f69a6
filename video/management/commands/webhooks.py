"""manage.py webhooks: deliveries that wait or have failed, their tries, and sending them again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django.utils import timezone
from rich.text import Text

from video.actions import for_users
from video.audit.actors import Actor, of_command
from video.infra.camel import camel
from video.management.base import ReportCommand, add_reason, database_needed, seconds, table, user_named
from video.models import WebhookDelivery, WebhookTry
from video.webhooks import deliveries, receivers
from video.webhooks.endpoints import WebhookRefused

SOME_REFUSED = 1
SHOWN = 50
_FIELDS = "id message_id event task_id endpoint_id state tries due_at=nextTryAt created_at settled_at"


class Command(ReportCommand):
    help = (
        "Counts webhook deliveries by state and lists the newest that match. `tries ID` shows the tries of one; "
        "`resend` sends deliveries again, named or chosen by the filters. Exit code: 0 done, 1 some were refused, 2 "
        "wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self._add_filters(parser, "")
        self.add_json(parser)
        ways = parser.add_subparsers(dest="way", metavar="tries | resend", help="instead of listing them")
        tries = ways.add_parser("tries", help="the tries of one delivery")
        tries.add_argument("id", metavar="ID", help="a delivery (whd_…)")
        resend = ways.add_parser("resend", help="send again, now: those that are named, or else all that match")
        resend.add_argument("ids", nargs="*", metavar="ID", help="deliveries (whd_…)")
        self._add_filters(resend, "failed")
        add_reason(resend)

    def _add_filters(self, parser: CommandParser, state: str) -> None:
        parser.add_argument("--user", default="", metavar="NAME", help="only this user's")
        parser.add_argument("--endpoint", default="", metavar="ID", help="only of this endpoint (whe_…)")
        parser.add_argument("--task", default="", metavar="ID", help="only of this task")
        parser.add_argument("--since", type=seconds, metavar="TIME", help="written within: 90s, 15m, 2h, 1d")
        parser.add_argument(
            "--state",
            default=state,
            choices=WebhookDelivery.State.values,
            help=f"only these{f' (default: {state})' if state else ''}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with database_needed():
            match options["way"]:
                case "tries":
                    self._tries(options["id"], as_json=options["json"])
                case "resend":
                    by = of_command(options["reason"])
                    self._resend(options["ids"] or self._chosen(options), by=by, as_json=options["json"])
                case _:
                    self._list(self._matching(options), as_json=options["json"])

    def _matching(self, options: dict[str, Any]) -> QuerySet[WebhookDelivery]:
        rows = WebhookDelivery.objects.select_related("endpoint").order_by("-created_at", "-pk")
        if options["user"]:
            rows = rows.filter(user_id=user_named(options["user"]).pk)
        if options["since"] is not None:
            rows = rows.filter(created_at__gte=timezone.now() - timedelta(seconds=options["since"]))
        given = {"endpoint_id": options["endpoint"], "task_id": options["task"], "state": options["state"]}
        return rows.filter(**{name: value for name, value in given.items() if value})

    def _chosen(self, options: dict[str, Any]) -> list[str]:
        return list(self._matching(options).order_by("created_at").values_list("pk", flat=True))

    def _list(self, rows: QuerySet[WebhookDelivery], *, as_json: bool) -> None:
        counts, found = deliveries.counts(), list(rows[:SHOWN])
        if as_json:
            self.write_json({"counts": counts, "deliveries": [camel(one, _FIELDS) for one in found]})
            return
        console = self.console()
        console.print(", ".join(f"{number} {state}" for state, number in counts.items()))
        if found:
            shown = table("id", "event", "task", "receiver", "state", "tries", "next try")
            for one in found:
                url = one.endpoint.url if one.endpoint is not None else one.url
                host = receivers.host_of(url) or str(one.endpoint_id)
                due = one.due_at.strftime("%Y-%m-%d %H:%M:%S") if one.due_at else ""
                shown.add_row(one.pk, one.event, one.task_id, Text(host), one.state, str(one.tries), due)
            console.print(shown)

    def _tries(self, delivery_id: str, *, as_json: bool) -> None:
        found = list(WebhookTry.objects.filter(delivery_id=delivery_id).order_by("number"))
        if as_json:
            fields = "number started_at ended_at outcome http_status detail worker"
            self.write_json({"tries": [camel(one, fields) for one in found]})
            return
        rows = table("try", "begun", "outcome", "status", "detail", "worker")
        for one in found:
            begun = one.started_at.strftime("%Y-%m-%d %H:%M:%S")
            status = str(one.http_status or "")
            rows.add_row(str(one.number), begun, one.outcome or "no end", status, Text(one.detail), one.worker)
        self.console().print(rows)

    def _resend(self, ids: Sequence[str], *, by: Actor, as_json: bool) -> None:
        refused: dict[str, str] = {}
        for delivery_id in ids:
            try:
                for_users.resend(delivery_id, by=by)
            except WebhookRefused as err:
                refused[delivery_id] = err.message
        sent = len(ids) - len(refused)
        if as_json:
            self.write_json({"sent": sent, "refused": refused})
        else:
            for delivery_id, why in refused.items():
                self.stdout.write(f"{delivery_id}: {why}")
            self.stdout.write(f"To be sent again now: {sent}.")
        if refused:
            sys.exit(SOME_REFUSED)
