"""The page of failures: what failed lately, by cause, with the tasks behind each figure and a way to retry them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from video.admin.queues import tasks_url
from video.monitoring import failures
from video.monitoring.failures import WINDOWS, Cause


def failures_view(request: HttpRequest) -> HttpResponse:
    """GET /admin/failures/, for staff who may look at tasks and attempts; `in`: the window that counts."""
    if not request.user.has_perms(["video.view_videotask", "video.view_generation"]):
        raise PermissionDenied
    window = request.GET.get("in", "24h")
    window = window if window in WINDOWS else "24h"
    found = failures.read()
    place = list(WINDOWS).index(window)
    context = {
        **admin.site.each_context(request),
        "title": "Failures",
        "found": found,
        "window": window,
        "window_words": WINDOWS[window][1],
        "windows": [(name, words) for name, (_, words) in WINDOWS.items()],
        "sums": list(zip(WINDOWS.values(), found.failed, found.ended, strict=True)),
        "ended": found.ended[place],
        "failed": found.failed[place],
        "tasks": [_row(one, window) for one in failures.by_window(found.tasks, window)],
        "attempts": [_row(one, window) for one in failures.by_window(found.attempts, window)],
        "may_retry": request.user.has_perm("video.change_videotask"),
    }
    response = TemplateResponse(request, "admin/failures/page.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _row(one: Cause, window: str) -> dict[str, Any]:
    about = {"error": one.code, "provider": one.provider, "model": one.model}
    about = {name: value for name, value in about.items() if value}
    cells = [
        (number, "" if share is None else f"{share:.1%}", tasks_url(**about, ended=name))
        for name, number, share in zip(WINDOWS, one.counts, one.shares, strict=True)
    ]
    retry = f"{reverse('admin:video_videotask_all', args=['retry'])}?{urlencode({**about, 'ended': window})}"
    return {
        "one": one,
        "cells": cells,
        "retry_url": retry if one.counts[list(WINDOWS).index(window)] else "",
        "sample_url": reverse("admin:video_videotask_change", args=[one.sample_task]),
    }
