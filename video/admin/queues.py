"""The page of the queues: what is wrong on top, then the queues and all that works for them, as they are now."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from video.admin import problem_cards, remedies
from video.admin.account_rows import account_rows
from video.engine.queues import QUEUES
from video.infra.durations import span
from video.models import Stage
from video.monitoring import overview
from video.monitoring.overview import System
from video.monitoring.providers import KeyFigures
from video.monitoring.remedies import of_any_key
from video.monitoring.stages import StageFigures
from video.monitoring.workers import Worker


def queues_view(request: HttpRequest) -> HttpResponse:
    """GET /admin/queues/, for staff who may look at tasks and accounts."""
    if not overview.may_see_all(request.user):
        raise PermissionDenied
    found = overview.read()
    context = {
        **admin.site.each_context(request),
        "title": "Queues",
        "found": found,
        "problems": problem_cards.cards(found.problems, request),
        "tiles": tiles(found),
        "stages": [_stage(one) for one in found.stages],
        "workers": [_worker(one) for one in found.workers],
        "accounts": account_rows(found.accounts),
        "keys": [{**_key(one), "buttons": remedies.buttons(of_any_key(one), request)} for one in found.keys],
        "warnings": [(code, number, tasks_url(warning=code)) for code, number in found.warnings.items()],
        "circuits": [(one, "" if one.open_s is None else f"{span(one.open_s)} more") for one in found.circuits],
    }
    response = TemplateResponse(request, "admin/queues/page.html", context)
    response["Cache-Control"] = "no-store"
    return response


def tasks_url(**query: str) -> str:
    """The list of tasks, filtered."""
    return f"{reverse('admin:video_videotask_changelist')}?{urlencode(query)}"


def task_url(task_id: str) -> str:
    """The page of a task; empty for none."""
    return reverse("admin:video_videotask_change", args=[quote(task_id)]) if task_id else ""


def tiles(found: System) -> list[tuple[str, ...]]:
    """Each figure at the top: its name, the figure, a note, the address of the list behind it, and its tone."""
    line, cores = found.waiting, found.waiting_for_core
    stages = {one.stage.value: one for one in found.stages}
    held = {queue: sum(one.held for one in found.stages if one.queue == queue) for queue in QUEUES}
    made, failed = stages["save"].done.per_min, [sum(one.failed.per_min[n] for one in found.stages) for n in range(3)]
    free, live = sum(one.free for one in found.accounts), sum(one.live for one in found.accounts)
    slots = _oldest(line.oldest_s) or f"{free} slots are free"
    at_work = _oldest(cores.oldest_s) or f"{held['mediaQueue']} in mediaQueue are worked on"
    by_queue = " · ".join(f"{number} {queue}" for queue, number in held.items())
    made_words = f"last minute {made[0]:.0f}, 15 minutes {made[2]:.1f}"
    failed_words = f"last minute {failed[0]:.0f}, 15 minutes {failed[2]:.1f}"
    tone, slow = ("rw-bad-figure" if number else "" for number in (failed[1], found.slow_renders))
    return [
        ("waiting for a slot", line.counted, slots, tasks_url(stands="waiting"), ""),
        ("at the providers", str(live), "jobs under way", "", ""),
        ("slow renders", str(found.slow_renders), "beyond p95 of their model", tasks_url(stands="slow"), slow),
        ("waiting for a core", cores.counted, at_work, tasks_url(stands="core"), ""),
        ("in work now", str(sum(held.values())), by_queue, tasks_url(stands="held"), ""),
        ("videos a minute", f"{made[1]:.1f}", made_words, "", ""),
        ("failures a minute", f"{failed[1]:.1f}", failed_words, tasks_url(status__exact="failed"), tone),
    ]


def _oldest(seconds: float | None) -> str:
    return "" if seconds is None else f"oldest {span(seconds)}"


def _stage(one: StageFigures) -> dict[str, Any]:
    stage = one.stage.value
    return {
        "one": one,
        "name": stage,
        "urls": {
            "due": tasks_url(stands="core" if one.stage is Stage.TRANSCODE else "due", stage__exact=stage),
            **{stands: tasks_url(stands=stands, stage__exact=stage) for stands in ("held", "parked")},
        },
        "oldest": span(one.oldest_s),
        "oldest_url": task_url(one.oldest_task),
        "late": one.oldest_s is not None and one.oldest_s > 60,
        "parked": [(kind.replace("_", " "), number) for kind, number in one.parked.items()],
        "done": _figures(one.done.per_min),
        "failed": _figures(one.failed.per_min),
        "p50": span(one.through.p50_s),
        "p95": span(one.through.p95_s),
        "work": one.work.words,
    }


def _figures(values: tuple[float, ...]) -> list[str]:
    """Nothing for nothing, so that the eye finds what is there."""
    return [f"{value:.1f}" for value in values] if any(values) else []


def _worker(one: Worker) -> dict[str, Any]:
    return {
        "one": one,
        "name": one.name,
        "does": ", ".join(one.queues) or one.kind,
        "state": one.state,
        "tone": {"alive": "success", "draining": "waiting"}.get(one.state, "failed"),
        "seen": f"{span(one.seen_s)} ago",
        "memory": f"{one.memory_bytes / 1e6:.0f} MB",
        "disk": f"{one.disk_free_bytes / 1e9:.1f} GB",
    }


def _key(one: KeyFigures) -> dict[str, Any]:
    if one.gone_since is not None:
        state, tone = "gone while jobs hang on it", "failed"
    else:
        state = "switched off (draining)" if one.state == "draining" else one.state
        tone = {"active": "success", "draining": "waiting"}.get(one.state, "failed")
    return {"one": one, "state": state, "tone": tone}
