"""Runway's developer API, version 2024-11-06, as a server.

Sources as in `providers/runway/adapter.py`. Where the documentation is silent, chosen here: a missing or
wrong version header is 400; a cancelled job stays readable as CANCELLED and a deleted one is 404; a job is known to
the key that submitted it only; gen4_turbo's default length is 10 s. Uploads (`/v1/uploads`) are not simulated.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

from providers.dialect import shapes
from providers.dialect.dialect import Dialect, Draft, Refusal
from providers.dialect.jobs import Account, Job, Phase
from providers.dialect.messages import Later, Reply, Request
from providers.runway.dialect import schema

API_VERSION = "2024-11-06"
DOC_URL = "https://docs.dev.runwayml.com/api"
_TASKS = "/v1/tasks/"
_CREATES = {"/v1/text_to_video": schema.TEXT_TO_VIDEO, "/v1/image_to_video": schema.IMAGE_TO_VIDEO}
_ALLOWED = {"/v1/organization": "GET", "/v1/organization/usage": "POST"} | dict.fromkeys(_CREATES, "POST")
_NOT_FOUND = Reply(404, b'{"error":"Not found"}')
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

_FAILURES = {  # prefix of the code to the text for humans
    "SAFETY.": "The content did not pass moderation.",
    "INPUT_PREPROCESSING.SAFETY": "The input did not pass moderation.",
    "ASSET.INVALID": "An input asset is invalid.",
    "THIRD_PARTY.UNAVAILABLE": "The upstream provider is unavailable.",
}
_REFUSALS = {
    "credits": "You do not have enough credits to run this task.",
    "moderation": "Your prompt was refused by content moderation.",
    "daily_limit": "You have reached your daily generation limit for this model.",
}


def _error(status: int, message: str, **more: Any) -> Reply:
    return Reply(status, json.dumps({"error": message, **more}).encode())


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value


class RunwayDialect(Dialect):
    name = "runway"
    prefixes = ("/v1/text_to_video", "/v1/image_to_video", "/v1/tasks", "/v1/organization", "/v1/")

    def handle(self, request: Request) -> Later:
        account = self.account_of(request, "Bearer")
        if account is None:
            self.host.count_invalid()
            return _error(401, "The API key is missing, invalid or disabled.")
        if request.headers.get("x-runway-version") != API_VERSION:
            self.host.count_invalid()
            return _error(400, "A valid X-Runway-Version header is required.", docUrl=DOC_URL)
        path = request.path
        if path.startswith(_TASKS):
            return self._task(request, account, path[len(_TASKS) :])
        allowed = _ALLOWED.get(path)
        if allowed is None:
            return _NOT_FOUND
        if request.method != allowed:
            return Reply(405, b'{"error":"Method not allowed"}', headers=(("allow", allowed),))
        if path in _CREATES:
            return self._create(request, account, path)
        return self._organization(account) if path == "/v1/organization" else self._usage(request, account)

    # --- create ---

    def _create(self, request: Request, account: Account, path: str) -> Later:
        models = _CREATES[path]
        body, issues = _json_body(request)
        issues = issues or schema.check_body(body, models)
        if issues:
            self.host.count_invalid()
            return _error(400, "Validation of body failed", issues=issues, docUrl=DOC_URL)
        model = models[body["model"]]
        width, height = map(int, body["ratio"].split(":"))
        duration_s = int(body.get("duration", model.default_duration_s))
        audio = model.has_audio and body.get("audio", True)
        rate = model.credits_per_s if audio or model.silent_credits_per_s is None else model.silent_credits_per_s
        content = json.dumps([path, body], sort_keys=True)
        draft = Draft(
            body["model"], body.get("promptText", ""), content, width, height, duration_s, audio, rate * duration_s
        )
        draft.extra["start_image"] = shapes.sent_image(body.get("promptImage"))
        return self.host.submit(self, account, draft, request)

    def accept(self, job: Job, request: Request) -> Reply:
        return Reply(200, b'{"id":"%b","estimatedCost":{"credits":%d}}' % (job.id.encode(), job.expected_cost))

    def refuse_in_words(self, refusal: Refusal) -> Reply:
        message = refusal.message or _REFUSALS.get(refusal.kind) or f"Simulated HTTP {refusal.status}."
        body = json.dumps({"error": message}).encode()
        return Reply(refusal.status, body, headers=refusal.headers)

    # --- one task ---

    def _task(self, request: Request, account: Account, job_id: str) -> Later:
        method = request.method
        if method not in ("GET", "DELETE"):
            return Reply(405, b'{"error":"Method not allowed"}', headers=(("allow", "GET, DELETE"),))
        job = self.host.find(self, account, job_id)
        if job is None:
            return _NOT_FOUND
        if method == "DELETE":
            return self._delete(job)
        job.polls += 1
        return self.host.poll(self, [job], partial(self._view, job, request))

    def _view(self, job: Job, request: Request) -> Reply:
        """The task object. The common cases are put together by hand: ten thousand live jobs ask for it."""
        now = self.host.now()
        phase = job.phase(now)
        head = f'{{"id":"{job.id}","createdAt":"{job.created_text}",'
        strange_s = job.faults.unknown_status
        if strange_s is not None and now < job.created_at + strange_s:
            return Reply(200, f'{head}"status":"AWAITING_REVIEW"}}'.encode())
        if phase.is_live:
            progress = f',"progress":{job.progress(now):.3f}' if phase is Phase.RUNNING else ""
            text = f'{head}"status":"{phase.name}","estimatedCost":{{"credits":{job.expected_cost:.0f}}}{progress}}}'
            return Reply(200, text.encode())
        view: dict[str, Any] = {"id": job.id, "createdAt": job.created_text, "status": phase.name}
        view["cost"] = {"credits": _number(job.cost(now))}
        if phase is Phase.SUCCEEDED:
            view["output"] = [self.host.link(job, request.origin)]
        elif phase is Phase.FAILED:
            code = job.failure or "INTERNAL"
            view["failure"] = next(
                (t for p, t in _FAILURES.items() if code.startswith(p)), "An unexpected error occurred."
            )
            if code == "null":  # the code "may be missing or null"
                view["failureCode"] = None
            elif code != "missing":
                view["failureCode"] = code
        return Reply(200, json.dumps(view).encode())

    def _delete(self, job: Job) -> Reply:
        now = self.host.now()
        how = job.faults.cancel
        if how is not None and how not in ("404", "ignored"):
            return self.refuse(Refusal.by_script(how))
        if not job.phase(now).is_live:
            job.deleted = True  # and its output is erased
        elif how != "ignored":
            self.host.cancel(job, self.cost_of_cancel(job, now))
            job.deleted = how == "404"
        return Reply(204)

    def cost_of_failure(self, job: Job) -> float:
        return job.expected_cost if (job.failure or "").startswith("SAFETY.INPUT") else 0.0

    # --- organization ---

    def _organization(self, account: Account) -> Reply:
        host = self.host
        tiers = {}
        for model in {**schema.TEXT_TO_VIDEO, **schema.IMAGE_TO_VIDEO}:
            tiers[model] = {
                "maxConcurrentGenerations": host.limits.get(model, host.limits.get("*")),
                "maxDailyGenerations": host.daily_limits.get(model, host.daily_limits.get("*")),
            }
        used = {model: {"dailyGenerations": lane.created} for model, lane in account.lanes.items()}
        view = {
            "creditBalance": int(host.balance(account, host.now())),
            "tier": {"maxMonthlyCreditSpend": 10_000, "models": tiers},
            "usage": {"models": used},
        }
        return Reply(200, json.dumps(view).encode())

    def _usage(self, request: Request, account: Account) -> Reply:
        body, issues = _json_body(request)
        if not issues and not isinstance(body, dict):
            issues = schema.wrong_type("object", body, [])
        for name in () if issues else ("startDate", "beforeDate"):
            if not isinstance(body.get(name), str) or not _DATE.fullmatch(body[name]):
                issues += schema.issue("invalid_format", [name], "Invalid ISO date", format="date")
        if issues:
            return _error(400, "Validation of body failed", issues=issues, docUrl=DOC_URL)
        now = self.host.now()
        account.settle(now)
        spent: dict[str, float] = {}
        for job in self.host.jobs():
            if job.account is account and not job.phase(now).is_live:
                spent[job.model] = spent.get(job.model, 0.0) + job.cost(now)
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        credits = [{"model": model, "amount": _number(amount)} for model, amount in spent.items()]
        return Reply(
            200, json.dumps({"models": list(spent), "results": [{"date": day, "usedCredits": credits}]}).encode()
        )


def _json_body(request: Request) -> tuple[Any, list[schema.Issue]]:
    """The body as JSON, or the issue that says why not."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return None, schema.wrong_type("object", schema.MISSING, [])
    try:
        return json.loads(request.body, parse_constant=_no_constant), []
    except (ValueError, RecursionError):
        return None, schema.issue("invalid_json", [], "The body is not valid JSON")


def _no_constant(word: str) -> None:
    """NaN and Infinity are Python's idea, not JSON's."""
    raise ValueError(word)
