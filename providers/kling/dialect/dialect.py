"""Kling's two API standards, as a server: what they share. `tasks.py` holds how each shows and lists tasks.

Sources as in `providers/kling/adapter.py`: https://kling.ai/document-api (both standards, error codes, concurrency,
callbacks; public copies of 2026-09), and answers that third parties recorded in 2026-09. Where both are silent, chosen
here:

- a discontinued model is 1201, an unknown one in the path 404 / 1203, an unknown task on the older standard 400 / 1201;
- the older standard refuses a reference that exists already (seen by others); the newer one, of which nothing is known,
  takes it again unless `refuse_duplicates` is set, so that a second submit shows in the counters;
- each standard knows its own tasks only, under one account; a failed task keeps its reference and costs nothing;
- limits count by model version, over both standards; a status without a code of Kling's (502 …) is a gateway's page;
- calls back on `processing` and at the end, on both standards signed when there is a webhook secret.

No cancel and no delete: there is none.
"""

from __future__ import annotations

import itertools
import json
import random
import uuid
from typing import Any

from providers.dialect import shapes
from providers.dialect.dialect import Dialect, Draft, Host, Refusal
from providers.dialect.jobs import Account, Call, Job, Phase
from providers.dialect.messages import Later, Reply, Request
from providers.dialect.signing import standard_webhook_headers
from providers.kling.dialect import schema
from providers.kling.dialect.auth import authenticate
from providers.kling.dialect.replies import CODE_OF_KIND, CODE_OF_STATUS, good, json_object, refused
from providers.kling.dialect.tasks import NewerTasks, OlderTasks, Tasks

_COSTS = "/account/costs"


class KlingDialect(Dialect):
    name = "kling"
    prefixes = ("/v1/videos/", "/text-to-video/", "/image-to-video/", "/tasks", "/account/")
    queues_over_limit = False
    calls_back_at = frozenset({Phase.RUNNING, Phase.SUCCEEDED})

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._ids = itertools.count(random.randrange(10**17, 8 * 10**17), 7919)
        self._older, self._newer = OlderTasks(self), NewerTasks(self)

    def new_id(self) -> str:
        return str(next(self._ids))

    def handle(self, request: Request) -> Later:
        path, method = request.path, request.method
        older = path.startswith("/v1/")
        try:
            account = authenticate(self.host, request.headers.get("authorization", ""), pairs=older or path == _COSTS)
            if older:
                return self._handle_older(request, account, path[len("/v1/videos/") :])
            if path == "/tasks":
                if method == "GET":
                    return self._newer.query(request, account)
                return good(self._newer.search(json_object(request), account)) if method == "POST" else refused(1202)
            if path.startswith("/account/"):
                return self._account_call(request, account, path)
            kind, _, model = path[1:].partition("/")
            if model not in schema.NEWER:
                return refused(1203, f"model {model[:100]} does not exist")
            if method != "POST":
                return refused(1202)
            body, image = json_object(request), kind == "image-to-video"
            draft = schema.check_newer(model, body, image=image)
            return self._create(request, account, self._newer, draft, body, image)
        except schema.Invalid as err:
            self.host.count_invalid()
            return refused(err.code, err.message)

    def _handle_older(self, request: Request, account: Account, rest: str) -> Later:
        family, _, task = rest.partition("/")
        if family not in ("text2video", "image2video"):
            return refused(1203)
        image = family == "image2video"
        if request.method == "POST" and not task:
            body = json_object(request)
            return self._create(request, account, self._older, schema.check_older(body, image=image), body, image)
        if request.method != "GET":
            return refused(1202)
        return self._older.one(request, account, task, image) if task else self._older.page(request, account, image)

    def _create(
        self, request: Request, account: Account, tasks: Tasks, draft: Draft, body: dict[str, Any], image: bool
    ) -> Later:
        hidden = ("external_task_id", "callback_url")
        bare = {name: value for name, value in body.items() if name not in hidden}
        if isinstance(bare.get("options"), dict):
            bare["options"] = {name: value for name, value in bare["options"].items() if name not in hidden}
        draft.content = json.dumps([request.path, bare], sort_keys=True)
        draft.extra |= {"tasks": tasks, "standard": tasks.name, "image": image}
        frames = {one["type"]: one.get("url") for one in body.get("contents") or ()}
        draft.extra["start_image"] = shapes.sent_image(body.get("image") or frames.get("first_frame"))
        return self.host.submit(self, account, draft, request)

    def check(self, account: Account, draft: Draft) -> Refusal | None:
        if not draft.reference or (draft.extra["tasks"] is self._newer and not self.host.refuse_duplicates):
            return None
        standards = (self._older.name, self._newer.name)
        if not any(self.host.find_reference(self, account, draft.reference, standard) for standard in standards):
            return None
        return Refusal(400, "duplicate", f"external_task_id {draft.reference} already exists")

    def accept(self, job: Job, request: Request) -> Reply:
        tasks: Tasks = job.extra["tasks"]
        return good(tasks.accepted(job))

    def refuse_in_words(self, refusal: Refusal) -> Reply:
        code = int(refusal.code) if refusal.code.isdecimal() else None
        if code is None:
            code = CODE_OF_KIND.get(refusal.kind) or CODE_OF_STATUS.get(refusal.status)
        if code is None:
            return refusal.gateway_page
        message = "Task not found by id/external id" if refusal.kind == "not_found" else refusal.message
        status = refusal.status if refusal.kind == "status" else None
        return refused(code, message, status, refusal.headers)

    # --- call-backs ---

    def call_back(self, job: Job, phase: Phase) -> Call:
        tasks: Tasks = job.extra["tasks"]
        view = tasks.view(job, phase, job.origin)
        return self._call(tasks, view, self.host.kling_webhook_secret)

    def forge(self, job: Job) -> Call:
        tasks: Tasks = job.extra["tasks"]
        wrong = "whsec_Zm9yZ2Vk" if self.host.kling_webhook_secret else ""
        return self._call(tasks, tasks.view(job, Phase.SUCCEEDED, "https://forged.invalid"), wrong)

    def _call(self, tasks: Tasks, view: dict[str, Any], secret: str) -> Call:
        message_id = f"msg_{uuid.uuid4().hex}"
        word = str(view[tasks.status_field])
        if not secret:
            return Call(word, json.dumps(view).encode(), lambda _: {})
        return Call(word, json.dumps(view).encode(), lambda body: standard_webhook_headers(secret, message_id, body))

    # --- the account ---

    def _account_call(self, request: Request, account: Account, path: str) -> Reply:
        if path == _COSTS:
            return self._costs(request, account) if request.method == "GET" else refused(1202)
        if path in ("/account/billing/balance", "/account/billing/package"):
            if request.method != "POST":
                return refused(1202)
            body = json_object(request)
            if not body.get("cursor") and not all(isinstance(body.get(n), int) for n in ("start_time", "end_time")):
                raise schema.Invalid("start_time and end_time are required")
            detail = self._ledger(account) if path.endswith("package") else []  # everything here is paid in units
            return good({"result": {"detail": detail, "count": len(detail)}, "next_cursor": "", "has_more": False})
        return refused(1203)

    def _costs(self, request: Request, account: Account) -> Reply:
        params = request.params
        if not all(params.get(name, "").isdecimal() for name in ("start_time", "end_time")):
            raise schema.Invalid("start_time and end_time are required")
        now = self.host.now()
        if now - account.asked_at < 1.0:
            return refused(1302)
        account.asked_at = now
        start = self.host.credit_balance if account.credits is None else account.credits
        left = max(0.0, round(self.host.balance(account, now), 4))
        pack = {
            "resource_pack_name": "Simulated video pack", "resource_pack_id": f"pack-{account.fingerprint}",
            "resource_pack_type": "decreasing_total", "total_quantity": start, "remaining_quantity": left,
            "purchase_time": int(now * 1000) - 86_400_000, "effective_time": int(now * 1000) - 86_400_000,
            "invalid_time": int(now * 1000) + 365 * 86_400_000, "status": "online" if left else "runOut",
        }  # fmt: skip
        wanted = params.get("resource_pack_name")
        packs = [pack] if wanted in (None, "", pack["resource_pack_name"]) else []
        return good({"code": 0, "msg": "SUCCEED", "resource_pack_subscribe_infos": packs})

    def _ledger(self, account: Account) -> list[dict[str, Any]]:
        now = self.host.now()
        return [
            {"task_id": job.id, "model_name": job.model, "deduction_amount": job.cost(now)}
            for job in self.host.jobs()
            if job.dialect is self and job.account is account and job.phase(now) is Phase.SUCCEEDED
        ][-500:]
