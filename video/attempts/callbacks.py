"""Call-backs of providers: their address, whether one is real, and what a real one does.

A call-back makes the next poll come sooner, and does nothing else. State, links and costs in it are not read, so a
replay costs one poll and a false one changes nothing. One exception, for a provider that can't be asked by our
reference (fal): a signed call-back to the address that only that submit carried gives the job id of a submit whose
answer was lost.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from urllib.parse import urlencode

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.db import IntegrityError

from providers.contract import HttpRequest, Submitted
from providers.errors import ProviderDown
from providers.http import Sender
from providers.registry import BY_NAME
from providers.webhooks import Callbacks, KeysUnavailable, Notice
from video.attempts import records
from video.engine import dispatch, due
from video.engine.sql import UNHELD
from video.infra import database
from video.infra.after_commit import after_commit
from video.models import Generation, Stage

log = logging.getLogger(__name__)
State = Generation.State

PATH = "/api/video/webhook"
CALLING_BACK: dict[str, Callbacks] = {
    name: provider.callbacks for name, provider in BY_NAME.items() if provider.callbacks is not None
}
JWKS_TIMEOUT_S = 4.0
MAX_JWKS_BYTES = 64 * 1024
# The sweeper dispatches a task at most so often; a call-back adds no message to one that was sent just now.
JUST_DISPATCHED_S = 10.0

_REFERENCE = re.compile(r"gen_[0-9a-z]{26}", re.ASCII)


class Outcome(StrEnum):
    """What a call-back did, for the log. The answer to its sender says none of it."""

    UNKNOWN_JOB = "unknown_job"  # not ours, or deleted
    HINTED = "hinted"  # its job is polled as soon as the provider's least interval allows
    POLLED_LATER = "look_out_of_turn"  # its task has ended or gone on; reconcile polls the job
    SETTLED = "settled"  # nothing is left to poll


# --- the address ---------------------------------------------------------------------------------------------------


def callback_url(generation_id: str, provider: str) -> str | None:
    """The address for call-backs about this attempt; None without PUBLIC_BASE_URL, or if its provider makes none.

    It carries our reference and proof that we made it. Only the submit carries it, so a caller that knows it is the
    provider.
    """
    if not settings.PUBLIC_BASE_URL or provider not in CALLING_BACK:
        return None
    query = urlencode({"ref": generation_id, "sig": _signer().signature(f"{provider} {generation_id}")})
    return f"{settings.PUBLIC_BASE_URL}{PATH}/{provider}?{query}"


def proven_reference(provider: str, query: Mapping[str, str]) -> str:
    """Our reference from the query of an address that `callback_url` made; empty if it did not."""
    reference = query.get("ref", "")
    if not _REFERENCE.fullmatch(reference):
        return ""
    signed = f"{provider} {reference}"
    try:
        # It is the end of the address, where some put a slash; none is in a signature of ours.
        found: str = _signer().unsign(f"{signed}:{query.get('sig', '').rstrip('/')}")  # by SECRET_KEY_FALLBACKS too
    except BadSignature:
        return ""
    return reference if found == signed else ""


def _signer() -> Signer:
    return Signer(salt="reelworks.webhook")


# --- the sender ----------------------------------------------------------------------------------------------------


def may_call(provider: str) -> bool:
    """Whether it calls back and has a key here. Without one it has no job of ours, so nothing is asked for its sake: no
    stranger makes this server fetch the keys of a provider that it doesn't use. (While simulating each has a key.)
    """
    return provider in CALLING_BACK and bool(settings.PROVIDER_KEYS.get(provider))


def check_sender(provider: str, headers: Mapping[str, str], *forms: bytes) -> bool:
    """Whether the provider's signature is on one of the body's forms (as it came, unpacked); False where none can be
    asked for (Kling without our secret).

    Raises webhooks.Unverified for a missing or wrong one, and KeysUnavailable when the keys can't be had just now.
    """
    callbacks = CALLING_BACK[provider]
    proof = getattr(settings, callbacks.setting.name)
    return callbacks.check(headers, *forms, proof=proof, fetch=fetch_keys, now_s=time.time())


def fetch_keys(url: str) -> bytes:
    """The document with a provider's public keys. Raises ProviderDown and KeysUnavailable."""
    # The sender follows no redirect, and talks to this one origin only.
    sender = Sender(url, max_reply_bytes=MAX_JWKS_BYTES)
    try:
        reply = sender.read(HttpRequest("GET", url, {"Accept": "application/json"}), deadline_s=JWKS_TIMEOUT_S)
    except ProviderDown as err:
        log.warning("webhook keys can't be fetched: %s", err)
        raise
    if not reply.ok:
        log.warning("webhook keys can't be fetched: %s answered %d", url, reply.status)
        raise KeysUnavailable(f"answered {reply.status}")
    return reply.body


# --- what it does --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What a call-back is about, as the database has it."""

    generation_id: str
    state: str
    job_id: str
    task_id: str
    stage: Stage
    ended: bool
    is_free: bool  # no worker holds the task, and no message for it was sent just now
    wait_s: float  # until the provider's least interval since the last poll is over


def take(provider: str, notice: Notice, *, signed: bool, reference: str) -> Outcome:
    """Act on a call-back. `signed`: by the provider; `reference`: proven by ourselves, see `proven_reference`.

    At most three statements, for unknown jobs one. Safe to repeat.
    """
    unproven = notice.reference if _REFERENCE.fullmatch(notice.reference) else ""
    job = _find(provider, notice.job_id, reference or unproven)
    if job is None:
        return Outcome.UNKNOWN_JOB
    state = job.state
    if signed and reference == job.generation_id and _adopt(provider, job, notice.job_id):
        log.info("%s: a call-back gave the job of a submit whose answer was lost", job.generation_id)
        if state == State.UNKNOWN:
            state = State.ACCEPTED.value
    if state == State.LOST or (state == State.ACCEPTED and job.ended):
        polled = records.check_later(job.generation_id, job.wait_s)
        return Outcome.POLLED_LATER if polled else Outcome.SETTLED
    # Only where the task waits for the job: elsewhere a park is a back-off, which no call-back may cut short.
    waits = (job.stage, state) in {
        (Stage.POLL, State.ACCEPTED),
        (Stage.GENERATE, State.ACCEPTED),
        (Stage.GENERATE, State.UNKNOWN),
    }
    if not waits or not due.hint(job.task_id, least_interval_s=least_interval_s(provider)):
        return Outcome.SETTLED
    if job.is_free and job.wait_s == 0:
        after_commit(partial(dispatch.resume, job.task_id, job.stage))
    return Outcome.HINTED  # if it isn't due yet, or is held, the sweeper or the park dispatches it


def least_interval_s(provider: str) -> float:
    """Seconds between two polls of one job, however many call-backs come: the provider's own rule, or at most one for
    the simulator, which has none."""
    if settings.SIMULATE:
        return min(1.0, settings.POLL_INTERVAL_SECONDS[provider])
    return BY_NAME[provider].adapter.min_poll_interval_s


def _find(provider: str, job_id: str, reference: str) -> _Job | None:
    """The attempt with that job, else with that reference."""
    row = database.fetch_one(
        f"""
        SELECT g.id, g.state, g.job_id, t.id, t.stage, t.finished_at IS NOT NULL,
            {UNHELD}
                AND (t.rung_at IS NULL OR t.rung_at < statement_timestamp() - %(just)s * interval '1 second'),
            greatest(0, coalesce(extract(epoch FROM g.last_polled_at - statement_timestamp()) + %(least)s, 0))
        FROM video_generation g JOIN video_videotask t ON t.id = g.task_id
        WHERE g.provider = %(provider)s AND g.id = coalesce(
            (SELECT j.id FROM video_generation j
            WHERE j.provider = %(provider)s AND j.job_id = %(job)s AND j.job_id <> ''), %(reference)s)
        """,  # noqa: S608 - a constant
        {
            "provider": provider,
            "job": job_id,
            "reference": reference,
            "least": least_interval_s(provider),
            "just": JUST_DISPATCHED_S,
        },
    )
    if row is None:
        return None
    return _Job(row[0], row[1], row[2], row[3], Stage(row[4]), row[5], row[6], float(row[7]))


def _adopt(provider: str, job: _Job, job_id: str) -> bool:
    """Note the job of a submit whose answer was lost. Only where the provider can't be asked by our reference."""
    is_open = job.state == State.UNKNOWN or (job.state == State.LOST and not job.job_id)
    if not is_open or not job_id or BY_NAME[provider].adapter.can_look_up:
        return False
    try:
        return records.record_accepted(job.generation_id, Submitted(job_id))
    except IntegrityError:  # this very moment the job was noted on another attempt; job ids are unique
        return False
