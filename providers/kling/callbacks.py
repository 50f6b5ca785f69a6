"""Kling's call-backs.

Source: https://kling.ai/document-api, Callback Protocol, read 2026-11-23: Standard Webhooks since 2026-08-07, and only
for accounts that made a Webhook Secret. The older standard sends the bare task, without the envelope of its replies
(which is opened all the same). The newer one has other names.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from providers import webhooks
from providers.untrusted import safe_mapping


def read_kling(body: bytes) -> webhooks.Notice:
    """The job of Kling's call-back, in either standard's words. Raises BadNotice."""
    for task in webhooks.read_objects(body, looks_like_kling):
        job_id = webhooks.read_id(task.get("task_id")) or webhooks.read_id(task.get("id"))
        info = safe_mapping(task.get("task_info"))
        reference = webhooks.read_id(info.get("external_task_id")) or webhooks.read_id(task.get("external_id"))
        if job_id or reference:
            return webhooks.Notice(job_id, reference)
    raise webhooks.BadNotice("Kling's call-back has neither a task id nor our reference")


def looks_like_kling(names: Set[str]) -> bool:
    """Whether a JSON object with these names is a call-back of Kling's, on either standard."""
    if {"task_id", "task_status"} <= names:
        return True
    return {"id", "status"} <= names and bool(names & {"external_id", "create_time", "outputs", "billing"})


def check_kling(headers: Mapping[str, str], *forms: bytes, proof: str, fetch: webhooks.Fetch, now_s: float) -> bool:
    """Raise Unverified unless the secret `proof` signed it. False without a secret: nothing is signed then."""
    if not proof:
        return False
    webhooks.check_standard_webhook(headers, *forms, key=webhooks.webhook_key(proof), now_s=now_s)
    return True


def _problem(secret: str, base_url: str) -> str | None:
    try:
        webhooks.webhook_key(secret)
    except webhooks.BadSecret as err:
        return str(err)
    return None


CALLBACKS = webhooks.Callbacks(
    read=read_kling,
    check=check_kling,
    signature_header="webhook-signature",
    looks_like=looks_like_kling,
    setting=webhooks.ProofSetting("KLING_WEBHOOK_SECRET", _problem),  # the simulator's call-backs are not signed
)
