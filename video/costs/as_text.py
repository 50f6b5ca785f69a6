"""A report for people and programs: the columns of a table, JSON, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from django.contrib.auth import get_user_model

from video.costs.rates import Rate, credit_usd, rates
from video.costs.report import Report, Sums
from video.infra import csv_text
from video.models import ProviderKey

_CENTS: Final = Decimal("0.0001")


def usd(amount: Decimal) -> str:
    """With two to four decimals."""
    whole, _, fraction = f"{amount.quantize(_CENTS, ROUND_HALF_UP):f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def in_units(sums: Sums) -> str:
    """The reported charge in the providers' own units: "runway 120 credits, kling 3.5 units"."""
    return ", ".join(
        f"{provider} {amount.normalize():f} {unit}" for (provider, unit), amount in sorted(sums.reported.items())
    )


def named(report: Report) -> list[list[str]]:
    """The values of each row as words: users and keys by their names. A statement for each of the two."""
    names: dict[str, dict[Any, str]] = {}
    for place, word in enumerate(report.query.by):
        found = {row.values[place] for row in report.rows}
        if word == "user":
            users = get_user_model()._default_manager.filter(pk__in=found)
            names[word] = dict(users.values_list("pk", "username"))
        elif word == "key":
            names[word] = {one.fingerprint: str(one) for one in ProviderKey.objects.filter(fingerprint__in=found)}
    by = report.query.by
    return [
        [names.get(word, {}).get(value, str(value)) for word, value in zip(by, row.values, strict=True)]
        for row in report.rows
    ]


#: Of each sum: its name in JSON and CSV, and its value.
def _amounts(sums: Sums) -> dict[str, Any]:
    found: dict[str, Any] = {
        "attempts": sums.attempts,
        "videos": sums.videos,
        "chargeUsd": usd(sums.charge_usd),
        "expectedUsd": usd(sums.expected_usd),
        "reportedUsd": usd(sums.reported_usd),
        "reportedExpectedUsd": usd(sums.reports_expected_usd),
        "estimatedUsd": usd(sums.estimated_usd),
        "failuresUsd": usd(sums.failures_usd),
        "reports": sums.reports,
        "unpriced": sums.unpriced,
        "runs": sums.debits,
        "debited": sums.debited,
        "refunded": sums.refunded,
        "free": sums.free,
        "earned": sums.earned,
        "granted": sums.granted,
        "adjusted": sums.adjusted,
    }
    if (margin := sums.margin_usd) is not None:
        found["marginUsd"] = usd(margin)
    return found


def as_json(report: Report) -> dict[str, Any]:
    """The whole report. Money is decimal strings in USD, credits are whole numbers."""
    words = named(report)
    worth = credit_usd()
    return {
        "since": report.query.since.isoformat(),
        "until": report.query.until.isoformat(),
        "by": list(report.query.by),
        "rows": [
            {**dict(zip(report.query.by, values, strict=True)), **_amounts(row.sums), "reported": _units(row.sums)}
            for values, row in zip(words, report.rows, strict=True)
        ],
        "total": {**_amounts(report.total), "reported": _units(report.total)},
        "cut": report.cut,
        "hasSimulated": report.has_simulated,
        "creditUsd": None if worth is None else f"{worth:f}",
        "rates": [_rate(rate) for rate in rates()],
    }


def own_json(report: Report) -> dict[str, Any]:
    """What a user may know of their own use: nothing of what providers charge."""
    rows = [{**dict(zip(report.query.by, map(str, row.values), strict=True)), **_own(row.sums)} for row in report.rows]
    return {
        "since": report.query.since.isoformat(),
        "until": report.query.until.isoformat(),
        "by": list(report.query.by),
        "rows": rows,
        "total": _own(report.total),
        "cut": report.cut,
    }


def _own(sums: Sums) -> dict[str, int]:
    return {
        "videos": sums.videos,
        "runs": sums.debits,
        "debited": sums.debited,
        "refunded": sums.refunded,
        "free": sums.free,
        "paid": sums.earned,
        "granted": sums.granted,
        "adjusted": sums.adjusted,
    }


def _units(sums: Sums) -> list[dict[str, str]]:
    return [
        {"provider": provider, "unit": unit, "amount": f"{amount.normalize():f}"}
        for (provider, unit), amount in sorted(sums.reported.items())
    ]


def _rate(rate: Rate) -> dict[str, str]:
    return {"provider": rate.provider, "unit": rate.unit, "usd": f"{rate.usd:f}", "source": rate.source}


def as_csv(report: Report) -> str:
    """A row a group, without the total. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*report.query.by, *_amounts(report.total), "reported"])
    for values, row in zip(named(report), report.rows, strict=True):
        writer.writerow([*map(csv_text.cell, values), *_amounts(row.sums).values(), in_units(row.sums)])
    return out.getvalue()


def file_name(report: Report, ending: str) -> str:
    """For a download."""
    return f"costs-{_compact(report.query.since)}-{_compact(report.query.until)}.{ending}"


def _compact(day: date) -> str:
    return day.strftime("%Y%m%d")


def titles(by: Sequence[str]) -> list[str]:
    """The titles of the columns of a table."""
    more = [
        "attempts",
        "videos",
        "charge USD",
        "expected USD",
        "reported",
        "on failures USD",
        "debited",
        "refunded",
        "earned",
    ]
    return [*by, *more, *(["margin USD"] if credit_usd() is not None else [])]


def cells(sums: Sums) -> list[str]:
    """Those of a table, after the values."""
    margin = sums.margin_usd
    return [
        f"{sums.attempts:,}",
        f"{sums.videos:,}",
        usd(sums.charge_usd),
        usd(sums.expected_usd),
        in_units(sums),
        usd(sums.failures_usd),
        f"{sums.debited:,}",
        f"{sums.refunded:,}",
        f"{sums.earned:,}",
        *([usd(margin)] if margin is not None else []),
    ]


def remarks(report: Report) -> list[str]:
    """What the reader of a report should know of it."""
    total, found = report.total, []
    if report.cut:
        found.append(f"There are more than {len(report.rows):,} groups: ask for fewer days, or for one user or model.")
    if report.has_simulated and report.has_real:
        found.append("Attempts of the simulator are among them: they cost nothing. Leave them out with simulated=no.")
    elif report.has_simulated and total.attempts:
        found.append("These attempts were simulated: nobody is charged for them.")
    if total.unpriced:
        found.append(f"Of {total.unpriced:,} attempts nobody knows the charge; they are missing in it.")
    if total.estimated_usd:
        found.append(f"{usd(total.estimated_usd)} USD of the charge were not reported by the provider, but expected.")
    return found
