"""The page of costs: what videos cost and earn, over the days, by group, and who uses most; the same as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from providers import catalogue
from providers.registry import PROVIDERS
from video.admin import charts
from video.costs import as_text, report
from video.costs.facts import FAILURES, OUTCOMES
from video.costs.rates import credit_usd, rates
from video.costs.report import DIMENSIONS, BadQuery, Query, Report
from video.monitoring import overview

MOST_SHOWN: Final = 500  # rows of the table; the CSV has all
MOST_USERS: Final = 10
SPANS: Final = (("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"), ("365d", "a year"))
GROUPINGS: Final = (
    *DIMENSIONS,
    "provider,outcome",
    "model,outcome",
    "user,outcome",
    "provider,day",
    "model,day",
    "user,day",
)
_WORDS: Final = ("since", "until", "by", "provider", "model", "key", "user", "outcome", "simulated")


def costs_view(request: HttpRequest) -> HttpResponse:
    """GET /admin/costs/, for staff who may look at tasks and accounts. The words of the query are those of
    `report.asked`; `format=csv`: the table to keep.
    """
    if not overview.may_see_all(request.user):
        raise PermissionDenied
    words = {word: request.GET.get(word, "").strip() for word in _WORDS}
    words["by"] = words["by"] or "provider"
    try:
        query, wrong = report.asked(words), ""
    except BadQuery as err:
        query, wrong = report.asked({"by": "provider"}), f"{err.field} {err}. The last 30 days are shown instead."
        words = dict.fromkeys(_WORDS, "") | {"by": "provider"}
    if request.GET.get("format") == "csv":
        return _csv(report.read(query))
    found = report.read(replace(query, most=MOST_SHOWN))
    context = {
        **admin.site.each_context(request),
        "title": "Costs",
        "wrong": wrong,
        "query": query,
        "form": _form(query, words),
        "spans": [(title, _url(words, since=span, until=""), span == _span(words)) for span, title in SPANS],
        "filters": [(word, words[word], _url(words, **{word: ""})) for word in _WORDS[3:] if words[word]],
        "remarks": as_text.remarks(found),
        "tiles": _tiles(found),
        "charts": _charts(query),
        "titles": as_text.titles(()),
        "rows": _rows(found, words),
        "total": as_text.cells(found.total),
        "users": _rows(report.read(replace(query, by=("user",), most=MOST_USERS)), words),
        "rates": [(one, as_text.usd(one.usd)) for one in rates()],
        "credit_usd": credit_usd(),
        "csv": _url(words, format="csv"),
    }
    response = TemplateResponse(request, "admin/costs/page.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _span(words: Mapping[str, str]) -> str:
    """The days until today that were asked for; "" for others."""
    return "" if words["until"] else words["since"] or "30d"


def _csv(found: Report) -> HttpResponse:
    response = HttpResponse(as_text.as_csv(found), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{as_text.file_name(found, "csv")}"'
    response["Cache-Control"] = "no-store"
    return response


def _url(words: Mapping[str, str], **changes: str) -> str:
    """This page with other words."""
    kept = {word: value for word, value in {**words, **changes}.items() if value}
    return f"?{urlencode(kept)}"


def _form(query: Query, words: Mapping[str, str]) -> dict[str, Any]:
    groupings = [(one, one.replace(",", " and ")) for one in dict.fromkeys((*GROUPINGS, ",".join(query.by)))]
    return {
        "words": words,
        "by": ",".join(query.by),
        "groupings": groupings,
        "choices": [
            ("provider", [(one.name, one.adapter.title) for one in PROVIDERS]),
            ("model", [(one.id, one.title) for one in catalogue.MODELS]),
            ("outcome", [(one, one.replace("_", " ")) for one in OUTCOMES]),
            ("simulated", [("yes", "only simulated"), ("no", "only real")]),
        ],
    }


def _tiles(found: Report) -> list[tuple[str, str, str, str]]:
    """(name, figure, note, tone)."""
    total = found.total
    charge, videos = total.charge_usd, total.videos
    share = f"{total.failures_usd / charge:.0%} of the charge" if charge else "nothing was charged"
    each = f"{as_text.usd(charge / videos)} USD each, failures included" if videos else "none"
    tiles = [
        ("Charge, USD", _cents(charge), f"{_cents(total.expected_usd)} expected", ""),
        ("On failures, USD", _cents(total.failures_usd), share, "rw-bad-figure" if total.failures_usd else ""),
        ("Videos", f"{videos:,}", each, ""),
        (
            "Credits earned",
            f"{total.earned:,}",
            f"{total.debited:,} debited, {total.refunded:,} refunded, {total.free:,} free",
            "",
        ),
    ]
    margin, worth = total.margin_usd, credit_usd()
    if margin is not None:
        note = f"at {worth:f} USD a credit"
        tiles.append(("Margin, USD", _cents(margin), note, "rw-bad-figure" if margin < 0 else ""))
    return tiles


def _cents(amount: Decimal) -> str:
    return f"{amount:,.2f}"


def _charts(query: Query) -> list[SafeString]:
    found = report.read(replace(query, by=("day", "provider", "outcome"), most=report.MOST_ROWS))
    days = _days(found)
    labels = [f"{day:%d %b}" for day in days]
    place = {day: number for number, day in enumerate(days)}
    charge: dict[str, list[Decimal]] = {}
    on_failures, debited, refunded = ([Decimal(0)] * len(days) for _ in range(3))
    for row in found.rows:
        day, provider, outcome = row.values
        at, sums = place[day], row.sums
        if sums.charge_usd:
            charge.setdefault(provider or "none", [Decimal(0)] * len(days))[at] += sums.charge_usd
        if outcome in FAILURES:
            on_failures[at] += sums.charge_usd
        debited[at] += sums.debited
        refunded[at] += sums.refunded
    return [
        charts.columns(labels, dict(sorted(charge.items())) or {"charge": on_failures}, "USD", title="Charge"),
        charts.columns(labels, {"failures": on_failures}, "USD", title="Charge on failures"),
        charts.line(labels, {"debited": debited, "refunded": refunded}, "credits", title="Credits"),
    ]


def _days(found: Report) -> Sequence[date]:
    """From the first day with anything, at most those that were asked for."""
    query = found.query
    first = min((row.values[0] for row in found.rows), default=query.until)
    return [first + timedelta(days=number) for number in range((query.until - first).days + 1)]


def _rows(found: Report, words: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each value leads to its own rows: a day to that day, all else to a filter."""
    names = as_text.named(found)
    return [
        {
            "values": [
                (name or "none", _narrowed(words, word, value, name) if name else "")
                for word, value, name in zip(found.query.by, row.values, values, strict=True)
            ],
            "cells": as_text.cells(row.sums),
        }
        for values, row in zip(names, found.rows, strict=True)
        if not row.sums.is_of_grants
    ]


def _narrowed(words: Mapping[str, str], word: str, value: Any, name: str) -> str:
    if word == "day":
        return _url(words, since=name, until=name, by="provider" if words["by"] == "day" else words["by"])
    by = "day" if words["by"] == word else words["by"]
    return _url(words, **{word: name if word == "user" else str(value), "by": by})
