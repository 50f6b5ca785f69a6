"""fal's queue with Pika's models, as a server.

Sources as in `providers/pika/adapter.py`: https://fal.ai/docs (inference, queue, errors, webhooks), the
`fal-client` 1.0.3 package. Where the documentation is silent, chosen here:

- submit answers 200; a body that is no JSON object is 400 at once; every other bad field fails the job, with 422;
- a path below a model answers 405 to follow-up calls, as a place that only takes submits;
- `queue_position` is an estimate from the waiting time and the limit; the limit is the key's, for all models together;
- a cancelled job is COMPLETED with `client_cancelled`, its result is 499, it costs nothing if it had not begun, and it
  calls back as an error like any other failure;
- `error` in a failed status is fal's message, `error_type` its first error's type; `hidden_failure` leaves both out;
- the result of a job that has not ended is 400 ("Request is still in progress", seen by others).

The keys of call-backs are at `/.well-known/jwks.json`, the balance at `/v1/account/billing`, both on this same host.
Not simulated: uploads (rest.fal.ai), the synchronous host, `X-Fal-Request-Timeout`, priorities, fal's second tries.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from providers.dialect import shapes
from providers.dialect.dialect import Dialect, Draft, Host, Refusal
from providers.dialect.jobs import Account, Call, Job, Phase
from providers.dialect.messages import Later, Reply, Request, is_web_address
from providers.dialect.signing import FalSigner
from providers.pika.dialect import schema

APP = "/fal-ai/pika"
_REQUESTS = f"{APP}/requests/"
JWKS_PATH = "/.well-known/jwks.json"
_BALANCE_PATH = "/v1/account/billing"
_FOLLOW_UPS = {"": "GET", "response": "GET", "status": "GET", "status/stream": "GET", "cancel": "PUT"}
LANE = "fal-ai/pika"

_BALANCE_TEXT = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
_LOCKED_TEXT = "User is locked. Reason: Admin lock. Please contact support@fal.ai."
_STATUS_TYPES = {
    500: "internal_error",
    502: "runner_incomplete_response",
    503: "runner_scheduling_failure",
    504: "request_timeout",
}
_STATUS_TEXTS = {
    401: f'Cannot access application "{LANE}". Authentication is required to access this application.',
    403: f'Cannot access application "{LANE}".',
    429: "Too many requests.",
}


def _error(status: int, text: str, kind: str = "", *more: tuple[str, str]) -> Reply:
    body = {"detail": text, "error_type": kind} if kind else {"detail": text}
    headers = (("x-fal-error-type", kind), *more) if kind else more
    return Reply(status, json.dumps(body).encode(), headers=headers)


class PikaDialect(Dialect):
    name = "pika"
    prefixes = ("/fal-ai/", JWKS_PATH, _BALANCE_PATH)
    moderation_failure = "content_policy_violation"
    calls_back_at = frozenset({Phase.SUCCEEDED})

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._signer = FalSigner()
        self._forger = FalSigner()

    def handle(self, request: Request) -> Later:
        path = request.path
        if path == JWKS_PATH:
            return Reply(200, self._signer.jwks())
        account = self.account_of(request, "Key")
        if account is None:
            self.host.count_invalid()
            return _error(401, _STATUS_TEXTS[401])
        if path.startswith(_REQUESTS):
            return self._follow_up(request, account, path[len(_REQUESTS) :])
        name = path[1:]
        if name in schema.MODELS:
            return self._create(request, account, name) if request.method == "POST" else _not_allowed("POST")
        if path == _BALANCE_PATH:
            return self._balance(account)
        if any(name.startswith(f"{model}/") for model in schema.MODELS):
            return _not_allowed("POST")
        return _error(404, f'Application "{name.partition("/")[2].partition("/")[0]}" or its path was not found')

    # --- create ---

    def _create(self, request: Request, account: Account, name: str) -> Later:
        body, params = request.json_or_none(), request.params
        webhook = params.get("fal_webhook") or None
        most = params.get("fal_max_queue_length", "")
        if not isinstance(body, dict) or (webhook and not is_web_address(webhook)) or (most and not most.isdecimal()):
            self.host.count_invalid()
            return _error(400, schema.FAILURES["bad_request"].message, "bad_request")
        model = schema.MODELS[name]
        given = schema.check(model, body)
        cost = 0.0 if given.issues else model.usd_per_s[given.resolution] * given.duration_s
        draft = Draft(
            name, given.prompt, json.dumps([name, body], sort_keys=True), given.width_px, given.height_px,
            given.duration_s, False, cost, reference=webhook or "", callback_url=webhook, lane=LANE,
        )  # fmt: skip
        draft.extra["start_image"] = shapes.sent_image(body.get("image_url"))
        if given.issues:
            draft.extra["issues"] = given.issues
            draft.failure = given.issues[0]["type"]
        if most:
            draft.extra["most_waiting"] = int(most)
        return self.host.submit(self, account, draft, request)

    def check(self, account: Account, draft: Draft) -> Refusal | None:
        most = draft.extra.pop("most_waiting", None)
        lane = self.host.lane(account, LANE)
        waiting = 0 if lane.limit is None else max(0, lane.settle(self.host.now()) - lane.limit)
        return Refusal(429, "queue_full") if most is not None and waiting > most else None

    def accept(self, job: Job, request: Request) -> Reply:
        position = self._position(job, self.host.now())
        ids = f'"gateway_request_id":"{job.id}",{_links(job, request)}'
        text = f'{{"status":"IN_QUEUE","queue_position":{position},{ids}}}'
        return Reply(200, text.encode(), headers=(("x-fal-request-id", job.id),))

    def refuse_in_words(self, refusal: Refusal) -> Reply:
        status, code = refusal.status, refusal.code
        if refusal.kind == "not_found" or (refusal.kind == "status" and status == 404):
            return Reply(404, b'{"status":"NOT_FOUND"}', headers=refusal.headers)
        if refusal.kind == "credits" or code == "balance":
            return _error(403, _BALANCE_TEXT, "", *refusal.headers)
        if code == "locked":
            return _error(403, _LOCKED_TEXT, "", *refusal.headers)
        if refusal.kind == "queue_full":
            return _error(429, "The queue is too long.", "", *refusal.headers)
        kind = code or _STATUS_TYPES.get(status, "")
        known = schema.FAILURES.get(kind)
        text = refusal.message or (known.message if known else _STATUS_TEXTS.get(status, f"Simulated HTTP {status}."))
        return _error(status, text, kind, *refusal.headers)

    # --- one request ---

    def _follow_up(self, request: Request, account: Account, rest: str) -> Later:
        job_id, _, tail = rest.partition("/")
        method = _FOLLOW_UPS.get(tail)
        if method is None:
            return _error(404, "Not Found")
        if request.method != method:
            return _not_allowed(method)
        job = self.host.find(self, account, job_id)
        if job is None:
            return self.refuse(Refusal(404, "not_found"))
        if tail == "cancel":
            return self._cancel(job)
        if tail == "status/stream":
            return Reply(200, content_type="text/event-stream", stream=self._events(job, request))
        if tail == "status":
            job.polls += 1
            return self.host.poll(self, [job], partial(self._status, job, request))
        job.results += 1
        fault = job.faults.result_status
        if fault is not None and fault.applies(job.results):
            refusal = Refusal.by_script(fault.value, job.faults.retry_after)
            # Only with a code does it speak of the job; a bare 5xx is a gateway's, and tells nothing of it.
            return self.refuse(refusal) if refusal.code or refusal.status < 500 else refusal.gateway_page
        return self._result(job, request.origin)

    def _status(self, job: Job, request: Request) -> Reply:
        """The status object. Put together by hand: ten thousand live jobs ask for it."""
        now = self.host.now()
        phase = job.phase(now)
        links = _links(job, request)
        strange_s = job.faults.unknown_status
        if strange_s is not None and now < job.created_at + strange_s:
            return Reply(202, f'{{"status":"AWAITING_REVIEW",{links}}}'.encode())
        if phase in (Phase.PENDING, Phase.THROTTLED):
            position = self._position(job, now)
            return Reply(202, f'{{"status":"IN_QUEUE","queue_position":{position},{links}}}'.encode())
        logs = "null"
        if request.raw_query and request.params.get("logs", "0").lower() in ("1", "true"):
            logs = json.dumps(self._logs(job, phase))
        if phase is Phase.RUNNING:
            return Reply(202, f'{{"status":"IN_PROGRESS","logs":{logs},{links}}}'.encode())
        seconds = 0.0 if phase is Phase.CANCELLED else max(0.0, job.end_at - job.run_at)
        error = ""
        if phase is not Phase.SUCCEEDED and not job.faults.hidden_failure:
            kind, failure = _ending(job)
            error = f'"error":{json.dumps(failure.message)},"error_type":{json.dumps(kind)},'
        metrics = f'{{"inference_time":{seconds:.3f}}}'
        return Reply(200, f'{{"status":"COMPLETED",{error}"logs":{logs},"metrics":{metrics},{links}}}'.encode())

    def _position(self, job: Job, now: float) -> int:
        if not job.throttled:
            return 0
        lane = self.host.lane(job.account, job.lane)
        if not math.isfinite(job.run_at) or job.running_s <= 0:
            return lane.live
        return min(lane.live, int(max(0.0, job.run_at - now) / job.running_s * max(1, lane.limit or 1)))

    def _logs(self, job: Job, phase: Phase) -> list[dict[str, str]]:
        lines = ["Simulated render started"] + ([] if phase is Phase.RUNNING else ["Simulated render ended"])
        common = {"level": "INFO", "source": "USER", "timestamp": job.created_text}
        return [{"message": line, **common} for line in lines]

    async def _events(self, job: Job, request: Request) -> AsyncIterator[bytes]:
        """`status` as server-sent events: each change, until it is COMPLETED."""
        last = b""
        while True:
            reply = self._status(job, request)
            if reply.body != last:
                last = reply.body
                yield b"data: " + last + b"\n\n"
            if reply.status == 200:
                return
            await asyncio.sleep(0.1)

    def _result(self, job: Job, origin: str) -> Reply:
        now = self.host.now()
        phase = job.phase(now)
        about = ("x-fal-request-id", job.id)
        if phase.is_live:
            return Reply(400, b'{"detail":"Request is still in progress"}', headers=(about,))
        if phase is Phase.SUCCEEDED:
            video = {
                "url": self.host.link(job, origin), "content_type": "video/mp4", "file_name": "output.mp4",
                "file_size": None,
            }  # fmt: skip
            units = ("x-fal-billable-units", str(job.clip.duration_s))
            return Reply(200, json.dumps({"video": video}).encode(), headers=(about, units))
        kind, failure = _ending(job)
        again = ("true", "1") if failure.is_retryable else ("false", "0")
        headers = (about, ("x-fal-retryable", again[0]), ("x-fal-needs-retry", again[1]))
        if not failure.by_model:
            return _error(failure.status, failure.message, kind, *headers)
        issues = job.extra.get("issues") or [schema.detail(kind, failure.message, ["body", "prompt"], job.prompt)]
        body = json.dumps({"detail": issues}).encode()
        return Reply(failure.status, body, headers=(("x-fal-error-type", kind), *headers))

    def _cancel(self, job: Job) -> Reply:
        now = self.host.now()
        how = job.faults.cancel
        if how is not None and how not in ("404", "ignored"):
            return self.refuse(Refusal.by_script(how))
        if not job.phase(now).is_live:
            return Reply(400, b'{"status":"ALREADY_COMPLETED"}')
        if how != "ignored":
            self.host.cancel(job, self.cost_of_cancel(job, now))
            job.deleted = how == "404"
        return Reply(202, b'{"status":"CANCELLATION_REQUESTED"}')

    # --- call-backs and the account ---

    def call_back(self, job: Job, phase: Phase) -> Call:
        result = self._result(job, job.origin)
        body = {"request_id": job.id, "gateway_request_id": job.id, "payload": json.loads(result.body)}
        if result.status == 200:
            return self._call(job, {**body, "status": "OK"}, self._signer)
        failed = {"status": "ERROR", "error": f"Invalid status code: {result.status}"}
        return self._call(job, {**body, **failed}, self._signer)

    def forge(self, job: Job) -> Call:
        payload = {"video": {"url": "https://forged.invalid/output.mp4"}}
        body = {"request_id": job.id, "gateway_request_id": job.id, "status": "OK", "payload": payload}
        return self._call(job, body, self._forger)

    def _call(self, job: Job, body: dict[str, Any], signer: FalSigner) -> Call:
        user_id = f"simulated|{job.account.fingerprint}"
        return Call(body["status"], json.dumps(body).encode(), lambda raw: signer.headers(job.id, user_id, raw))

    def _balance(self, account: Account) -> Reply:
        left = round(self.host.balance(account, self.host.now()), 4)
        view = {"username": "simulated", "credits": {"current_balance": left, "currency": "USD"}}
        return Reply(200, json.dumps(view).encode())


def _links(job: Job, request: Request) -> str:
    base = f"{request.origin}{_REQUESTS}{job.id}"
    return f'"request_id":"{job.id}","response_url":"{base}","status_url":"{base}/status","cancel_url":"{base}/cancel"'


def _ending(job: Job) -> tuple[str, schema.Failure]:
    """The error type of a job without a video, and how it is told."""
    issues = job.extra.get("issues")
    if issues and not job.cancelled:
        return issues[0]["type"], schema.Failure(422, issues[0]["msg"], by_model=True)
    return schema.failure("client_cancelled" if job.cancelled else job.failure or "internal_server_error")


def _not_allowed(method: str) -> Reply:
    return _error(405, "Method Not Allowed", "", ("allow", method))
