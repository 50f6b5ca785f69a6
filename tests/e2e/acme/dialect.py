"""Acme's protocol as the simulator speaks it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from providers.dialect import shapes
from providers.dialect.dialect import Dialect, Draft, Refusal
from providers.dialect.jobs import Account, Job, Phase
from providers.dialect.messages import Later, Reply, Request

FILMS = "/acme/films"
STAGES = {Phase.RUNNING: "shooting", Phase.SUCCEEDED: "ready", Phase.FAILED: "ruined", Phase.CANCELLED: "ruined"}


class AcmeDialect(Dialect):
    """`POST /acme/films` makes a film, `GET /acme/films/<id>` shows it."""

    name = "acme"
    prefixes = ("/acme/",)

    def handle(self, request: Request) -> Later:
        account = self.host.account(request.headers.get("x-acme-key", ""))
        if account is None:
            self.host.count_invalid()
            return _json(401, {"wrong": "key"})
        if (request.method, request.path) == ("POST", FILMS):
            return self._order(request, account)
        job = self.host.find(self, account, request.path.removeprefix(f"{FILMS}/"))
        if request.method != "GET" or job is None:
            return _json(404, {"gone": request.path})
        job.polls += 1
        return self.host.poll(self, [job], partial(self._show, job, request.origin))

    def _order(self, request: Request, account: Account) -> Later:
        film = json.loads(request.body)
        if set(film) != {"words", "seconds", "shape"} or film["seconds"] not in (4, 5):
            self.host.count_invalid()
            return _json(422, {"wrong": "order"})
        width_px, height_px = shapes.fit(*shapes.parse_ratio(film["shape"]), 720)
        content = json.dumps(film, sort_keys=True)
        draft = Draft("acme-1", film["words"], content, width_px, height_px, film["seconds"], False, 0.05)
        return self.host.submit(self, account, draft, request)

    def accept(self, job: Job, request: Request) -> Reply:
        return _json(201, {"film": job.id})

    def refuse_in_words(self, refusal: Refusal) -> Reply:
        return _json(refusal.status, {"wrong": refusal.kind})

    def _show(self, job: Job, origin: str) -> Reply:
        phase = job.phase(self.host.now())
        reel = self.host.link(job, origin) if phase is Phase.SUCCEEDED else None
        return _json(200, {"film": job.id, "stage": STAGES.get(phase, "waiting"), "reel": reel})


def _json(status: int, value: dict[str, Any]) -> Reply:
    return Reply(status, json.dumps(value).encode())
