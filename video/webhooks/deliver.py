"""One try of a delivery: claim it, sign it, send it, write what became of it."""

from __future__ import annotations

import logging
from functools import partial

from django.conf import settings

from media_pipeline.fetch.post import Posted, Problem, post
from video.infra import metrics, outage
from video.infra.failpoints import failpoint
from video.models import WebhookTry
from video.webhooks import deliveries, endpoints, message, receivers, signing
from video.webhooks.deliveries import Claimed

log = logging.getLogger(__name__)

Outcome = WebhookTry.Outcome

_PROBLEMS = {
    Problem.FORBIDDEN: Outcome.FORBIDDEN,
    Problem.TIMEOUT: Outcome.TIMEOUT,
    Problem.UNREACHABLE: Outcome.UNREACHABLE,
}
GONE = 410


def deliver(delivery_id: str) -> WebhookTry.Outcome | None:
    """Try a delivery once, if it is due and nobody else does; None otherwise. Raises the database's errors.

    The process may die anywhere: before the send nothing has happened, after it the receiver may get the message again.
    """
    claimed = deliveries.claim(delivery_id)
    if claimed is None:
        return None
    failpoint("webhook.claimed")
    outcome, answer = _send(claimed)
    failpoint("webhook.after_send")
    write = partial(
        deliveries.record,
        claimed,
        outcome,
        http_status=answer.status,
        detail=answer.detail,
        asked_s=answer.retry_after_s,
    )
    outage.retry_while_unavailable(write, f"try {claimed.number} of {claimed.id}")
    failpoint("webhook.recorded")
    metrics.WEBHOOK_TRIES.labels(outcome.value).inc()
    log.info(
        "webhook: delivery=%s event=%s try=%s outcome=%s status=%s",
        claimed.id,
        claimed.event,
        claimed.number,
        outcome.value,
        answer.status or "none",
    )
    return outcome


def _send(claimed: Claimed) -> tuple[WebhookTry.Outcome, Posted]:
    if not claimed.is_live:
        return Outcome.DROPPED, Posted(None, detail="its endpoint is off or has ended")
    body = message.body(claimed.event, claimed.facts, claimed.created_at)
    secrets = claimed.secrets or [endpoints.secret_of_user(claimed.user_id).secret]
    try:
        headers = signing.headers(claimed.message_id, body, secrets)
    except signing.SecretUnreadable:
        return Outcome.UNSIGNED, Posted(None, detail="its secret was stored under another SECRET_KEY; roll it")
    answer = post(
        claimed.url,
        body,
        {"Content-Type": "application/json", **headers},
        deadline_s=settings.WEBHOOK_TIMEOUT_SECONDS,
        trusted_origins=receivers.origins_allowed(claimed.url),
    )
    return _judged(answer), answer


def _judged(answer: Posted) -> WebhookTry.Outcome:
    if answer.status is None:
        assert answer.problem is not None
        return _PROBLEMS[answer.problem]
    if 200 <= answer.status < 300:
        return Outcome.DELIVERED
    return Outcome.GONE if answer.status == GONE else Outcome.REFUSED
