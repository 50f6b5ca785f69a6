"""The simulator itself: what all protocols share, between the server and the dialects."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Coroutine, Reversible, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from providers.dialect import faults as scripts
from providers.dialect.dialect import Dialect, Draft, Refusal
from providers.dialect.faults import NO_FAULTS, BadDirective, Faults, Rule
from providers.dialect.jobs import Account, ClipSpec, Job, Lane, fingerprint
from providers.dialect.messages import Answer, Cut, Later, Reply, Request
from providers.simulator.options import SimulatorOptions
from providers.simulator.world.callbacks import Callbacks
from providers.simulator.world.render import Renderer
from providers.simulator.world.store import Store

FILES_PREFIX = "/out/"
#: As some providers write a file's title into its link, and no link may hold it as it stands.
ODD_WORDS = "&title=Größe {1}|a^b <猫>"


class LinkSigner:
    """Links that expire: `?_jwt=<expiry>.<HMAC>`, as opaque to a client as the real ones.

    The secret lives as long as the process, and so do the jobs that the links point to.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def token(self, subject: str, expires_at: float) -> str:
        return f"{expires_at:.3f}.{self._mac(subject, f'{expires_at:.3f}')}"

    def is_good(self, subject: str, token: str, now: float) -> bool:
        """Whether the token was made for this subject and is still alive."""
        stamp, _, mac = token.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(subject, stamp).encode()):
            return False
        return now < float(stamp)

    def _mac(self, subject: str, stamp: str) -> str:
        return hmac.new(self._secret, f"{subject}|{stamp}".encode(), hashlib.sha256).hexdigest()[:40]


@dataclass
class Outage:
    """Everything of one kind fails: `answer` is an HTTP status, "reset", "close" or "hang"."""

    answer: str
    where: frozenset[str]  # of "submit" (any POST), "poll" (any other call), "download"
    dialect: str | None = None


class Simulator:
    """Owns the jobs, keys and faults; the `Host` of all dialects. One instance a process, one thread."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.renderer = Renderer(options)
        self.links = LinkSigner()
        self.callbacks = Callbacks(self.now)
        self.clock_ahead_s = 0.0
        self.refuse_all: Callable[[float], None] = lambda seconds: None  # set by the process that listens
        self.reset()

    def reset(self) -> None:
        """As at the start, but for the rendered clips. The clock stays: it must not run backwards."""
        self.store = Store(self.options.keep_ended)
        self.accounts: dict[str, Account] = {}
        self.rules: list[Rule] = []
        self.outage: Outage | None = None
        self.render_seconds = self.options.render_seconds
        self.link_life_s = self.options.link_life_s
        self.credit_balance = self.options.credit_balance  # of each key at the start
        self.limits: dict[str, int] = {}  # live jobs a key, by model; "*" for all others
        self.daily_limits: dict[str, int] = {}
        # Fingerprints; without any, every key is good.
        self.good_keys = frozenset(fingerprint(key) for key in self.options.keys)
        # By access key, for keys that are pairs.
        self.secrets = dict(key.split(":", 1) for key in self.options.keys if ":" in key)
        self.kling_webhook_secret = self.options.kling_webhook_secret
        self.refuse_duplicates = False  # of references, on Kling's newer standard too
        self.callbacks.reset()

    def close(self) -> None:
        self.callbacks.close()
        self.renderer.close()

    def now(self) -> float:
        """Seconds since the epoch on the simulator's clock."""
        return time.time() + self.clock_ahead_s

    # --- keys ---

    def account(self, key: str) -> Account | None:
        """The account of a key, or None when the key is no good."""
        name = fingerprint(key)
        if not key or (self.good_keys and name not in self.good_keys):
            return None
        return self.named_account(name)

    def named_account(self, name: str) -> Account | None:
        """The account with this fingerprint, whose key is known to be good; None when it was disabled."""
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = Account(name)
        return None if found.disabled else found

    def balance(self, account: Account, now: float) -> float:
        """What the account has left, in the provider's unit."""
        account.settle(now)
        start = self.credit_balance if account.credits is None else account.credits
        return start - account.spent

    def lane(self, account: Account, model: str) -> Lane:
        """The lane of an account and model, made when it is first asked for."""
        found = account.lanes.get(model)
        if found is None:
            found = account.lanes[model] = Lane(account, self.limits.get(model, self.limits.get("*")))
        return found

    # --- submit ---

    def submit(self, dialect: Dialect, account: Account, draft: Draft, request: Request) -> Later:
        """A valid submit: its faults, its counters, and the job."""
        nth = self.store.receive(dialect.name, draft)
        try:
            text, groups = scripts.split_prompt(draft.prompt)
        except BadDirective as err:
            return dialect.refuse(Refusal(400, "directive", f"simulator: {err}"))
        plan = NO_FAULTS
        for rule in self.rules:
            plan = scripts.merge(plan, rule.take(draft.prompt, dialect.name, draft.model) or NO_FAULTS)
        plan = scripts.merge(plan, scripts.resolve(groups, dialect.name, draft.model, nth))

        def go_on() -> Later:
            return self._submit(dialect, account, draft, request, text, plan)

        answer = go_on() if plan.hang_before is None else after(plan.hang_before, go_on)
        return announced(answer, plan.interim)

    def _submit(
        self, dialect: Dialect, account: Account, draft: Draft, request: Request, text: str, plan: Faults
    ) -> Later:
        now = self.now()
        if plan.reset:
            return Cut(reset=True)
        refusal = self._refusal(dialect, account, draft, plan, now)
        if refusal is not None:
            self.store.totals.refused += 1
            return dialect.refuse(refusal)
        job = self._create(dialect, account, draft, request, text, plan, now)
        if plan.lost_reply or plan.lost_reply_reset:
            return Cut(reset=plan.lost_reply_reset)
        if plan.status_after is not None:
            return dialect.refuse(Refusal.by_script(plan.status_after, plan.retry_after))
        reply = dialect.accept(job, request)
        if plan.garbage:
            reply = replace(reply, body=reply.body[: len(reply.body) // 2] + b"\xff<garbage>")
        return reply if plan.hang is None else after(plan.hang, lambda: reply)

    def _refusal(self, dialect: Dialect, account: Account, draft: Draft, plan: Faults, now: float) -> Refusal | None:
        if plan.status == "400-credits" or self.balance(account, now) < draft.cost:
            return Refusal(400, "credits", retry_after=plan.retry_after)
        if plan.redirect is not None:
            return Refusal.by_script(plan.redirect, plan.retry_after)
        if plan.status is not None:
            return Refusal.by_script(plan.status, plan.retry_after)
        if plan.moderation and dialect.moderation_failure is None:
            return Refusal(400, "moderation", retry_after=plan.retry_after)
        lane = self.lane(account, draft.lane or draft.model)
        daily = self.daily_limits.get(draft.model, self.daily_limits.get("*"))
        if daily is not None and lane.created >= daily:
            return Refusal(429, "daily_limit", retry_after=plan.retry_after)
        if not dialect.queues_over_limit and lane.limit is not None and lane.settle(now) >= lane.limit:
            return Refusal(429, "busy", retry_after=plan.retry_after)
        return dialect.check(account, draft)

    def _create(
        self, dialect: Dialect, account: Account, draft: Draft, request: Request, text: str, plan: Faults, now: float
    ) -> Job:
        footer = f"{draft.duration_s} s · {draft.width_px}x{draft.height_px}"  # the font has no multiplication sign
        canned = self.options.canned
        clip = ClipSpec(
            draft.width_px, draft.height_px, draft.duration_s, self.options.fps, draft.audio,
            "" if canned else text, f"simulated · {footer}" if canned else f"simulated · {draft.model} · {footer}",
        )  # fmt: skip
        total_s = self.render_seconds if plan.render is None else plan.render
        pending_s = min(total_s * 0.1, 5.0)
        failure = plan.fail or (dialect.moderation_failure if plan.moderation else None) or draft.failure
        job = Job(
            dialect.new_id(), dialect, account, draft.model, draft.prompt, draft.reference, clip, now,
            iso(now), draft.cost, plan, draft.callback_url, draft.extra, draft.lane or draft.model, request.origin,
            pending_s=pending_s, running_s=total_s - pending_s, failure=failure,
        )  # fmt: skip
        account.spent += draft.cost
        if job.callback_url:
            self.callbacks.watch(job)
        self.lane(account, job.lane).add(job, now)
        self.store.add(job, draft, now)
        if job.failure is None:
            self.renderer.prepare(clip, job.end_at)
        return job

    def count_invalid(self) -> None:
        """Count a call that was refused by authentication or validation."""
        self.store.totals.invalid += 1

    # --- a job's life ---

    def jobs(self) -> Reversible[Job]:
        """All jobs that are remembered, in the order of creation."""
        return self.store.jobs.values()

    def link(self, job: Job, origin: str) -> str:
        """A fresh link to the job's video; each call gives another one."""
        name = f"{job.id}.mp4"
        odd = ODD_WORDS if job.faults.odd_link else ""
        return f"{origin}{FILES_PREFIX}{name}?_jwt={self.links.token(name, self.now() + self.link_life_s)}{odd}"

    def find(self, dialect: Dialect, account: Account, job_id: str) -> Job | None:
        """A job of this account that the provider still admits to know."""
        return _known(self.store.jobs.get(job_id), dialect, account)

    def find_reference(self, dialect: Dialect, account: Account, reference: str, standard: str) -> Job | None:
        """The same, by the client's own reference."""
        named = dialect.name, standard, account.fingerprint, reference
        return _known(self.store.by_reference.get(named), dialect, account)

    def poll(self, dialect: Dialect, jobs: Sequence[Job], answer: Callable[[], Reply]) -> Later:
        """`answer()`, unless the script of one of these jobs says otherwise. The caller counts `job.polls`."""
        scripted = [job for job in jobs if job.faults is not NO_FAULTS]
        later = self._poll(dialect, scripted, answer)
        for job in scripted:
            interim = job.faults.poll_interim
            if interim is not None and interim.applies(job.polls):
                return announced(later, interim.value)
        return later

    def _poll(self, dialect: Dialect, jobs: Sequence[Job], answer: Callable[[], Reply]) -> Later:
        hang_s = 0.0
        for job in jobs:
            plan, nth = job.faults, job.polls
            if nth <= plan.not_found:
                return dialect.refuse(Refusal(404, "not_found"))
            if nth <= plan.poll_reset:
                return Cut(reset=True)
            for status in (plan.poll_redirect, plan.poll_status):
                if status is not None and status.applies(nth):
                    return dialect.refuse(Refusal.by_script(status.value, plan.retry_after))
            if nth <= plan.poll_garbage:
                return Reply(200, b"<html>not json")
            hang_s = max(hang_s, plan.poll_hang or 0.0)
        return after(hang_s, answer) if hang_s else answer()

    def cancel(self, job: Job, cost: float) -> None:
        """End a live job now."""
        now = self.now()
        job.cancelled, job.cancel_cost = True, cost
        self._end(job, now)

    def force(self, job: Job, state: str, code: str | None, seconds: float) -> None:
        """Put a live job into a state by hand; raises ValueError for a job that has ended or an unknown state."""
        now = self.now()
        if state == "lost":
            job.deleted = True
            return
        if not job.phase(now).is_live:
            raise ValueError("the job has ended")
        if state == "cancelled":
            self.cancel(job, 0.0)
        elif state in ("succeeded", "failed"):
            job.failure = (code or "INTERNAL") if state == "failed" else None
            self._end(job, now)
        elif state == "running":
            job.run_at, job.end_at = now, now + seconds
            self.lane(job.account, job.lane).moved(job, now)
        else:
            raise ValueError("state must be running, succeeded, failed, cancelled or lost")

    def _end(self, job: Job, now: float) -> None:
        job.run_at, job.end_at = min(job.run_at, now), now
        self.lane(job.account, job.lane).moved(job, now)


def _known(job: Job | None, dialect: Dialect, account: Account) -> Job | None:
    if job is None or job.deleted or job.account is not account or job.dialect is not dialect:
        return None
    return job


async def after(seconds: float, then: Callable[[], Later]) -> Answer:
    """The same, later. Cancelled with the connection: what has not happened by then will not."""
    await asyncio.sleep(seconds)
    answer = then()
    return answer if isinstance(answer, Reply | Cut) else await answer


def announced(answer: Later, interim: str | None) -> Later:
    """The answer with these 1xx answers ("102,103") before it; a cut connection has none."""
    if interim is None or isinstance(answer, Cut):
        return answer
    statuses = tuple(int(status) for status in interim.split(","))
    if isinstance(answer, Reply):
        return replace(answer, interim=statuses)
    return _announced_later(answer, statuses)


async def _announced_later(answer: Coroutine[Any, Any, Answer], statuses: tuple[int, ...]) -> Answer:
    final = await answer
    return replace(final, interim=statuses) if isinstance(final, Reply) else final


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
