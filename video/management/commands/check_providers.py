"""manage.py check_providers: asks every provider about every key, and shows the answers."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from rich.text import Text

from video.infra.camel import camel
from video.infra.durations import span
from video.management.base import ReportCommand, table
from video.models import ProviderKey
from video.monitoring.providers import AccountFigures
from video.processes.key_check import Row, check
from video.routing import slots

SOME_BAD, NO_KEY = 1, 2


class Command(ReportCommand):
    help = (
        "Asks each provider about each key (free of charge) and shows state, limits, balance and the last error. "
        "What it finds counts at once: a topped-up account opens again, and the next job tries what was refused "
        "before, unless the key is refused now as well. Exit code: 0 all good, 1 some key is refused, out of credits "
        "or could not be checked, 2 no key is configured."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--provider", choices=sorted(settings.PROVIDER_KEYS), help="only this one")
        self.add_json(parser)

    def handle(self, *args: Any, provider: str | None, **options: Any) -> None:
        keys = [(name, key) for name, key, _ in slots.configured() if provider in {None, name}]
        if not keys:
            names = [provider] if provider else sorted(settings.PROVIDER_KEYS)
            if options["json"]:
                self.stdout.write(json.dumps({"simulated": settings.SIMULATE, "keys": []}))
            wanted = ", ".join(f"{name.upper()}_API_KEY" for name in names)
            raise CommandError(f"No key is configured: {wanted} in .env.local or the environment.", returncode=NO_KEY)
        rows = check(keys)
        if options["json"]:
            self.write_json({"simulated": settings.SIMULATE, "keys": [_as_json(row) for row in rows]})
        else:
            self._show(rows)
        if not all(row.good for row in rows):
            sys.exit(SOME_BAD)

    def _show(self, rows: list[Row]) -> None:
        shown = table("provider", "key", "fingerprint", "account", "state", "live of limit", "balance", "last error")
        for row in rows:
            shown.add_row(
                row.key.provider,
                row.key.label,
                row.key.fingerprint,
                "" if row.key.account == row.key.fingerprint else row.key.account,
                Text(_state(row), style="green" if row.good else "red"),
                "\n".join(f"{one.model} {_of_limit(one)}" for one in row.models),
                "" if row.balance is None else f"{row.balance.normalize():f} {row.unit}",
                Text(row.last_error),
            )
        console = self.console()
        console.print(shown)
        if settings.SIMULATE:
            console.print("\nEverything is simulated: no real key was looked at.", style="red")


def _closed(one: AccountFigures) -> str:
    return one.closed_reason or ("refused_lately" if one.refusals else "" if one.cooldown_s is None else "cooling_down")


def _of_limit(one: AccountFigures) -> str:
    tried = ", the next job tries" if one.refusals and not one.retry_s else ""
    return f"{one.live}/{one.limit}" + (f" ({_closed(one).replace('_', ' ')}{tried})" if _closed(one) else "")


def _state(row: Row) -> str:
    word = {"ok": "good", "not_checked": "has no account call"}.get(row.verdict, row.verdict.replace("_", " "))
    word = word if row.key.state == ProviderKey.State.ACTIVE else f"{word}, {row.key.state}"
    return f"{word}, tried again in {span(row.key.retry_s)}" if row.key.retry_s else word


def _as_json(row: Row) -> dict[str, Any]:
    return {
        **camel(row.key, "provider fingerprint label account state"),
        "verdict": row.verdict,
        "balance": None if row.balance is None else str(row.balance),
        "unit": row.unit,
        "models": [{**camel(one, "model live limit"), "closed": _closed(one) or None} for one in row.models],
        "lastError": row.last_error or None,
    }
