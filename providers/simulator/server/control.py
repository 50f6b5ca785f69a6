"""`/_sim/`: how tests and benchmarks read and change the simulator. Loopback only, no key.

A browser on the same host runs other people's pages, which can reach loopback too. So what a page sends is refused,
unless the page is the simulator's own, and so is a Host that is no name of loopback: a page's own name may be made to
point here (DNS rebinding). A page of another site also can't send JSON without asking first (CORS), and is not let.
"""

from __future__ import annotations

import gc
import ipaddress
import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from providers.dialect.faults import DIRECTIVES, BadDirective, Counted, Rule, parse_group
from providers.dialect.jobs import Account, Job
from providers.dialect.messages import Reply, Request
from providers.simulator.world.simulator import Outage, Simulator
from providers.simulator.world.store import Tally
from providers.webhooks import webhook_key

HELP = {
    "GET /_sim/stats": "live now and most ever by key and model, totals, renders",
    "GET /_sim/jobs": "jobs; ?id= ?prompt= ?contains= ?reference= ?model= ?provider= ?key= ?phase= ?limit=1000",
    "GET /_sim/submits": "received and created, by ?prompt= ?contains= ?reference= ?content=; else totals and doubles",
    "GET /_sim/callbacks": "call-backs sent: totals by answer, and the last; ?job= ?contains=<part of the address>",
    "GET /_sim/directives": "what a prompt or a rule can ask for",
    "GET /_sim/config": "what POST /_sim/config can change",
    "POST /_sim/config": "change any of those; advance_s moves the clock forward",
    "POST /_sim/jobs/{id}": '{"state": "running|succeeded|failed|cancelled|lost", "code": "…", "seconds": 5}',
    "POST /_sim/reset": "forget jobs, counters, keys, rules; settings as at the start",
}


class Control:
    """Reads and changes a Simulator from outside."""

    def __init__(self, simulator: Simulator) -> None:
        self.sim = simulator

    def handle(self, request: Request) -> Reply:
        if not _is_loopback(request.peer):
            return _json({"error": "loopback only"}, 403)
        if _is_of_a_page(request):
            return _json(
                {"error": "not for pages of other sites: ask under a name of loopback, and send no Origin"}, 403
            )
        if request.method == "POST" and request.body and not _is_json(request):
            return _json({"error": "send the body as JSON, with the header Content-Type: application/json"}, 415)
        try:
            return _json(self._answer(request))
        except KeyError as err:
            return _json({"error": f"missing {err}"}, 400)
        except LookupError as err:
            return _json({"error": f"not found: {err}"}, 404)
        except (ValueError, TypeError, AttributeError, BadDirective) as err:
            return _json({"error": str(err)}, 400)

    def _answer(self, request: Request) -> Any:
        path = request.path.rstrip("/")
        call = f"{request.method} {path}"
        body = json.loads(request.body or b"{}") if request.method == "POST" else {}
        if not isinstance(body, dict):
            raise ValueError("expected a JSON object")
        match call:
            case "GET /_sim":
                return HELP
            case "GET /_sim/stats":
                return self._stats()
            case "GET /_sim/jobs":
                return self._jobs(request.params)
            case "GET /_sim/submits":
                return self._submits(request.params)
            case "GET /_sim/callbacks":
                return self._callbacks(request.params)
            case "GET /_sim/directives":
                return {name: {"stage": one.stage, "help": one.help} for name, one in DIRECTIVES.items()}
            case "GET /_sim/config":
                return self._config()
            case "POST /_sim/config":
                return self._configure(body)
            case "POST /_sim/reset":
                self.sim.reset()
                gc.collect()
                return {"reset": True}
        if call.startswith("POST /_sim/jobs/"):
            job = self.sim.store.jobs.get(path.rpartition("/")[2])
            if job is None:
                raise LookupError(call)
            self.sim.force(job, body.get("state", ""), body.get("code"), float(body.get("seconds", 1e6)))
            return self._show(job)
        raise LookupError(call)

    # --- reading ---

    def _show(self, job: Job) -> dict[str, Any]:
        now = self.sim.now()
        phase = job.phase(now)
        return {
            "id": job.id, "provider": job.dialect.name, "model": job.model, "prompt": job.prompt,
            "reference": job.reference, "key": job.account.fingerprint, "phase": phase.name.lower(),
            "createdAt": job.created_at, "runAt": _finite(job.run_at), "endAt": _finite(job.end_at),
            "ended": not phase.is_live, "cancelled": job.cancelled, "deleted": job.deleted, "failure": job.failure,
            "cost": job.cost(now), "polls": job.polls, "results": job.results, "downloads": job.downloads,
            "startImage": job.extra.get("start_image"),
        }  # fmt: skip

    def _jobs(self, params: Mapping[str, str]) -> dict[str, Any]:
        now = self.sim.now()
        exact = {"id": "id", "prompt": "prompt", "reference": "reference", "model": "model"}
        found = []
        for job in self.sim.store.jobs.values():
            if any(name in params and getattr(job, attribute) != params[name] for name, attribute in exact.items()):
                continue
            if params.get("contains", "") not in job.prompt:
                continue
            if params.get("provider", job.dialect.name) != job.dialect.name:
                continue
            if params.get("key", job.account.fingerprint) != job.account.fingerprint:
                continue
            if "phase" in params and params["phase"] != job.phase(now).name.lower():
                continue
            found.append(job)
        limit = int(params.get("limit", "1000"))
        return {"count": len(found), "jobs": [self._show(job) for job in found[:limit]]}

    def _callbacks(self, params: Mapping[str, str]) -> dict[str, Any]:
        found = [
            sent
            for sent in self.sim.callbacks.log
            if params.get("job", sent["job"]) == sent["job"] and params.get("contains", "") in sent["url"]
        ]
        return {"answers": dict(self.sim.callbacks.answers), "count": len(found), "sent": found}

    def _submits(self, params: Mapping[str, str]) -> dict[str, Any]:
        store = self.sim.store
        kinds = {"prompt": store.prompts, "reference": store.references, "content": store.contents}
        for name, tallies in kinds.items():
            if name in params:
                return _show_tally(tallies.get(params[name], Tally()))
        if "contains" in params:
            return _show_tally(*(tally for prompt, tally in store.prompts.items() if params["contains"] in prompt))
        doubles = {prompt: _show_tally(tally) for prompt, tally in store.prompts.items() if tally.doubled}
        return {**vars(store.totals), "prompts": len(store.prompts), "doubled": doubles}

    def _stats(self) -> dict[str, Any]:
        now = self.sim.now()
        lanes: list[dict[str, Any]] = [
            {
                "key": account.fingerprint, "model": model, "live": lane.settle(now), "maxLive": lane.max_live,
                "created": lane.created, "limit": lane.limit,
            }
            for account in self.sim.accounts.values()
            for model, lane in account.lanes.items()
        ]  # fmt: skip
        accounts = [
            {"key": account.fingerprint, "disabled": account.disabled, "balance": self.sim.balance(account, now)}
            for account in self.sim.accounts.values()
        ]
        return {
            "live": sum(lane["live"] for lane in lanes),
            "remembered": len(self.sim.store.jobs),
            "rendered": self.sim.renderer.rendered,
            "callbacks": dict(self.sim.callbacks.answers),
            **vars(self.sim.store.totals),
            "lanes": lanes,
            "keys": accounts,
        }

    # --- changing ---

    def _config(self) -> dict[str, Any]:
        sim = self.sim
        return {
            "render_seconds": sim.render_seconds, "link_life_s": sim.link_life_s, "limits": sim.limits,
            "daily_limits": sim.daily_limits, "credit_balance": sim.credit_balance,
            "disabled_keys": [account.fingerprint for account in sim.accounts.values() if account.disabled],
            "credits": {a.fingerprint: a.credits for a in sim.accounts.values() if a.credits is not None},
            "faults": [{"match": rule.match, "used": rule.used} for rule in sim.rules],
            "outage": None if sim.outage is None else {"answer": sim.outage.answer, "where": sorted(sim.outage.where)},
            "kling_webhook_secret": bool(sim.kling_webhook_secret), "refuse_duplicates": sim.refuse_duplicates,
            "advance_s": sim.clock_ahead_s,
        }  # fmt: skip

    def _configure(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Checks every value before it changes one."""
        unknown = set(body) - set(self._config())
        if unknown:
            raise ValueError(f"unknown setting {sorted(unknown)}; there are {sorted(self._config())}")
        sim = self.sim
        changes: dict[str, Any] = {
            name: _not_negative(body[name])
            for name in ("render_seconds", "link_life_s", "credit_balance")
            if name in body
        }
        for name in ("limits", "daily_limits"):
            if name in body:
                changes[name] = {model: int(most) for model, most in (body[name] or {}).items() if most is not None}
        if "faults" in body:
            rules = [Rule(rule.get("match", ""), parse_group(rule["directives"])) for rule in body["faults"] or ()]
            changes["rules"] = rules
        if "outage" in body:
            changes["outage"] = _outage(body["outage"])
        if "refuse_duplicates" in body:
            changes["refuse_duplicates"] = bool(body["refuse_duplicates"])
        if "kling_webhook_secret" in body:
            changes["kling_webhook_secret"] = secret = str(body["kling_webhook_secret"] or "")
            if secret:
                webhook_key(secret)
        ahead_s = _not_negative(body.get("advance_s", 0))
        credits = {key: _not_negative(amount) for key, amount in body.get("credits", {}).items()}
        for name, value in changes.items():
            setattr(sim, name, value)
        sim.clock_ahead_s += ahead_s
        if "disabled_keys" in body:
            for account in sim.accounts.values():
                account.disabled = account.fingerprint in body["disabled_keys"]
            for key in body["disabled_keys"]:
                sim.accounts.setdefault(key, Account(key)).disabled = True
        for key, amount in credits.items():
            account = sim.accounts.setdefault(key, Account(key))
            account.credits, account.spent = amount, 0.0
        if "limits" in body:
            for account in sim.accounts.values():
                for model, lane in account.lanes.items():
                    lane.set_limit(sim.limits.get(model, sim.limits.get("*")), sim.now())
        sim.callbacks.rearm()
        return self._config()


def _outage(value: Any) -> Outage | None:
    if value is None:
        return None
    answer = str(value["answer"])
    if answer not in ("reset", "close", "hang"):
        name = "redirect" if answer.startswith("3") else "status"
        try:
            counted: Counted = DIRECTIVES[name].read(answer)
        except ValueError:
            counted = Counted(answer, 0)
        if counted.times is not None:
            raise ValueError("outage.answer must be an HTTP error status, a redirect's, reset, close or hang")
    return Outage(answer, frozenset(value.get("where", ("submit", "poll", "download"))), value.get("provider"))


def _not_negative(value: Any) -> float:
    number = float(value)
    if not number >= 0:
        raise ValueError("expected a number of 0 or more")
    return number


def _finite(moment: float) -> float | None:
    return moment if math.isfinite(moment) else None


def _show_tally(*tallies: Tally) -> dict[str, int]:
    return {name: sum(getattr(tally, name) for tally in tallies) for name in ("received", "created", "doubled")}


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_of_a_page(request: Request) -> bool:
    """Whether a browser sent it for a page that is not the simulator's own."""
    headers = request.headers
    host = headers.get("host")
    if host is None:
        return False  # every browser sends it
    if not _names_loopback(host):
        return True
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    return headers.get("origin", f"http://{host}") not in (f"http://{host}", f"https://{host}")


def _names_loopback(host: str) -> bool:
    """Whether a Host header has a name of loopback, or its address in any spelling; with a port or without."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())
