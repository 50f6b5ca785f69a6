"""The admin's home: whether it works, what is stuck and why, and how it went lately."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from video.admin import charts, problem_cards
from video.admin.account_rows import account_rows
from video.admin.queues import task_url, tiles
from video.infra.durations import span
from video.monitoring import overview, trends
from video.monitoring.stuck import Stuck
from video.monitoring.trends import Range, Trends


def home_view(request: HttpRequest) -> HttpResponse:
    """GET /admin/?range=hour|day|month, for all staff; who may not see the system gets what they may open."""
    context = {**admin.site.each_context(request), "title": "Home"}
    if not overview.may_see_all(request.user):
        context["pages"] = _pages(context["sidebar_navigation"])
        return _shown(TemplateResponse(request, "admin/home/pages.html", context))
    found = overview.read()
    over = _range(request.GET.get("range", ""))
    context |= {
        "found": found,
        "problems": problem_cards.cards(found.problems, request),
        "tiles": tiles(found),
        "stuck": [_stuck(one) for one in found.stuck],
        "ranges": [(each.value, each.words, each is over) for each in Range],
        "charts": _charts(trends.read(over)),
        "accounts": account_rows(found.accounts),
    }
    return _shown(TemplateResponse(request, "admin/home/page.html", context))


def _pages(navigation: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What the reader may open, by the sidebar's groups; this page is not among it."""
    groups = [(one["title"], [item for item in one["items"] if item["has_permission"]]) for one in navigation]
    here = reverse("admin:index")
    found = [(title, [item for item in items if str(item["link"]) != here]) for title, items in groups]
    return [(title, items) for title, items in found if items]


def _shown(response: TemplateResponse) -> TemplateResponse:
    response["Cache-Control"] = "no-store"
    return response


def _range(asked: str) -> Range:
    """An address of somebody's bookmark opens the page, whatever it asks for."""
    return Range(asked) if asked in list(Range) else Range.DAY


def _stuck(one: Stuck) -> dict[str, Any]:
    return {"one": one, "url": task_url(one.task), "age": span(one.age_s)}


def _charts(found: Trends) -> list[SafeString]:
    sums, labels = found.sums, found.labels
    waits = {
        "mean": [one.mean_wait_s for one in sums],
        "longest": [one.longest_wait_s if one.waits else None for one in sums],
    }
    return [
        charts.columns(labels, {"videos": [one.videos for one in sums]}, "videos", title="Videos done"),
        charts.columns(labels, {"failures": [one.failures for one in sums]}, "tasks", title="Failures"),
        charts.line(labels, waits, "seconds", title="Wait for a slot"),
        charts.columns(labels, found.cost_usd, "USD, as expected of its jobs", title="Provider cost"),
    ]
