"""The front page, and what a monitor asks: is this web process alive, and is it ready for requests?"""

from __future__ import annotations

import logging
import time

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from video.infra import broker, outage
from video.infra.causes import kind_of
from video.web import answers, outage_middleware

log = logging.getLogger(__name__)

OK = "ok"
NOT_KNOWN = "not known"
UP_TO_DATE_S = 60.0  # a schema that is up to date is not compared again for so long
_compared_at = float("-inf")


def front_page(request: HttpRequest) -> HttpResponse:
    """GET /: what this is and where things are. It also is an own origin for front-end code."""
    return render(request, "demo/front_page.html")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 for a form whose token is missing or old. (Django's own page has a style in it, which our policy forbids.)"""
    sentence = "This form can't be taken: its CSRF token is missing or old. Please go back, load the page anew and try"
    return answers.plain(403, f"{sentence} again; cookies must be allowed.")


def healthz(request: HttpRequest) -> JsonResponse:
    """GET /healthz: this process answers. It asks no other service, so an outage restarts no web server."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


def readyz(request: HttpRequest) -> HttpResponse:
    """GET /readyz: 200 when all parts are well, else 503 that names those that are not, and the kind of error.

    Asks database and broker, each for two seconds at most. Whatever they raise, the answer is this one.
    """
    parts = {"database": _database(), "migrations": NOT_KNOWN, "broker": _broker()}
    if parts["database"] == OK:
        parts["migrations"] = _migrations()
    if set(parts.values()) == {OK}:
        response = JsonResponse({"success": True, "data": parts})
    else:
        wrong = ", ".join(f"{name}: {state}" for name, state in parts.items() if state != OK)
        error = {"code": "not_ready", "message": f"Not ready. {wrong}.", "details": parts}
        response = JsonResponse({"success": False, "error": error}, status=503)
        response["Retry-After"] = str(outage_middleware.RETRY_AFTER_S)
    response["Cache-Control"] = "no-store"
    return response


def _database() -> str:
    try:
        if outage.gate.lets_through():
            outage.ping()
            return OK
    except Exception as err:
        log.warning("not ready: the database can't be used: %s", err)
        outage.gate.close(err)
    return outage.gate.why


def _migrations() -> str:
    global _compared_at
    if time.monotonic() - _compared_at < UP_TO_DATE_S:
        return OK
    try:
        executor = MigrationExecutor(connection)
        missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except Exception as err:
        log.warning("not ready: the schema can't be compared: %s", err)
        return f"{NOT_KNOWN} ({kind_of(err)})"
    if missing:
        return f"{missing} not applied; run `manage.py migrate`"
    _compared_at = time.monotonic()
    return OK


def _broker() -> str:
    try:
        broker.require()
    except broker.BrokerUnavailable as err:
        log.warning("not ready: the broker can't be used (%s)", err)
        return f"can't be used ({err})"
    return OK
