"""What stands in the tables beside tasks, as of a system in use: a circuit that is open, an account that is closed, a
model that is off, an endpoint with its deliveries, a failure text that nobody has decided on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from providers.catalogue import BY_ID
from providers.errors import JobFailed
from providers.failures import signature
from video.attempts import failure_texts
from video.infra.camel import utc
from video.management.demo_data.failures import OF_PROVIDERS
from video.management.demo_data.history import people
from video.models import (
    Circuit,
    FailureText,
    Generation,
    ModelSetting,
    ProviderAccount,
    Status,
    VideoTask,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookTry,
)
from video.routing import health
from video.webhooks import signing

OPEN_CIRCUIT, CLOSED_ACCOUNT, SWITCHED_OFF = "pika-turbo", "veo3.1", "pika-2.1"
CLOSED_FOR = timedelta(hours=1)
#: The endpoints' hosts are names that are never given to anybody (RFC 2606).
GOOD_HOOK, BAD_HOOK = "https://hooks.acme-ads.example/reelworks", "https://intranet.studio-north.example/videos"
DELIVERIES = 30
EVENTS = {Status.SUCCESS: "task.succeeded", Status.FAILED: "task.failed", Status.CANCELLED: "task.cancelled"}
Outcome, State = WebhookTry.Outcome, WebhookDelivery.State


@transaction.atomic
def write() -> list[str]:
    """All of it, unless it is there. Returns a line for each thing that there is now."""
    now = timezone.now()
    return [_circuit(now), _closed_account(now), _switched_off(), *_endpoints(now), _failure_text()]


def _circuit(now: datetime) -> str:
    """As after nine faults in a row, of several users' jobs: the longest time that one stays open."""
    faults = [failure.detail for failure in OF_PROVIDERS]
    Circuit.objects.update_or_create(
        model=OPEN_CIRCUIT,
        defaults={
            "provider": BY_ID[OPEN_CIRCUIT].provider,
            "faults": 9,
            "open_until": now + timedelta(seconds=health.LONGEST_OPEN_S),
            "fault_users": [user.pk for user in people()[:2]],
            "is_for_all": True,
            "last_error": f"Pika {faults[1]}",
        },
    )
    return f"open circuit: {OPEN_CIRCUIT}, for {health.LONGEST_OPEN_S // 60} minutes"


def _closed_account(now: datetime) -> str:
    """As after some refusals; the next try is an hour away."""
    ProviderAccount.objects.filter(model=CLOSED_ACCOUNT, closed_reason="", slots__gt=0).update(
        closed_reason="model_forbidden",
        refusals=5,
        refused_since=now - timedelta(hours=3),
        refused_several=True,
        retry_at=now + CLOSED_FOR,
        last_error="Runway answered 403: this model is not enabled for your organization",
    )
    return f"closed account: {CLOSED_ACCOUNT}, for an hour"


def _switched_off() -> str:
    ModelSetting.objects.get_or_create(
        model=SWITCHED_OFF, defaults={"enabled": False, "note": "Its provider takes it out of service."}
    )
    return f"switched off: {SWITCHED_OFF}"


def _endpoints(now: datetime) -> list[str]:
    north, acme = people()[:2]
    return [
        _endpoint(acme.pk, GOOD_HOOK, "takes everything", now, is_good=True),
        _endpoint(north.pk, BAD_HOOK, "is down", now, is_good=False),
    ]


def _endpoint(user_id: int, url: str, what: str, now: datetime, *, is_good: bool) -> str:
    """An endpoint, and what it was sent of its user's last tasks. It is off, so nothing leaves this machine."""
    endpoint = WebhookEndpoint.objects.filter(user_id=user_id, url=url).first()
    if endpoint is None:
        endpoint = WebhookEndpoint.objects.create(
            user_id=user_id,
            url=url,
            enabled=False,
            description="Made by seed_demo; off, since nobody is there.",
            secret=signing.encrypted(signing.new_secret()),
        )
        _deliver(endpoint, now, is_good=is_good)
    return f"webhook endpoint: {url}, which {what}"


def _deliver(endpoint: WebhookEndpoint, now: datetime, *, is_good: bool) -> None:
    tasks = VideoTask.objects.filter(user_id=endpoint.user_id, finished_at__isnull=False).order_by("-finished_at")
    deliveries, tries = [], []
    for task in tasks[:DELIVERIES]:
        tag = task.pk.removeprefix("task_")
        assert task.finished_at is not None
        count = 1 if is_good else 6
        ended = task.finished_at + timedelta(seconds=1 if is_good else 21_600)
        delivery = WebhookDelivery(
            id=f"whd_{tag}",
            message_id=f"msg_{tag}",
            user_id=endpoint.user_id,
            task=task,
            endpoint=endpoint,
            target=endpoint.pk,
            event=EVENTS[Status(task.status)],
            facts=_facts(task),
            state=State.DELIVERED if is_good else State.FAILED,
            tries=count,
            step=count,
            give_up_at=task.finished_at + timedelta(hours=24),
            created_at=task.finished_at,
            settled_at=min(ended, now),
        )
        deliveries.append(delivery)
        for number in range(1, count + 1):
            begun = min(now, task.finished_at + (ended - task.finished_at) * ((number - 1) / 6) ** 3)
            tries.append(_try(delivery, number, begun, is_good=is_good))
    WebhookDelivery.objects.bulk_create(deliveries)
    WebhookTry.objects.bulk_create(tries)


def _try(delivery: WebhookDelivery, number: int, begun: datetime, *, is_good: bool) -> WebhookTry:
    outcome = Outcome.DELIVERED if is_good else Outcome.TIMEOUT if number % 3 == 0 else Outcome.REFUSED
    return WebhookTry(
        delivery=delivery,
        number=number,
        worker="vm-1:4023",
        started_at=begun,
        ended_at=begun + timedelta(milliseconds=10_000 if outcome == Outcome.TIMEOUT else 140),
        outcome=outcome,
        http_status={Outcome.DELIVERED: 204, Outcome.REFUSED: 502}.get(outcome),
        detail="" if is_good else "no answer within 10 s" if outcome == Outcome.TIMEOUT else "Bad Gateway",
    )


def _facts(task: VideoTask) -> dict[str, Any]:
    is_cancelled = task.status == Status.CANCELLED
    return {
        "taskId": task.pk,
        "run": task.run,
        "status": Status.FAILED.value if is_cancelled else task.status,
        "errorCode": "cancelled" if is_cancelled else task.error_code or None,
        "videoId": task.video_id,
        "createdAt": utc(task.created_at),
        "startedAt": utc(task.started_at) if task.started_at else None,
        "finishedAt": utc(task.finished_at) if task.finished_at else None,
    }


def _failure_text() -> str:
    mine = Generation.objects.filter(user=people()[0].pk, provider="kling")
    last = mine.select_related("task").order_by("-id").first()
    if last is not None and not FailureText.objects.filter(provider="kling").exists():
        text = "The style reference does not match"
        error = JobFailed(
            f"Kling: {text}", another_model_could=False, is_known=False, signature=signature("kling", "", text)
        )
        failure_texts.count(last, error)
    return "a failure text of Kling that nobody has decided on"
