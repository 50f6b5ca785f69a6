"""manage.py reconcile: settles what can be settled now, and shows what is still open."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from rich.text import Text

from video.attempts import reconcile, unsettled
from video.infra.camel import camel
from video.infra.durations import span
from video.management.base import BAD_USAGE, ReportCommand, seconds, table
from video.models import Generation
from video.routing import key_labels

SOME_OPEN = 1


class Command(ReportCommand):
    help = (
        "Settles open attempts as the sweeper does, once and now: gives up what is past its time, looks at jobs whose "
        "task has ended. With ids, --provider or --older-than, each of those is looked at at once, due or not. Shows "
        "what was open, what was done and the money at stake. Exit code: 0 nothing is open any more, 1 something is, "
        "2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help="attempts (gen_…); without any, all that are open")
        parser.add_argument("--provider", choices=sorted(settings.PROVIDER_KEYS), help="only this one")
        parser.add_argument("--older-than", type=seconds, metavar="TIME", help="sent longer ago: 90s, 15m, 2h, 1d")
        parser.add_argument("--dry-run", action="store_true", help="only show what is open")
        self.add_json(parser)

    def handle(self, *args: Any, ids: list[str], dry_run: bool, **options: Any) -> None:
        provider, older_than_s = options["provider"], options["older_than"]
        ids = list(dict.fromkeys(ids))
        if ids and (provider or older_than_s is not None):
            raise CommandError("Name attempts or filter them, not both.", returncode=BAD_USAGE)
        missing = sorted(set(ids) - set(Generation.objects.filter(pk__in=ids).values_list("pk", flat=True)))
        if missing:
            raise CommandError(f"There is no attempt {', '.join(missing)}.", returncode=BAD_USAGE)
        before = unsettled.find(ids=ids or None, provider=provider, older_than_s=older_than_s, with_lost=False)
        chosen = bool(ids or provider or older_than_s is not None)
        done = {} if dry_run else _settle(before, chosen=chosen)
        after = _again(before, all_of_them=not chosen)
        was = {case.generation.pk: case.generation.state for case in before}
        if options["json"]:
            self.write_json(_as_json(after, was, done, dry_run=dry_run))
        else:
            self._show(after, was, done, dry_run=dry_run)
        if any(case.open for case in after):
            sys.exit(SOME_OPEN)

    def _show(
        self, found: Sequence[unsettled.UnsettledAttempt], was: dict[str, str], done: dict[str, str], *, dry_run: bool
    ) -> None:
        console = self.console()
        if found:
            rows = table("attempt", "state", "at stake", "age", "provider, key", "task, user", "done", "from now on")
            for case in found:
                one = case.generation
                next_in = span((case.next_at - timezone.now()).total_seconds()) if case.open and case.next_at else ""
                until = f" until {case.until:%Y-%m-%d %H:%M} UTC" if case.open and case.until else ""
                rows.add_row(
                    one.pk,
                    Text(_moved(was.get(one.pk), one.state), style="yellow" if case.open else "green"),
                    unsettled.exposure_in_words(one) + ("\nsimulated" if one.simulated else ""),
                    span(case.age_s),
                    f"{one.provider} {one.model}\n{key_labels.of_generation(one)}"
                    + (f"\njob {one.job_id}" if one.job_id else ""),
                    f"{one.task_id}\n{one.task.user.get_username()}",
                    Text("" if dry_run else done.get(one.pk, "")),
                    Text(case.doing + (f", next in {next_in}" if next_in else "") + until),
                )
            console.print(rows)
            console.print()
        console.print(_sum_up(unsettled.stake(found)))
        if settings.SIMULATE and found:
            console.print("Everything is simulated: no real provider was asked.", style="red")


def _settle(before: list[unsettled.UnsettledAttempt], *, chosen: bool) -> dict[str, str]:
    """Do what can be done now; what was done, by attempt."""
    if chosen:
        return {case.generation.pk: unsettled.check_now(case) for case in before}
    reconcile.reconcile()
    return {}


def _again(before: list[unsettled.UnsettledAttempt], *, all_of_them: bool) -> list[unsettled.UnsettledAttempt]:
    """The same attempts as they are now, and those that have come up meanwhile."""
    found = {case.generation.pk: case for case in unsettled.find(ids=[case.generation.pk for case in before])}
    if all_of_them:
        found |= {case.generation.pk: case for case in unsettled.find(with_lost=False)}
    return list(found.values())


def _moved(before: str | None, now: str) -> str:
    return now if before in {None, now} else f"{before} → {now}"


def _sum_up(stake: unsettled.Exposure) -> str:
    if not stake.number:
        return "Nothing is open."
    parts = [f"{stake.usd.normalize():f} USD at stake"]
    if stake.simulated_usd:
        parts.append(f"{stake.simulated_usd.normalize():f} USD simulated")
    if stake.unpriced:
        parts.append(f"{stake.unpriced} without a known price")
    return f"{stake.number} open: {', '.join(parts)}."


def _as_json(
    found: Sequence[unsettled.UnsettledAttempt], was: dict[str, str], done: dict[str, str], *, dry_run: bool
) -> dict[str, Any]:
    stake, cases = unsettled.stake(found), []
    for case in found:
        one = case.generation
        cases.append(
            {
                **camel(one, "pk=id task_id"),
                "user": one.task.user.get_username(),
                **camel(one, "provider model key_fingerprint"),
                "keyLabel": key_labels.of_generation(one),
                **camel(one, "job_id"),
                "stateBefore": was.get(one.pk),
                **camel(one, "state"),
                "open": case.open,
                "ageS": None if case.age_s is None else round(case.age_s, 1),
                "expectedUsd": None if one.expected_usd is None else str(one.expected_usd),
                "expectedCost": None if one.expected_cost is None else str(one.expected_cost),
                "costUnit": one.cost_unit,
                "done": done.get(one.pk),
                "doing": case.doing,
                "nextAt": None if case.next_at is None else case.next_at.isoformat(),
                "until": None if case.until is None else case.until.isoformat(),
            }
        )
    return {
        "simulated": settings.SIMULATE,
        "dryRun": dry_run,
        "open": stake.number,
        "atStakeUsd": str(stake.usd),
        "simulatedUsd": str(stake.simulated_usd),
        "cases": cases,
    }
